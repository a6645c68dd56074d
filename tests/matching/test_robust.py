from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from semkey.errors import InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.homography import corner_error, warp_points
from semkey.matching.robust import (
    RobustEstimate,
    estimate_absolute_pose,
    estimate_fundamental,
    estimate_homography,
    estimate_relative_pose,
)
from semkey.metrics.two_view import relative_pose_error

CAMERA = PinholeCamera(fx=520.0, fy=510.0, cx=318.0, cy=242.0, width=640, height=480)
H_TRUE = np.array([[0.9, 0.1, 20], [-0.05, 1.1, -10], [1e-4, 5e-5, 1]])


def scene(rng: np.random.Generator, count: int = 200, outliers: int = 80) -> tuple[np.ndarray, ...]:
    """World points, a second camera's pose, noisy pixels in both, and which rows are true."""
    points = np.stack([rng.uniform(-2, 2, count), rng.uniform(-1.5, 1.5, count), rng.uniform(3, 8, count)], axis=1)
    angle = 0.1
    T_cam1_cam0 = np.array(
        [[np.cos(angle), 0, np.sin(angle), -0.6], [0, 1, 0, 0.1], [-np.sin(angle), 0, np.cos(angle), 0.2], [0, 0, 0, 1]]
    )
    pixels0 = CAMERA.project(points) + rng.normal(0, 0.2, (count, 2))
    pixels1 = CAMERA.project(points @ T_cam1_cam0[:3, :3].T + T_cam1_cam0[:3, 3]) + rng.normal(0, 0.2, (count, 2))
    pixels1[:outliers] = rng.uniform(0, [640, 480], (outliers, 2))
    return points, T_cam1_cam0, pixels0, pixels1, np.arange(count) >= outliers


def plane(rng: np.random.Generator, count: int = 200, outliers: int = 80) -> tuple[np.ndarray, ...]:
    points0 = rng.uniform(0, [640, 480], (count, 2))
    points1 = warp_points(H_TRUE, points0) + rng.normal(0, 0.2, (count, 2))
    points1[:outliers] = rng.uniform(0, [640, 480], (outliers, 2))
    return points0, points1, np.arange(count) >= outliers


def relative(points0: np.ndarray, points1: np.ndarray, seed: int = 0) -> RobustEstimate:
    return estimate_relative_pose(points0, points1, CAMERA, CAMERA, seed=seed)


TWO_VIEW = [estimate_homography, estimate_fundamental, relative]
TwoView = Callable[..., RobustEstimate]


def assert_failed(estimate: RobustEstimate, count: int) -> None:
    assert estimate.model is None
    assert estimate.inliers.shape == (count,)
    assert estimate.inliers.dtype == np.bool_
    assert estimate.inlier_count == 0


def test_homography_from_image_0_to_1(rng: np.random.Generator) -> None:
    points0, points1, true = plane(rng)
    estimate = estimate_homography(points0, points1)
    assert corner_error(estimate.model, H_TRUE, 640, 480) < 0.3
    assert estimate.model is not None
    assert estimate.model[2, 2] == 1
    assert estimate.inliers[true].mean() > 0.99
    assert estimate.inliers[~true].mean() < 0.05


def test_fundamental_satisfies_the_epipolar_constraint(rng: np.random.Generator) -> None:
    _, T, pixels0, pixels1, true = scene(rng)
    estimate = estimate_fundamental(pixels0, pixels1)
    assert estimate.model is not None
    assert np.linalg.norm(estimate.model) == pytest.approx(1)
    assert abs(np.linalg.det(estimate.model)) < 1e-9
    x, y, z = T[:3, 3]
    essential = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]]) @ T[:3, :3]
    inverse_K = np.linalg.inv(CAMERA.matrix)
    F_true = inverse_K.T @ essential @ inverse_K
    F_true /= np.linalg.norm(F_true)
    assert min(np.abs(estimate.model - F_true).max(), np.abs(estimate.model + F_true).max()) < 0.05
    assert estimate.inliers[true].mean() > 0.95
    assert estimate.inliers[~true].mean() < 0.15


def test_relative_pose_maps_camera_0_to_1(rng: np.random.Generator) -> None:
    _, T_cam1_cam0, pixels0, pixels1, true = scene(rng)
    estimate = relative(pixels0, pixels1)
    assert estimate.model is not None
    assert max(relative_pose_error(estimate.model, T_cam1_cam0)) < 1.0
    assert np.linalg.norm(estimate.model[:3, 3]) == pytest.approx(1)
    assert estimate.model[:3, 3] @ T_cam1_cam0[:3, 3] > 0, "the points must lie in front of both cameras"
    assert estimate.inliers[true].mean() > 0.95


def test_absolute_pose_maps_world_to_camera(rng: np.random.Generator) -> None:
    points, T_cam_world, _, pixels, true = scene(rng)
    estimate = estimate_absolute_pose(points, pixels, CAMERA)
    assert estimate.model is not None
    np.testing.assert_allclose(estimate.model, T_cam_world, atol=0.01)
    np.testing.assert_allclose(estimate.model[:3, :3] @ estimate.model[:3, :3].T, np.eye(3), atol=1e-12)
    assert estimate.inliers[true].mean() > 0.99


