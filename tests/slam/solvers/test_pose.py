"""Pose-only refinement and the depth model behind it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semkey.errors import InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import compose, inverse, rotation_angle_deg, se3_exp, se3_log, transform_points
from semkey.matching.keypoint_noise import isotropic_covariances
from semkey.slam.frames.depth import depth_sigma, sample_depth
from semkey.slam.solvers.pose import (
    PoseObservations,
    PosePrior,
    cauchy,
    huber,
    pose_covariance,
    refine_pose,
    residuals_and_jacobian,
)

CAMERA = PinholeCamera(fx=525.0, fy=525.0, cx=319.5, cy=239.5, width=640, height=480)
TRUE_POSE = se3_exp([0.1, -0.2, 0.3, 0.05, -0.1, 0.2])


def observe(rng: np.random.Generator, count: int = 60, pixel_noise: float = 0.0, depth_noise: float = 0.0):
    keypoints = rng.uniform([0, 0], [639, 479], (count, 2))
    depth = rng.uniform(0.8, 4.0, count)
    points_world = transform_points(inverse(TRUE_POSE), CAMERA.backproject(keypoints, depth))
    return PoseObservations(
        points_world=points_world,
        keypoints=keypoints + rng.normal(0, 1, (count, 2)) * pixel_noise,
        covariances=isotropic_covariances(count, 1.0),
        depth=depth + rng.normal(0, 1, count) * depth_sigma(depth) * depth_noise,
        depth_sigma=depth_sigma(depth),
        weights=np.ones(count),
    )


def pose_error(pose: np.ndarray) -> tuple[float, float]:
    difference = compose(pose, inverse(TRUE_POSE))
    return float(np.linalg.norm(difference[:3, 3])), rotation_angle_deg(difference)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_jacobian_matches_finite_differences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    observations = observe(rng, 10)
    observations = replace(observations, depth=np.where(np.arange(10) % 3 == 0, 0.0, observations.depth))
    roots = rng.normal(size=(10, 2, 2))
    observations = replace(observations, covariances=roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(2))
    pose = compose(se3_exp(rng.normal(0, 0.05, 6)), TRUE_POSE)
    _, jacobian = residuals_and_jacobian(pose, observations, CAMERA)
    step = 1e-6
    for k in range(6):
        xi = np.zeros(6)
        xi[k] = step
        ahead, _ = residuals_and_jacobian(compose(se3_exp(xi), pose), observations, CAMERA)
        behind, _ = residuals_and_jacobian(compose(se3_exp(-xi), pose), observations, CAMERA)
        np.testing.assert_allclose(jacobian[:, :, k], (ahead - behind) / (2 * step), rtol=1e-4, atol=1e-2)
    assert not jacobian[::3, 2].any(), "no depth measured, no depth derivative"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**31))
def test_recovers_the_pose_exactly_without_noise(seed: int) -> None:
    rng = np.random.default_rng(seed)
    start = compose(se3_exp(rng.uniform(-0.1, 0.1, 6)), TRUE_POSE)
    refined = refine_pose(start, observe(rng), CAMERA, max_iterations=50)
    np.testing.assert_allclose(refined.T_cam_world, TRUE_POSE, atol=1e-6)
    assert refined.inliers.all()


def test_covariance_predicts_the_error(rng: np.random.Generator) -> None:
    normalised = []
    for _ in range(60):
        refined = refine_pose(TRUE_POSE, observe(rng, 80, pixel_noise=1.0, depth_noise=1.0), CAMERA)
        error = se3_log(compose(refined.T_cam_world, inverse(TRUE_POSE)))
        normalised.append(error @ refined.information @ error)
    # Chi square with six degrees of freedom, mean 6; the kernels' weights leave it a little off.
    assert 4.0 < np.mean(normalised) < 8.5


def test_a_third_of_outliers_hardly_moves_it(rng: np.random.Generator) -> None:
    observations = observe(rng, 90, pixel_noise=0.5)
    keypoints = observations.keypoints.copy()
    keypoints[:30] += rng.uniform(15, 40, (30, 2)) * rng.choice([-1, 1], (30, 2))
    depth = observations.depth.copy()
    depth[30:60] *= 1.5
    refined = refine_pose(TRUE_POSE, replace(observations, keypoints=keypoints, depth=depth), CAMERA)
    metres, degrees = pose_error(refined.T_cam_world)
    assert metres < 0.02
    assert degrees < 0.5
    assert not refined.inliers[:60].any(), "neither a wrong pixel nor a wrong depth is an inlier"
    assert refined.inliers[60:].mean() > 0.9


def test_weights_matter(rng: np.random.Generator) -> None:
    """Two halves of the observations hold two poses; whichever has the weight wins."""
    observations = observe(rng, 60)
    keypoints = observations.keypoints.copy()
    keypoints[:30, 0] += 2.0
    observations = replace(observations, keypoints=keypoints)
    low_first = np.where(np.arange(60) < 30, 0.01, 1.0)
    good = refine_pose(TRUE_POSE, replace(observations, weights=low_first), CAMERA)
    bad = refine_pose(TRUE_POSE, replace(observations, weights=1.01 - low_first), CAMERA)
    assert pose_error(good.T_cam_world)[1] < 0.01
    assert pose_error(bad.T_cam_world)[1] > 0.1
    without = refine_pose(TRUE_POSE, replace(observations, weights=(np.arange(60) >= 30).astype(float)), CAMERA)
    np.testing.assert_allclose(without.T_cam_world, TRUE_POSE, atol=1e-9)


def test_depth_residuals_help_along_the_optical_axis(rng: np.random.Generator) -> None:
    with_depth, without_depth = [], []
    for _ in range(20):
        observations = observe(rng, 30, pixel_noise=1.0, depth_noise=1.0)
        with_depth.append(pose_error(refine_pose(TRUE_POSE, observations, CAMERA).T_cam_world)[0])
        blind = replace(observations, depth=np.zeros(30))
        without_depth.append(pose_error(refine_pose(TRUE_POSE, blind, CAMERA).T_cam_world)[0])
    assert np.mean(with_depth) < 0.8 * np.mean(without_depth)


def test_prior_decides_only_where_observations_do_not(rng: np.random.Generator) -> None:
    """Far points say nothing about translation; the prior does, and leaves the rotation alone."""
    expected = compose(se3_exp([0.01, -0.01, 0.02, 0.05, 0.0, 0.0]), TRUE_POSE)
    prior = PosePrior(T_cam_world=expected, information=np.eye(6))
    near = refine_pose(TRUE_POSE, observe(rng, 60), CAMERA, prior=prior)
    assert pose_error(near.T_cam_world)[0] < 1e-4

    keypoints = rng.uniform([0, 0], [639, 479], (60, 2))
    far_points = transform_points(inverse(TRUE_POSE), CAMERA.backproject(keypoints, np.full(60, 1e5)))
    far = replace(observe(rng, 60), points_world=far_points, keypoints=keypoints, depth=np.zeros(60))
    refined = refine_pose(TRUE_POSE, far, CAMERA, prior=prior, max_iterations=50)
    assert pose_error(refined.T_cam_world)[1] < 0.01
    np.testing.assert_allclose(
        compose(refined.T_cam_world, inverse(TRUE_POSE))[:3, 3],
        compose(expected, inverse(TRUE_POSE))[:3, 3],
        atol=0.002,
    )


def test_whitened_residuals_have_the_mahalanobis_norm(rng: np.random.Generator) -> None:
    roots = rng.normal(size=(30, 2, 2))
    covariances = roots @ roots.transpose(0, 2, 1) + 0.05 * np.eye(2)
    observations = replace(observe(rng, 30, pixel_noise=2.0), covariances=covariances)
    residuals, _ = residuals_and_jacobian(TRUE_POSE, observations, CAMERA)
    points = transform_points(TRUE_POSE, observations.points_world)
    error = CAMERA.project(points) - observations.keypoints
    expected = np.einsum("oi,oij,oj->o", error, np.linalg.inv(covariances), error)
    np.testing.assert_allclose(np.square(residuals[:, :2]).sum(axis=1), expected)


def test_depths_are_judged_by_the_disparity_that_they_are_from(rng: np.random.Generator) -> None:
    """Far points, a pixel and a half too much or too little of six: as surprising either way."""
    observations = observe(rng, 2)
    z = transform_points(TRUE_POSE, observations.points_world)[:, 2]
    disparity = 6.0 + np.array([1.5, -1.5])
    measured = z * 6.0 / disparity
    observations = replace(observations, depth=measured, depth_sigma=0.5 * measured / disparity)
    residuals, _ = residuals_and_jacobian(TRUE_POSE, observations, CAMERA)
    np.testing.assert_allclose(residuals[:, 2], [3.0, -3.0], rtol=1e-9)


def test_sliding_along_edges_does_not_move_the_pose(rng: np.random.Generator) -> None:
    """Edges of many directions, and every keypoint a pixel or two on along its edge: each is a point on a line."""
    count = 120
    observations = replace(observe(rng, count), depth=np.zeros(count))
    angle = rng.uniform(0, np.pi, count)
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    # Keypoints slide to the right on their edges, as they do when all are drawn to the same side of a pixel grid.
    along *= np.sign(along[:, :1])
    keypoints = observations.keypoints + along * rng.uniform(0.5, 2.0, (count, 1)) + rng.normal(0, 0.1, (count, 2))
    edges = along[:, :, None] * along[:, None, :] * 2.0**2 + 0.1**2 * np.eye(2)
    slid = replace(observations, keypoints=keypoints)
    isotropic = refine_pose(TRUE_POSE, slid, CAMERA)
    anisotropic = refine_pose(TRUE_POSE, replace(slid, covariances=edges), CAMERA)
    assert pose_error(isotropic.T_cam_world)[1] > 0.05
    assert pose_error(anisotropic.T_cam_world)[1] < 0.2 * pose_error(isotropic.T_cam_world)[1]
    assert pose_error(anisotropic.T_cam_world)[0] < 0.3 * pose_error(isotropic.T_cam_world)[0]


def test_a_gross_depth_error_has_lost_its_pull() -> None:
    """Depths take a Cauchy kernel: with a Huber kernel a quarter of wrong depths would move the pose by centimetres."""
    rng = np.random.default_rng(3)
    observations = observe(rng, 80, pixel_noise=0.5, depth_noise=1.0)
    depth = observations.depth.copy()
    depth[:20] += 2.0
    wrong = pose_error(refine_pose(TRUE_POSE, replace(observations, depth=depth), CAMERA).T_cam_world)[0]
    right = pose_error(refine_pose(TRUE_POSE, observations, CAMERA).T_cam_world)[0]
    assert wrong < right + 0.0005


def test_the_information_is_that_of_the_linear_problem(rng: np.random.Generator) -> None:
    """Without gross errors it is the sum of ``J^T C^-1 J`` of all measurements, and of the prior."""
    roots = rng.normal(size=(50, 2, 2))
    covariances = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(2)
    observations = replace(observe(rng, 50), covariances=covariances)
    expected = np.zeros((6, 6))
    step = 1e-6
    jacobian = np.zeros((50, 3, 6))
    for k, xi in enumerate(step * np.eye(6)):
        ahead = transform_points(compose(se3_exp(xi), TRUE_POSE), observations.points_world)
        behind = transform_points(compose(se3_exp(-xi), TRUE_POSE), observations.points_world)
        jacobian[:, :2, k] = (CAMERA.project(ahead) - CAMERA.project(behind)) / (2 * step)
        jacobian[:, 2, k] = (ahead[:, 2] - behind[:, 2]) / (2 * step)
    for row, covariance, sigma in zip(jacobian, covariances, observations.depth_sigma, strict=True):
        expected += row[:2].T @ np.linalg.inv(covariance) @ row[:2] + np.outer(row[2], row[2]) / sigma**2
    refined = refine_pose(TRUE_POSE, observations, CAMERA)
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    np.testing.assert_allclose(refined.information / scale, expected / scale, atol=1e-5)

    information = np.diag([1e6, 2e6, 3e6, 4e6, 5e6, 6e6])
    prior = PosePrior(T_cam_world=TRUE_POSE, information=information)
    with_prior = refine_pose(TRUE_POSE, observations, CAMERA, prior=prior)
    np.testing.assert_allclose(with_prior.information - refined.information, information, atol=1.0)


def test_the_covariance_is_true_under_anisotropic_noise() -> None:
    """Normalised estimation errors squared of 200 poses have mean 6, or a fifth less."""
    rng = np.random.default_rng(8)
    normalised = []
    for _ in range(200):
        observations = observe(rng, 60, depth_noise=1.0)
        roots = rng.normal(size=(60, 2, 2))
        covariances = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(2)
        noise = np.einsum("oij,oj->oi", np.linalg.cholesky(covariances), rng.normal(size=(60, 2)))
        observations = replace(observations, keypoints=observations.keypoints + noise, covariances=covariances)
        refined = refine_pose(TRUE_POSE, observations, CAMERA)
        error = se3_log(compose(refined.T_cam_world, inverse(TRUE_POSE)))
        normalised.append(error @ np.linalg.inv(pose_covariance(refined.information, refined.scatter)) @ error)
        assert 0.7 < refined.scatter < 1.3
    # Of Gaussian residuals the Cauchy kernel counts four fifths. The mean of 200 has a deviation of sqrt(12 / 200).
    assert 0.8 * 6 - 0.8 < np.mean(normalised) < 6 + 0.8
    assert 0.9 < np.mean(np.array(normalised) < 12.59) <= 1.0


def test_noise_that_is_larger_than_claimed_shows_in_the_covariance() -> None:
    rng = np.random.default_rng(5)
    normalised = []
    for _ in range(60):
        refined = refine_pose(TRUE_POSE, observe(rng, 80, pixel_noise=2.0, depth_noise=2.0), CAMERA)
        error = se3_log(compose(refined.T_cam_world, inverse(TRUE_POSE)))
        normalised.append(error @ np.linalg.inv(pose_covariance(refined.information, refined.scatter)) @ error)
    assert np.mean(normalised) < 14
    refined = refine_pose(TRUE_POSE, observe(rng, 80), CAMERA)
    np.testing.assert_allclose(pose_covariance(refined.information, 0.2), np.linalg.inv(refined.information), rtol=1e-6)
    assert np.isfinite(pose_covariance(np.zeros((6, 6)), 1.0)).all()


def test_points_behind_the_camera_are_outliers_not_crashes(rng: np.random.Generator) -> None:
    observations = observe(rng, 20)
    points = observations.points_world.copy()
    points[:3] = transform_points(inverse(TRUE_POSE), [[0.1, 0.1, -1.0]] * 3)
    refined = refine_pose(TRUE_POSE, replace(observations, points_world=points), CAMERA)
    assert np.isfinite(refined.T_cam_world).all()
    assert not refined.inliers[:3].any()


def test_too_few_observations_and_wrong_shapes_are_refused(rng: np.random.Generator) -> None:
    with pytest.raises(InputError, match="three"):
        refine_pose(TRUE_POSE, observe(rng, 2), CAMERA)
    with pytest.raises(InputError, match="weights"):
        replace(observe(rng, 5), weights=np.ones(4))


@pytest.mark.parametrize("kernel", [huber, cauchy])
def test_kernel_weight_is_the_derivative_of_its_cost(kernel) -> None:
    norm = np.linspace(0.01, 10, 200)
    _, weight = kernel(norm, 2.0)
    slope = (kernel(norm + 1e-6, 2.0)[0] - kernel(norm - 1e-6, 2.0)[0]) / 2e-6
    np.testing.assert_allclose(slope, weight * norm, atol=1e-6)


def test_depth_is_bilinear_on_slopes_and_absent_on_edges_and_in_holes() -> None:
    depth = np.full((20, 30), 2.0, dtype=np.float32)
    depth += np.arange(30, dtype=np.float32) * 0.01
    assert sample_depth(depth, [[4.25, 7.5]])[0] == pytest.approx(2.0425)
    depth[:, 15:] += 1.0
    depth[5, 5] = 0.0
    depth[10, 10] = np.nan
    depth[12:15, 2:5] = 0.0
    sampled = sample_depth(
        depth, [[14.5, 3.0], [5.0, 5.0], [5.4, 5.0], [9.6, 10.0], [3.2, 13.1], [-3, 2], [40, 2], [29.4, 19.2]]
    )
    assert sampled[0] == 0, "on the step"
    assert sampled[1] == pytest.approx(2.06), "the nearest neighbour of a hole"
    assert sampled[2] == pytest.approx(2.06)
    assert sampled[3] == pytest.approx(2.09)
    assert sampled[4] == 0, "inside a hole"
    assert sampled[5:7].tolist() == [0, 0], "outside"
    assert sampled[7] == pytest.approx(3.29), "half a pixel beyond the last centre still belongs to the image"
    assert sample_depth(depth, [[4, 4]], max_depth=1.0)[0] == 0
    assert sample_depth(depth, np.zeros((0, 2))).shape == (0,)
    assert sample_depth(np.ones((1, 1), dtype=np.float32), [[0, 0]])[0] == 1
    with pytest.raises(InputError, match="depth"):
        sample_depth(np.ones((2, 2, 3), dtype=np.float32), [[0, 0]])


def test_depth_noise_grows_with_distance() -> None:
    assert depth_sigma(0.4) == pytest.approx(0.0012)
    assert depth_sigma(4.0) == pytest.approx(0.0258, abs=1e-4)
