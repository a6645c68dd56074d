"""Which motion two views allow: one clear step, or several, and then none is taken."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import make_transform, se3_exp, transform_points
from semkey.slam.solvers.plane_motions import PossibleMotion, choose_motion, motions_of_a_step
from semkey.slam.solvers.triangulation import triangulate

Array = NDArray[np.float64]

CAMERA = PinholeCamera(fx=500.0, fy=500.0, cx=319.5, cy=239.5, width=640, height=480)
TURN = se3_exp(np.array([0.0, 0.0, 0.0, 0.05, -0.15, 0.1]))
STEP = se3_exp(np.array([0.08, 0.02, 0.02, 0.03, -0.08, 0.02]))


def _in_depth(count: int, seed: int, depths: tuple[float, float] = (2.0, 8.0)) -> Array:
    rng = np.random.default_rng(seed)
    z = rng.uniform(*depths, count)
    return np.stack([rng.uniform(-0.5, 0.5, count) * z, rng.uniform(-0.4, 0.4, count) * z, z], axis=1)


def _motions(points: Array, motion: Array, *, noise: float, seed: int) -> list[Array]:
    """What is found from a start whose turn is right and whose direction, along the optical axis, tells nothing."""
    rng = np.random.default_rng(seed)
    seen0 = CAMERA.project(points) + rng.normal(0, noise, (len(points), 2))
    seen1 = CAMERA.project(transform_points(motion, points)) + rng.normal(0, noise, (len(points), 2))
    covariances = np.tile(noise**2 * np.eye(2), (len(points), 1, 1))
    start = make_transform(motion[:3, :3], np.array([0.0, 0.0, 1.0]))
    everything = np.ones(len(points), dtype=bool)
    return motions_of_a_step(start, seen0, seen1, everything, CAMERA, 1.0, (covariances, covariances))


def _degrees_off(found: Array, motion: Array) -> float:
    """Angle between the lines of two steps."""
    truth = motion[:3, 3] / np.linalg.norm(motion[:3, 3])
    return float(np.degrees(np.arccos(min(1.0, abs(float(found[:3, 3] @ truth))))))


@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_a_turn_is_explained_by_steps_in_several_directions(noise: float) -> None:
    for seed in range(4):
        motions = _motions(_in_depth(300, seed), TURN, noise=noise, seed=seed)
        assert len(motions) >= 6, "three lines or more, each in either sense"
        directions = np.stack([motion[:3, 3] for motion in motions[::2]])
        apart = np.degrees(np.arccos(np.clip(np.abs(directions @ directions.T), 0, 1)))
        turned = np.stack([motion[:3, :3] for motion in motions[::2]])
        alike = np.abs(turned[:, None] - turned[None]).max(axis=(2, 3)) < 0.02
        assert not (alike & (apart < 8.0) & ~np.eye(len(directions), dtype=bool)).any(), "none is given twice"


@pytest.mark.parametrize(("noise", "depths"), [(0.1, (2.0, 8.0)), (0.5, (2.0, 8.0)), (0.3, (3.0, 4.0))])
def test_a_step_has_one_direction(noise: float, depths: tuple[float, float]) -> None:
    for seed in range(4):
        motions = _motions(_in_depth(300, seed, depths), STEP, noise=noise, seed=seed)
        assert len(motions) == 2
        np.testing.assert_array_equal(motions[0][:3, 3], -motions[1][:3, 3])
        np.testing.assert_array_equal(motions[0][:3, :3], motions[1][:3, :3])
        assert _degrees_off(motions[0], STEP) < 5.0


@pytest.mark.parametrize("seed", [0, 7, 9, 21, 33])
def test_the_step_is_found_from_one_of_many_directions(seed: int) -> None:
    """Ten degrees and 3 cm, half of the keypoints not aligned: from 2, 4 or 6 starts some of these are missed."""
    direction = np.random.default_rng(seed).normal(size=3)
    motion = se3_exp(np.array([*(0.03 * direction / np.linalg.norm(direction)), 0.02, -0.17, 0.01]))
    rng = np.random.default_rng(seed)
    depth = rng.uniform(2.0, 2.6, 300)
    points = np.stack([rng.uniform(-0.5, 0.6, 300) * depth, rng.uniform(-0.45, 0.45, 300) * depth, depth], axis=1)
    points = points[CAMERA.contains(CAMERA.project(transform_points(motion, points)))]
    sigma = np.where(rng.random(len(points)) < 0.5, 2.0, 0.05)
    seen0 = CAMERA.project(points)
    seen1 = CAMERA.project(transform_points(motion, points)) + sigma[:, None] * rng.normal(size=(len(points), 2))
    covariances = np.square(sigma)[:, None, None] * np.eye(2)
    across = np.cross(motion[:3, 3], [1.0, 0.0, 0.0])
    start = make_transform(motion[:3, :3], across / np.linalg.norm(across))  # RANSAC may be as far off as that
    everything = np.ones(len(points), dtype=bool)
    found = motions_of_a_step(start, seen0, seen1, everything, CAMERA, 1.0, (0.01 * covariances, covariances))
    assert _degrees_off(found[0], motion) < 8.0


def _chosen(
    points: Array, motion: Array, candidates: list[Array], noise: float, shares: tuple[float, ...] = ()
) -> PossibleMotion | None:
    """Which of several motions is taken; all matches are said to agree with each, or ``shares`` of them."""
    rng = np.random.default_rng(3)
    seen0 = CAMERA.project(points) + rng.normal(0, noise, (len(points), 2))
    seen1 = CAMERA.project(transform_points(motion, points)) + rng.normal(0, noise, (len(points), 2))
    covariances = np.tile(noise**2 * np.eye(2), (len(points), 1, 1))
    motions = []
    for T, share in zip(candidates, shares or (1.0,) * len(candidates), strict=True):
        T_world_cam1 = make_transform(T[:3, :3].T, -T[:3, :3].T @ T[:3, 3])
        triangulated = triangulate(seen0, seen1, np.eye(4), T_world_cam1, CAMERA, pixel_sigma=noise)
        good = np.arange(len(points)) < share * len(points)
        motions.append(PossibleMotion(T_cam1_cam0=T, points=triangulated, good=good))
    return choose_motion(
        motions,
        seen0,
        seen1,
        CAMERA,
        between=None,
        pixel_sigma=noise,
        covariances=(covariances, covariances),
        seed=0,
    )


def _plane_motions(normal: Array, distance: float, motion: Array) -> list[Array]:
    """All motions that the homography of the plane ``normal @ x = distance`` allows, the right one first."""
    K = CAMERA.matrix
    H = K @ (motion[:3, :3] + np.outer(motion[:3, 3], normal) / distance) @ np.linalg.inv(K)
    _, rotations, translations, _ = cv2.decomposeHomographyMat(H, K)
    motions = [make_transform(R, t.ravel() / np.linalg.norm(t)) for R, t in zip(rotations, translations, strict=True)]
    step = motion[:3, 3] / np.linalg.norm(motion[:3, 3])
    return sorted(motions, key=lambda T: float(np.linalg.norm(T[:3, 3] - step)))


def _points_before(T: Array, plane: Array, motion: Array) -> int:
    """How many points of a plane, seen before and after ``motion``, lie before both cameras if ``T`` was the motion."""
    T_world_cam1 = make_transform(T[:3, :3].T, -T[:3, :3].T @ T[:3, 3])
    seen1 = CAMERA.project(transform_points(motion, plane))
    points = triangulate(CAMERA.project(plane), seen1, np.eye(4), T_world_cam1, CAMERA, pixel_sigma=0.1).points_world
    return int(np.count_nonzero((points[:, 2] > 0) & (transform_points(T, points)[:, 2] > 0)))


def test_a_plane_seen_twice_leaves_two_motions_until_enough_lies_off_it() -> None:
    """A tenth of the score has to tell: 10 of 210 matches off the plane are too few, 60 of 260 enough."""
    motion = se3_exp(np.array([0.45, 0.05, 0.2, 0.03, -0.08, 0.02]))
    normal = np.array([-0.5, 0.2, 1.0]) / np.linalg.norm([-0.5, 0.2, 1.0])
    distance = 4.0 * normal[2]
    rng = np.random.default_rng(0)
    x, y = rng.uniform(-1.8, 1.8, 200), rng.uniform(-1.4, 1.4, 200)
    plane = np.stack([x, y, 4 + 0.5 * x - 0.2 * y], axis=1)
    right, *others = _plane_motions(normal, distance, motion)
    others = [T for T in others if _degrees_off(T, motion) > 20.0]
    twins = [right, max(others, key=lambda T: _points_before(T, plane, motion))]
    assert _degrees_off(right, motion) < 1e-3
    assert _points_before(twins[1], plane, motion) > 0.9 * len(plane), "both put the plane before both cameras"
    off = _in_depth(60, 4)
    assert _chosen(plane, motion, twins, 0.1) is None
    assert _chosen(np.concatenate([plane, off[:10]]), motion, twins, 0.1) is None
    best = _chosen(np.concatenate([plane, off]), motion, twins, 0.1)
    assert best is not None
    assert _degrees_off(best.T_cam1_cam0, motion) < 1e-3


def test_motions_between_which_nothing_decides_are_none() -> None:
    """A turn is fitted by steps in all directions: the first of them is no better than the others."""
    motions = [make_transform(TURN[:3, :3], direction) for direction in np.eye(3)]
    assert _chosen(_in_depth(300, 0), TURN, motions, 0.3) is None
    alone = _chosen(_in_depth(300, 0), STEP, [make_transform(STEP[:3, :3], STEP[:3, 3])], 0.3)
    assert alone is not None, "a motion without a rival is taken as it is"


def test_no_motions_leave_none() -> None:
    assert _chosen(_in_depth(20, 0), STEP, [], 0.3) is None


@pytest.mark.parametrize("share", [0.4, 0.65])
def test_a_motion_with_half_as_many_points_before_the_cameras_is_a_rival(share: float) -> None:
    """Wrong starts had 176 and 125 (frames overexposed), 53 and 37 (a cabinet); right ones hardly any of the second."""
    step = make_transform(STEP[:3, :3], STEP[:3, 3] / np.linalg.norm(STEP[:3, 3]))
    opposite = make_transform(step[:3, :3], -step[:3, 3])
    best = _chosen(_in_depth(300, 0), STEP, [step, opposite], 0.3, (1.0, share))
    assert (best is None) == (share > 0.5)
    assert best is None or best.T_cam1_cam0 is step
