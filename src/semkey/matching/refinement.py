"""Two-view models refined by the covariance of every keypoint: what is told across an edge counts, along it hardly."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import make_transform, nearest_rotation, skew, so3_exp

Array = NDArray[np.float64]
# Whitened residuals (M, D) of a model, and their derivatives (M, D, P) by the P parameters of a step.
Linearise = Callable[[Array], tuple[Array, Array]]

# 95 % points of the chi distribution with one degree of freedom (distance from an epipolar line) and two (transfer).
_EPIPOLAR_CORNER = 1.960
_TRANSFER_CORNER = 2.448
_MAX_ITERATIONS = 20
_CONVERGED = 1e-6


def refine_relative_pose(
    T_cam1_cam0: Array,
    points0: Array,
    points1: Array,
    camera0: PinholeCamera,
    camera1: PinholeCamera,
    covariances0: Array,
    covariances1: Array,
) -> Array:
    """The relative pose nearby of least robust Sampson error, each match by the covariances of its two keypoints.

    The error of a match is ``l / sqrt(g0^T C0 g0 + g1^T C1 g1)`` with ``l = x1^T E x0`` and its gradients ``g`` by both
    keypoints: the first-order distance from the epipolar constraint in standard deviations (Sampson; Hartley and
    Zisserman 2004, section 11.4.3). Cauchy kernel, Levenberg-Marquardt over rotation and direction of translation.

    Args:
        T_cam1_cam0: (4, 4) from RANSAC, with a translation of any length but 0.
        points0: (M, 2) pixels in image 0, M >= 5, nearly all of them right.
        points1: (M, 2) pixels in image 1.
        camera0: intrinsics of image 0.
        camera1: intrinsics of image 1.
        covariances0: (M, 2, 2) of ``points0``, pixels^2.
        covariances1: (M, 2, 2) of ``points1``, pixels^2.

    Returns:
        The pose (4, 4), with a translation of length 1; no worse than the given one by this error.
    """
    seen0, seen1 = _homogeneous(camera0.normalize(points0)), _homogeneous(camera1.normalize(points1))
    scale0, scale1 = np.array([camera0.fx, camera0.fy]), np.array([camera1.fx, camera1.fy])
    noise0, noise1 = covariances0 / np.outer(scale0, scale0), covariances1 / np.outer(scale1, scale1)

    def linearise(T: Array) -> tuple[Array, Array]:
        rotation, direction = T[:3, :3], T[:3, 3]
        steps = [skew(direction) @ skew(axis) @ rotation for axis in np.eye(3)]
        steps += [skew(axis) @ rotation for axis in _tangents(direction)]
        essential = skew(direction) @ rotation
        g0, g1 = (seen1 @ essential)[:, :2], (seen0 @ essential.T)[:, :2]
        weighted0, weighted1 = np.einsum("mij,mj->mi", noise0, g0), np.einsum("mij,mj->mi", noise1, g1)
        error = (seen1 @ essential * seen0).sum(axis=1)
        variance = np.maximum((g0 * weighted0).sum(axis=1) + (g1 * weighted1).sum(axis=1), 1e-24)
        root = np.sqrt(variance)
        jacobian = np.empty((len(seen0), 1, len(steps)))
        for k, step in enumerate(steps):
            by0, by1 = seen1 @ step, (seen0 @ step.T)[:, :2]
            of_error = (by0 * seen0).sum(axis=1)
            of_variance = 2 * ((weighted0 * by0[:, :2]).sum(axis=1) + (weighted1 * by1).sum(axis=1))
            jacobian[:, 0, k] = (of_error - 0.5 * error * of_variance / variance) / root
        return (error / root)[:, None], jacobian

    def move(T: Array, step: Array) -> Array:
        direction = T[:3, 3] + step[3:] @ _tangents(T[:3, 3])
        return make_transform(nearest_rotation(so3_exp(step[:3]) @ T[:3, :3]), direction / np.linalg.norm(direction))

    start = T_cam1_cam0.copy()
    start[:3, 3] /= np.linalg.norm(start[:3, 3])
    return _minimise(start, linearise, move, _EPIPOLAR_CORNER)


def refine_homography(H: Array, points0: Array, points1: Array, covariances0: Array, covariances1: Array) -> Array:
    """The homography nearby of least robust transfer error, each match by the covariances of its two keypoints.

    The error ``x1 - H(x0)`` has the covariance ``C1 + J C0 J^T``, with the derivative ``J`` of the mapping at ``x0``.

    Args:
        H: (3, 3) from RANSAC, maps pixels of image 0 to image 1.
        points0: (M, 2) pixels in image 0, M >= 4, nearly all of them right.
        points1: (M, 2) pixels in image 1.
        covariances0: (M, 2, 2) of ``points0``, pixels^2.
        covariances1: (M, 2, 2) of ``points1``, pixels^2.

    Returns:
        The homography (3, 3), of any scale.
    """
    normalise0, normalise1 = _normalisation(points0), _normalisation(points1)
    seen0, seen1 = _homogeneous(points0) @ normalise0.T, (_homogeneous(points1) @ normalise1.T)[:, :2]
    noise0, noise1 = covariances0 * normalise0[0, 0] ** 2, covariances1 * normalise1[0, 0] ** 2

    def linearise(model: Array) -> tuple[Array, Array]:
        mapped = seen0 @ model.T
        w = np.where(np.abs(mapped[:, 2]) > 1e-9, mapped[:, 2], 1e-9)
        pixels = mapped[:, :2] / w[:, None]
        local = (model[None, :2, :2] - pixels[:, :, None] * model[None, 2:, :2]) / w[:, None, None]
        roots = np.linalg.cholesky(noise1 + local @ noise0 @ local.transpose(0, 2, 1))
        jacobian = np.zeros((len(seen0), 2, 9))
        jacobian[:, 0, :3] = jacobian[:, 1, 3:6] = seen0 / w[:, None]
        jacobian[:, 0, 6:] = -pixels[:, :1] * seen0 / w[:, None]
        jacobian[:, 1, 6:] = -pixels[:, 1:] * seen0 / w[:, None]
        # Steps across the model itself: its scale means nothing.
        jacobian = jacobian @ np.linalg.svd(model.reshape(1, 9))[2][1:].T
        whitened = np.linalg.solve(roots, np.concatenate([(pixels - seen1)[:, :, None], jacobian], axis=2))
        return whitened[:, :, 0], whitened[:, :, 1:]

    def move(model: Array, step: Array) -> Array:
        moved = model.reshape(9) + step @ np.linalg.svd(model.reshape(1, 9))[2][1:]
        return (moved / np.linalg.norm(moved)).reshape(3, 3)

    start = normalise1 @ H @ np.linalg.inv(normalise0)
    best = _minimise(start / np.linalg.norm(start), linearise, move, _TRANSFER_CORNER)
    return np.asarray(np.linalg.inv(normalise1) @ best @ normalise0, dtype=np.float64)


def _minimise(model: Array, linearise: Linearise, move: Callable[[Array, Array], Array], corner: float) -> Array:
    """Levenberg-Marquardt with a Cauchy kernel on the norm of each match's residual."""
    residuals, jacobian = linearise(model)
    cost, weights = _cauchy(residuals, corner)
    damping = 1e-4
    for _ in range(_MAX_ITERATIONS):
        flat = jacobian.reshape(-1, jacobian.shape[2])
        weighted = flat * np.repeat(weights, residuals.shape[1])[:, None]
        information = weighted.T @ flat
        damped = information + damping * np.diag(np.maximum(np.diag(information), 1e-12))
        step = -np.linalg.solve(damped, weighted.T @ residuals.reshape(-1))
        candidate = move(model, step)
        candidate_residuals, candidate_jacobian = linearise(candidate)
        candidate_cost, candidate_weights = _cauchy(candidate_residuals, corner)
        if not candidate_cost <= cost:
            damping *= 10.0
            if damping > 1e6:
                break
            continue
        converged = cost - candidate_cost <= _CONVERGED * max(cost, 1e-12)
        model, cost, weights = candidate, candidate_cost, candidate_weights
        residuals, jacobian = candidate_residuals, candidate_jacobian
        damping = max(0.1 * damping, 1e-9)
        if converged:
            break
    return model


def _cauchy(residuals: Array, corner: float) -> tuple[float, Array]:
    square = np.square(residuals).sum(axis=1) / corner**2
    return float(0.5 * corner**2 * np.log1p(square).sum()), 1.0 / (1.0 + square)


def _tangents(direction: Array) -> Array:
    """Two unit vectors (2, 3) across a direction (3,)."""
    return np.asarray(np.linalg.svd(direction[None])[2][1:], dtype=np.float64)


def _homogeneous(points: Array) -> Array:
    return np.concatenate([points, np.ones((len(points), 1))], axis=1)


def _normalisation(points: Array) -> Array:
    """The similarity (3, 3) that gives points mean 0 and a typical coordinate of 1 (Hartley 1997)."""
    mean, spread = points.mean(axis=0), max(float(points.std()), 1e-9)
    return np.array([[1 / spread, 0, -mean[0] / spread], [0, 1 / spread, -mean[1] / spread], [0, 0, 1]])
