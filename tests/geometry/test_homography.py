from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semkey.errors import InputError
from semkey.geometry.homography import corner_error, warp_points
from semkey.geometry.pixels import resize_keypoints
from semkey.metrics.two_view import area_under_curve, relative_pose_error

SIZES = st.tuples(st.integers(1, 12000), st.integers(1, 12000))


def rotation(axis: int, degrees: float) -> np.ndarray:
    T = np.eye(4)
    i, j = [(1, 2), (2, 0), (0, 1)][axis]
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    T[i, i] = T[j, j] = cosine
    T[j, i], T[i, j] = sine, -sine
    return T


def test_warp_points_matches_opencv(rng: np.random.Generator) -> None:
    H = np.eye(3) + rng.normal(0, [[0.1, 0.1, 20], [0.1, 0.1, 20], [1e-4, 1e-4, 0.01]])
    points = rng.uniform(0, 640, (100, 2))
    np.testing.assert_allclose(warp_points(H, points), cv2.perspectiveTransform(points[None], H)[0], rtol=1e-9)


def test_warp_points_known_values() -> None:
    H = [[2, 0, 3], [0, 4, 5], [0, 0, 2]]
    np.testing.assert_array_equal(warp_points(H, [[1, 1], [0, 0]]), [[2.5, 4.5], [1.5, 2.5]])
    assert warp_points(H, np.zeros((0, 2))).shape == (0, 2)


def test_points_at_infinity_are_nan() -> None:
    H = [[1, 0, 0], [0, 1, 0], [1, 0, -2]]
    np.testing.assert_array_equal(warp_points(H, [[2, 5], [3, 5]]), [[np.nan, np.nan], [3, 5]])


@pytest.mark.parametrize(("H", "points"), [(np.eye(2), [[0, 0]]), (np.eye(3), [0, 0]), (np.eye(3), [[0, 0, 1]])])
def test_warp_points_refuses_other_shapes(H: np.ndarray, points: list) -> None:
    with pytest.raises(InputError, match="shape"):
        warp_points(H, points)


def test_corner_error_of_a_shift_is_its_length() -> None:
    shift = np.array([[1, 0, 3], [0, 1, -4], [0, 0, 1]])
    assert corner_error(shift, np.eye(3), 640, 480) == pytest.approx(5)
    assert corner_error(-7 * shift, shift, 640, 480) == pytest.approx(0)


def test_corner_error_uses_pixel_centres() -> None:
    # Scaling by 2 about the centre of pixel (0, 0) moves the far corner by its own distance, not by (w, h).
    double = np.diag([2, 2, 1])
    expected = (0 + 10 + np.hypot(10, 20) + 20) / 4
    assert corner_error(double, np.eye(3), 11, 21) == pytest.approx(expected)


def test_corner_error_of_failures_is_infinite() -> None:
    assert corner_error(None, np.eye(3), 640, 480) == float("inf")
    assert corner_error(np.full((3, 3), np.nan), np.eye(3), 640, 480) == float("inf")
    assert corner_error([[1, 0, 0], [0, 1, 0], [1, 0, 0]], np.eye(3), 640, 480) == float("inf")


def test_area_under_curve_known_values() -> None:
    assert area_under_curve([0, 0, 0], [1, 5]) == pytest.approx([1, 1])
    assert area_under_curve([float("inf"), float("nan")], [5]) == [0]
    # One error of 2 below 4: the recall climbs linearly to 1 at 2, then stays: (1 + 2) / 4.
    assert area_under_curve([2], [4]) == pytest.approx([0.75])
    # A failure halves it.
    assert area_under_curve([2, float("inf")], [4]) == pytest.approx([0.375])


def test_area_under_curve_matches_superglue(rng: np.random.Generator) -> None:
    errors = np.concatenate([rng.exponential(5, 200), np.full(20, np.inf)])

    def superglue_auc(errors: np.ndarray, threshold: float) -> float:
        errors = np.concatenate([[0], np.sort(errors)])
        recall = np.arange(len(errors)) / (len(errors) - 1)
        last = np.searchsorted(errors, threshold)
        x, y = np.append(errors[:last], threshold), np.append(recall[:last], recall[last - 1])
        return float(np.sum((x[1:] - x[:-1]) * (y[1:] + y[:-1]) / 2) / threshold)

    expected = [superglue_auc(errors, threshold) for threshold in (3, 5, 10)]
    assert area_under_curve(errors.tolist(), [3, 5, 10]) == pytest.approx(expected, rel=1e-12)


