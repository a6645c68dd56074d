"""Grey patches around keypoints, and how the surroundings of matches are deformed from one image to the other."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

NEIGHBOURS = 16
# A neighbour agrees with a deformation that puts it nearer than this share of its distance plus SLACK_PX; the share
# shrinks from one estimate to the next.
TOLERANCES = (1.0, 0.5, 0.25)
SLACK_PX = 2.0
LEAST_AGREEING = 4.0
# Pulls towards no deformation as much as a neighbour at this distance does, pixels.
STIFFNESS_PX = 12.0
LARGEST_STRETCH = 3.0


def to_smooth_grey(image: NDArray[np.uint8], sigma: float) -> Floats:
    """Grey levels (H, W) float32 about 0 of an image (H, W, 3) RGB or (H, W), blurred a little."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    values = grey.astype(np.float32)
    values -= np.float32(cv2.mean(grey)[0])
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma) if sigma > 0 else values, np.float32)


@cache
def grid(radius: int) -> Floats:
    """Offsets (S^2, 2) x y of a square of side ``S = 2 radius + 1``, row by row."""
    steps = np.arange(-radius, radius + 1, dtype=np.float32)
    x, y = np.meshgrid(steps, steps)
    offsets = np.stack([x, y], axis=-1).reshape(-1, 2)
    offsets.flags.writeable = False  # shared by all callers
    return offsets


def sample(image: Floats, x: Floats, y: Floats) -> Floats:
    """Bilinear grey levels (M, S) at pixels (M, S) x and y; beyond the image as at its border."""
    if not x.size:
        return np.zeros(x.shape, np.float32)
    return np.asarray(cv2.remap(image, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE), np.float32)


def sample_squares(image: Floats, points: Array, radius: int) -> Floats:
    """Grey levels (M, S, S) of squares of side ``S = 2 radius + 1`` about points (M, 2), between pixels too."""
    side = 2 * radius + 1
    offsets, centres = grid(radius), points.astype(np.float32)
    return sample(image, centres[:, :1] + offsets[:, 0], centres[:, 1:] + offsets[:, 1]).reshape(-1, side, side)


def cut_patches(image: Floats, points: Array, radius: int) -> NDArray[np.uint8]:
    """Patches (M, S, S) of side ``S = 2 radius + 3`` to keep, of a mean of 128; only differences of grey levels count.

    Rounding to whole grey levels costs less than the noise of any camera.
    """
    squares = sample_squares(image, points, radius + 1)
    squares += 128.0 - squares.mean(axis=(1, 2), keepdims=True)
    return np.clip(np.rint(squares), 0, 255).astype(np.uint8)


def local_deformations(points0: Array, points1: Array) -> tuple[Array, NDArray[np.bool_]]:
    """How the surroundings of each match are turned, scaled and sheared from image 0 to image 1.

    The matrix ``A`` of a match takes the places of the matches around it, seen from it in image 0, to where they are
    seen from it in image 1: least squares over the nearest matches, those that contradict left out step by step.

    Args:
        points0: (M, 2) pixels in image 0.
        points1: (M, 2) pixels in image 1.

    Returns:
        (M, 2, 2), and (M,) whether enough neighbours agree; without that the matrix is the identity.
    """
    count = len(points0)
    identity = np.tile(np.eye(2), (count, 1, 1))
    if count <= LEAST_AGREEING:
        return identity, np.zeros(count, bool)
    _, near = KDTree(points0).query(points0, k=min(NEIGHBOURS + 1, count))
    # Components apart, in float32: many small arrays cost more than the arithmetic.
    x0, y0, x1, y1 = ((values[near[:, 1:]] - values[:, None]).astype(np.float32) for values in (*points0.T, *points1.T))
    distances = np.sqrt(x0 * x0 + y0 * y0)
    a, b, c, d = (np.full((count, 1), value, np.float32) for value in (1, 0, 0, 1))
    agreeing = np.zeros(count)
    for tolerance in TOLERANCES:
        miss_x, miss_y = x1 - a * x0 - b * y0, y1 - c * x0 - d * y0
        weights = 1.0 / (1.0 + (miss_x * miss_x + miss_y * miss_y) / (tolerance * distances + SLACK_PX) ** 2)
        agreeing = (weights > 0.5).sum(axis=1)
        wx, wy = weights * x0, weights * y0
        xx, xy, yy = _row_sums(wx, x0) + STIFFNESS_PX**2, _row_sums(wx, y0), _row_sums(wy, y0) + STIFFNESS_PX**2
        determinant = xx * yy - xy * xy
        px, py = _row_sums(wx, x1) + STIFFNESS_PX**2, _row_sums(wy, x1)
        qx, qy = _row_sums(wx, y1), _row_sums(wy, y1) + STIFFNESS_PX**2
        a, b = (px * yy - py * xy) / determinant, (py * xx - px * xy) / determinant
        c, d = (qx * yy - qy * xy) / determinant, (qy * xx - qx * xy) / determinant
    found = np.concatenate([a, b, c, d], axis=1).astype(np.float64).reshape(count, 2, 2)
    stretch = np.sqrt((found * found).sum(axis=(1, 2)) / 2)
    shrinking = found[:, 0, 0] * found[:, 1, 1] - found[:, 0, 1] * found[:, 1, 0]
    good = (agreeing >= LEAST_AGREEING) & (shrinking > LARGEST_STRETCH**-2) & (stretch < LARGEST_STRETCH)
    return np.where(good[:, None, None], found, identity), good


def _row_sums(first: Floats, second: Floats) -> Floats:
    return np.einsum("ij,ij->i", first, second)[:, None]


def inverse_2x2(matrices: Array) -> Array:
    """Inverses of matrices (M, 2, 2), none of them singular."""
    a, b, c, d = matrices[:, 0, 0], matrices[:, 0, 1], matrices[:, 1, 0], matrices[:, 1, 1]
    determinant = a * d - b * c
    inverses = np.empty_like(matrices)
    inverses[:, 0, 0], inverses[:, 0, 1] = d / determinant, -b / determinant
    inverses[:, 1, 0], inverses[:, 1, 1] = -c / determinant, a / determinant
    return inverses
