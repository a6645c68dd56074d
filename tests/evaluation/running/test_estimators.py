from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semkey.errors import ConfigError
from semkey.evaluation.running.estimators import (
    HOMOGRAPHY_ESTIMATORS,
    POSE_ESTIMATORS,
    check_estimators,
    homography_dlt,
    homography_opencv,
    pose_opencv,
)
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.homography import corner_error, warp_points
from semkey.metrics.two_view import relative_pose_error

CAMERA0 = PinholeCamera(fx=520.0, fy=510.0, cx=318.0, cy=242.0, width=640, height=480)
CAMERA1 = PinholeCamera(fx=430.0, fy=440.0, cx=290.0, cy=200.0, width=600, height=400)
H_TRUE = np.array([[0.9, 0.1, 20], [-0.05, 1.1, -10], [1e-4, 5e-5, 1]])


def plane(rng: np.random.Generator, outliers: int, noise: float = 0.3) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    points0 = rng.uniform(0, [640, 480], (200, 2))
    points1 = warp_points(H_TRUE, points0) + rng.normal(0, noise, (200, 2))
    points1[:outliers] = rng.uniform(0, [640, 480], (outliers, 2))
    return points0, points1, np.arange(200) >= outliers


def scene(rng: np.random.Generator, outliers: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pixels of two different cameras, and ``T_cam1_cam0``."""
    points = np.stack([rng.uniform(-2, 2, 300), rng.uniform(-1.5, 1.5, 300), rng.uniform(3, 8, 300)], axis=1)
    T = np.eye(4)
    T[:3, :3] = cv2.Rodrigues(np.array([0.02, 0.15, -0.05]))[0]
    T[:3, 3] = [-0.6, 0.1, 0.2]
    pixels0 = CAMERA0.project(points) + rng.normal(0, 0.2, (300, 2))
    pixels1 = CAMERA1.project(points @ T[:3, :3].T + T[:3, 3]) + rng.normal(0, 0.2, (300, 2))
    pixels1[:outliers] = rng.uniform(0, [600, 400], (outliers, 2))
    return pixels0, pixels1, T


@pytest.mark.parametrize("name", ["poselib", "opencv"])
def test_robust_homographies_survive_outliers(name: str, rng: np.random.Generator) -> None:
    points0, points1, true = plane(rng, outliers=90)
    estimate = HOMOGRAPHY_ESTIMATORS[name](points0, points1, np.ones(200), max_error_px=3.0, seed=0)
    assert corner_error(estimate.model, H_TRUE, 640, 480) < 1.0
    assert (estimate.inliers == true).mean() > 0.97


def test_dlt_is_exact_without_noise_and_ruined_by_one_outlier(rng: np.random.Generator) -> None:
    points0, points1, _ = plane(rng, outliers=0, noise=0.0)
    exact = homography_dlt(points0, points1, np.ones(200), max_error_px=3.0, seed=0)
    assert corner_error(exact.model, H_TRUE, 640, 480) < 1e-6
    assert exact.inliers.all()
    points1[0] += 300
    ruined = homography_dlt(points0, points1, np.ones(200), max_error_px=3.0, seed=0)
    assert corner_error(ruined.model, H_TRUE, 640, 480) > 1.0
    weights = np.ones(200)
    weights[0] = 0.0
    saved = homography_dlt(points0, points1, weights, max_error_px=3.0, seed=0)
    assert corner_error(saved.model, H_TRUE, 640, 480) < 1e-6


def test_dlt_from_four_points_goes_through_them() -> None:
    corners = np.array([[0, 0], [639, 0], [639, 479], [0, 479]], dtype=float)
    estimate = homography_dlt(corners, warp_points(H_TRUE, corners), np.full(4, 0.2), max_error_px=3.0, seed=0)
    assert estimate.model is not None
    np.testing.assert_allclose(estimate.model, H_TRUE, atol=1e-8)


def test_dlt_equals_kornia(rng: np.random.Generator) -> None:
    kornia = pytest.importorskip("kornia", reason="kornia comes with the extra 'peers'")
    import torch

    points0, points1, _ = plane(rng, outliers=5)
    weights = rng.uniform(0.2, 1.0, 200)
    theirs = kornia.geometry.homography.find_homography_dlt(
        *(torch.from_numpy(values)[None] for values in (points0, points1, weights)), solver="svd"
    )[0].numpy()
    ours = homography_dlt(points0, points1, weights, max_error_px=3.0, seed=0).model
    assert corner_error(ours, theirs, 640, 480) < 1e-6


def test_opencv_with_seed_0_is_its_own_magsac(rng: np.random.Generator) -> None:
    for outliers in (0, 100, 180):
        points0, points1, _ = plane(rng, outliers, noise=1.0)
        expected, mask = cv2.findHomography(points0, points1, cv2.USAC_MAGSAC, 3.0, maxIters=10_000, confidence=0.9999)
        estimate = homography_opencv(points0, points1, np.ones(200), max_error_px=3.0, seed=0)
        assert estimate.model is not None
        np.testing.assert_allclose(estimate.model, expected)
        np.testing.assert_array_equal(estimate.inliers, mask.ravel() > 0)


@pytest.mark.parametrize("name", POSE_ESTIMATORS)
def test_poses_of_two_different_cameras(name: str, rng: np.random.Generator) -> None:
    pixels0, pixels1, T = scene(rng, outliers=120)
    estimate = POSE_ESTIMATORS[name](pixels0, pixels1, CAMERA0, CAMERA1, max_error_px=1.0, seed=0)
    assert max(relative_pose_error(estimate.model, T)) < 1.0
    assert estimate.inliers[120:].mean() > 0.9
    assert estimate.inliers[:120].mean() < 0.1


@pytest.mark.parametrize("name", HOMOGRAPHY_ESTIMATORS)
@pytest.mark.parametrize("case", ["none", "three", "one place", "line"])
def test_what_determines_no_homography_fails(name: str, case: str) -> None:
    points = {
        "none": np.zeros((0, 2)),
        "three": np.array([[0.0, 0], [10, 0], [0, 10]]),
        "one place": np.full((20, 2), 7.0),
        "line": np.stack([np.arange(20.0), 2 * np.arange(20.0)], axis=1),
    }[case]
    estimate = HOMOGRAPHY_ESTIMATORS[name](points, points, np.ones(len(points)), max_error_px=3.0, seed=0)
    assert estimate.model is None
    assert estimate.inliers.shape == (len(points),)
    assert not estimate.inliers.any()


@pytest.mark.parametrize("name", POSE_ESTIMATORS)
@pytest.mark.parametrize("count", [0, 1, 4])
def test_too_few_matches_give_no_pose(name: str, count: int, rng: np.random.Generator) -> None:
    points = rng.uniform(0, 400, (count, 2))
    estimate = POSE_ESTIMATORS[name](points, points + 3, CAMERA0, CAMERA1, max_error_px=1.0, seed=0)
    assert estimate.model is None
    assert estimate.inliers.shape == (count,)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 12),
    kind=st.sampled_from(["random", "line", "same", "grid", "repeated"]),
)
def test_no_estimator_ever_raises_or_gives_something_not_finite(seed: int, count: int, kind: str) -> None:
    rng = np.random.default_rng(seed)
    points0, points1 = rng.uniform(0, 400, (2, count, 2))
    if kind == "line":
        points0[:, 1] = 3 * points0[:, 0] + 1
    elif kind == "same":
        points1 = points0.copy()
    elif kind == "grid":
        points0, points1 = (np.round(points / 200) * 200 for points in (points0, points1))
    elif kind == "repeated" and count:
        points0[:], points1[:] = points0[0], points1[0]
    for name, solve in HOMOGRAPHY_ESTIMATORS.items():
        estimate = solve(points0, points1, rng.random(count), max_error_px=3.0, seed=0)
        assert estimate.model is None or np.isfinite(estimate.model).all(), name
        assert estimate.inliers.shape == (count,)
    for name, solve in POSE_ESTIMATORS.items():
        estimate = solve(points0, points1, CAMERA0, CAMERA1, max_error_px=1.0, seed=0)
        assert estimate.model is None or np.isfinite(estimate.model).all(), name
        assert estimate.inliers.shape == (count,)


def test_the_same_seed_gives_the_same_pose(rng: np.random.Generator) -> None:
    pixels0, pixels1, _ = scene(rng, outliers=200)
    first, again = (pose_opencv(pixels0, pixels1, CAMERA0, CAMERA1, max_error_px=1.0, seed=5) for _ in range(2))
    assert first.model is not None
    np.testing.assert_array_equal(first.model, again.model)


@pytest.mark.parametrize("names", [[], ["ransac"], ["poselib", "poselib"]])
def test_unknown_estimators_are_named(names: list[str]) -> None:
    with pytest.raises(ConfigError, match="poselib"):
        check_estimators(names, HOMOGRAPHY_ESTIMATORS)
