"""Stereo depth: exact shifts, slanted planes, noise, occlusion, and a real pair with ground-truth disparity."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from semkey.errors import ConfigError, InputError
from semkey.geometry.camera import PinholeCamera
from semkey.slam.config import StereoConfig
from semkey.slam.frames.stereo import match_rows, stereo_depth, stereo_view

CAMERA = PinholeCamera(fx=200.0, fy=200.0, cx=119.5, cy=79.5, width=240, height=160)
BASELINE = 0.1
OVERSAMPLING = 4


@cache
def _texture(seed: int = 0) -> NDArray[np.float32]:
    """A texture four times as fine as the images, with structure of a few image pixels."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(0, 1, (160 * OVERSAMPLING, 320 * OVERSAMPLING)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 1.2 * OVERSAMPLING)
    return 128 + 45 * smooth / smooth.std()


def _view(texture: NDArray[np.float32], disparity: float) -> NDArray[np.uint8]:
    """What a camera sees in which everything lies ``disparity`` further left; a pixel is the mean over its area."""
    shift = np.array([[1, 0, -disparity * OVERSAMPLING], [0, 1, 0]], dtype=np.float32)
    size = (240 * OVERSAMPLING, 160 * OVERSAMPLING)
    moved = cv2.warpAffine(texture, shift, size, flags=cv2.INTER_LINEAR)
    small = cv2.resize(moved, (240, 160), interpolation=cv2.INTER_AREA)
    return np.clip(np.round(small), 0, 255).astype(np.uint8)


def _grid() -> NDArray[np.float64]:
    x, y = np.meshgrid(np.arange(60.3, 220, 9.7), np.arange(12.6, 150, 11.3))
    return np.stack([x.ravel(), y.ravel()], axis=1)


@pytest.mark.parametrize("disparity", [5.0, 5.25, 5.5, 12.7, 20.375])
def test_a_shift_by_parts_of_a_pixel_is_measured_without_bias(disparity: float) -> None:
    texture = _texture()
    found = match_rows(_grid(), _view(texture, 0.0), _view(texture, disparity))
    errors = (found.disparity - disparity)[found.disparity > 0]
    assert len(errors) > 0.95 * len(_grid())
    assert abs(np.median(errors)) < 0.01
    assert abs(np.mean(errors)) < 0.005
    assert np.quantile(np.abs(errors), 0.95) < 0.06


def test_disparities_are_those_of_the_row_and_not_of_the_nearest_pixel() -> None:
    """On a floor disparity grows with the row, here by 0.3 px, as on the road of KITTI."""
    texture, growth = _texture(), 0.3
    right = np.array([[1, -growth, -10.0 * OVERSAMPLING], [0, 1, 0]], dtype=np.float32)
    size = (240 * OVERSAMPLING, 160 * OVERSAMPLING)
    sheared = cv2.resize(cv2.warpAffine(texture, right, size), (240, 160), interpolation=cv2.INTER_AREA)
    pixels = _grid()
    found = match_rows(pixels, _view(texture, 0.0), np.clip(np.round(sheared), 0, 255).astype(np.uint8))
    # Pixel centres: row y of the small image is row 4 y + 1.5 of the texture.
    true = 10.0 + growth * (OVERSAMPLING * pixels[:, 1] + 1.5) / OVERSAMPLING
    known = (found.disparity > 0) & (true < 30)
    errors = found.disparity[known] - true[known]
    assert known.sum() > 20
    beside = pixels[known, 1] - np.rint(pixels[known, 1])
    # Read at whole rows, they would err by the growth times what is left to the row.
    slope = np.polyfit(beside, errors, 1)[0]
    assert abs(slope) < growth / 3


