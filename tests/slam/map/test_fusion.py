"""What a landmark's uncertainty does to what is expected of its sightings, and sightings to the landmark."""

from __future__ import annotations

import numpy as np

from semkey.geometry.transforms import inverse, se3_exp, transform_points
from semkey.matching.keypoint_noise import isotropic_covariances
from semkey.slam.map.fusion import point_information, predicted_residual_noise
from semkey.slam.map.landmarks import LandmarkMap
from synthetic_world import CAMERA

POSE = se3_exp([0.4, -0.2, 0.1, 0.1, -0.3, 0.2])


def test_what_is_predicted_is_what_is_seen(rng: np.random.Generator) -> None:
    """Landmarks drawn from their uncertainty, seen with noise, scatter as predicted, in the image and in depth."""
    root = 0.02 * rng.normal(size=(3, 3))
    covariance = root @ root.T + 1e-5 * np.eye(3)
    point = transform_points(POSE, np.array([[0.3, -0.2, 2.0]]))
    keypoint = np.array([[[0.5, 0.2], [0.2, 0.3]]])
    landmarks = LandmarkMap(4)
    ids = landmarks.add(
        point, np.asarray([np.linalg.inv(covariance)], dtype=np.float64), np.zeros((1, 4), np.float32), np.zeros(3), 0
    )
    pixel, depth = predicted_residual_noise(landmarks, ids, POSE, CAMERA, keypoint, np.array([0.01]))

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
