"""What a sighting says about a landmark, and a landmark about its next sighting: on the optical axis, by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from semkey.geometry.transforms import inverse, se3_exp, transform_points
from semkey.matching.keypoint_noise import isotropic_covariances
from semkey.model.features import Features
from semkey.slam.frames.frame import ObservedFrame, observe_keypoints
from semkey.slam.map.association import Associations
from semkey.slam.map.fusion import fuse_observations, point_information, predicted_residual_noise
from semkey.slam.map.landmarks import LandmarkMap
from synthetic_world import CAMERA, HEIGHT, WIDTH

Array = NDArray[np.float64]
CENTRE = np.array([[CAMERA.cx, CAMERA.cy]])
POSE = se3_exp([0.3, -0.2, 0.5, 0.2, -0.4, 0.1])
NO_TURN = np.eye(4)


def landmarks_at(points: Array, covariances: Array) -> LandmarkMap:
    landmarks = LandmarkMap()
    count = len(points)
    landmarks.add(
        points, np.asarray(np.linalg.inv(covariances), np.float64), np.zeros((count, 4), np.float32), np.zeros(3), 0
    )
    return landmarks


def in_world(pose: Array, covariance_cam: Array) -> Array:
    return pose[:3, :3] @ covariance_cam @ pose[:3, :3].T


def sighting(pixels: Array, depth: Array, sigma: Array, reliability: float = 1.0) -> ObservedFrame:
    count = len(pixels)
    features = Features(
        keypoints=torch.from_numpy(pixels).float(),
        scores=torch.ones(count),
        reliability=torch.full((count,), reliability),
        descriptors=torch.zeros(count, 4),
        global_descriptor=torch.zeros(0),
        image_size=(WIDTH, HEIGHT),
    )
    return observe_keypoints(0, 0.0, features, depth, sigma, isotropic_covariances(count, 1.0))


def all_pairs(count: int, similarity: float = 1.0) -> Associations:
    every = np.arange(count)
    return Associations(landmark_ids=every, keypoint_indices=every, similarity=np.full(count, similarity))


def sigmas(landmarks: LandmarkMap, pose: Array, depth_sigma: float, *, pixel_sigma: float) -> tuple[Array, Array]:
    """Of all landmarks; of one pixel and one depth residual each."""
    every = np.arange(len(landmarks))
    measured = np.full(len(landmarks), depth_sigma)
    keypoints = isotropic_covariances(len(landmarks), pixel_sigma)
    pixel, depth = predicted_residual_noise(
        landmarks, every, pose, CAMERA, keypoints, np.zeros(len(landmarks)), measured
    )
    return np.sqrt(0.5 * np.trace(pixel, axis1=1, axis2=2)), depth


# -- the next sighting ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pose", [NO_TURN, POSE], ids=["at the origin", "anywhere"])
def test_predicted_noise_is_that_of_the_measurement_and_of_the_landmark_together(pose: Array) -> None:
    """At 2 m, 1 cm aside is 260 * 0.01 / 2 = 1.3 px; a landmark that is known exactly adds nothing."""
    point = transform_points(pose, np.array([[0.0, 0.0, 2.0]]))
    uncertain = np.diag([0.01**2, 0.01**2, 0.04**2])
    covariances = np.stack([in_world(pose, uncertain), 1e-16 * np.eye(3)])
    pixel, depth = sigmas(landmarks_at(np.repeat(point, 2, axis=0), covariances), pose, 0.03, pixel_sigma=0.5)
    np.testing.assert_allclose(pixel, [np.hypot(0.5, 1.3), 0.5], rtol=1e-6)
    np.testing.assert_allclose(depth, [0.05, 0.03], rtol=1e-6)


def test_predicted_noise_is_what_sampled_landmarks_show(rng: np.random.Generator) -> None:
    """Off the axis depth moves the pixel too: the spread of projections of samples, the mean of both directions."""
    point = np.array([0.7, -0.5, 1.6])
    root = np.array([[0.02, 0.0, 0.0], [0.01, 0.015, 0.0], [-0.01, 0.02, 0.05]])
    covariance = root @ root.T
    landmarks = landmarks_at(transform_points(POSE, point), in_world(POSE, covariance)[None])
    pixel, depth = sigmas(landmarks, POSE, 1e-9, pixel_sigma=1e-9)
    samples = point + rng.normal(size=(200_000, 3)) @ root.T
    spread = CAMERA.project(samples).std(axis=0)
    assert pixel[0] == pytest.approx(np.sqrt(0.5 * (spread**2).sum()), rel=0.02)
    assert depth[0] == pytest.approx(samples[:, 2].std(), rel=0.02)


# -- what a sighting says ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pose", [NO_TURN, POSE], ids=["at the origin", "anywhere"])
def test_a_new_point_is_as_certain_as_its_pixel_and_depth(pose: Array) -> None:
    """At 2 m half a pixel is 0.5 * 2 / 260 m; a weight of a quarter doubles every deviation."""
    point, sigma, weight = np.array([[0.0, 0.0, 2.0]]), np.array([0.03]), np.array([0.25])
    information = point_information(point, sigma, weight, pose, CAMERA, isotropic_covariances(1, 0.5))
    aside = 2 * 0.5 * 2.0 / 260.0
    expected = in_world(pose, np.diag([aside**2, aside**2, 0.06**2]))
    np.testing.assert_allclose(np.linalg.inv(information[0]), expected, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("pose", [NO_TURN, POSE], ids=["at the origin", "anywhere"])
def test_a_landmark_moves_to_the_mean_weighted_by_information(pose: Array) -> None:
    """Known to 4 cm and measured to 3 cm with weight 0.5 * 0.72 = 0.36, that is 5 cm: 16 of 41 parts of the way."""
    point = transform_points(pose, np.array([[0.0, 0.0, 2.0]]))
    landmarks = landmarks_at(point, in_world(pose, np.diag([0.01**2, 0.01**2, 0.04**2]))[None])
    frame = sighting(CENTRE, np.array([2.0041]), np.array([0.03]), reliability=0.5)
    fuse_observations(landmarks, frame, pose, all_pairs(1, 0.72), CAMERA)
    moved = transform_points(inverse(pose), landmarks.positions)[0]
    np.testing.assert_allclose(moved, [0.0, 0.0, 2.0016], atol=1e-5)
    covariance = in_world(inverse(pose), np.linalg.inv(landmarks.information[0]))
    assert covariance[2, 2] == pytest.approx(1 / (1 / 0.04**2 + 1 / 0.05**2), rel=0.01)
    aside = 1 / (1 / 0.01**2 + 0.36 * (260.0 / 2.0) ** 2)
    np.testing.assert_allclose(np.diag(covariance)[:2], aside, rtol=1e-5)


@pytest.mark.parametrize("pose", [NO_TURN, POSE], ids=["at the origin", "anywhere"])
def test_a_point_is_no_surer_than_the_pose_that_it_was_seen_from(pose: Array) -> None:
    """A camera known to 1, 2 and 3 cm and to 5 mrad about y: at 2 m the turn adds 1 cm aside."""
    of_pose = np.diag([0.01**2, 0.02**2, 0.03**2, 0.0, 0.005**2, 0.0])
    point, sigma = np.array([[0.0, 0.0, 2.0]]), np.array([0.04])
    information = point_information(point, sigma, np.ones(1), pose, CAMERA, isotropic_covariances(1, 0.5), of_pose)
    aside = 0.5 * 2.0 / 260.0
    expected = np.diag([aside**2 + 2 * 0.01**2, aside**2 + 0.02**2, 0.05**2])
    np.testing.assert_allclose(np.linalg.inv(information[0]), in_world(pose, expected), rtol=1e-5, atol=1e-12)

    landmarks = landmarks_at(transform_points(pose, point), in_world(pose, 0.05**2 * np.eye(3))[None])
    frame = sighting(CENTRE, np.array([2.03]), np.array([0.04]), reliability=1.0)
    fuse_observations(landmarks, frame, pose, all_pairs(1, 1.0), CAMERA, of_pose)
    moved = transform_points(inverse(pose), landmarks.positions)[0]
    # As far from either, which are equally sure; depth is measured as its inverse, which bends a little.
    np.testing.assert_allclose(moved, [0.0, 0.0, 2.015], atol=3e-4)
    covariance = in_world(inverse(pose), np.linalg.inv(landmarks.information[0]))
    assert covariance[2, 2] == pytest.approx(0.05**2 / 2, rel=0.02)


def test_a_residual_of_many_deviations_does_not_drag_a_landmark_along() -> None:
    """Depth 0.5 m off at 3 cm, an edge seen on the wrong side: the pixel counts as before, the depth not at all."""
    points = np.array([[0.0, 0.0, 2.0], [0.0, 0.0, 2.0]])
    covariance = np.diag([0.01**2, 0.01**2, 0.04**2])
    landmarks = landmarks_at(points, np.stack([covariance, covariance]))
    frame = sighting(np.repeat(CENTRE, 2, axis=0), np.array([2.5, 2.0]), np.array([0.03, 0.03]))
    fuse_observations(landmarks, frame, NO_TURN, all_pairs(2), CAMERA)
    np.testing.assert_allclose(landmarks.positions, points, atol=1e-9)
    of_depth = landmarks.information[:, 2, 2]
    np.testing.assert_allclose(of_depth, [1 / 0.04**2, 1 / 0.04**2 + 1 / 0.03**2], rtol=1e-6)
    np.testing.assert_allclose(landmarks.information[0, 0, 0], landmarks.information[1, 0, 0])


def test_without_depth_only_the_pixel_counts() -> None:
    landmarks = landmarks_at(np.array([[0.0, 0.0, 2.0]]), np.diag([0.01**2, 0.01**2, 0.04**2])[None])
    before = landmarks.information.copy()
    fuse_observations(
        landmarks,
        sighting(CENTRE + np.array([1.0, 0.0]), np.zeros(1), np.ones(1)),
        NO_TURN,
        all_pairs(1),
        CAMERA,
    )
    # One pixel at 2 m is 1 / 130 m, measured to as much, and known to 1 cm.
    share = 130.0**2 / (130.0**2 + 100.0**2)
    np.testing.assert_allclose(landmarks.positions[0], [share / 130.0, 0.0, 2.0], atol=1e-9)
    np.testing.assert_allclose(np.diag(landmarks.information[0] - before[0]), [130.0**2, 130.0**2, 0.0], atol=1e-6)


def test_far_points_of_a_pair_lie_where_most_disparities_say(rng: np.random.Generator) -> None:
    """5 px of disparity, each measured to half a pixel: those measured too near are no surer than the others."""
    focal_baseline, count = 100.0, 400
    true = focal_baseline / 5.0
    fused = []
    for _ in range(12):
        measured = focal_baseline / (5.0 + 0.5 * np.clip(rng.normal(size=count), -2.5, 2.5))
        sigma = 0.5 * measured**2 / focal_baseline
        start = np.diag([0.01**2, 0.01**2, sigma[0] ** 2])[None]
        landmarks = landmarks_at(np.array([[0.0, 0.0, measured[0]]]), start)
        for z, deviation in zip(measured[1:], sigma[1:], strict=True):
            frame = sighting(CENTRE, np.array([z]), np.array([deviation]))
            fuse_observations(landmarks, frame, NO_TURN, all_pairs(1), CAMERA)
        fused.append(landmarks.positions[0, 2])
    # In depth they would lie 3 % nearer, and never farther.
    assert abs(np.mean(fused) / true - 1) < 0.015


def test_what_a_landmark_adds_is_compared_where_the_measurement_is() -> None:
    """Four centimetres at 2 m are an inverse depth of 0.01: at 4 m those are 16 cm."""
    landmarks = landmarks_at(np.array([[0.0, 0.0, 2.0]]), np.diag([1e-8, 1e-8, 0.04**2])[None])
    keypoint = isotropic_covariances(1, 1.0)
    _, depth = predicted_residual_noise(
        landmarks, np.zeros(1, np.int64), NO_TURN, CAMERA, keypoint, np.array([4.0]), np.array([0.12])
    )
    np.testing.assert_allclose(depth, 0.2, rtol=1e-6)


# -- covariances ---------------------------------------------------------------------------------------------------


def test_what_is_predicted_is_what_is_seen(rng: np.random.Generator) -> None:
    """Landmarks drawn from their uncertainty, seen with noise, scatter as predicted, in the image and in depth."""
    root = 0.02 * rng.normal(size=(3, 3))
    covariance = root @ root.T + 1e-5 * np.eye(3)
    point = transform_points(POSE, np.array([[0.3, -0.2, 2.0]]))
    keypoint = np.array([[[0.5, 0.2], [0.2, 0.3]]])
    landmarks = LandmarkMap()
    ids = landmarks.add(
        point, np.asarray([np.linalg.inv(covariance)], dtype=np.float64), np.zeros((1, 4), np.float32), np.zeros(3), 0
    )
    pixel, depth = predicted_residual_noise(landmarks, ids, POSE, CAMERA, keypoint, np.zeros(1), np.array([0.01]))

    true = transform_points(inverse(POSE), rng.multivariate_normal(point[0], covariance, 20000))
    seen = CAMERA.project(true) + rng.multivariate_normal(np.zeros(2), keypoint[0], 20000)
    measured = true[:, 2] + rng.normal(0, 0.01, 20000)
    np.testing.assert_allclose(np.cov(seen.T), pixel[0], rtol=0.06, atol=0.05)
    assert abs(np.std(measured) / depth[0] - 1) < 0.03
    assert np.trace(pixel[0]) > 2 * np.trace(keypoint[0]), "the landmark's own uncertainty counts"


def test_a_landmark_on_an_edge_is_uncertain_along_it() -> None:
    edge = np.array([[[4.0, 0.0], [0.0, 0.04]]])
    information = point_information(np.array([[0.1, 0.05, 2.0]]), np.array([0.02]), np.ones(1), np.eye(4), CAMERA, edge)
    covariance = np.linalg.inv(information[0])
    per_pixel = 2.0 / CAMERA.fx
    np.testing.assert_allclose(np.sqrt(covariance[0, 0]), 2.0 * per_pixel, rtol=0.05)
    np.testing.assert_allclose(np.sqrt(covariance[1, 1]), 0.2 * per_pixel, rtol=0.2)
    same = point_information(
        np.array([[0.1, 0.05, 2.0]]), np.array([0.02]), np.ones(1), np.eye(4), CAMERA, isotropic_covariances(1, 2.0)
    )
    assert np.linalg.inv(same[0])[1, 1] > 50 * covariance[1, 1]
