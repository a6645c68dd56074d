"""Landmarks: which can be seen from where, which are dropped, and how they get more certain."""

from __future__ import annotations

import numpy as np
import pytest

from semkey.geometry.transforms import se3_exp
from semkey.slam.map.landmarks import LandmarkMap
from synthetic_world import CAMERA


def three_landmarks() -> tuple[LandmarkMap, np.ndarray]:
    landmarks = LandmarkMap()
    points = np.array([[0.0, 0, 2], [0.1, 0, 2], [0.2, 0, 2]])
    information = np.tile(np.diag([1e4, 1e4, 1e2]), (3, 1, 1))
    return landmarks, landmarks.add(points, information, np.zeros((3, 4), np.float32), np.zeros(3), 0)


def test_never_found_again_and_never_seen_by_a_second_keyframe() -> None:
    landmarks, ids = three_landmarks()
    rarely: list[int] = []
    for _ in range(10):
        rarely += landmarks.count_views(ids[landmarks.alive], ids[:2]).tolist()
        landmarks.remove(np.intersect1d(rarely, landmarks.ids).astype(np.int64))
    assert rarely == [2]
    landmarks.describe(ids[:1], np.ones((1, 4), np.float32), np.zeros(3))
    assert landmarks.failed_probation(2).tolist() == []
    assert landmarks.failed_probation(3).tolist() == [1]
    landmarks.remove(ids[1:2])
    assert landmarks.visible_from(ids, np.eye(4), CAMERA)[0].tolist() == [0]


def test_visible_only_from_similar_viewpoints() -> None:
    landmarks, ids = three_landmarks()
    visible, pixels = landmarks.visible_from(ids, np.eye(4), CAMERA)
    assert visible.tolist() == [0, 1, 2]
    np.testing.assert_allclose(pixels[:, 0], CAMERA.cx + CAMERA.fx * np.array([0, 0.05, 0.1]))
    unrecognisable = {
        "from behind": [0, 0, 4, 0, np.pi, 0],
        "from far away": [0, 0, -3, 0, 0, 0],
        "from close by": [0, 0, 1.2, 0, 0, 0],
        "out of the image": [0, 0, 0, 0, 1.0, 0],
    }
    for name, xi in unrecognisable.items():
        assert len(landmarks.visible_from(ids, se3_exp(xi), CAMERA)[0]) == 0, name


def test_a_measurement_moves_a_landmark_by_what_is_known_of_both() -> None:
    """Two measurements of x with equal information meet half-way; of z, unmeasured, nothing changes."""
    landmarks, ids = three_landmarks()
    jacobian = np.diag([100.0, 0, 0])[None]
    landmarks.fuse(ids[:1], jacobian, np.array([[100.0 * -0.02, 0, 0]]))
    assert landmarks.positions[0] == pytest.approx([0.01, 0, 2])
    np.testing.assert_allclose(landmarks.information[0], np.diag([2e4, 1e4, 1e2]))
    np.testing.assert_allclose(landmarks.positions[1], [0.1, 0, 2])


def test_ids_hold_while_the_map_grows() -> None:
    landmarks, _ = three_landmarks()
    for k in range(50):
        points = np.full((100, 3), float(k))
        ids = landmarks.add(points, np.tile(np.eye(3), (100, 1, 1)), np.zeros((100, 4), np.float32), np.zeros(3), k)
        assert (landmarks.positions[ids] == k).all()
    assert len(landmarks) == 5003
    np.testing.assert_allclose(landmarks.positions[2], [0.2, 0, 2])