@given(st.lists(st.floats(0, 100) | st.just(float("inf")), min_size=1, max_size=30), st.floats(0.1, 50))
def test_area_under_curve_lies_in_unit_interval_and_falls_with_failures(errors: list[float], threshold: float) -> None:
    (area,) = area_under_curve(errors, [threshold])
    (with_failure,) = area_under_curve([*errors, float("inf")], [threshold])
    assert 0 <= with_failure <= area <= 1 + 1e-12


@pytest.mark.parametrize(("errors", "thresholds"), [([], [1]), ([-1], [1]), ([1], [0]), ([1], [float("nan")])])
def test_area_under_curve_refuses_nonsense(errors: list[float], thresholds: list[float]) -> None:
    with pytest.raises(InputError):
        area_under_curve(errors, thresholds)


@pytest.mark.parametrize("degrees", [0, 1e-5, 0.5, 90, 179])
def test_relative_pose_error_of_known_rotation(degrees: float) -> None:
    truth = rotation(1, 20)
    truth[:3, 3] = [1, 0, 0]
    estimate = rotation(0, degrees) @ truth
    estimate[:3, 3] = [5, 0, 0]
    error_rotation, error_translation = relative_pose_error(estimate, truth)
    assert error_rotation == pytest.approx(degrees, rel=1e-6, abs=1e-9)
    assert error_translation == pytest.approx(0, abs=1e-9)


def test_relative_pose_error_of_translation_direction() -> None:
    truth, estimate = np.eye(4), np.eye(4)
    truth[:3, 3], estimate[:3, 3] = [2, 0, 0], [0.5, 0.5, 0]
    assert relative_pose_error(estimate, truth) == pytest.approx((0, 45))
    estimate[:3, 3] *= -1  # the sign of the translation does not count
    assert relative_pose_error(estimate, truth) == pytest.approx((0, 45))


def test_relative_pose_error_of_degenerate_cases() -> None:
    moved = np.eye(4)
    moved[0, 3] = 1
    assert relative_pose_error(None, moved) == (float("inf"), float("inf"))
    assert relative_pose_error(moved, np.eye(4)) == (0, 0)
    assert relative_pose_error(np.eye(4), moved) == (0, float("inf"))


def test_resize_keypoints_moves_by_half_pixels() -> None:
    keypoints = np.array([[0, 0], [-0.5, -0.5], [3.5, 1.5]], dtype=np.float32)
    doubled = resize_keypoints(keypoints, (4, 2), (8, 4))
    assert doubled.dtype == np.float32
    np.testing.assert_array_equal(doubled, [[0.5, 0.5], [-0.5, -0.5], [7.5, 3.5]])


def test_resize_keypoints_follows_cv2_resize() -> None:
    # A blob's centre of mass goes where the convention says when the image is really resized.
    y, x = np.mgrid[:90, :120]
    blob = np.exp(-((x - 50.3) ** 2 + (y - 40.7) ** 2) / (2 * 6.0**2))
    resized = cv2.resize(blob, (200, 75), interpolation=cv2.INTER_LINEAR)
    y, x = np.mgrid[:75, :200]
    centre = np.array([[(x * resized).sum(), (y * resized).sum()]]) / resized.sum()
    expected = resize_keypoints(np.array([[50.3, 40.7]]), (120, 90), (200, 75))
    np.testing.assert_allclose(centre, expected, atol=0.01)


@given(SIZES, SIZES, st.floats(0, 1), st.floats(0, 1))
def test_resize_keypoints_round_trip(
    original: tuple[int, int], resized: tuple[int, int], along_x: float, along_y: float
) -> None:
    keypoints = np.array([[along_x * original[0] - 0.5, along_y * original[1] - 0.5]])
    there = resize_keypoints(keypoints, original, resized)
    assert (there >= -0.5 - 1e-9).all()
    assert (there <= np.array(resized) - 0.5 + 1e-9).all()
    np.testing.assert_allclose(resize_keypoints(there, resized, original), keypoints, atol=1e-9)


@given(st.floats(0, 4096, width=32), st.integers(200, 4096))
def test_resize_keypoints_round_trip_in_float32(position: float, side: int) -> None:
    keypoints = torch.tensor([[position, position]])
    back = resize_keypoints(resize_keypoints(keypoints, (4097, 4097), (side, side)), (side, side), (4097, 4097))
    assert back.dtype == torch.float32
    assert float((back - keypoints).abs().max()) < 1e-3


def test_resize_keypoints_of_tensor_and_array_agree(rng: np.random.Generator) -> None:
    keypoints = rng.uniform(0, 500, (50, 2)).astype(np.float32)
    array = resize_keypoints(keypoints, (640, 480), (448, 336))
    tensor = resize_keypoints(torch.from_numpy(keypoints), (640, 480), (448, 336))
    np.testing.assert_array_equal(array, tensor.numpy())
