"""Error measures of two-view geometry: recall curves, relative pose errors and distances from epipolar lines."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError
from semkey.geometry.transforms import skew


def area_under_curve(errors: Iterable[float], thresholds: Sequence[float]) -> list[float]:
    """Area under the recall-over-error curve up to each threshold, as SuperGlue (Sarlin et al. 2020) reports it.

    Args:
        errors: one error per pair, >= 0; a failed pair counts as ``inf`` (NaN is taken as a failure too) and must not
            be left out.
        thresholds: upper ends of the error axis, > 0, in the unit of the errors.

    Returns:
        One area in [0, 1] per threshold.

    Raises:
        InputError: there are no errors, a negative one, or a threshold that is not positive.
    """
    values = np.asarray(list(errors), dtype=np.float64)
    if values.size == 0:
        raise InputError("area_under_curve needs at least one error")
    values = np.sort(np.where(np.isnan(values), np.inf, values))
    if values[0] < 0:
        raise InputError(f"errors must not be negative, got {values[0]}")
    recall = np.concatenate([[0.0], np.arange(1, values.size + 1) / values.size])
    values = np.concatenate([[0.0], values])
    areas = []
    for threshold in thresholds:
        if not threshold > 0:
            raise InputError(f"thresholds must be positive, got {threshold}")
        last = int(np.searchsorted(values, threshold))
        x = np.concatenate([values[:last], [threshold]])
        y = np.concatenate([recall[:last], [recall[last - 1]]])
        areas.append(float(np.trapezoid(y, x) / threshold))
    return areas


def relative_pose_error(T_est: ArrayLike | None, T_true: ArrayLike) -> tuple[float, float]:
    """Angular errors of a relative pose whose translation is known up to scale.

    The translation error is folded to at most 90 degrees, as SuperGlue and its successors do, because the sign of the
    translation is not determined by an essential matrix alone.

    Args:
        T_est: (4, 4) estimate of ``T_cam1_cam0``, translation of any positive length; ``None`` for a failure.
        T_true: (4, 4) ground truth.

    Returns:
        (rotation error, translation direction error) in degrees; both ``inf`` for a failure. The translation error is
        0 where the true motion has no translation.
    """
    if T_est is None:
        return float("inf"), float("inf")
    estimate = np.asarray(T_est, dtype=np.float64)
    truth = np.asarray(T_true, dtype=np.float64)
    difference = estimate[:3, :3].T @ truth[:3, :3]
    # atan2 of sine and cosine keeps full precision at small angles, where arccos of the trace does not.
    axis = [
        difference[2, 1] - difference[1, 2],
        difference[0, 2] - difference[2, 0],
        difference[1, 0] - difference[0, 1],
    ]
    rotation = np.degrees(np.arctan2(np.linalg.norm(axis), np.trace(difference) - 1.0))
    length = np.linalg.norm(truth[:3, 3])
    if length == 0:
        return float(rotation), 0.0
    cosine = abs(float(estimate[:3, 3] @ truth[:3, 3]))
    sine = float(np.linalg.norm(np.cross(estimate[:3, 3], truth[:3, 3])))
    if cosine == 0 and sine == 0:
        return float(rotation), float("inf")
    return float(rotation), float(np.degrees(np.arctan2(sine, cosine)))


def epipolar_distances(
    points0: ArrayLike, points1: ArrayLike, K0: ArrayLike, K1: ArrayLike, T_cam1_cam0: ArrayLike
) -> NDArray[np.float64]:
    """How far matched points lie from each other's epipolar lines, pixels, the mean of both images.

    Args:
        points0: (N, 2) pixels x y of image 0, without lens distortion.
        points1: (N, 2) the same of image 1.
        K0: (3, 3) calibration of image 0.
        K1: (3, 3) calibration of image 1.
        T_cam1_cam0: (4, 4) true motion, translation of any length.

    Returns:
        (N,) float64; NaN throughout where the motion has no translation, and so no epipolar lines.
    """
    motion = np.asarray(T_cam1_cam0, dtype=np.float64)
    first, second = (np.asarray(points, dtype=np.float64).reshape(-1, 2) for points in (points0, points1))
    if not motion[:3, 3].any():
        return np.full(len(first), np.nan)
    direction = motion[:3, 3] / np.linalg.norm(motion[:3, 3])
    inverse0, inverse1 = (np.linalg.inv(np.asarray(K, dtype=np.float64)) for K in (K0, K1))
    F10 = inverse1.T @ skew(direction) @ motion[:3, :3] @ inverse0
    ones = np.ones((len(first), 1))
    first, second = np.hstack([first, ones]), np.hstack([second, ones])
    lines1, lines0 = first @ F10.T, second @ F10
    residuals = np.abs((second * lines1).sum(axis=1))
    with np.errstate(invalid="ignore", divide="ignore"):
        distances = [residuals / np.linalg.norm(lines[:, :2], axis=1) for lines in (lines0, lines1)]
    return (distances[0] + distances[1]) / 2


def sampson_errors(F10: ArrayLike, points0: ArrayLike, points1: ArrayLike) -> NDArray[np.float64]:
    """First-order distances of matched points from the epipolar constraint ``x1' F10 x0 = 0``.

    Hartley and Zisserman, Multiple View Geometry, equation 11.9, its root.

    Args:
        F10: (3, 3) fundamental matrix, of any scale.
        points0: (N, 2) pixels x y of image 0.
        points1: (N, 2) the same of image 1.

    Returns:
        (N,) float64 pixels; 0 where the constraint says nothing (a point on the epipole of its image), NaN where a
        point is not finite.
    """
    F = np.asarray(F10, dtype=np.float64)
    first, second = (np.asarray(points, dtype=np.float64).reshape(-1, 2) for points in (points0, points1))
    ones = np.ones((len(first), 1))
    x0, x1 = np.hstack([first, ones]), np.hstack([second, ones])
    lines0, lines1 = x1 @ F, x0 @ F.T
    slope = np.square(lines0[:, :2]).sum(axis=1) + np.square(lines1[:, :2]).sum(axis=1)
    residuals = np.abs((lines0 * x0).sum(axis=1))
    return np.divide(residuals, np.sqrt(slope), out=np.zeros(len(first)), where=~(slope <= 0))
