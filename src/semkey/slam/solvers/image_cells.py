"""The cells of an image in which keypoints are counted: how evenly something is spread over it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

#: Cells across and down: squares at 4:3, of 80 px at 640x480, each large enough for several keypoints.
GRID = (8, 6)
# Points of a side that make a cell count for coverage: a single one may be chance.
_POINTS_IN_CELL = 2


def cells_of(pixels: Array, image_size: tuple[int, int]) -> Indices:
    """The cell (N,) of each pixel (N, 2) of an image of ``(width, height)``, from 0 column by column.

    Pixels outside count for the nearest cell.
    """
    cells = (pixels / np.array(image_size) * GRID).astype(np.int64)
    cells = np.clip(cells, 0, np.array(GRID) - 1)
    return cells[:, 0] * GRID[1] + cells[:, 1]


def coverage(keypoints: Array, expected: Array, matched: Array, camera: PinholeCamera) -> float:
    """Of the image cells with expected landmarks and with keypoints, the share with a matched keypoint, in [0, 1].

    Args:
        keypoints: (N, 2) of the image, pixels.
        expected: (V, 2) where landmarks should be seen, pixels.
        matched: (M, 2) keypoints that see one of them, pixels.
        camera: of the image.
    """
    both = (_counts(expected, camera) >= _POINTS_IN_CELL) & (_counts(keypoints, camera) >= _POINTS_IN_CELL)
    hit = _counts(matched, camera) > 0
    return float(hit[both].mean()) if both.any() else 0.0


def _counts(pixels: Array, camera: PinholeCamera) -> Indices:
    """How many of the pixels (N, 2) lie in each cell."""
    return np.bincount(cells_of(pixels, (camera.width, camera.height)), minlength=GRID[0] * GRID[1])