def test_depths_are_measured_again_where_keypoints_have_moved() -> None:
    """On a wall that is looked at aslant; what had no depth gets none, and an offset stays added."""
    texture, growth, focal_baseline = _texture(), 0.15, 20.0
    shear = np.array([[1 + growth, 0, -6.0 * OVERSAMPLING], [0, 1, 0]], dtype=np.float32)
    right = cv2.warpAffine(texture, shear, (240 * OVERSAMPLING, 160 * OVERSAMPLING), flags=cv2.WARP_INVERSE_MAP)
    right = np.clip(np.round(cv2.resize(right, (240, 160), interpolation=cv2.INTER_AREA)), 0, 255).astype(np.uint8)
    left = _view(texture, 0.0)
    camera = PinholeCamera(fx=200.0, fy=200.0, cx=119.5, cy=79.5, width=240, height=160)
    x, y = np.meshgrid(np.arange(100.3, 200, 9.7), np.arange(20.6, 140, 11.3))
    before = np.stack([x.ravel(), y.ravel()], axis=1)
    after = before + np.array([3.0, 1.4])
    depth, _ = stereo_depth(before, left, right, camera, focal_baseline / camera.fx)
    fresh, _ = stereo_depth(after, left, right, camera, focal_baseline / camera.fx)
    view = stereo_view(left, right, camera, focal_baseline / camera.fx, StereoConfig())
    both = (depth > 0) & (fresh > 0)
    assert both.sum() > 20
    again, sigma = view.depth_near(after, depth)
    found = both & (again > 0)
    assert found.sum() > 0.9 * both.sum()
    disparity, expected, old = (focal_baseline / one[found] for one in (again, fresh, depth))
    np.testing.assert_allclose(disparity, expected, atol=0.02)
    assert np.median(np.abs(old - expected)) > 0.2
    assert (again[depth == 0] == 0).all()
    assert (sigma[found] > 0).all()
    nearer = replace(view, offset=0.7)
    moved, _ = nearer.depth_near(after, focal_baseline / (focal_baseline / np.maximum(depth, 1e-9) + 0.7) * (depth > 0))
    np.testing.assert_allclose(focal_baseline / moved[found], disparity + 0.7, atol=1e-3)


def test_exposure_of_the_right_camera_does_not_matter() -> None:
    texture = _texture()
    left, right = _view(texture, 0.0), _view(texture, 8.4)
    darker = np.round(0.6 * right.astype(np.float64) + 20).astype(np.uint8)
    found = match_rows(_grid(), left, darker)
    assert np.median(np.abs(found.disparity - 8.4)) < 0.05


def test_depth_and_its_sigma_follow_from_the_disparity() -> None:
    texture = _texture()
    left, right = _view(texture, 0.0), _view(texture, 10.0)
    depth, sigma = stereo_depth(_grid(), left, right, CAMERA, BASELINE)
    assert np.median(depth) == pytest.approx(200 * 0.1 / 10, rel=0.005)
    found = match_rows(_grid(), left, right)
    known = depth > 0
    np.testing.assert_allclose(sigma[known], depth[known] * found.sigma[known] / found.disparity[known])
    assert (sigma[~known] == 0).all()


