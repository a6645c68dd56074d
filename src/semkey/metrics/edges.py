"""Which way the local edge runs: the structure tensor of an image at points."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

GRADIENT_SIGMA_PX = 1.0
WINDOW_SIGMA_PX = 2.0
EDGE_RATIO = 0.1
"""A point lies on an edge where the smaller eigenvalue is less than this share of the larger one."""


def structure_tensors(image: NDArray[np.uint8], points: ArrayLike) -> NDArray[np.float64]:
    """Structure tensors (Förstner and Gülch 1987): means of the gradient's outer product over a Gaussian window.

    Gradients are central differences of the image smoothed with sigma 1 px, the window has sigma 2 px; both continue
    the image by its mirror image. Between pixels the tensor is interpolated bilinearly.

    Args:
        image: (H, W, 3) RGB or (H, W) uint8.
        points: (N, 2) pixels x y; points outside take the value of the nearest border.

    Returns:
        (N, 2, 2) float64, symmetric, in squared grey values per squared pixel.
    """
    places = np.asarray(points, dtype=np.float32).reshape(-1, 2)
    if len(places) == 0:
        return np.zeros((0, 2, 2))
    grey = image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    smooth = cv2.GaussianBlur(grey.astype(np.float32), (0, 0), GRADIENT_SIGMA_PX, borderType=cv2.BORDER_REFLECT_101)
    difference, same = np.array([-0.5, 0.0, 0.5]), np.array([1.0])
    dx = cv2.sepFilter2D(smooth, cv2.CV_32F, difference, same, borderType=cv2.BORDER_REFLECT_101)
    dy = cv2.sepFilter2D(smooth, cv2.CV_32F, same, difference, borderType=cv2.BORDER_REFLECT_101)
    products = np.stack([dx * dx, dx * dy, dy * dy], axis=2)
    means = cv2.GaussianBlur(products, (0, 0), WINDOW_SIGMA_PX, borderType=cv2.BORDER_REFLECT_101)
    read = _bilinear(np.asarray(means, dtype=np.float32), places)
    return read[:, [0, 1, 1, 2]].reshape(-1, 2, 2)


def edge_directions(tensors: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Unit vectors (N, 2) along the edges of structure tensors (N, 2, 2), and (N,) whether it is an edge alone.

    Along is the direction in which the image changes least. Where it changes equally, or not at all, any direction
    is as good as another, and it is no edge.
    """
    matrices = np.asarray(tensors, dtype=np.float64).reshape(-1, 2, 2)
    values, vectors = np.linalg.eigh(matrices)
    return vectors[:, :, 0], values[:, 0] < EDGE_RATIO * values[:, 1]


def along_and_across(errors: ArrayLike, directions: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lengths (N,) of the parts of errors (N, 2) along unit directions (N, 2) and across them."""
    vectors, along = (np.asarray(values, dtype=np.float64).reshape(-1, 2) for values in (errors, directions))
    parallel = (vectors * along).sum(axis=1)
    perpendicular = vectors[:, 0] * along[:, 1] - vectors[:, 1] * along[:, 0]
    return np.abs(parallel), np.abs(perpendicular)


def _bilinear(values: NDArray[np.float32], places: NDArray[np.float32]) -> NDArray[np.float64]:
    """Values (H, W, C) at pixels (N, 2), (N, C)."""
    height, width = values.shape[:2]
    x, y = np.clip(places[:, 0], 0, width - 1), np.clip(places[:, 1], 0, height - 1)
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    right, lower = (x - x0)[:, None].astype(np.float64), (y - y0)[:, None].astype(np.float64)
    upper_row = values[y0, x0] * (1 - right) + values[y0, x1] * right
    lower_row = values[y1, x0] * (1 - right) + values[y1, x1] * right
    return upper_row * (1 - lower) + lower_row * lower
