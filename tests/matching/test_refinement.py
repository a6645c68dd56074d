"""Two-view models refined by covariances: derivatives, known answers, and keypoints that slide along edges."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import compose, rotation_angle_deg, se3_exp, transform_points
from semkey.matching.keypoint_noise import isotropic_covariances
from semkey.matching.refinement import refine_homography, refine_relative_pose
from semkey.matching.robust import estimate_homography, estimate_relative_pose

Array = NDArray[np.float64]
CAMERA = PinholeCamera(fx=525.0, fy=520.0, cx=319.5, cy=239.5, width=640, height=480)
COUNT = 200
H = np.array([[1.1, 0.05, 20.0], [-0.03, 0.95, 10.0], [1e-4, -5e-5, 1.0]])


def motion() -> Array:
    T = se3_exp([0.3, 0.05, 0.1, 0.02, 0.1, -0.05])
    T[:3, 3] /= np.linalg.norm(T[:3, 3])
    return T


def two_views(rng: np.random.Generator) -> tuple[Array, Array]:
    points = CAMERA.backproject(rng.uniform([0, 0], [639, 479], (COUNT, 2)), rng.uniform(2, 6, COUNT))
    return CAMERA.project(points), CAMERA.project(transform_points(motion(), points))


def slid(rng: np.random.Generator, seen: Array) -> tuple[Array, Array]:
    """Keypoints moved to the right along edges of any direction, and the covariances that say so."""
    angle = rng.uniform(-np.pi / 2, np.pi / 2, len(seen))
    along = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    moved = seen + along * rng.uniform(0.3, 2.0, (len(seen), 1)) + rng.normal(0, 0.1, seen.shape)
    return moved, along[:, :, None] * along[:, None, :] * 2.0**2 + 0.1**2 * np.eye(2)


def mapped(points: Array) -> Array:
    h = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ H.T
    return h[:, :2] / h[:, 2:]


def pose_errors(T: Array) -> tuple[float, float]:
    cosine = float(T[:3, 3] @ motion()[:3, 3])
    return rotation_angle_deg(T[:3, :3] @ motion()[:3, :3].T), float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def test_without_noise_both_models_are_exact(rng: np.random.Generator) -> None:
    seen0, seen1 = two_views(rng)
    roots = rng.normal(size=(COUNT, 2, 2))
    noise = roots @ roots.transpose(0, 2, 1) + 0.1 * np.eye(2)
    start = compose(se3_exp([0.02, 0.05, 0.0, 0.01, 0.01, 0.0]), motion())
    found = refine_relative_pose(start, seen0, seen1, CAMERA, CAMERA, noise, noise)
    np.testing.assert_allclose(found, motion(), atol=1e-8)
    disturbed = H + np.array([[0.01, 0, 3.0], [0, 0.01, -2.0], [1e-5, 0, 0]])
    model = refine_homography(disturbed, seen0, mapped(seen0), noise, noise)
    np.testing.assert_allclose(model / model[2, 2], H, atol=1e-7)


def test_sliding_along_edges_does_not_turn_the_pose(rng: np.random.Generator) -> None:
    seen0, seen1 = two_views(rng)
    seen1, edges = slid(rng, seen1)
    exact = isotropic_covariances(COUNT, 0.1)
    plain = estimate_relative_pose(seen0, seen1, CAMERA, CAMERA)
    refined = estimate_relative_pose(seen0, seen1, CAMERA, CAMERA, covariances=(exact, edges))
    assert plain.model is not None
    assert refined.model is not None
    before, after = pose_errors(plain.model), pose_errors(refined.model)
    assert after[0] < 0.3 * before[0]
    assert after[1] < 0.15


def test_sliding_along_edges_does_not_bend_the_homography(rng: np.random.Generator) -> None:
    seen0 = rng.uniform([0, 0], [639, 479], (COUNT, 2))
    seen1, edges = slid(rng, mapped(seen0))
    exact = isotropic_covariances(COUNT, 0.1)
    corners = np.array([[0.0, 0.0], [639.0, 0.0], [639.0, 479.0], [0.0, 479.0]])

    def error(covariances: tuple[Array, Array] | None) -> float:
        model = estimate_homography(seen0, seen1, covariances=covariances).model
        assert model is not None
        h = np.concatenate([corners, np.ones((4, 1))], axis=1) @ model.T
        return float(np.linalg.norm(h[:, :2] / h[:, 2:] - mapped(corners), axis=1).mean())

    assert error((exact, edges)) < 0.3 * error(None)


def test_wrong_matches_have_no_say(rng: np.random.Generator) -> None:
    seen0, seen1 = two_views(rng)
    seen1[:60] = rng.uniform([0, 0], [639, 479], (60, 2))
    noise = isotropic_covariances(COUNT, 0.5)
    found = estimate_relative_pose(seen0, seen1, CAMERA, CAMERA, covariances=(noise, noise))
    assert found.model is not None
    assert max(pose_errors(found.model)) < 0.05


def test_covariances_of_another_number_are_refused(rng: np.random.Generator) -> None:
    seen0, seen1 = two_views(rng)
    noise = isotropic_covariances(COUNT, 0.5)
    with pytest.raises(InputError, match=r"covariances.*\(200, 2, 2\)"):
        estimate_relative_pose(seen0, seen1, CAMERA, CAMERA, covariances=(noise, noise[:5]))