def test_sigma_tells_how_much_noise_there_is() -> None:
    texture = _texture()
    rng = np.random.default_rng(1)
    left, right = _view(texture, 0.0), _view(texture, 10.3)

    def noisy(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return np.clip(np.round(image + rng.normal(0, 12, image.shape)), 0, 255).astype(np.uint8)

    clean, worse = match_rows(_grid(), left, right), match_rows(_grid(), noisy(left), noisy(right))
    assert np.median(worse.sigma[worse.disparity > 0]) > 1.5 * np.median(clean.sigma[clean.disparity > 0])
    kept = worse.disparity > 0
    normalised = (worse.disparity - 10.3)[kept] / worse.sigma[kept]
    # Promised three-sigma errors hold: independent noise is kinder than what the factor is made for.
    assert np.mean(np.abs(normalised) < 3) > 0.97


def test_a_slanted_plane_keeps_its_slope() -> None:
    texture = _texture()
    left = _view(texture, 0.0)
    columns, rows = np.meshgrid(np.arange(240, dtype=np.float32), np.arange(160, dtype=np.float32))
    # x_left - x_right = 6 + 0.04 x_left, so that x_left = (x_right + 6) / 0.96.
    moved = cv2.remap(left, (columns + 6) / 0.96, rows, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
    right = np.asarray(moved, dtype=np.uint8)
    grid = _grid()[_grid()[:, 0] < 210]
    found = match_rows(grid, left, right)
    known = found.disparity > 0
    assert known.mean() > 0.9
    assert np.median(np.abs(found.disparity - 6 - 0.04 * grid[:, 0])[known]) < 0.05


def test_what_only_one_camera_sees_gets_no_depth() -> None:
    left = _view(_texture(0), 0.0)
    right = _view(_texture(7), 0.0)
    assert (match_rows(_grid(), left, right).disparity > 0).mean() < 0.02
    # Points whose place in the right image lies outside it.
    texture = _texture()
    edge = np.array([[3.0, 80.0], [8.0, 40.0]])
    assert (match_rows(edge, _view(texture, 0.0), _view(texture, 12.0)).disparity == 0).all()


def test_a_blank_wall_gets_no_depth() -> None:
    wall = np.full((160, 240, 3), 120, dtype=np.uint8)
    depth, sigma = stereo_depth(_grid(), wall, wall, CAMERA, BASELINE)
    assert (depth == 0).all()
    assert (sigma == 0).all()


def test_far_points_whose_disparity_means_nothing_get_no_depth() -> None:
    texture = _texture()
    left, right = _view(texture, 0.0), _view(texture, 0.5)
    strict = StereoConfig(max_relative_sigma=0.05)
    assert (stereo_depth(_grid(), left, right, CAMERA, BASELINE, strict)[0] == 0).all()


def test_no_keypoints_and_keypoints_outside_the_image() -> None:
    image = _view(_texture(), 0.0)
    depth, sigma = stereo_depth(np.zeros((0, 2)), image, image, CAMERA, BASELINE)
    assert depth.shape == sigma.shape == (0,)
    outside = np.array([[-4.0, 10.0], [500.0, 10.0], [10.0, 400.0], [np.nan, 3.0]])
    assert (stereo_depth(outside, image, image, CAMERA, BASELINE)[0] == 0).all()


def test_unusable_pairs_are_refused() -> None:
    image = np.zeros((160, 240, 3), dtype=np.uint8)
    with pytest.raises(InputError, match="same"):
        match_rows(_grid(), image, image[:, :200])
    with pytest.raises(InputError, match="baseline"):
        stereo_depth(_grid(), image, image, CAMERA, 0.0)
    with pytest.raises(InputError, match="240x160"):
        stereo_depth(_grid(), image[:100], image[:100], CAMERA, BASELINE)


@pytest.mark.parametrize(
    "wrong",
    [{"window_px": 8}, {"max_disparity_share": 0.0}, {"min_correlation": 1.0}, {"left_right_px": 0.0}],
)
def test_settings_out_of_range_are_refused(wrong: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        StereoConfig(**wrong)


def test_motorcycle_pair_agrees_with_its_ground_truth() -> None:
    """Middlebury 2014 "Motorcycle" at quarter size (scikit-image): corners of the left image against true disparity."""
    data = pytest.importorskip("skimage.data")
    left, right, truth = data.stereo_motorcycle()
    grey = cv2.cvtColor(left, cv2.COLOR_RGB2GRAY)
    keypoints = cv2.goodFeaturesToTrack(grey, 800, 0.005, 5)[:, 0].astype(np.float64)
    found = match_rows(keypoints, left, right)

    x, y = np.round(keypoints).astype(int).T
    nearby = np.stack([np.roll(truth, (dy, dx), (0, 1))[y, x] for dy in range(-2, 3) for dx in range(-2, 3)])
    covered = np.isfinite(nearby).all(axis=0)
    kept = covered & (found.disparity > 0)
    # A corner on a depth edge may show the disparity of either side.
    beyond = np.maximum(nearby.min(axis=0) - found.disparity, found.disparity - nearby.max(axis=0))
    assert kept.sum() / covered.sum() > 0.75
    assert np.mean(beyond[kept] > 1.0) < 0.02
    smooth = kept & (np.ptp(nearby, axis=0) < 0.5)
    errors = (found.disparity - truth[y, x])[smooth]
    assert np.median(np.abs(errors)) < 0.15
    assert np.mean(np.abs(errors) < 3 * found.sigma[smooth]) > 0.8
    # 200 errors of 0.15 px: what is left of them in the mean is no more than chance leaves.
    assert abs(np.mean(errors[np.abs(errors) < 1])) < 0.02
