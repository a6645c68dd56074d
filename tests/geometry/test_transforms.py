"""Rigid transforms and the pinhole camera: exact values and round trips."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

from semkey.errors import ConfigError, InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import (
    compose,
    interpolate_pose,
    inverse,
    make_transform,
    quaternion_xyzw_from_rotation,
    rotation_angle_deg,
    rotation_from_quaternion_xyzw,
    se3_exp,
    se3_log,
    skew,
    transform_points,
)

coordinate = st.floats(-10, 10, allow_nan=False)
# Angles from far below the Taylor switch to just short of pi, where the logarithm is still unique.
angle = st.one_of(st.floats(0, 1e-3), st.floats(1e-3, 3.14))
axis = st.tuples(coordinate, coordinate, coordinate).filter(lambda v: np.linalg.norm(v) > 1e-3)


@st.composite
def tangents(draw: st.DrawFn) -> np.ndarray:
    direction = np.array(draw(axis))
    phi = direction / np.linalg.norm(direction) * draw(angle)
    return np.concatenate([[draw(coordinate) for _ in range(3)], phi])


@given(tangents())
def test_logarithm_undoes_exponential(xi: np.ndarray) -> None:
    np.testing.assert_allclose(se3_log(se3_exp(xi)), xi, atol=1e-8, rtol=1e-8)


@given(tangents())
def test_exponential_is_the_matrix_exponential(xi: np.ndarray) -> None:
    generator = np.zeros((4, 4))
    generator[:3, :3] = skew(xi[3:])
    generator[:3, 3] = xi[:3]
    np.testing.assert_allclose(se3_exp(xi), expm(generator), atol=1e-9)


@given(tangents(), tangents())
def test_inverse_and_compose(xi0: np.ndarray, xi1: np.ndarray) -> None:
    t0, t1 = se3_exp(xi0), se3_exp(xi1)
    np.testing.assert_allclose(compose(t0, inverse(t0)), np.eye(4), atol=1e-9)
    np.testing.assert_allclose(compose(t0, t1), t0 @ t1, atol=1e-9)
    np.testing.assert_allclose(inverse(compose(t0, t1)), compose(inverse(t1), inverse(t0)), atol=1e-9)


def test_a_product_is_a_rotation_again_whatever_rounding_has_left() -> None:
    worn = se3_exp([0.1, 0.2, 0.3, 0.4, -0.2, 0.1])
    worn[:3, :3] += 1e-5 * np.array([[1.0, 2, 3], [-3, 1, 2], [2, -1, 1]])
    for product in (compose(worn), compose(worn, worn, worn)):
        np.testing.assert_allclose(product[:3, :3] @ product[:3, :3].T, np.eye(3), atol=1e-12)
        assert np.linalg.det(product[:3, :3]) == pytest.approx(1.0)
    np.testing.assert_allclose(compose(worn), worn, atol=5e-5)


@given(tangents())
def test_quaternion_round_trip_and_convention(xi: np.ndarray) -> None:
    rotation = se3_exp(xi)[:3, :3]
    quaternion = quaternion_xyzw_from_rotation(rotation)
    assert quaternion[3] >= 0
    np.testing.assert_allclose(rotation_from_quaternion_xyzw(quaternion), rotation, atol=1e-10)
    np.testing.assert_allclose(Rotation.from_quat(quaternion).as_matrix(), rotation, atol=1e-10)


def test_quaternion_of_half_turns() -> None:
    for k in range(3):
        expected = np.eye(4)[k]
        rotation = rotation_from_quaternion_xyzw(expected)
        np.testing.assert_allclose(np.abs(quaternion_xyzw_from_rotation(rotation)), expected, atol=1e-12)
        assert rotation_angle_deg(rotation) == pytest.approx(180.0)


def test_quaternion_of_any_length_and_bad_ones() -> None:
    np.testing.assert_allclose(rotation_from_quaternion_xyzw([0, 0, 0, 5]), np.eye(3))
    for bad in ([0, 0, 0, 0], [np.nan, 0, 0, 1], [0, 0, 1]):
        with pytest.raises(InputError, match="quaternion"):
            rotation_from_quaternion_xyzw(bad)


@given(tangents(), tangents(), st.floats(0, 1))
def test_interpolation_ends_and_angle(xi0: np.ndarray, xi1: np.ndarray, alpha: float) -> None:
    t0, t1 = se3_exp(xi0), se3_exp(xi1)
    np.testing.assert_allclose(interpolate_pose(t0, t1, 0.0), t0, atol=1e-9)
    np.testing.assert_allclose(interpolate_pose(t0, t1, 1.0), t1, atol=1e-7)
    middle = interpolate_pose(t0, t1, alpha)
    whole = rotation_angle_deg(inverse(t0) @ t1)
    assert rotation_angle_deg(inverse(t0) @ middle) == pytest.approx(alpha * whole, abs=1e-5)
    np.testing.assert_allclose(middle[:3, 3], (1 - alpha) * t0[:3, 3] + alpha * t1[:3, 3], atol=1e-9)


def test_rotation_angle_is_accurate_where_the_trace_is_not() -> None:
    for degrees in (1e-7, 1e-3, 1.0, 90.0, 179.9999999):
        transform = se3_exp([1, 2, 3, 0, np.radians(degrees), 0])
        assert rotation_angle_deg(transform) == pytest.approx(degrees, rel=1e-6)


def test_transform_points_moves_points() -> None:
    quarter_turn_about_z = make_transform([[0, -1, 0], [1, 0, 0], [0, 0, 1]], [10, 0, 0])
    np.testing.assert_allclose(transform_points(quarter_turn_about_z, [[1, 0, 5]]), [[10, 1, 5]])
    with pytest.raises(InputError, match="4, 4"):
        inverse(np.eye(3))


CAMERA = PinholeCamera(fx=500.0, fy=510.0, cx=320.5, cy=239.0, width=640, height=480)


@given(st.floats(0, 639), st.floats(0, 479), st.floats(0.1, 20))
def test_camera_round_trip(x: float, y: float, z: float) -> None:
    point = CAMERA.backproject([[x, y]], [z])
    assert point[0, 2] == z
    np.testing.assert_allclose(CAMERA.project(point), [[x, y]], atol=1e-9)
    homogeneous = CAMERA.matrix @ point[0]
    np.testing.assert_allclose(homogeneous[:2] / homogeneous[2], [x, y], atol=1e-9)


def test_camera_behind_empty_and_border() -> None:
    assert np.isnan(CAMERA.project([[0, 0, -1.0], [0, 0, 0]])).all()
    assert CAMERA.project(np.zeros((0, 3))).shape == (0, 2)
    assert CAMERA.backproject(np.zeros((0, 2)), []).shape == (0, 3)
    assert CAMERA.contains([[0, 0], [639, 479], [639.5, 0], [np.nan, 0]]).tolist() == [True, True, False, False]


def test_resized_camera_keeps_image_corners() -> None:
    half = CAMERA.resized(320, 240)
    corner_ray = CAMERA.normalize([[-0.5, -0.5], [639.5, 479.5]])
    np.testing.assert_allclose(half.normalize([[-0.5, -0.5], [319.5, 239.5]]), corner_ray, atol=1e-12)


@pytest.mark.parametrize("change", [{"fx": 0.0}, {"fy": -1.0}, {"cx": float("nan")}, {"width": 0}])
def test_bad_cameras_are_refused(change: dict[str, Any]) -> None:
    values: dict[str, Any] = {"fx": 1.0, "fy": 1.0, "cx": 0.0, "cy": 0.0, "width": 2, "height": 2} | change
    with pytest.raises(ConfigError):
        PinholeCamera(**values)
