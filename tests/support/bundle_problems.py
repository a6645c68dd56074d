"""Bundle problems whose answer is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from semkey.geometry.transforms import compose, inverse, se3_exp, transform_points
from semkey.matching.keypoint_noise import isotropic_covariances
from semkey.slam.solvers.bundle import BundleProblem
from synthetic_world import CAMERA


def make_problem(
    poses: np.ndarray,
    points: np.ndarray,
    *,
    fixed: tuple[int, ...] = (0,),
    pixel_noise: float = 0.0,
    depth_noise: float = 0.0,
    with_depth: bool = True,
    seed: int = 0,
) -> BundleProblem:
    """Every camera sees every point."""
    rng = np.random.default_rng(seed)
    keyframe_rows = np.repeat(np.arange(len(poses)), len(points))
    landmark_rows = np.tile(np.arange(len(points)), len(poses))
    seen = np.concatenate([transform_points(inverse(pose), points) for pose in poses])
    count = len(seen)
    sigma = np.full(count, max(depth_noise, 0.005))
    return BundleProblem(
        camera=CAMERA,
        keyframe_ids=10 + np.arange(len(poses)),
        poses=poses,
        fixed=np.isin(np.arange(len(poses)), fixed),
        landmark_ids=100 + np.arange(len(points)),
        landmark_serials=np.arange(len(points)),
        positions=points,
        keyframe_rows=keyframe_rows,
        landmark_rows=landmark_rows,
        keypoints=CAMERA.project(seen) + pixel_noise * rng.normal(size=(count, 2)),
        covariances=isotropic_covariances(count, max(pixel_noise, 0.5)),
        depth=(seen[:, 2] + depth_noise * rng.normal(size=count)) * with_depth,
        depth_sigma=sigma,
        max_iterations=30,
    )


def disturbed(problem: BundleProblem, amount: float, seed: int = 1) -> BundleProblem:
    """The same measurements from a start that is off by ``amount`` metres and radians."""
    rng = np.random.default_rng(seed)
    poses = np.stack(
        [
            pose if fixed else compose(pose, se3_exp(amount * rng.uniform(-1, 1, 6)))
            for pose, fixed in zip(problem.poses, problem.fixed, strict=True)
        ]
    )
    positions = problem.positions + amount * rng.uniform(-1, 1, problem.positions.shape)
    return replace(problem, poses=poses, positions=positions)
