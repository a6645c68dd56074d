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
from semkey.slam.frames.depth import with_disparity_offset
from semkey.slam.frames.row_patches import RowPatches
from semkey.slam.frames.row_search import whole_disparities

Array = NDArray[np.float64]

# Correlation changes its sign of curvature within about a pixel: from a start within half a pixel, three steps reach
# the top.
_REFINEMENT_STEPS = 3
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
    return _depth(match_rows(keypoints, left, right, config), camera.fx * baseline, config)


@dataclass(frozen=True, kw_only=True, eq=False)
class StereoView:
    """A rectified pair of images whose disparities are measured again where keypoints have moved.

    Attributes:
        left: (H, W) grey, uint8.
        right: of the same shape.
        focal_baseline: focal length times distance of the cameras, pixels times metres.
        config: settings.
        offset: what is added to every disparity, pixels.
    """

    left: NDArray[np.uint8]
    right: NDArray[np.uint8]
    focal_baseline: float
    config: StereoConfig
    offset: float = 0.0

    def depth_near(self, keypoints: Array, depth: Array) -> tuple[Array, Array]:
        """Depth of keypoints (N, 2) and its standard deviation, both (N,) metres, near depths known before.

        0 where none was known, or is there. What is found again differs by less than a pixel of disparity.
        """
        known = depth > 0
        start = np.full(len(depth), np.nan)
        start[known] = self.focal_baseline / depth[known] - self.offset
        found = _refine(self.left.astype(np.float32), self.right.astype(np.float32), keypoints, start, self.config)
        return with_disparity_offset(*_depth(found, self.focal_baseline, self.config), self.offset, self.focal_baseline)


def stereo_view(
    left: NDArray[np.uint8], right: NDArray[np.uint8], camera: PinholeCamera, baseline: float, config: StereoConfig
) -> StereoView:
    """The view of a pair of images (H, W, 3) RGB or (H, W) grey, whose cameras are ``baseline`` metres apart."""
    return StereoView(left=_grey(left), right=_grey(right), focal_baseline=camera.fx * baseline, config=config)


def _depth(found: Disparities, focal_baseline: float, config: StereoConfig) -> tuple[Array, Array]:
    """Depth and its standard deviation, both (N,) metres, 0 where there is none to trust."""
    relative_sigma = np.divide(
        found.sigma, found.disparity, out=np.full_like(found.sigma, np.inf), where=found.disparity > 0
    )
    usable = relative_sigma <= config.max_relative_sigma
    depth = np.where(usable, focal_baseline / np.where(usable, found.disparity, 1.0), 0.0)
    return depth, np.where(usable, depth * np.where(usable, relative_sigma, 0.0), 0.0)


def match_rows(
    keypoints: ArrayLike, left: NDArray[np.uint8], right: NDArray[np.uint8], config: StereoConfig | None = None
) -> Disparities:
    """Find keypoints of the left image of a rectified pair in the right one, along their rows.

    Whole pixels are those of :func:`semkey.slam.frames.row_search.whole_disparities`. They are refined by Gauss-Newton
    on the difference of the normalised patches, with the mean of both patches' slopes (efficient second-order
    minimisation, Benhimane and Malis 2004); a parabola through three correlations would be drawn to whole pixels by
    up to 0.06 px.

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
    start = whole_disparities(
        grey_left,
        grey_right,
        pixels,
        span=max(1, round(config.max_disparity_share * grey_left.shape[1])),
        size=config.window_px,
        min_correlation=config.min_correlation,
        left_right_px=config.left_right_px,
    )
    return _refine(grey_left.astype(np.float32), grey_right.astype(np.float32), pixels, start, config)


def _grey(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image, dtype=np.uint8)


def _refine(
    left: NDArray[np.float32], right: NDArray[np.float32], pixels: Array, start: Array, config: StereoConfig
) -> Disparities:
    """Disparities to a fraction of a pixel, and their uncertainty, from whole ones (N,) that are NaN where unknown."""
    disparity, sigma, correlation = np.zeros(len(pixels)), np.full(len(pixels), np.inf), np.zeros(len(pixels))
    known = np.flatnonzero(np.isfinite(start))
    if not len(known):
        return Disparities(disparity=disparity, sigma=sigma, correlation=correlation)
    x, y = pixels[known].T
    wanted, slope = RowPatches(left, x, y, config.window_px).read(x)
    first = start[known]
    patches = RowPatches(right, x - first, y, config.window_px, reach=int(np.ceil(_MAX_CORRECTION_PX)))
    d = first.copy()
    for _ in range(_REFINEMENT_STEPS):
        seen, slope_seen = patches.read(x - d)
        both = slope + slope_seen
        information = np.maximum((both**2).sum(axis=1), _SMALLEST_INFORMATION)
        d += np.clip(2 * ((seen - wanted) * both).sum(axis=1) / information, -0.5, 0.5)
    seen, _ = patches.read(x - d)
    information = np.maximum((slope**2).sum(axis=1), _SMALLEST_INFORMATION)
    score = (seen * wanted).sum(axis=1)
    # |seen - wanted|^2 = 2 - 2 score is the sum of the squared errors of all pixels of a patch.
    variance = np.maximum(2.0 - 2.0 * score, 0.0) / config.window_px**2 / information
    good = (np.abs(d - first) <= _MAX_CORRECTION_PX) & (score >= config.min_correlation) & (d > 0)
    kept = known[good]
    disparity[kept], correlation[kept] = d[good], score[good]
    sigma[kept] = np.sqrt(_SMALLEST_SIGMA_PX**2 + _SIGMA_FACTOR**2 * variance[good])
    return Disparities(disparity=disparity, sigma=sigma, correlation=correlation)
