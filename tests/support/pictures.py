"""Pictures full of corners, for tests that need something to find, and drawings whose corners are known exactly."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

Array = NDArray[np.float64]
SIZE = (480, 360)
FINER = 8
NEAR = np.array([[1.0, 0.02, 3.3], [-0.015, 0.99, -2.6], [2e-5, -1e-5, 1.0]])


def blocks(height: int, width: int, seed: int = 0, size: int = 3) -> np.ndarray:
    """Blocks of random colours, (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // size + 1, width // size + 1, 3), dtype=np.uint8)
    return coarse.repeat(size, axis=0).repeat(size, axis=1)[:height, :width].copy()


def block_tensor(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """The same as (3, height, width) float32 in [0, 1]."""
    return torch.from_numpy(blocks(height, width, seed)).permute(2, 0, 1).float().contiguous() / 255.0


def turned(degrees: float, scale: float) -> Array:
    turn = np.eye(3)
    turn[:2] = cv2.getRotationMatrix2D((SIZE[0] / 2, SIZE[1] / 2), degrees, scale)
    return turn


def mapped(H: Array, points: Array) -> Array:
    h = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ H.T
    return h[:, :2] / h[:, 2:]


def drawing(H: Array, seed: int = 0) -> tuple[NDArray[np.uint8], Array]:
    """Grey quadrilaterals seen through a homography, and where their corners lie in that view, exactly."""
    rng = np.random.default_rng(seed)
    canvas = np.full((SIZE[1] * FINER, SIZE[0] * FINER), 120, np.uint8)
    corners = []
    for x in range(30, SIZE[0] - 40, 44):
        for y in range(30, SIZE[1] - 40, 44):
            square = np.array([[0, 0], [24, 0], [24, 24], [0, 24.0]]) + rng.uniform(-4, 4, (4, 2)) + [x, y]
            seen = mapped(H, square)
            # Pixel centres are at integers: the corner (0, 0) of the canvas is at -0.5.
            cv2.fillConvexPoly(canvas, np.rint((seen + 0.5) * FINER - 0.5).astype(np.int32), int(rng.integers(256)))
            corners.append(square)
    image = cv2.resize(canvas, SIZE, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.GaussianBlur(image, (0, 0), 0.6), np.uint8), np.concatenate(corners)
