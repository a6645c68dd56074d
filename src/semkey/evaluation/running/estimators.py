"""The estimators that turn matches into a homography or a relative pose, by name: PoseLib, OpenCV and least squares."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.errors import ConfigError
from semkey.geometry.camera import PinholeCamera
from semkey.matching.robust import MAX_ITERATIONS, RobustEstimate, estimate_homography, estimate_relative_pose

CONFIDENCE = 0.9999
"""Of OpenCV's estimators; PoseLib's default as well."""


def homography_poselib(
    points0: NDArray[Any], points1: NDArray[Any], weights: NDArray[Any], *, max_error_px: float, seed: int
) -> RobustEstimate:
    """LO-RANSAC of PoseLib, see :func:`semkey.matching.robust.estimate_homography`; weights are not used."""
    return estimate_homography(points0, points1, max_error_px=max_error_px, seed=seed)


def homography_opencv(
    points0: NDArray[Any], points1: NDArray[Any], weights: NDArray[Any], *, max_error_px: float, seed: int
) -> RobustEstimate:
    """OpenCV's ``USAC_MAGSAC`` (MAGSAC++, Barath et al. 2020); weights are not used.

    Seed 0 gives what ``cv2.findHomography(..., cv2.USAC_MAGSAC, max_error_px)`` gives, which knows no seed.
    """
    if len(points0) < 4:
        return _failure(len(points0))
    model, mask = cv2.findHomography(_contiguous(points0), _contiguous(points1), _usac(max_error_px, seed))
    if model is None or not np.isfinite(model).all() or abs(np.linalg.det(model)) < np.finfo(np.float64).tiny:
        return _failure(len(points0))
    return RobustEstimate(model=np.asarray(model, np.float64), inliers=mask.ravel().astype(bool))


def homography_dlt(
    points0: NDArray[Any], points1: NDArray[Any], weights: NDArray[Any], *, max_error_px: float, seed: int
) -> RobustEstimate:
    """The homography of least weighted algebraic error over all matches: every outlier counts.

    The direct linear transform with normalised points (Hartley & Zisserman 2004, algorithm 4.2); the squared residual
    of each match weighs as much as its score, as in LightGlue's evaluation (Lindenberger et al. 2023, section 5.1).
    ``max_error_px`` only says which matches are called inliers afterwards.

    Args:
        points0: (M, 2) pixels in image 0.
        points1: (M, 2) pixels in image 1.
        weights: (M,) >= 0.
        max_error_px: largest distance of an inlier, pixels of image 1.
        seed: not used.
    """
    if (weights > 0).sum() < 4:
        return _failure(len(points0))
    normalised0, T0 = _normalised(points0, weights)
    normalised1, T1 = _normalised(points1, weights)
    (x, y), (u, v) = normalised0.T, normalised1.T
    one, zero = np.ones_like(x), np.zeros_like(x)
    rows_u = np.stack([x, y, one, zero, zero, zero, -u * x, -u * y, -u], axis=1)
    rows_v = np.stack([zero, zero, zero, x, y, one, -v * x, -v * y, -v], axis=1)
    system = np.concatenate([rows_u, rows_v]) * np.sqrt(np.concatenate([weights, weights]))[:, None]
    _, singular, vt = np.linalg.svd(system.T @ system)
    if singular[7] <= 1e-12 * singular[0]:  # Points on a line, or all in one place, leave more than one solution.
        return _failure(len(points0))
    model = np.linalg.inv(T1) @ vt[8].reshape(3, 3) @ T0
    model /= model[2, 2] if abs(model[2, 2]) > 1e-12 else np.linalg.norm(model)
    mapped = np.concatenate([points0, np.ones((len(points0), 1))], axis=1) @ model.T
    with np.errstate(divide="ignore", invalid="ignore"):
        distances = np.linalg.norm(mapped[:, :2] / mapped[:, 2:] - points1, axis=1)
    return RobustEstimate(model=model, inliers=distances <= max_error_px)


def pose_poselib(
    points0: NDArray[Any],
    points1: NDArray[Any],
    camera0: PinholeCamera,
    camera1: PinholeCamera,
    *,
    max_error_px: float,
    seed: int,
) -> RobustEstimate:
    """LO-RANSAC of PoseLib, see :func:`semkey.matching.robust.estimate_relative_pose`."""
    return estimate_relative_pose(points0, points1, camera0, camera1, max_error_px=max_error_px, seed=seed)


def pose_opencv(
    points0: NDArray[Any],
    points1: NDArray[Any],
    camera0: PinholeCamera,
    camera1: PinholeCamera,
    *,
    max_error_px: float,
    seed: int,
) -> RobustEstimate:
    """Essential matrix by OpenCV's ``USAC_MAGSAC``, then ``recoverPose``.

    As in SuperGlue's evaluation, points are normalised by the cameras and the threshold is divided by the mean of the
    four focal lengths; of several essential matrices, and of the four poses of each, the one with the most inliers in
    front of both cameras counts.
    """
    if len(points0) < 5:
        return _failure(len(points0))
    rays0, rays1 = camera0.normalize(points0), camera1.normalize(points1)
    focal = float(np.mean([camera0.fx, camera0.fy, camera1.fx, camera1.fy]))
    identity = np.eye(3)
    essentials, mask = cv2.findEssentialMat(
        rays0, rays1, identity, identity, None, None, _usac(max_error_px / focal, seed)
    )
    if essentials is None or mask is None or not np.isfinite(essentials).all():
        return _failure(len(points0))
    best, model, inliers = 0, None, np.zeros(len(points0), dtype=bool)
    for essential in np.split(essentials, len(essentials) // 3):
        count, R, t, in_front = cv2.recoverPose(essential, rays0, rays1, identity, 1e9, mask=mask.copy())[:4]
        if count > best:
            best, inliers, model = count, in_front.ravel() > 0, np.eye(4)
            model[:3, :3], model[:3, 3] = R, t.ravel()
    return RobustEstimate(model=model, inliers=inliers)


HOMOGRAPHY_ESTIMATORS: dict[str, Callable[..., RobustEstimate]] = {
    "poselib": homography_poselib,
    "opencv": homography_opencv,
    "dlt": homography_dlt,
}
POSE_ESTIMATORS: dict[str, Callable[..., RobustEstimate]] = {"poselib": pose_poselib, "opencv": pose_opencv}


def check_estimators(names: Sequence[str], known: dict[str, Any]) -> None:
    """Raises ConfigError where a name is not among ``known``, occurs twice, or none is given."""
    for name in names:
        if name not in known:
            raise ConfigError(f"unknown estimator '{name}': choose from {', '.join(known)}")
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"estimators must be one or more different ones of {', '.join(known)}")


def _failure(count: int) -> RobustEstimate:
    return RobustEstimate(model=None, inliers=np.zeros(count, dtype=bool))


def _contiguous(points: NDArray[Any]) -> NDArray[np.float64]:
    return np.ascontiguousarray(points, dtype=np.float64)


def _usac(threshold: float, seed: int) -> cv2.UsacParams:
    params = cv2.UsacParams()
    params.score = cv2.SCORE_METHOD_MAGSAC
    # What OpenCV itself sets for the flag USAC_MAGSAC.
    params.loMethod, params.loSampleSize, params.loIterations = cv2.LOCAL_OPTIM_SIGMA, 75, 15
    params.threshold, params.confidence, params.maxIterations = threshold, CONFIDENCE, MAX_ITERATIONS
    params.randomGeneratorState = seed
    return params


def _normalised(points: NDArray[Any], weights: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points moved to weighted mean 0 and weighted mean distance sqrt(2), and the (3, 3) transform that does so."""
    mean = np.average(points, axis=0, weights=weights)
    spread = float(np.average(np.linalg.norm(points - mean, axis=1), weights=weights))
    scale = np.sqrt(2) / spread if spread > 0 else 1.0
    T = np.array([[scale, 0.0, -scale * mean[0]], [0.0, scale, -scale * mean[1]], [0.0, 0.0, 1.0]])
    return (points - mean) * scale, T
