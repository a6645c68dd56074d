"""Patches at fractions of a pixel, in both directions, against the function that an image samples."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from semkey.slam.frames.row_patches import RowPatches

SIZE = 9


def _values(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    return 100 + 40 * np.sin(0.35 * x + 0.11 * y) + 25 * np.cos(0.07 * x - 0.3 * y)


def _normalised(x: float, y: float) -> NDArray[np.float64]:
    offsets = np.arange(SIZE) - SIZE // 2
    patch = _values(x + offsets[None, :], y + offsets[:, None]).ravel()
    patch = patch - patch.mean()
    return patch / np.linalg.norm(patch)


IMAGE = _values(np.arange(120.0)[None, :], np.arange(80.0)[:, None]).astype(np.float32)


@pytest.mark.parametrize("moved", [-1.0, -0.3, 0.0, 0.45, 1.0])
def test_patches_are_those_of_the_function_between_pixels_and_between_rows(moved: float) -> None:
    x, y = np.array([40.0, 41.3, 60.75, 90.1]), np.array([30.0, 30.4, 20.9, 55.5])
    patches, slopes = RowPatches(IMAGE, x, y, SIZE, reach=1).read(x + moved)
    for k in range(len(x)):
        np.testing.assert_allclose(patches[k], _normalised(x[k] + moved, y[k]), atol=2e-3)
        step = 1e-4
        slope = (_normalised(x[k] + moved + step, y[k]) - _normalised(x[k] + moved - step, y[k])) / (2 * step)
        np.testing.assert_allclose(slopes[k], slope, atol=3e-3)


def test_beyond_the_reach_patches_stay_where_it_ends() -> None:
    x, y = np.array([40.25]), np.array([30.0])
    patches = RowPatches(IMAGE, x, y, SIZE, reach=1)
    np.testing.assert_array_equal(patches.read(x + 7.0)[0], patches.read(x + 5.0)[0])


def test_beyond_the_image_its_border_goes_on() -> None:
    x, y = np.array([-3.0, 500.0, 50.0]), np.array([10.0, -40.0, 79.0])
    patches, slopes = RowPatches(IMAGE, x, y, SIZE).read(x)
    assert np.isfinite(patches).all()
    assert np.isfinite(slopes).all()
