"""Search along rows for all keypoints at once, against one correlation at a time."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.slam.frames.row_search import RowImage, whole_disparities

SPAN, SIZE = 30, 9


def _images(disparity: int = 7) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    noise = np.random.default_rng(3).normal(0, 1, (60, 140))
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.2)
    texture = np.clip(128 + 45 * smooth / smooth.std(), 0, 255).astype(np.uint8)
    return texture[:, 20:120].copy(), texture[:, 20 + disparity : 120 + disparity].copy()


def _points(rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return rng.integers(0, 100, 60), rng.integers(0, 60, 60)


def _find(left: NDArray[np.uint8], right: NDArray[np.uint8], pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    return whole_disparities(left, right, pixels, span=SPAN, size=SIZE, min_correlation=0.8, left_right_px=1.0)


def test_correlations_are_those_of_opencv() -> None:
    left, right = _images()
    x, y = _points(np.random.default_rng(0))
    scores = RowImage(right, SPAN, SIZE, strips_from_left=SPAN).correlate(
        RowImage(left, SPAN, SIZE, strips_from_left=0).patches(x, y), x - SPAN, y
    )
    r = SIZE // 2
    padded = [
        cv2.copyMakeBorder(image, r, r, r + SPAN, r + SPAN, cv2.BORDER_REPLICATE).astype(np.float32)
        for image in (left, right)
    ]
    for k in range(len(x)):
        rows = slice(y[k], y[k] + SIZE)
        patch = padded[0][rows, x[k] + SPAN : x[k] + SPAN + SIZE]
        strip = padded[1][rows, x[k] : x[k] + SPAN + SIZE]
        np.testing.assert_allclose(scores[k], cv2.matchTemplate(strip, patch, cv2.TM_CCOEFF_NORMED)[0], atol=2e-4)


def test_whole_pixels_are_found_and_lead_back() -> None:
    left, right = _images(7)
    x, y = np.meshgrid(np.arange(12, 95, 6), np.arange(5, 56, 6))
    pixels = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64) + 0.3
    assert (_find(left, right, pixels) == 7).all()


def test_what_lies_outside_the_other_image_is_not_found() -> None:
    left, right = _images(7)
    pixels = np.array([[3.0, 30.0], [6.0, 12.0], [-2.0, 5.0], [50.0, 61.0], [np.nan, 4.0]])
    assert np.isnan(_find(left, right, pixels)).all()


def test_what_another_point_fits_better_is_not_believed() -> None:
    left, right = _images(7)
    rng = np.random.default_rng(5)
    left[:, 52:72] = np.clip(left[:, 30:50] + rng.normal(0, 12, (60, 20)), 0, 255).astype(np.uint8)
    right[:, 45:65] = _images(0)[0][::-1, 10:30]  # what the copy shows is hidden here
    original = np.stack([np.full(7, 40.0), np.arange(8.0, 50.0, 6.0)], axis=1)
    copy = np.stack([np.full(7, 62.0), np.arange(8.0, 50.0, 6.0)], axis=1)
    assert (_find(left, right, original) == 7).all()
    assert np.isnan(_find(left, right, copy)).all()
    # It would be: each of its patches is found where the original lies.
    found = whole_disparities(left, right, copy, span=SPAN, size=SIZE, min_correlation=0.8, left_right_px=50.0)
    assert (found == 29).all()


def test_flat_patches_correlate_with_nothing() -> None:
    left, right = _images(7)
    flat = np.full_like(left, 90)
    pixels = np.array([[50.0, 30.0], [70.0, 20.0]])
    assert np.isnan(_find(flat, right, pixels)).all()
    assert np.isnan(_find(left, flat, pixels)).all()


def test_gain_and_offset_of_the_exposure_do_not_matter() -> None:
    left, right = _images(7)
    darker = np.round(0.5 * right + 30.0).astype(np.uint8)
    pixels = np.array([[50.0, 30.0], [70.0, 20.0], [40.0, 40.0]])
    assert (_find(left, darker, pixels) == 7).all()
