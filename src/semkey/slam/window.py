"""Refining the newest keyframes together with the landmarks they share: a small bundle adjustment.

Minimises the same robust pixel and depth residuals as pose refinement, over the poses of a few keyframes and the
positions of all landmarks that at least two keyframes see. Landmarks are eliminated by the Schur complement
(Triggs et al., *Bundle Adjustment -- A Modern Synthesis*, section 6), so that one step solves a system of six unknowns
per keyframe, all in numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import compose, inverse, se3_exp
from semkey.slam.keyframe import Keyframe
from semkey.slam.landmarks import LandmarkMap
from semkey.slam.pose import DEPTH_CORNER, PIXEL_CORNER, cauchy, huber, point_derivatives

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

_MAX_ITERATIONS = 8
# A step that lowers the cost by less than this share ends the refinement.
_CONVERGED = 1e-4


@dataclass(frozen=True, kw_only=True, eq=False)
class _Problem:
    """All observations, flat: observation i is of landmark ``point[i]`` (local row) in keyframe ``view[i]``.

    Views below ``free_views`` move; the others are fixed. Observations are sorted by landmark.
    """

    camera: PinholeCamera
    free_views: int
    landmark_ids: Indices
    view: Indices
    point: Indices
    keypoints: Array
    depth: Array
    depth_sigma: Array
    weights: Array
    pixel_sigma: float


@dataclass(frozen=True, kw_only=True, eq=False)
class _System:
    """Normal equations at one state: views (K, 6), points (P, 3) and what couples them (P, K, 6, 3)."""

    cost: float
    view_information: Array
    view_gradient: Array
    point_information: Array
    point_gradient: Array
    coupling: Array


def refine_window(
    free: Sequence[Keyframe],
    fixed: Sequence[Keyframe],
    landmarks: LandmarkMap,
    camera: PinholeCamera,
    *,
    pixel_sigma: float,
) -> None:
    """Move the ``free`` keyframes and the landmarks they share with one another or with ``fixed`` ones, in place.

    Landmarks that only one keyframe sees move along with it rigidly. Without a fixed keyframe the first free one holds
    the world frame.

    Args:
        free: keyframes to move, oldest first.
        fixed: further keyframes that hold shared landmarks in place.
        landmarks: the map.
        camera: of all keyframes.
        pixel_sigma: standard deviation of a keypoint's position, pixels.
    """
    if not fixed:
        free, fixed = free[1:], free[:1]
    if not free:
        return
    problem = _build(free, fixed, landmarks, camera, pixel_sigma)
    if not len(problem.landmark_ids):
        return
    poses = [inverse(keyframe.T_world_cam) for keyframe in [*free, *fixed]]
    points = landmarks.positions[problem.landmark_ids].copy()
    poses, points, information = _minimise(problem, poses, points)

    shared = np.zeros(len(landmarks), dtype=bool)
    shared[problem.landmark_ids] = True
    for keyframe, T_cam_world in zip(free, poses, strict=False):
        refined = inverse(T_cam_world)
        ids = keyframe.landmark_ids[keyframe.observed]
        landmarks.move_along(ids[~shared[ids]], compose(refined, inverse(keyframe.T_world_cam)), keyframe.number)
        keyframe.T_world_cam = refined
    landmarks.move(problem.landmark_ids, points, information)


def _build(
    free: Sequence[Keyframe],
    fixed: Sequence[Keyframe],
    landmarks: LandmarkMap,
    camera: PinholeCamera,
    pixel_sigma: float,
) -> _Problem:
    views = [*free, *fixed]
    counts = np.zeros(len(landmarks), dtype=np.int64)
    in_free = np.zeros(len(landmarks), dtype=bool)
    for number, keyframe in enumerate(views):
        ids = keyframe.landmark_ids[keyframe.observed]
        counts[ids] += 1
        if number < len(free):
            in_free[ids] = True
    chosen = (counts >= 2) & in_free & landmarks.alive
    landmark_ids = np.flatnonzero(chosen)
    local_row = np.full(len(landmarks), -1, dtype=np.int64)
    local_row[landmark_ids] = np.arange(len(landmark_ids))

    parts = []
    for number, keyframe in enumerate(views):
        observed = keyframe.observed
        rows = local_row[keyframe.landmark_ids[observed]]
        observed, rows = observed[rows >= 0], rows[rows >= 0]
        parts.append((np.full(len(rows), number, dtype=np.int64), rows, observed))
    view = np.concatenate([part[0] for part in parts])
    point = np.concatenate([part[1] for part in parts])
    frames = [keyframe.frame for keyframe in views]
    values = {
        name: np.concatenate([getattr(frame, name)[part[2]] for frame, part in zip(frames, parts, strict=True)])
        for name in ("keypoints", "depth", "depth_sigma", "weights")
    }
    order = np.argsort(point, kind="stable")
    return _Problem(
        camera=camera,
        free_views=len(free),
        landmark_ids=landmark_ids,
        view=view[order],
        point=point[order],
        keypoints=values["keypoints"][order],
        depth=values["depth"][order],
        depth_sigma=values["depth_sigma"][order],
        weights=values["weights"][order],
        pixel_sigma=pixel_sigma,
    )


def _minimise(problem: _Problem, poses: list[Array], points: Array) -> tuple[list[Array], Array, Array]:
    """Levenberg-Marquardt from ``poses`` (T_cam_world of all views) and ``points`` (P, 3)."""
    damping = 1e-3
    system = _linearise(problem, poses, points)
    for _ in range(_MAX_ITERATIONS):
        view_step, point_step = _solve(system, damping)
        candidate_poses = [
            compose(se3_exp(view_step[k]), pose) if k < problem.free_views else pose for k, pose in enumerate(poses)
        ]
        candidate_points = points + point_step
        candidate = _linearise(problem, candidate_poses, candidate_points)
        if candidate.cost <= system.cost:
            gained = system.cost - candidate.cost
            poses, points, system = candidate_poses, candidate_points, candidate
            damping = max(0.1 * damping, 1e-7)
            if gained <= _CONVERGED * system.cost:
                break
        else:
            damping *= 10.0
    return poses, points, system.point_information


def _linearise(problem: _Problem, poses: list[Array], points: Array) -> _System:
    rotations = np.stack([pose[:3, :3] for pose in poses])
    translations = np.stack([pose[:3, 3] for pose in poses])
    rotation = rotations[problem.view]
    in_camera = np.einsum("nij,nj->ni", rotation, points[problem.point]) + translations[problem.view]
    residuals, to_point = point_derivatives(
        in_camera,
        problem.keypoints,
        np.full(len(in_camera), problem.pixel_sigma),
        problem.depth,
        problem.depth_sigma,
        problem.camera,
    )
    pixel_cost, pixel_weight = huber(np.linalg.norm(residuals[:, :2], axis=1), PIXEL_CORNER)
    depth_cost, depth_weight = cauchy(np.abs(residuals[:, 2]), DEPTH_CORNER)
    cost = float(problem.weights @ (pixel_cost + depth_cost))
    root = np.sqrt(problem.weights[:, None] * np.stack([pixel_weight, pixel_weight, depth_weight], axis=1))
    residuals = residuals * root
    to_point = to_point * root[:, :, None]

    by_point = to_point @ rotation
    starts = np.searchsorted(problem.point, np.arange(len(points)))
    by_point_transposed = by_point.transpose(0, 2, 1)
    point_information = np.add.reduceat(by_point_transposed @ by_point, starts, axis=0)
    point_gradient = np.add.reduceat((by_point_transposed @ residuals[:, :, None])[:, :, 0], starts, axis=0)

    count = problem.free_views
    view_information = np.zeros((count, 6, 6))
    view_gradient = np.zeros((count, 6))
    coupling = np.zeros((len(points), count, 6, 3))
    for k in range(count):
        mine = np.flatnonzero(problem.view == k)
        jacobian = np.concatenate([to_point[mine], np.cross(in_camera[mine, None, :], to_point[mine])], axis=2)
        flat = jacobian.reshape(-1, 6)
        view_information[k] = flat.T @ flat
        view_gradient[k] = flat.T @ residuals[mine].reshape(-1)
        coupling[problem.point[mine], k] = jacobian.transpose(0, 2, 1) @ by_point[mine]
    return _System(
        cost=cost,
        view_information=view_information,
        view_gradient=view_gradient,
        point_information=point_information,
        point_gradient=point_gradient,
        coupling=coupling,
    )


def _solve(system: _System, damping: float) -> tuple[Array, Array]:
    """The damped step of views (K, 6) and points (P, 3)."""
    count, size = len(system.view_information), 6 * len(system.view_information)
    diagonal = np.einsum("pii->pi", system.point_information)
    damped = system.point_information + (damping * diagonal + 1e-9)[:, :, None] * np.eye(3)
    inverse_points = np.linalg.inv(damped)
    coupling = system.coupling.reshape(len(damped), size, 3)
    reduced_coupling = coupling @ inverse_points
    left = reduced_coupling.transpose(1, 0, 2).reshape(size, -1)
    right = coupling.transpose(1, 0, 2).reshape(size, -1)
    views = np.zeros((size, size))
    for k in range(count):
        block = system.view_information[k]
        views[6 * k : 6 * k + 6, 6 * k : 6 * k + 6] = block + damping * np.diag(np.diag(block))
    reduced = views - left @ right.T + 1e-9 * np.eye(size)
    gradient = system.view_gradient.reshape(-1) - left @ system.point_gradient.reshape(-1)
    view_step = -np.linalg.solve(reduced, gradient)
    towards_points = system.point_gradient + np.einsum("pca,c->pa", coupling, view_step)
    point_step = -np.einsum("pab,pb->pa", inverse_points, towards_points)
    return view_step.reshape(count, 6), point_step
