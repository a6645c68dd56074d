"""Depth of keypoints from a rectified stereo pair.

Patches are compared, not descriptors: the patch of a keypoint is found again in the right image whether or not a
detector fires there, which gives depth to half as many keypoints again, and saves the second extraction.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError
from semkey.geometry.camera import PinholeCamera
from semkey.slam.config import StereoConfig

Array = NDArray[np.float64]

# Correlation changes its sign of curvature within about a pixel: from a start within one, three steps reach the top.
_REFINEMENT_STEPS = 4
_MAX_CORRECTION_PX = 1.0
# Measured against the true disparities of Middlebury's motorcycle: what the correlation promises holds up to a factor
# (neighbouring pixels share their errors, surfaces are slanted), and never below a floor.
_SIGMA_FACTOR = 4.0
_SMALLEST_SIGMA_PX = 0.08
# Slopes below this (of patches with unit norm, per pixel) locate nothing.
_SMALLEST_INFORMATION = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class Disparities:
    """Disparities of N keypoints of a left image: the same point lies at ``x - disparity`` in the right image.

    Attributes:
        disparity: (N,) pixels, positive; 0 where there is none to trust.
        sigma: (N,) standard deviation, pixels; infinite where there is no disparity.
        correlation: (N,) normalised correlation of the two patches, in [-1, 1]; 0 where there is no disparity.
    """

    disparity: Array
    sigma: Array
    correlation: Array


def stereo_depth(
    keypoints: ArrayLike,
    left: NDArray[np.uint8],
    right: NDArray[np.uint8],
    camera: PinholeCamera,
    baseline: float,
    config: StereoConfig | None = None,
) -> tuple[Array, Array]:
    """Depth of keypoints of the left image of a rectified pair: ``z = fx * baseline / disparity``.

    Args:
        keypoints: (N, 2) pixels in the left image.
        left: (H, W, 3) RGB or (H, W) grey, uint8.
        right: the right image, of the same shape; equal rows show equal points.
        camera: of both images.
        baseline: distance of the two camera centres, metres.
        config: settings; None for the defaults.

    Returns:
        ``depth`` (N,) metres, 0 where there is none to trust, and ``depth_sigma`` (N,) metres, 0 likewise:
        ``sigma_z = z / d * sigma_d`` for disparity ``d``.

    Raises:
        InputError: the images differ in shape or are not the camera's, or the baseline is not positive.
    """
    if not (np.isfinite(baseline) and baseline > 0):
        raise InputError(f"the baseline of a stereo pair must be positive, got {baseline} m")
    if left.shape[:2] != (camera.height, camera.width):
        raise InputError(f"the camera is {camera.width}x{camera.height}, the image has shape {left.shape}")
    config = config or StereoConfig()
    found = match_rows(keypoints, left, right, config)
    relative_sigma = np.divide(
        found.sigma, found.disparity, out=np.full_like(found.sigma, np.inf), where=found.disparity > 0
    )
    usable = relative_sigma <= config.max_relative_sigma
    depth = np.where(usable, camera.fx * baseline / np.where(usable, found.disparity, 1.0), 0.0)
    return depth, np.where(usable, depth * np.where(usable, relative_sigma, 0.0), 0.0)


def match_rows(
    keypoints: ArrayLike, left: NDArray[np.uint8], right: NDArray[np.uint8], config: StereoConfig | None = None
) -> Disparities:
    """Find keypoints of the left image of a rectified pair in the right one, along their rows.

    The patch around a keypoint is compared with all patches of its row by normalised correlation (independent of gain
    and offset of the exposure); the best one has to lead back to the keypoint when searched for in the left image.
    The whole pixel is refined by Gauss-Newton on the difference of the normalised patches; a parabola through three
    correlations would be drawn to whole pixels by up to 0.06 px.

    Args:
        keypoints: (N, 2) pixels in the left image; those outside it find nothing.
        left: (H, W, 3) RGB or (H, W) grey, uint8.
        right: the right image, of the same shape.
        config: settings; None for the defaults.

    Raises:
        InputError: the images differ in shape.
    """
    config = config or StereoConfig()
    pixels = np.asarray(keypoints, dtype=np.float64).reshape(-1, 2)
    if left.shape != right.shape:
        raise InputError(f"the images of a stereo pair have shapes {left.shape} and {right.shape}, expected the same")
    grey_left, grey_right = _grey(left), _grey(right)
    height, width = grey_left.shape
    span = max(1, round(config.max_disparity_share * width))
    size = config.window_px

    disparity = np.full(len(pixels), np.nan)
    for k, (x, y) in enumerate(pixels):
        if not (0 <= x <= width - 1 and 0 <= y <= height - 1):
            continue
        # The scores' columns stand for disparities span, ..., 1, 0; those whose point lies outside are no candidates.
        scores = _row_scores(grey_left, grey_right, x, y, x - span / 2, span, size)
        first = max(0, int(np.ceil(span - x)))
        best = first + int(np.argmax(scores[first:]))
        if scores[best] < config.min_correlation or best == first:
            continue
        candidate = float(span - best)
        scores = _row_scores(grey_right, grey_left, x - candidate, y, x - candidate + span / 2, span, size)
        inside = int(np.floor(width - 1 - (x - candidate))) + 1
        if abs(float(np.argmax(scores[:inside])) - candidate) <= config.left_right_px:
            disparity[k] = candidate
    return _refine(grey_left, grey_right, pixels, disparity, config)


def _grey(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    return grey.astype(np.float32)


def _row_scores(
    reference: NDArray[np.float32],
    searched: NDArray[np.float32],
    x: float,
    y: float,
    middle: float,
    span: int,
    size: int,
) -> NDArray[np.float32]:
    """Correlations (span + 1,) of the patch at (x, y) with those at ``middle - span / 2, ..., middle + span / 2``."""
    patch = cv2.getRectSubPix(reference, (size, size), (x, y))
    strip = cv2.getRectSubPix(searched, (span + size, size), (middle, y))
    return cv2.matchTemplate(strip, patch, cv2.TM_CCOEFF_NORMED)[0]


def _refine(
    left: NDArray[np.float32], right: NDArray[np.float32], pixels: Array, start: Array, config: StereoConfig
) -> Disparities:
    """Disparities to a fraction of a pixel, and their uncertainty, from whole ones (N,) that are NaN where unknown."""
    disparity, sigma, correlation = np.zeros(len(pixels)), np.full(len(pixels), np.inf), np.zeros(len(pixels))
    known = np.flatnonzero(np.isfinite(start))
    if not len(known):
        return Disparities(disparity=disparity, sigma=sigma, correlation=correlation)
    radius = config.window_px // 2
    x, y = pixels[known].T
    wanted, _ = _normalised(_patches(left, x, y, radius))
    d = start[known].copy()
    for _ in range(_REFINEMENT_STEPS):
        seen, slope = _patch_and_slope(right, x - d, y, radius)
        information = np.maximum((slope**2).sum(axis=1), _SMALLEST_INFORMATION)
        d += np.clip(((seen - wanted) * slope).sum(axis=1) / information, -0.5, 0.5)
    seen, slope = _patch_and_slope(right, x - d, y, radius)
    information = np.maximum((slope**2).sum(axis=1), _SMALLEST_INFORMATION)
    score = (seen * wanted).sum(axis=1)
    # |seen - wanted|^2 = 2 - 2 score is the sum of the squared errors of all pixels of a patch.
    variance = np.maximum(2.0 - 2.0 * score, 0.0) / config.window_px**2 / information
    good = (np.abs(d - start[known]) <= _MAX_CORRECTION_PX) & (score >= config.min_correlation) & (d > 0)
    kept = known[good]
    disparity[kept], correlation[kept] = d[good], score[good]
    sigma[kept] = np.sqrt(_SMALLEST_SIGMA_PX**2 + _SIGMA_FACTOR**2 * variance[good])
    return Disparities(disparity=disparity, sigma=sigma, correlation=correlation)


def _patch_and_slope(image: NDArray[np.float32], x: Array, y: Array, radius: int) -> tuple[Array, Array]:
    """Normalised patches (M, S^2) at (x, y), each (M,), and their derivatives along x in the normalised space."""
    patches, norm = _normalised(_patches(image, x, y, radius))
    slope = _patches(image, x + 0.5, y, radius) - _patches(image, x - 0.5, y, radius)
    slope = (slope - slope.mean(axis=1, keepdims=True)) / norm
    return patches, slope - patches * (patches * slope).sum(axis=1, keepdims=True)


def _patches(image: NDArray[np.float32], x: Array, y: Array, radius: int) -> Array:
    """Patches (M, S^2) around (x, y), each (M,), read bicubically."""
    offsets = np.arange(-radius, radius + 1)
    shape = (len(x), len(offsets), len(offsets))
    columns = np.broadcast_to(x[:, None, None] + offsets[None, None, :], shape).reshape(len(x), -1)
    rows = np.broadcast_to(y[:, None, None] + offsets[None, :, None], shape).reshape(len(x), -1)
    # OpenCV takes maps of at most 32766 rows: far more keypoints than an image has.
    values = cv2.remap(
        image,
        columns.astype(np.float32),
        rows.astype(np.float32),
        cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_REPLICATE,
    )
    return values.astype(np.float64)


def _normalised(patches: Array) -> tuple[Array, Array]:
    """Patches (M, S^2) with mean 0 and norm 1, and the norms (M, 1) before."""
    centred = patches - patches.mean(axis=1, keepdims=True)
    norm = np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-9)
    return centred / norm, norm
