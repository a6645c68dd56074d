"""Pose-only refinement: robust Levenberg-Marquardt over residuals of points and lines, in the image and in depth."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import compose, inverse, se3_exp, se3_log, transform_points
from semkey.slam.solvers.bounds import CHI_95_1, CHI_95_2, CHI_95_6, CHI_99_2
from semkey.slam.solvers.pose_lines import LineObservations, line_residuals_and_jacobian

Array = NDArray[np.float64]

_SMALLEST_DEPTH = 1e-3


@dataclass(frozen=True, kw_only=True)
class PoseObservations:
    """What one image says about its pose: landmarks, where they were seen, how far and how surely.

    Attributes:
        points_world: (M, 3) landmark positions, metres.
        keypoints: (M, 2) where they were seen, pixels.
        covariances: (M, 2, 2) of each keypoint's position, pixels^2, symmetric and positive definite.
        depth: (M,) measured depth, metres; 0 where there is none.
        depth_sigma: (M,) standard deviation of the measured depth, metres; read only where depth is positive.
        weights: (M,) in [0, 1], information multiplier (reliability times match score).
    """

    points_world: Array
    keypoints: Array
    covariances: Array
    depth: Array
    depth_sigma: Array
    weights: Array

    def __post_init__(self) -> None:
        count = len(self.points_world)
        if self.points_world.shape != (count, 3) or self.keypoints.shape != (count, 2):
            raise InputError(
                f"observations have points {self.points_world.shape} and keypoints {self.keypoints.shape}, "
                "expected (M, 3) and (M, 2)"
            )
        if self.covariances.shape != (count, 2, 2):
            raise InputError(f"observations have covariances {self.covariances.shape}, expected ({count}, 2, 2)")
        for name in ("depth", "depth_sigma", "weights"):
            if getattr(self, name).shape != (count,):
                raise InputError(f"observations have {name} {getattr(self, name).shape}, expected ({count},)")

    def __len__(self) -> int:
        return len(self.points_world)

    @cached_property
    def whitening(self) -> Array:
        """(3, M) what makes pixel residuals of unit covariance, see :func:`whitening_rows`."""
        return whitening_rows(self.covariances)


@dataclass(frozen=True, kw_only=True, eq=False)
class PosePrior:
    """Where a pose is expected, and how surely.

    Attributes:
        T_cam_world: (4, 4) expected pose.
        information: (6, 6) inverse covariance in the camera's tangent space ``[rho, phi]``, metres and radians.
    """

    T_cam_world: Array
    information: Array

    @cached_property
    def T_world_cam(self) -> Array:
        """(4, 4) the inverse of the expected pose."""
        return inverse(self.T_cam_world)


@dataclass(frozen=True, kw_only=True)
class RefinedPose:
    """A refined pose.

    Attributes:
        T_cam_world: (4, 4) the pose.
        inliers: (M,) bool, observations whose pixel residual lies within the 95 % bound, and whose depth, where there
            is one, lies within twice its 95 % bound (depth has gross errors of its own at edges).
        information: (6, 6) inverse covariance of the pose in the camera's tangent space ``[rho, phi]``, by the noise
            that the observations claim.
        scatter: how the residuals of inliers compare with that noise: the root of their mean square over what is
            expected, 1 where the noise is as claimed.
        cost: robust cost at the pose.
        iterations: accepted and rejected steps taken.
        line_inliers: (L,) bool, lines whose two distances in the image together lie within the 95 % bound, and whose
            depths, where measured, lie within twice theirs; empty where no lines were given.
    """

    T_cam_world: Array
    inliers: NDArray[np.bool_]
    information: Array
    scatter: float
    cost: float
    iterations: int
    line_inliers: NDArray[np.bool_]


def pose_covariance(information: Array, scatter: float) -> Array:
    """The covariance (6, 6) of a refined pose, in the camera's tangent space ``[rho, phi]``, metres and radians.

    That of the claimed noise, times the square of the scatter where residuals are larger than claimed; residuals that
    are smaller are no reason to be surer, since the errors of one image are not independent.
    """
    # A direction that nothing was measured of has no finite variance; this is a kilometre, or more than any angle.
    values, vectors = np.linalg.eigh(information)
    covariance = (vectors / np.maximum(values, 1e-6)) @ vectors.T
    return np.asarray(covariance * max(1.0, scatter) ** 2, dtype=np.float64)


def whitening_rows(covariances: Array) -> Array:
    """The inverse Cholesky factors of covariances (M, 2, 2), as rows (3, M) ``a, b, c`` of ``[[a, 0], [b, c]]``.

    ``W = [[a, 0], [b, c]]`` makes of a residual with covariance ``C`` one with the identity: ``W C W^T = I``.
    """
    xx, xy, yy = covariances[:, 0, 0], covariances[:, 0, 1], covariances[:, 1, 1]
    a = 1.0 / np.sqrt(xx)
    c = 1.0 / np.sqrt(yy - xy**2 / xx)
    return np.stack([a, -c * xy / xx, c])


def residuals_and_jacobian(
    T_cam_world: Array, observations: PoseObservations, camera: PinholeCamera
) -> tuple[Array, Array]:
    """Whitened residuals (M, 3) ``[u, v, z]`` and their derivatives (M, 3, 6) at ``exp(xi) @ T_cam_world``, xi = 0.

    Pixel rows are ``W (projected - seen)`` with the inverse Cholesky factor ``W`` of the keypoint's covariance, so that
    their norm is the Mahalanobis distance; the depth row is ``(1 / measured - 1 / z) measured^2 / depth_sigma`` and 0
    where nothing was measured: the residual of a disparity, whatever the baseline, whose noise does not depend on what
    was measured. In depth, points that are measured too near would claim to be surer. Landmarks at or behind the camera
    are clamped to 1 mm before it: a huge residual, but finite.
    """
    points = transform_points(T_cam_world, observations.points_world)
    residuals, derivatives = _rows_and_derivatives(points, observations, camera)
    return residuals.T, derivatives.transpose(2, 1, 0)


def _rows_and_derivatives(
    points_cam: Array, observations: PoseObservations, camera: PinholeCamera
) -> tuple[Array, Array]:
    """:func:`residuals_and_jacobian` with observations last, (3, M) and (6, 3, M), which is how numpy is fast here.

    Args:
        points_cam: (M, 3) the landmarks in camera coordinates.
        observations: what was seen.
        camera: the image's camera.
    """
    x, y, depth_of_point = points_cam.T
    z = np.maximum(depth_of_point, _SMALLEST_DEPTH)
    depth = observations.depth
    has_depth = depth > 0
    known = np.where(has_depth, depth, 1.0)
    # From inverse depth to standard deviations, and from depth at the landmark.
    inverse_scale = np.where(has_depth, known**2 / np.where(has_depth, observations.depth_sigma, 1.0), 0.0)
    depth_scale = inverse_scale / z**2
    a, b, c = observations.whitening
    u_by_x, v_by_y = camera.fx / z, camera.fy / z
    u = u_by_x * x + (camera.cx - observations.keypoints[:, 0])
    v = v_by_y * y + (camera.cy - observations.keypoints[:, 1])
    residuals = np.empty((3, len(points_cam)))
    residuals[0] = a * u
    residuals[1] = b * u + c * v
    residuals[2] = (1.0 / known - 1.0 / z) * inverse_scale
    # First and second row by the point; the second mixes both pixel coordinates.
    u_by_z, v_by_z = -u_by_x * x / z, -v_by_y * y / z
    first_by_x, first_by_z = a * u_by_x, a * u_by_z
    second_by_x, second_by_y, second_by_z = b * u_by_x, c * v_by_y, b * u_by_z + c * v_by_z

    # d(point)/d(xi) = [I, -skew(point)]: a row by the rotation is cross(point, row by the point).
    derivatives = np.zeros((6, 3, len(points_cam)))
    derivatives[0, 0], derivatives[2, 0] = first_by_x, first_by_z
    derivatives[0, 1], derivatives[1, 1], derivatives[2, 1] = second_by_x, second_by_y, second_by_z
    derivatives[2, 2] = depth_scale
    derivatives[3, 0] = y * first_by_z
    derivatives[4, 0] = depth_of_point * first_by_x - x * first_by_z
    derivatives[5, 0] = -y * first_by_x
    derivatives[3, 1] = y * second_by_z - depth_of_point * second_by_y
    derivatives[4, 1] = depth_of_point * second_by_x - x * second_by_z
    derivatives[5, 1] = x * second_by_y - y * second_by_x
    derivatives[3, 2] = y * depth_scale
    derivatives[4, 2] = -x * depth_scale
    return residuals, derivatives


def huber(norm: Array, corner: float) -> tuple[Array, Array]:
    """Huber cost and weight of residual norms: ``r^2 / 2`` and 1 up to ``corner``, linear and ``corner / r`` beyond."""
    outside = norm > corner
    cost = np.where(outside, corner * (norm - 0.5 * corner), 0.5 * norm**2)
    return cost, np.where(outside, corner / np.where(outside, norm, 1.0), 1.0)


def cauchy(norm: Array | np.float64, corner: float) -> tuple[Array, Array]:
    """Cauchy cost and weight of residual norms: gross errors lose nearly all their pull."""
    square = np.square(norm / corner)
    return 0.5 * corner**2 * np.log1p(square), 1.0 / (1.0 + square)


def refine_pose(
    T_cam_world: ArrayLike,
    observations: PoseObservations,
    camera: PinholeCamera,
    *,
    prior: PosePrior | None = None,
    lines: LineObservations | None = None,
    max_iterations: int = 15,
    tolerance: float = 1e-6,
) -> RefinedPose:
    """Move a pose to the robust weighted least-squares optimum of its observations.

    Minimises ``sum_i w_i [huber(|pixel residual_i|) + cauchy(depth residual_i)]`` by Levenberg-Marquardt with
    iteratively reweighted residuals and analytic derivatives. Pixels take a Huber kernel (associations have passed a
    RANSAC or a small search window), depths a Cauchy kernel (edges, reflections and loosely registered depth cameras
    give gross errors). Lines add ``w_j [huber(|pixel distances_j|) + cauchy(|depth distances_j|)]``, where both
    norms are over a line's two points.

    Args:
        T_cam_world: (4, 4) starting pose.
        observations: at least three of them with a positive weight, lines counted in.
        camera: the image's camera.
        prior: adds the Cauchy cost of ``log(T_cam_world @ inv(prior))`` in the metric of its information. It decides
            where the observations hardly do (few, far away, or all on one small surface), and has no say once they
            contradict it altogether (a camera that was carried away).
        lines: what the image says through lines; None for nothing.
        max_iterations: steps at most.
        tolerance: a step that lowers the cost by a smaller share is the last. A share of 1e-4 of some hundred
            observations moves the pose by a tenth of its standard deviation.

    Raises:
        InputError: fewer than three weighted observations, points and lines together.
    """
    weighted = np.count_nonzero(observations.weights > 0)
    weighted += 0 if lines is None else np.count_nonzero(lines.weights > 0)
    if weighted < 3:
        raise InputError(f"a pose needs three weighted observations, got {weighted}")
    pose = np.array(T_cam_world, dtype=np.float64)
    damping = 1e-4
    cost, gradient, information = _linearise(pose, observations, lines, camera, prior)
    iterations = 0
    while iterations < max_iterations:
        iterations += 1
        damped = information + np.diag(damping * np.maximum(information.diagonal(), 1e-9))
        step = -np.linalg.solve(damped, gradient)
        candidate = se3_exp(step) @ pose
        candidate_cost, candidate_gradient, candidate_information = _linearise(
            candidate, observations, lines, camera, prior
        )
        if candidate_cost <= cost:
            converged = cost - candidate_cost <= tolerance * max(cost, 1e-12) or np.linalg.norm(step) < 1e-9
            pose, cost = candidate, candidate_cost
            gradient, information = candidate_gradient, candidate_information
            damping = max(damping * 0.1, 1e-9)
            if converged:
                break
        else:
            damping *= 10.0
            if damping > 1e6:
                break
    pose = compose(pose)  # a rotation again, after so many products
    residuals, _ = residuals_and_jacobian(pose, observations, camera)
    in_front = transform_points(pose, observations.points_world)[:, 2] > _SMALLEST_DEPTH
    inliers = in_front & (np.linalg.norm(residuals[:, :2], axis=1) < CHI_99_2)
    inliers &= np.abs(residuals[:, 2]) < 2.0 * CHI_95_1
    return RefinedPose(
        T_cam_world=pose,
        inliers=inliers,
        information=information,
        scatter=_scatter(residuals[inliers], observations.depth[inliers] > 0),
        cost=cost,
        iterations=iterations,
        line_inliers=_line_inliers(pose, lines, camera),
    )


def _scatter(residuals: Array, has_depth: NDArray[np.bool_]) -> float:
    """Root mean square of whitened residuals (M, 3) per degree of freedom; 1 for too few to tell."""
    # What falls outside the bounds of inliers is missing here: a hundredth of the square, which nothing depends on.
    freedom = 2 * len(residuals) + int(np.count_nonzero(has_depth)) - 6
    return float(np.sqrt(np.square(residuals).sum() / freedom)) if freedom > 0 else 1.0


def _line_inliers(pose: Array, lines: LineObservations | None, camera: PinholeCamera) -> NDArray[np.bool_]:
    if lines is None:
        return np.zeros(0, dtype=bool)
    residuals, _ = line_residuals_and_jacobian(pose, lines, camera)
    points = transform_points(pose, lines.points_world.reshape(-1, 3)).reshape(-1, 2, 3)
    in_front = (points[:, :, 2] > _SMALLEST_DEPTH).all(axis=1)
    inliers = in_front & (np.linalg.norm(residuals[:, :2], axis=1) < CHI_95_2)
    return inliers & (np.linalg.norm(residuals[:, 2:], axis=1) < 2.0 * CHI_95_2)


def _linearise(
    pose: Array,
    observations: PoseObservations,
    lines: LineObservations | None,
    camera: PinholeCamera,
    prior: PosePrior | None,
) -> tuple[float, Array, Array]:
    """Robust cost, gradient (6,) and Gauss-Newton information (6, 6) at ``pose``."""
    points = transform_points(pose, observations.points_world)
    residuals, derivatives = _rows_and_derivatives(points, observations, camera)
    pixel_cost, pixel_weight = cauchy(np.sqrt(residuals[0] ** 2 + residuals[1] ** 2), CHI_95_2)
    depth_cost, depth_weight = cauchy(residuals[2], CHI_95_1)
    cost = float(observations.weights @ (pixel_cost + depth_cost))
    row_weights = observations.weights * np.stack([pixel_weight, pixel_weight, depth_weight])
    flat_derivatives = derivatives.reshape(6, -1)
    weighted = flat_derivatives * row_weights.reshape(-1)
    gradient, information = weighted @ residuals.reshape(-1), weighted @ flat_derivatives.T
    if lines is not None:
        residuals, jacobian = line_residuals_and_jacobian(pose, lines, camera)
        # Two residuals of either kind per line: the corner is that of two degrees of freedom.
        pixel_cost, pixel_weight = huber(np.linalg.norm(residuals[:, :2], axis=1), CHI_95_2)
        depth_cost, depth_weight = cauchy(np.linalg.norm(residuals[:, 2:], axis=1), CHI_95_2)
        cost += float(lines.weights @ (pixel_cost + depth_cost))
        kernels = np.stack([pixel_weight, pixel_weight, depth_weight, depth_weight], axis=1)
        flat_jacobian = jacobian.reshape(-1, 6)
        weighted = flat_jacobian * (lines.weights[:, None] * kernels).reshape(-1, 1)
        gradient, information = gradient + weighted.T @ residuals.reshape(-1), information + weighted.T @ flat_jacobian
    if prior is not None:
        # The derivative of the logarithm is the identity up to the deviation itself, which the prior keeps small.
        deviation = se3_log(pose @ prior.T_world_cam)
        distance = np.sqrt(deviation @ prior.information @ deviation)
        prior_cost, prior_weight = cauchy(distance, CHI_95_6)
        cost += float(prior_cost)
        gradient = gradient + prior_weight * (prior.information @ deviation)
        information = information + prior_weight * prior.information
    return cost, gradient, information
