"""Plane homographies: warping points and measuring how far an estimate is from the truth."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError


def warp_points(H: ArrayLike, points: ArrayLike) -> NDArray[np.float64]:
    """Map points through a homography.

    Args:
        H: (3, 3), any scale; maps homogeneous ``(x, y, 1)`` of image 0 to image 1.
        points: (N, 2) pixels ``x y``.

    Returns:
        (N, 2) float64 pixels in image 1; NaN for a point on the line that ``H`` sends to infinity.

    Raises:
        InputError: ``H`` is not (3, 3) or ``points`` is not (N, 2).
    """
    matrix = np.asarray(H, dtype=np.float64)
    source = np.asarray(points, dtype=np.float64)
    if matrix.shape != (3, 3):
        raise InputError(f"a homography has shape (3, 3), not {matrix.shape}")
    if source.ndim != 2 or source.shape[1] != 2:
        raise InputError(f"points have shape {source.shape}, expected (N, 2)")
    mapped = source @ matrix[:, :2].T + matrix[:, 2]
    depth = mapped[:, 2:]
    at_infinity = np.abs(depth) <= np.finfo(np.float64).eps * np.linalg.norm(matrix[2])
    return np.where(at_infinity, np.nan, mapped[:, :2] / np.where(at_infinity, 1.0, depth))


def corner_error(H_est: ArrayLike | None, H_true: ArrayLike, width: int, height: int) -> float:
    """Mean distance in image 1 between the four corners of image 0 mapped by the estimate and by the truth.

    This is the HPatches "mean homography accuracy" error of SuperPoint (DeTone et al. 2018, section 6.2).

    Args:
        H_est: (3, 3) estimate, or ``None`` for a failed estimation.
        H_true: (3, 3) ground truth.
        width: width of image 0 in pixels.
        height: height of image 0 in pixels.

    Returns:
        Pixels of image 1; ``inf`` for a failed estimation or one that sends a corner to infinity.
    """
    if H_est is None:
        return float("inf")
    # The centres of the four corner pixels.
    corners = np.array([[0, 0], [width - 1, 0], [width - 1, height - 1], [0, height - 1]], dtype=np.float64)
    error = float(np.linalg.norm(warp_points(H_est, corners) - warp_points(H_true, corners), axis=1).mean())
    return error if np.isfinite(error) else float("inf")
