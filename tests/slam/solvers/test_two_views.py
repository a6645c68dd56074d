"""Two-view initialisation: planes, general scenes, turning cameras, mismatches."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from semkey.errors import ConfigError, InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, make_transform, rotation_angle_deg, se3_exp, transform_points
from semkey.matching.robust import estimate_relative_pose
from semkey.slam.config import MonoConfig
from semkey.slam.solvers.plane_motions import motions_of_a_step
from semkey.slam.solvers.two_views import TwoViewGeometry, initialise_two_views

CAMERA = PinholeCamera(fx=500.0, fy=500.0, cx=319.5, cy=239.5, width=640, height=480)
MOTION = se3_exp(np.array([0.45, 0.05, 0.2, 0.03, -0.08, 0.02]))
OFF_THE_LINE = se3_exp(np.array([0.2, 0.2, 0.0, 0.05, -0.02, 0.01]))


def _cloud(count: int, seed: int = 0) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    z = rng.uniform(2.0, 8.0, count)
    return np.stack([rng.uniform(-0.5, 0.5, count) * z, rng.uniform(-0.4, 0.4, count) * z, z], axis=1)


def _plane(count: int, seed: int = 0) -> NDArray[np.float64]:
    """Points on the plane z = 4 + 0.5 x - 0.2 y."""
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-1.8, 1.8, count), rng.uniform(-1.4, 1.4, count)
    return np.stack([x, y, 4 + 0.5 * x - 0.2 * y], axis=1)


def _views(
    points: NDArray, T_10: NDArray, *, noise: float = 0.5, wrong: float = 0.0, seed: int = 1
) -> tuple[NDArray, NDArray]:
    rng = np.random.default_rng(seed)
    seen0 = CAMERA.project(points) + rng.normal(0, noise, (len(points), 2))
    seen1 = CAMERA.project(transform_points(T_10, points)) + rng.normal(0, noise, (len(points), 2))
    mixed = np.flatnonzero(rng.random(len(points)) < wrong)
    seen1[mixed] = seen1[rng.permutation(mixed)]
    return seen0, seen1


def _check(found: TwoViewGeometry | None, points: NDArray, T_10: NDArray, *, tolerance_deg: float = 1.0) -> None:
    assert found is not None
    assert rotation_angle_deg(found.T_cam1_cam0 @ inverse(T_10)) < tolerance_deg
    direction, truth = found.T_cam1_cam0[:3, 3], T_10[:3, 3]
    cosine = direction @ truth / np.linalg.norm(direction) / np.linalg.norm(truth)
    assert np.degrees(np.arccos(min(cosine, 1.0))) < 4 * tolerance_deg
    assert np.median(found.points_cam0[found.landmarks, 2]) == pytest.approx(1.0)
    # One scale fits all landmarks.
    ratio = np.linalg.norm(points[found.landmarks], axis=1) / np.linalg.norm(found.points_cam0[found.landmarks], axis=1)
    assert np.quantile(np.abs(ratio / np.median(ratio) - 1), 0.8) < 0.08
    assert np.linalg.norm(truth) / np.linalg.norm(direction) == pytest.approx(np.median(ratio), rel=0.05)


@pytest.mark.parametrize("wrong", [0.0, 0.3])
def test_a_scene_in_depth_is_explained_by_an_essential_matrix(wrong: float) -> None:
    points = _cloud(400)
    found = initialise_two_views(*_views(points, MOTION, wrong=wrong), CAMERA)
    _check(found, points, MOTION)
    assert found is not None
    assert found.model == "essential"
    assert found.homography_score_share < 0.4
    assert found.landmarks.sum() > (1 - wrong) * 0.75 * len(points)


@pytest.mark.parametrize("wrong", [0.0, 0.3])
def test_a_plane_is_explained_by_a_homography(wrong: float) -> None:
    points = _plane(400)
    between = _views(points, OFF_THE_LINE, wrong=wrong / 2, seed=9)[1]
    found = initialise_two_views(*_views(points, MOTION, wrong=wrong), CAMERA, between=between)
    _check(found, points, MOTION, tolerance_deg=1.5)
    assert found is not None
    assert found.model == "homography"
    assert found.homography_score_share > 0.45


def test_a_plane_that_leaves_two_motions_starts_no_map_without_a_third_view() -> None:
    points = _plane(400)
    seen0, seen1 = _views(points, MOTION)
    assert initialise_two_views(seen0, seen1, CAMERA) is None
    # The second view once more says nothing new.
    assert initialise_two_views(seen0, seen1, CAMERA, between=seen1) is None
    unseen = np.full_like(seen0, np.nan)
    assert initialise_two_views(seen0, seen1, CAMERA, between=unseen) is None


def test_what_lies_off_a_plane_decides_between_the_two_motions_of_the_plane() -> None:
    """With exact keypoints a view on the way does not tell: all along a straight way both motions fit the plane."""
    points = np.concatenate([_plane(170), _cloud(30)])
    seen0, seen1 = _views(points, MOTION, noise=0.1)
    covariances = np.tile(0.1**2 * np.eye(2), (len(points), 1, 1))
    found = initialise_two_views(seen0, seen1, CAMERA, covariances=(covariances, covariances))
    _check(found, points, MOTION)
    assert found is not None
    assert found.model == "homography"
    only_plane = (seen0[:170], seen1[:170])
    assert initialise_two_views(*only_plane, CAMERA, covariances=(covariances[:170], covariances[:170])) is None


def test_a_short_step_in_a_fast_turn_is_found_among_many_minima() -> None:
    """Ten degrees in which the camera comes 3 cm on: of half of the keypoints, aligned ones, the direction is known."""
    turning = se3_exp(np.array([0.02, 0.02, 0.01, 0.02, -0.17, 0.01]))
    truth = turning[:3, 3] / np.linalg.norm(turning[:3, 3])
    rng = np.random.default_rng(5)
    by_sample, found = [], []
    for seed in range(3):
        depth = rng.uniform(2.0, 2.6, 300)
        points = np.stack([rng.uniform(-0.5, 0.6, 300) * depth, rng.uniform(-0.45, 0.45, 300) * depth, depth], axis=1)
        points = points[CAMERA.contains(CAMERA.project(transform_points(turning, points)))]
        sigma = np.where(rng.random(len(points)) < 0.5, 2.0, 0.1)
        seen0 = CAMERA.project(points)
        seen1 = CAMERA.project(transform_points(turning, points)) + sigma[:, None] * rng.normal(size=(len(points), 2))
        covariances = np.square(sigma)[:, None, None] * np.eye(2)
        sample = estimate_relative_pose(seen0, seen1, CAMERA, CAMERA, max_error_px=1.96, seed=seed).model
        assert sample is not None
        agreeing = np.ones(len(points), dtype=bool)
        off = make_transform(sample[:3, :3], np.cross(truth, [1.0, 0.0, 0.0]))  # a start that is of no use
        best = motions_of_a_step(off, seen0, seen1, agreeing, CAMERA, 1.0, (0.01 * covariances, covariances))[0]
        by_sample.append(np.degrees(np.arccos(np.abs(sample[:3, 3] @ truth))))
        found.append(np.degrees(np.arccos(np.abs(best[:3, 3] @ truth))))
    assert max(by_sample) > 10.0
    assert max(found) < 4.0


def test_mismatches_do_not_become_landmarks() -> None:
    points = _cloud(400)
    seen0, seen1 = _views(points, MOTION, wrong=0.4)
    found = initialise_two_views(seen0, seen1, CAMERA)
    assert found is not None
    truth = CAMERA.project(transform_points(MOTION, points))
    wrong = np.linalg.norm(truth - seen1, axis=1) > 20
    assert found.landmarks[wrong].mean() < 0.1


def test_a_camera_that_only_turns_starts_no_map() -> None:
    turning = se3_exp(np.array([0.0, 0.0, 0.0, 0.05, -0.15, 0.1]))
    for seed in range(6):
        assert initialise_two_views(*_views(_cloud(400, seed), turning, seed=seed), CAMERA) is None


def test_too_little_parallax_starts_no_map() -> None:
    small = se3_exp(np.array([0.01, 0.0, 0.0, 0.0, 0.0, 0.0]))
    assert initialise_two_views(*_views(_cloud(400), small, noise=0.3), CAMERA) is None


def test_forward_motion_starts_a_map() -> None:
    forward = se3_exp(np.array([0.02, 0.0, -0.8, 0.0, 0.01, 0.0]))
    points = _cloud(500)
    found = initialise_two_views(*_views(points, forward), CAMERA)
    assert found is not None
    assert rotation_angle_deg(found.T_cam1_cam0 @ inverse(forward)) < 0.5


def test_matches_without_geometry_start_no_map() -> None:
    rng = np.random.default_rng(0)
    size = np.array([640, 480])
    assert initialise_two_views(rng.random((300, 2)) * size, rng.random((300, 2)) * size, CAMERA) is None
    assert initialise_two_views(np.zeros((0, 2)), np.zeros((0, 2)), CAMERA) is None
    still = rng.random((300, 2)) * size
    assert initialise_two_views(still, still, CAMERA) is None


def test_the_same_seed_gives_the_same_map() -> None:
    seen0, seen1 = _views(_cloud(300), MOTION, wrong=0.3)
    first, second = (initialise_two_views(seen0, seen1, CAMERA, seed=5) for _ in range(2))
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first.T_cam1_cam0, second.T_cam1_cam0)
    np.testing.assert_array_equal(first.points_cam0, second.points_cam0)


def test_unpaired_keypoints_and_settings_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match="expected"):
        initialise_two_views(np.zeros((3, 2)), np.zeros((4, 2)), CAMERA)
    for wrong in (
        {"homography_ratio": 1.0},
        {"min_initial_matches": 3},
        {"max_error_px": 0.0},
        {"min_parallax_deg": 0.0},
        {"neighbours": 0},
        {"min_baseline_ratio": -1.0},
    ):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            MonoConfig.from_mapping(wrong)
