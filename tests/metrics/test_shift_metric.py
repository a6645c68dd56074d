"""The measure of shift equivariance against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from semkey.errors import InputError
from semkey.metrics.shift import ShiftErrors, shift_errors, shifted_crop

SIZE = (200, 160)


def test_keypoints_that_follow_the_picture_have_no_error() -> None:
    points = np.random.default_rng(0).uniform([30, 30], [170, 130], (50, 2))
    errors = shift_errors(points, points - [3.0, 5.0], (3.0, 5.0), SIZE)
    assert len(errors.distances) == 50
    assert errors.median_px == pytest.approx(0.0, abs=1e-12)
    assert errors.share_within(0.5) == 1.0


def test_keypoints_that_stay_on_the_grid_have_the_shift_as_error() -> None:
    x, y = np.meshgrid(np.arange(20.0, 180.0, 20.0), np.arange(20.0, 140.0, 20.0))
    grid = np.stack([x.ravel(), y.ravel()], axis=1)
    errors = shift_errors(grid, grid, (0.75, 0.0), SIZE)
    np.testing.assert_allclose(errors.distances, 0.75)
    assert errors.share_within(0.5) == 0.0
    assert errors.share_within(0.75) == 1.0


def test_only_what_both_crops_show_counts() -> None:
    shifted = np.array([[17.0, 80.0], [15.0, 80.0], [179.0, 80.0], [100.0, 80.0]])
    errors = shift_errors([[104.0, 80.0]], shifted, (4.0, 0.0), SIZE, margin=16.0)
    # 21 and 104 of the first crop lie between 20 and 183; 19 lies outside, 183 on the edge counts
    assert len(errors.distances) == 3
    assert sorted(errors.distances)[0] == 0.0


def test_no_keypoints_on_either_side() -> None:
    assert np.isnan(shift_errors([[50.0, 50.0]], np.zeros((0, 2)), (1, 1), SIZE).median_px)
    lost = shift_errors(np.zeros((0, 2)), [[50.0, 50.0]], (1, 1), SIZE)
    assert lost.share_within(0.5) == 0.0
    joined = ShiftErrors.joined([lost, shift_errors([[51.0, 51.0]], [[50.0, 50.0]], (1, 1), SIZE)])
    assert joined.share_within(0.5) == 0.5


def test_impossible_shifts_are_refused() -> None:
    with pytest.raises(InputError, match="first"):
        shift_errors([[1.0, 1.0]], [[1.0, 1.0]], (-1, 0), SIZE)
    with pytest.raises(InputError, match="nothing in common"):
        shift_errors([[1.0, 1.0]], [[1.0, 1.0]], (190, 0), SIZE)


def test_whole_shifts_copy_pixels() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    crop = shifted_crop(picture, (3, 5), (100, 80), origin=(2, 1))
    np.testing.assert_array_equal(crop, picture[6:86, 5:105])
    with pytest.raises(InputError, match="does not fit"):
        shifted_crop(picture, (30, 0), (100, 80))


def test_fractional_shift_of_a_wave_is_its_phase() -> None:
    x, y = np.meshgrid(np.arange(128.0), np.arange(96.0))

    def wave(dx: float, dy: float) -> np.ndarray:
        return 128 + 60 * np.cos(2 * np.pi * (x + dx) / 11.0) * np.cos(2 * np.pi * (y + dy) / 9.0)

    moved = shifted_crop(np.rint(wave(0, 0)).astype(np.uint8), (0.25, 0.5), (120, 90))
    difference = moved.astype(float)[16:-16, 16:-16] - wave(0.25, 0.5)[:90, :120][16:-16, 16:-16]
    assert np.abs(difference).max() < 2.0  # rounding to whole grey values twice, and a little from the mirrored edge
    assert np.abs(moved.astype(float)[16:-16, 16:-16] - wave(0, 0)[:90, :120][16:-16, 16:-16]).max() > 10.0
