"""Radial distortion found in a map without depth, and what adjusting without depth does to lengths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from bundle_problems import disturbed, make_problem
from semkey.geometry.transforms import compose, inverse, rotation_angle_deg, se3_exp, transform_points
from semkey.matching.keypoint_noise import isotropic_covariances
from semkey.slam.config import MapConfig
from semkey.slam.frames.frame import observe_keypoints
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.mapping.local_mapping import apply_bundle, bundle_problem
from semkey.slam.solvers.bundle import BundleProblem, solve_bundle
from semkey.slam.solvers.distortion import distorted, estimate_distortion, solve_with_distortion, undistorted
from synthetic_world import CAMERA, PointExtractor, PointWorld, walk

LENS = np.array([0.05, -0.02])
NONE = np.zeros(2)


def corner(*, lens: np.ndarray = NONE, noise: float = 0.1) -> tuple[BundleProblem, np.ndarray]:
    """A camera that turns by 90 degrees while it goes on, and the true poses; every camera sees what is in its view."""
    rng = np.random.default_rng(0)
    step = se3_exp([0.05, 0.0, 0.2, 0.0, np.radians(5.0), 0.0])
    poses = [np.eye(4)]
    for _ in range(18):
        poses.append(compose(poses[-1], step))
    points = rng.uniform([-6, -2, -4], [10, 2, 10], (1500, 3))
    keyframe_rows, landmark_rows, keypoints = [], [], []
    for k, pose in enumerate(poses):
        seen = transform_points(inverse(pose), points)
        pixels = CAMERA.project(seen)
        near = np.flatnonzero(CAMERA.contains(pixels) & (seen[:, 2] > 1.0) & (seen[:, 2] < 6.0))
        keyframe_rows.append(np.full(len(near), k))
        landmark_rows.append(near)
        keypoints.append(distorted(pixels[near], CAMERA, lens) + rng.normal(0, noise, (len(near), 2)))
    rows, keyframes, where = np.concatenate(landmark_rows), np.concatenate(keyframe_rows), np.concatenate(keypoints)
    several = np.bincount(rows, minlength=len(points))[rows] >= 2
    ids, rows = np.unique(rows[several], return_inverse=True)
    count = len(rows)
    problem = BundleProblem(
        camera=CAMERA,
        keyframe_ids=np.arange(len(poses)),
        poses=np.stack(poses),
        fixed=np.arange(len(poses)) == 0,
        landmark_ids=ids,
        landmark_serials=ids,
        positions=points[ids],
        keyframe_rows=keyframes[several],
        landmark_rows=rows,
        keypoints=where[several],
        covariances=isotropic_covariances(count, 1.0),
        depth=np.zeros(count),
        depth_sigma=np.ones(count),
        max_iterations=30,
    )
    return problem, np.stack(poses)


def steps(poses: np.ndarray) -> np.ndarray:
    return np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1)


def drift(problem: BundleProblem, poses: np.ndarray, truth: np.ndarray) -> float:
    """By how much the scale differs between the start and the end of the way."""
    everything = np.concatenate([truth[:1], poses])
    ratios = steps(everything) / steps(truth)
    return abs(np.log(ratios[:4].mean() / ratios[-4:].mean()))


def test_distortion_and_its_inverse() -> None:
    # At x = cx + fx, one focal length beside the centre, r = 1: the pixel moves by f (k1 + k2).
    camera = replace(CAMERA, width=2000)
    pixel = np.array([[CAMERA.cx + CAMERA.fx, CAMERA.cy], [CAMERA.cx, CAMERA.cy + 0.5 * CAMERA.fy]])
    moved = distorted(pixel, camera, LENS)
    np.testing.assert_allclose(moved[0] - pixel[0], [CAMERA.fx * 0.03, 0.0])
    # r = 0.5: k1 / 4 + k2 / 16 of half a focal length.
    np.testing.assert_allclose(moved[1] - pixel[1], [0.0, 0.5 * CAMERA.fy * (0.0125 - 0.00125)])
    np.testing.assert_allclose(undistorted(moved, camera, LENS), pixel, atol=1e-4)
    np.testing.assert_array_equal(distorted(pixel, camera, NONE), pixel)


def test_the_lens_is_found_and_its_drift_of_scale_goes_away() -> None:
    problem, truth = corner(lens=LENS)
    found = estimate_distortion(problem, sigma=0.1)
    # What counts is how far a pixel at the corner of the image moves (by 3.4 px here).
    corners = np.array([[0.0, 0.0], [CAMERA.width - 1.0, 0.0], [40.0, 60.0]])
    np.testing.assert_allclose(distorted(corners, CAMERA, found), distorted(corners, CAMERA, LENS), atol=0.2)
    without, with_lens = solve_bundle(problem), solve_with_distortion(problem, 0.1)
    np.testing.assert_array_equal(with_lens.distortion, found)
    assert drift(problem, without.poses, truth) > 0.03
    assert drift(problem, with_lens.poses, truth) < 0.01
    np.testing.assert_array_equal(without.distortion, NONE)


def test_a_perfect_lens_stays_one_and_a_sure_calibration_is_believed() -> None:
    problem, truth = corner()
    assert np.abs(estimate_distortion(problem, sigma=0.01)).max() < 0.003
    assert drift(problem, solve_with_distortion(problem, 0.01).poses, truth) < 0.01
    problem, _ = corner(lens=LENS)
    assert np.abs(estimate_distortion(problem, sigma=1e-5)).max() < 1e-3


def test_too_little_to_see_says_nothing_about_the_lens() -> None:
    poses = np.stack([se3_exp([0.15 * k, 0, 0, 0, 0, 0]) for k in range(2)])
    points = np.random.default_rng(0).uniform([-0.8, -0.6, 1.8], [1.0, 0.6, 3.0], (300, 3))
    # Two views only: any distance of a landmark fits.
    problem = make_problem(poses, points, with_depth=False)
    np.testing.assert_array_equal(estimate_distortion(problem, 0.1), NONE)


def test_mismatches_do_not_bend_the_lens() -> None:
    problem, _ = corner(lens=LENS)
    rng = np.random.default_rng(1)
    keypoints = problem.keypoints.copy()
    wrong = rng.random(len(keypoints)) < 0.03
    keypoints[wrong] += rng.uniform(-30, 30, (np.count_nonzero(wrong), 2))
    found = estimate_distortion(replace(problem, keypoints=keypoints), 0.1)
    corners = np.array([[0.0, 0.0], [CAMERA.width - 1.0, 0.0]])
    np.testing.assert_allclose(distorted(corners, CAMERA, found), distorted(corners, CAMERA, LENS), atol=0.4)


def test_without_depth_the_unit_of_length_stays() -> None:
    poses = np.stack([se3_exp([0.15 * k, 0.02 * k, 0.03 * k, 0.01 * k, -0.05 * k, 0]) for k in range(4)])
    points = np.random.default_rng(0).uniform([-0.8, -0.6, 1.8], [1.0, 0.6, 3.0], (60, 3))
    start = disturbed(make_problem(poses, points, with_depth=False), 0.03)
    result = solve_bundle(start)
    centre = start.poses[0, :3, 3]
    before = np.linalg.norm(start.positions - centre, axis=1)
    after = np.linalg.norm(result.positions - centre, axis=1)
    assert np.median(after / before) == pytest.approx(1.0, abs=1e-9)
    # It is the true shape, up to a scale.
    np.testing.assert_allclose(
        result.positions / after.mean(), points / np.linalg.norm(points, axis=1).mean(), atol=2e-3
    )
    for pose, truth in zip(result.poses, poses[1:], strict=True):
        assert rotation_angle_deg(inverse(pose) @ truth) < 0.05
    # Depth says how large things are.
    np.testing.assert_array_equal(solve_bundle(make_problem(poses, points)).scales, 1.0)


def test_frames_grow_with_what_their_keyframe_sees() -> None:
    """Where an adjustment makes the surroundings of a keyframe larger, the frames that hang on it move along."""
    world = PointWorld(walk(9, (0.06, 0.01, 0.02, 0.004, 0.015, 0.003)))
    slam_map = SlamMap(CAMERA, MapConfig(), pixel_sigma=1.0)
    for index in (0, 4, 8):
        features = PointExtractor(world).extract(world[index].image)
        nothing = np.zeros(len(features))
        pose = world.ground_truth[index]
        assert pose is not None
        keyframe = slam_map.add_keyframe(
            observe_keypoints(
                index, 0.1 * index, features, nothing, nothing, isotropic_covariances(len(features), 1.0)
            ),
            pose,
            None,
            0,
        )
        keyframe.parent = None if index == 0 else 0
    first, *others = slam_map.keyframes.values()
    true_points, descriptors = world._worlds[0]
    known = (first.frame.descriptors @ descriptors.T).argmax(axis=1)
    ids = slam_map.add_landmarks(
        first.id, np.arange(len(known)), true_points[known], np.tile(1e4 * np.eye(3), (len(known), 1, 1))
    )
    for other in others:
        similarity = first.frame.descriptors @ other.frame.descriptors.T
        same = np.flatnonzero(similarity.max(axis=1) > 0.99)
        slam_map.add_sightings(other.id, ids[same], similarity.argmax(axis=1)[same])
    newest = slam_map.tree.newest
    frame = world.ground_truth[7]
    assert frame is not None
    hanging = slam_map.tree.relative_pose(newest.id, frame)
    problem = bundle_problem(slam_map, list(slam_map.keyframes), [])
    assert problem is not None
    result = solve_bundle(problem)
    # As if everything around the newest keyframe had been a quarter too small.
    scaled = replace(result, scales=np.where(result.keyframe_ids == newest.id, 1.25, 1.0))
    apply_bundle(slam_map, scaled)
    assert newest.scale == 1.25
    placed = slam_map.tree.absolute_pose(newest.id, hanging)
    last = world.ground_truth[8]
    assert last is not None
    before, after = frame[:3, 3] - last[:3, 3], placed[:3, 3] - newest.T_world_cam[:3, 3]
    assert np.linalg.norm(after) == pytest.approx(1.25 * np.linalg.norm(before), rel=0.02)
