"""Triangulation against exact points, its covariance against sampling, and its checks."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import least_squares

from semkey.errors import InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import compose, inverse, se3_exp, transform_points
from semkey.slam.solvers.triangulation import fundamental_matrix, triangulate

CAMERA = PinholeCamera(fx=500.0, fy=510.0, cx=320.5, cy=238.0, width=640, height=480)


def _two_views() -> tuple[NDArray, NDArray]:
    first = se3_exp(np.array([30.0, -12.0, 5.0, 0.3, -0.8, 0.2]))
    return first, compose(first, se3_exp(np.array([0.5, 0.05, 0.1, 0.02, -0.1, 0.01])))


def _points(count: int, seed: int = 0) -> NDArray[np.float64]:
    """Points in camera 0 that both views see."""
    rng = np.random.default_rng(seed)
    return np.stack([rng.uniform(-1, 1, count), rng.uniform(-0.8, 0.8, count), rng.uniform(2.0, 8.0, count)], axis=1)


def _seen(points_world: NDArray, pose: NDArray) -> NDArray[np.float64]:
    return CAMERA.project(transform_points(inverse(pose), points_world))


def test_exact_rays_give_exact_points() -> None:
    first, second = _two_views()
    world = transform_points(first, _points(200))
    found = triangulate(_seen(world, first), _seen(world, second), first, second, CAMERA)
    np.testing.assert_allclose(found.points_world, world, atol=1e-7)
    assert found.errors.max() < 1e-6
    # The angle at the landmark, by the cosine rule.
    a, b = first[:3, 3] - world, second[:3, 3] - world
    cosine = (a * b).sum(axis=1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    np.testing.assert_allclose(found.parallax_deg, np.degrees(np.arccos(cosine)), atol=1e-5)
    assert found.believable(min_parallax_deg=1.0, max_error=1.0).all()


def test_result_is_the_optimum_of_the_reprojection_errors() -> None:
    first, second = _two_views()
    rng = np.random.default_rng(3)
    world = transform_points(first, _points(10))
    seen = [_seen(world, pose) + rng.normal(0, 2, (10, 2)) for pose in (first, second)]
    found = triangulate(seen[0], seen[1], first, second, CAMERA)
    for k in range(10):

        def errors(point: NDArray, k: int = k) -> NDArray:
            both = [_seen(point[None], pose)[0] - view[k] for pose, view in zip((first, second), seen, strict=True)]
            return np.concatenate(both)

        best = least_squares(errors, world[k])
        assert np.sum(errors(found.points_world[k]) ** 2) == pytest.approx(2 * best.cost, rel=1e-3)


def test_covariance_is_that_of_repeated_measurements() -> None:
    first, second = _two_views()
    world = np.repeat(transform_points(first, np.array([[0.3, -0.2, 4.0]])), 4000, axis=0)
    rng = np.random.default_rng(1)
    sigma = 0.7
    noisy = [_seen(world, pose) + rng.normal(0, sigma, (len(world), 2)) for pose in (first, second)]
    found = triangulate(noisy[0], noisy[1], first, second, CAMERA, pixel_sigma=sigma)
    sampled = np.cov((found.points_world - world).T)
    exact = triangulate(
        _seen(world[:1], first), _seen(world[:1], second), first, second, CAMERA, pixel_sigma=sigma
    ).information[0]
    # Whitened by what was promised, the sampled covariance is the identity.
    root = np.linalg.cholesky(exact)
    np.testing.assert_allclose(root.T @ sampled @ root, np.eye(3), atol=0.12)


def test_unbelievable_points_are_told_apart() -> None:
    first, second = _two_views()
    world = transform_points(first, _points(4))
    seen0, seen1 = _seen(world, first), _seen(world, second)
    far = transform_points(first, np.array([[10.0, 5.0, 3000.0]]))
    # Row 1 is a mismatch across epipolar lines, row 2 diverging rays (a point behind), row 3 nearly at infinity.
    seen1[1, 1] += 25
    seen0[2], seen1[2] = seen1[2].copy(), seen0[2].copy()
    seen0[3], seen1[3] = _seen(far, first)[0], _seen(far, second)[0]
    pose1 = first.copy()
    pose1[:3, 3] = transform_points(first, np.array([[0.5, 0.0, 0.0]]))[0]
    good = triangulate(seen0, seen1, first, second, CAMERA).believable(min_parallax_deg=0.5, max_error=4.0)
    np.testing.assert_array_equal(good[[0, 1, 3]], [True, False, False])
    # In a pure sideways motion swapped views put every point behind the cameras.
    ahead = transform_points(first, _points(50))
    swapped = triangulate(_seen(ahead, pose1), _seen(ahead, first), first, pose1, CAMERA)
    assert np.isinf(swapped.errors).all()
    assert not swapped.believable(min_parallax_deg=0.0, max_error=100.0).any()


def test_parallel_rays_and_no_rays() -> None:
    pose1 = np.eye(4)
    pose1[0, 3] = 1.0
    middle = np.array([[CAMERA.cx, CAMERA.cy]])
    parallel = triangulate(middle, middle, np.eye(4), pose1, CAMERA)
    assert not parallel.believable(min_parallax_deg=0.1, max_error=10.0).any()
    empty = triangulate(np.zeros((0, 2)), np.zeros((0, 2)), np.eye(4), pose1, CAMERA)
    assert empty.believable(min_parallax_deg=0.1, max_error=10.0).shape == (0,)


def test_fundamental_matrix_puts_matches_on_their_lines() -> None:
    first, second = _two_views()
    world = transform_points(first, _points(20))
    seen0, seen1 = _seen(world, first), _seen(world, second)
    F = fundamental_matrix(compose(inverse(second), first), CAMERA)
    lines = np.column_stack([seen0, np.ones(20)]) @ F.T
    lines /= np.linalg.norm(lines[:, :2], axis=1, keepdims=True)
    distances = (lines * np.column_stack([seen1, np.ones(20)])).sum(axis=1)
    assert np.abs(distances).max() < 1e-8


def test_unpaired_keypoints_are_refused() -> None:
    with pytest.raises(InputError, match="expected"):
        triangulate(np.zeros((3, 2)), np.zeros((4, 2)), np.eye(4), np.eye(4), CAMERA)
    with pytest.raises(InputError, match="pixel_sigma"):
        triangulate(np.zeros((3, 2)), np.zeros((3, 2)), np.eye(4), np.eye(4), CAMERA, pixel_sigma=0.0)