@pytest.mark.parametrize("estimator", TWO_VIEW)
def test_same_seed_same_result(estimator: TwoView, rng: np.random.Generator) -> None:
    _, _, pixels0, pixels1, _ = scene(rng, outliers=140)
    first, second = estimator(pixels0, pixels1, seed=3), estimator(pixels0, pixels1, seed=3)
    np.testing.assert_array_equal(first.model, second.model)
    np.testing.assert_array_equal(first.inliers, second.inliers)


@pytest.mark.parametrize(("estimator", "minimum"), [(estimate_homography, 4), (estimate_fundamental, 7), (relative, 5)])
def test_too_few_points_give_no_model(estimator: TwoView, minimum: int, rng: np.random.Generator) -> None:
    _, _, pixels0, pixels1, _ = scene(rng, outliers=0)
    for count in range(minimum):
        assert_failed(estimator(pixels0[:count], pixels1[:count]), count)
    assert estimator(pixels0[:20], pixels1[:20]).inliers.shape == (20,)


def test_too_few_points_give_no_absolute_pose(rng: np.random.Generator) -> None:
    points, _, _, pixels, _ = scene(rng, outliers=0)
    for count in range(4):
        assert_failed(estimate_absolute_pose(points[:count], pixels[:count], CAMERA), count)


@pytest.mark.parametrize("estimator", TWO_VIEW)
@pytest.mark.parametrize("where", ["one point", "a line", "a line in image 1", "nowhere"])
def test_degenerate_points_give_no_model(estimator: TwoView, where: str, rng: np.random.Generator) -> None:
    along = np.stack([np.arange(50.0) * 7, np.arange(50.0) * 3 + 20], axis=1)
    spread = rng.uniform(0, 400, (50, 2))
    points0, points1 = {
        "one point": (np.full((50, 2), 3.0), np.full((50, 2), 5.0)),
        "a line": (along, along + 5),
        "a line in image 1": (spread, along),
        "nowhere": (np.full((50, 2), np.nan), spread),
    }[where]
    assert_failed(estimator(points0, points1), 50)


def test_points_on_a_line_give_no_absolute_pose() -> None:
    points = np.stack([np.linspace(-1, 1, 30), np.linspace(0, 1, 30), np.linspace(3, 5, 30)], axis=1)
    assert_failed(estimate_absolute_pose(points, CAMERA.project(points), CAMERA), 30)


@pytest.mark.parametrize("estimator", TWO_VIEW)
def test_random_matches_end_soon_and_find_little(estimator: TwoView, rng: np.random.Generator) -> None:
    points0, points1 = rng.uniform(0, 640, (2, 300, 2))
    estimate = estimator(points0, points1)
    assert estimate.inliers.mean() < 0.2


def test_nan_rows_are_outliers(rng: np.random.Generator) -> None:
    points0, points1, true = plane(rng)
    points0[100], points1[150] = np.nan, np.inf
    estimate = estimate_homography(points0, points1)
    assert corner_error(estimate.model, H_TRUE, 640, 480) < 0.3
    assert not estimate.inliers[[100, 150]].any()
    assert estimate.inliers[true].sum() > 110


def test_tensors_and_lists_are_accepted(rng: np.random.Generator) -> None:
    points0, points1, _ = plane(rng)
    from_arrays = estimate_homography(points0, points1)
    from_tensors = estimate_homography(torch.from_numpy(points0).requires_grad_(), torch.from_numpy(points1))
    np.testing.assert_array_equal(from_arrays.model, from_tensors.model)
    assert estimate_homography(points0.tolist(), points1.tolist()).inlier_count == from_arrays.inlier_count


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="expected"):
        estimate_homography(np.zeros((5, 2)), np.zeros((4, 2)))
    with pytest.raises(InputError, match="expected"):
        estimate_absolute_pose(np.zeros((5, 2)), np.zeros((5, 2)), CAMERA)
    with pytest.raises(InputError, match="max_error_px"):
        estimate_homography(
            np.random.default_rng(0).random((5, 2)), np.random.default_rng(1).random((5, 2)), max_error_px=0
        )


def test_minimum_of_true_points_is_enough(rng: np.random.Generator) -> None:
    points, T_cam_world, _, _, _ = scene(rng)
    pixels = CAMERA.project(points @ T_cam_world[:3, :3].T + T_cam_world[:3, 3])
    pose = estimate_absolute_pose(points[:4], pixels[:4], CAMERA)
    assert pose.model is not None
    np.testing.assert_allclose(pose.model, T_cam_world, atol=1e-6)
    assert pose.inliers.all()
    corners = np.array([[0, 0], [600, 0], [600, 400], [0, 400.0]])
    homography = estimate_homography(corners, warp_points(H_TRUE, corners))
    assert homography.model is not None
    np.testing.assert_allclose(homography.model, H_TRUE, atol=1e-6)
