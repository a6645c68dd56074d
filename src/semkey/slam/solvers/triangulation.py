"""Landmarks from two views of known pose: positions, their uncertainty, and which of them to believe."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import compose, inverse, skew, transform_points
from semkey.matching.keypoint_noise import isotropic_covariances
from semkey.slam.solvers.pose import whitening_rows

Array = NDArray[np.float64]

# Gauss-Newton on the reprojection errors of both views; the linear solution is within a few pixels of the optimum.
_REFINEMENT_STEPS = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class TriangulatedPoints:
    """Points from M pairs of rays.

    Attributes:
        points_world: (M, 3) positions; NaN where the rays are parallel.
        information: (M, 3, 3) inverse covariance in world axes, from both reprojection errors and exact poses.
        parallax_deg: (M,) angle between the two rays, degrees.
        errors: (M, 2) reprojection errors in both views, in standard deviations of a keypoint's distance; infinite for
            a point behind a camera.
    """

    points_world: Array
    information: Array
    parallax_deg: Array
    errors: Array

    def believable(self, *, min_parallax_deg: float, max_error: float) -> NDArray[np.bool_]:
        """Which points (M,) lie before both cameras, where they were seen, and at a distance that is determined.

        Args:
            min_parallax_deg: smallest angle between the two rays.
            max_error: largest reprojection error in either view, standard deviations.
        """
        return (self.parallax_deg >= min_parallax_deg) & (self.errors.max(axis=1, initial=0.0) <= max_error)


def triangulate(
    keypoints0: ArrayLike,
    keypoints1: ArrayLike,
    T_world_cam0: ArrayLike,
    T_world_cam1: ArrayLike,
    camera: PinholeCamera,
    *,
    pixel_sigma: float = 1.0,
    covariances: tuple[Array, Array] | None = None,
) -> TriangulatedPoints:
    """Points that minimise the reprojection errors in two views.

    The linear solution (Hartley and Zisserman, section 12.2, one row pair per view, normalised coordinates) is refined
    by Gauss-Newton. The information is ``J^T J`` of the whitened errors: it says how long the uncertainty ellipsoid is
    along the ray at small parallax.

    Args:
        keypoints0: (M, 2) pixels in view 0.
        keypoints1: (M, 2) pixels of the same points in view 1.
        T_world_cam0: (4, 4) pose of view 0.
        T_world_cam1: (4, 4) pose of view 1; the two centres must differ.
        camera: of both views.
        pixel_sigma: standard deviation of a keypoint's coordinates, pixels; the unit of the returned errors.
        covariances: (M, 2, 2) of the keypoints of either view, pixels^2; None for ``pixel_sigma`` in all directions.

    Raises:
        InputError: the keypoints are not pairs, or ``pixel_sigma`` is not positive.
    """
    seen0, seen1 = np.asarray(keypoints0, dtype=np.float64), np.asarray(keypoints1, dtype=np.float64)
    if seen0.shape != seen1.shape or seen0.ndim != 2 or seen0.shape[1] != 2:
        raise InputError(f"keypoints of two views have shapes {seen0.shape} and {seen1.shape}, expected (M, 2) twice")
    if not pixel_sigma > 0:
        raise InputError(f"pixel_sigma must be positive, got {pixel_sigma}")
    pose0, pose1 = np.asarray(T_world_cam0, dtype=np.float64), np.asarray(T_world_cam1, dtype=np.float64)
    # Solved in camera 0, where the numbers are small however far away the world's origin is.
    T_10 = compose(inverse(pose1), pose0)
    rays0, rays1 = _rays(seen0, camera), _rays(seen1, camera)
    cosine = ((rays0 @ T_10[:3, :3].T) * rays1).sum(axis=1)
    cosine /= np.linalg.norm(rays0, axis=1) * np.linalg.norm(rays1, axis=1)
    parallax = np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))

    if covariances is None:
        covariances = (isotropic_covariances(len(seen0), pixel_sigma), isotropic_covariances(len(seen1), pixel_sigma))
    whitening = np.concatenate([whitening_rows(view) for view in covariances])
    points = _linear(rays0, rays1, T_10)
    transforms = (np.eye(4), T_10)
    for _ in range(_REFINEMENT_STEPS):
        residuals, jacobian = _whitened(*_reprojection(points, transforms, (seen0, seen1), camera), whitening)
        gradient = np.einsum("mri,mr->mi", jacobian, residuals)
        hessian = np.einsum("mri,mrj->mij", jacobian, jacobian)
        step = _solve(hessian, gradient)
        # A step longer than the way to the point is one out of the region where the linearisation means anything.
        length = np.linalg.norm(step, axis=1) / np.maximum(np.linalg.norm(points, axis=1), 1e-12)
        points = points - step / np.maximum(length / 0.5, 1.0)[:, None]
    residuals, jacobian = _reprojection(points, transforms, (seen0, seen1), camera)
    errors = np.stack([np.linalg.norm(residuals[:, :2], axis=1), np.linalg.norm(residuals[:, 2:], axis=1)], axis=1)
    behind = np.stack([transform_points(T, points)[:, 2] <= 0 for T in transforms], axis=1)
    errors = np.where(behind | ~np.isfinite(errors), np.inf, errors / pixel_sigma)
    jacobian = _whitened(residuals, jacobian, whitening)[1] @ pose0[:3, :3].T
    return TriangulatedPoints(
        points_world=transform_points(pose0, points),
        information=np.einsum("mri,mrj->mij", jacobian, jacobian),
        parallax_deg=parallax,
        errors=errors,
    )


def fundamental_matrix(T_cam1_cam0: ArrayLike, camera: PinholeCamera) -> Array:
    """F (3, 3) with ``[x1 y1 1] F [x0 y0 1]^T = 0`` of two views of one camera."""
    T = np.asarray(T_cam1_cam0, dtype=np.float64)
    inverse_k = np.linalg.inv(camera.matrix)
    return inverse_k.T @ skew(T[:3, 3]) @ T[:3, :3] @ inverse_k


def _rays(keypoints: Array, camera: PinholeCamera) -> Array:
    return camera.backproject(keypoints, np.ones(len(keypoints)))


def _linear(rays0: Array, rays1: Array, T_10: Array) -> Array:
    """Points (M, 3) in camera 0 by the smallest singular vector of the four equations of two views."""
    projection0, projection1 = np.eye(4)[:3], T_10[:3]
    rows = [
        rays[:, axis : axis + 1] * projection[2] - projection[axis]
        for rays, projection in ((rays0, projection0), (rays1, projection1))
        for axis in (0, 1)
    ]
    system = np.stack(rows, axis=1)
    finite = np.isfinite(system).all(axis=(1, 2))
    homogeneous = np.full((len(rays0), 4), np.nan)
    if finite.any():
        homogeneous[finite] = np.linalg.svd(system[finite])[2][:, -1]
    at_infinity = np.abs(homogeneous[:, 3]) < 1e-12 * np.linalg.norm(homogeneous, axis=1)
    homogeneous[at_infinity] = np.nan
    return homogeneous[:, :3] / homogeneous[:, 3:]


def _reprojection(
    points: Array, transforms: tuple[Array, Array], seen: tuple[Array, Array], camera: PinholeCamera
) -> tuple[Array, Array]:
    """Errors (M, 4), pixels, of points (M, 3) in both views and their derivatives by the points (M, 4, 3)."""
    residuals, jacobians = np.empty((len(points), 4)), np.empty((len(points), 4, 3))
    for view, (T, keypoints) in enumerate(zip(transforms, seen, strict=True)):
        in_camera = transform_points(T, points)
        z = np.where(np.abs(in_camera[:, 2]) > 1e-9, in_camera[:, 2], 1e-9)
        u, v = in_camera[:, 0] / z, in_camera[:, 1] / z
        row = 2 * view
        residuals[:, row] = camera.fx * u + camera.cx - keypoints[:, 0]
        residuals[:, row + 1] = camera.fy * v + camera.cy - keypoints[:, 1]
        rotation = T[:3, :3]
        jacobians[:, row] = (camera.fx / z)[:, None] * (rotation[0] - u[:, None] * rotation[2])
        jacobians[:, row + 1] = (camera.fy / z)[:, None] * (rotation[1] - v[:, None] * rotation[2])
    return residuals, jacobians


def _whitened(residuals: Array, jacobian: Array, whitening: Array) -> tuple[Array, Array]:
    """Errors (M, 4) in both views and their derivatives (M, 4, 3), each view's by its whitening, together (6, M)."""
    residuals, jacobian = residuals.copy(), jacobian.copy()
    for row, (a, b, c) in ((0, whitening[:3]), (2, whitening[3:])):
        residuals[:, row + 1] = b * residuals[:, row] + c * residuals[:, row + 1]
        jacobian[:, row + 1] = b[:, None] * jacobian[:, row] + c[:, None] * jacobian[:, row + 1]
        residuals[:, row] *= a
        jacobian[:, row] *= a[:, None]
    return residuals, jacobian


def _solve(matrices: Array, vectors: Array) -> Array:
    """Solutions (M, 3) of M 3x3 systems; nearly singular ones give small steps instead of errors."""
    damping = 1e-9 * np.trace(matrices, axis1=1, axis2=2)[:, None, None] * np.eye(3)
    usable = np.asarray(np.isfinite(matrices).all(axis=(1, 2)) & np.isfinite(vectors).all(axis=1))
    damped = np.where(usable[:, None, None], matrices + damping, np.eye(3)) + 1e-300 * np.eye(3)
    return np.linalg.solve(damped, np.where(usable[:, None], vectors, 0.0)[:, :, None])[:, :, 0]
