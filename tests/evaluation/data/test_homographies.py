"""Random homographies on photos: repeatable, exact on the pixels, within the ranges that are asked for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from semkey.errors import ConfigError, DatasetError, InputError
from semkey.evaluation.data.homographies import (
    HomographyConfig,
    change_photometry,
    random_homography,
    random_homography_set,
    warp_photo,
)
from semkey.evaluation.data.image_sources import resizing_homography
from semkey.evaluation.data.pairs import HomographyTruth, ImagePair
from semkey.images.writing import write_image

PLAIN = HomographyConfig(
    exposure_stops=0.0, gamma=(1.0, 1.0), shadow=0.0, blur_px=0.0, noise=0.0, jpeg_quality=(100, 100)
)
STILL = replace(PLAIN, tilt_deg=0.0, rotation_deg=0.0, scale=(1.0, 1.0), shift=0.0)


def blobs_photo(size: tuple[int, int], centres: np.ndarray, sigma: float) -> np.ndarray:
    y, x = np.mgrid[: size[1], : size[0]]
    image = np.zeros((size[1], size[0]))
    for cx, cy in centres:
        image += 250.0 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2))
    return np.repeat(image.round().astype(np.uint8)[:, :, None], 3, axis=2)


def centroid_near(image: np.ndarray, point: np.ndarray, radius: int) -> np.ndarray:
    x0, y0 = np.round(point).astype(int) - radius
    weight = image[y0 : y0 + 2 * radius + 1, x0 : x0 + 2 * radius + 1, 0].astype(np.float64)
    y, x = np.mgrid[: weight.shape[0], : weight.shape[1]]
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum() + (x0, y0)


@pytest.fixture
def photos(tmp_path: Path, rng: np.random.Generator) -> Path:
    folder = tmp_path / "photos"
    for k, (width, height) in enumerate([(160, 120), (120, 160), (900, 500)]):
        texture = cv2.GaussianBlur(rng.uniform(0, 255, (height, width, 3)), (0, 0), 2.0)
        write_image(folder / f"{k}.png", np.clip(4 * (texture - 127) + 127, 0, 255).astype(np.uint8))
    return folder


def homography(pair: ImagePair) -> np.ndarray:
    assert isinstance(pair.truth, HomographyTruth)
    return pair.truth.H10


def test_pairs_depend_on_seed_and_index_only(photos: Path) -> None:
    few, many = (random_homography_set(photos, count=count, seed=5) for count in (4, 7))
    assert (len(few.pairs), len(many.pairs)) == (4, 7)
    for one, other in zip(few.pairs, many.pairs, strict=False):
        assert (one.name, one.image0.key, one.image1.key) == (other.name, other.image0.key, other.image1.key)
        np.testing.assert_array_equal(homography(one), homography(other))
        np.testing.assert_array_equal(one.image1.read(), other.image1.read())
    np.testing.assert_array_equal(many.pairs[6].image1.read(), many.pairs[6].image1.read())
    other_seed = random_homography_set(photos, count=4, seed=6)
    assert not np.array_equal(homography(few.pairs[0]), homography(other_seed.pairs[0]))
    assert other_seed.description != few.description


def test_photos_are_used_in_turn_and_names_are_unique(photos: Path) -> None:
    found = random_homography_set(photos, count=6)
    assert found.name == "photos"
    assert sorted(pair.image0.key for pair in found.pairs[:3]) == ["0.png", "1.png", "2.png"]
    assert len({pair.name for pair in found.pairs}) == 6
    assert len({pair.image1.key for pair in found.pairs}) == 6
    assert not np.array_equal(homography(found.pairs[0]), homography(found.pairs[3]))


def test_large_photos_are_shrunk_and_small_ones_left(photos: Path) -> None:
    for pair in random_homography_set(photos, count=3).pairs:
        expected = {"0.png": (160, 120), "1.png": (120, 160), "2.png": (640, 356)}[pair.image0.key]
        assert pair.image0.size == pair.image1.size == expected
        for source in (pair.image0, pair.image1):
            image = source.read()
            assert image.dtype == np.uint8
            assert image.shape == (expected[1], expected[0], 3)


def test_without_any_change_both_views_are_the_same(photos: Path) -> None:
    for pair in random_homography_set(photos, count=3, config=STILL).pairs:
        np.testing.assert_allclose(homography(pair), np.eye(3), atol=1e-12)
        image0, image1 = pair.image0.read().astype(float), pair.image1.read().astype(float)
        assert np.abs(image0 - image1).mean() < 4.0
        # Samples a quarter pixel beside the centre smooth a little, evenly to all sides.
        assert np.abs((image1 - image0).mean()) < 0.3


@pytest.mark.parametrize(("size", "sigma"), [((400, 300), 4.0), ((1500, 1100), 10.0)])
def test_the_truth_is_exact_on_the_pixels(tmp_path: Path, size: tuple[int, int], sigma: float) -> None:
    """Spots drawn into the photo are found in both views where the truth says, photo shrunk for view 0 or not."""
    spots = np.stack(np.meshgrid(np.linspace(0.3, 0.7, 3), np.linspace(0.3, 0.7, 3)), -1).reshape(-1, 2)
    spots = spots * size + [0.37, 0.81]
    write_image(tmp_path / "photos" / "spots.png", blobs_photo(size, spots, sigma))
    config = replace(PLAIN, tilt_deg=20.0, scale=(0.9, 1.2), max_side=500)
    differences = []
    for pair in random_homography_set(tmp_path / "photos", count=4, config=config).pairs:
        image0, image1 = pair.image0.read(), pair.image1.read()
        assert pair.image0.size is not None
        in_view0, _ = HomographyTruth(H10=resizing_homography(size, pair.image0.size)).project(spots, size)
        radius = round(5 * sigma * pair.image0.size[0] / size[0])
        for spot in in_view0:
            found0 = centroid_near(image0, spot, radius)
            np.testing.assert_allclose(found0, spot, atol=0.02)
            mapped, seen = pair.truth.project(spot[None], pair.image0.size)
            inner = (mapped[0] > radius + 2).all() and (mapped[0] < np.array(pair.image0.size) - radius - 3).all()
            if seen.all() and inner:
                differences.append(centroid_near(image1, mapped[0], radius) - mapped[0])
    assert len(differences) >= 20
    # A spot's centroid is not quite the image of its centre under perspective, hence not nothing.
    assert np.abs(differences).max() < 0.15
    assert np.linalg.norm(np.mean(differences, axis=0)) < 0.02


def test_photometric_changes_move_nothing() -> None:
    spots = np.stack(np.meshgrid(np.linspace(40, 280, 7), np.linspace(40, 200, 5)), -1).reshape(-1, 2) + 0.3
    view = blobs_photo((320, 240), spots, 3.0) // 2 + 60
    plain = [centroid_near(view.astype(int) - 60, spot, 9) for spot in spots]
    config = HomographyConfig(shadow=0.0, noise=0.0)
    shifts = []
    for seed in range(12):
        changed = change_photometry(view, np.random.default_rng(seed), config).astype(np.float64)
        changed = np.clip(changed - np.median(changed) - 6, 0, None)  # the background, and JPEG's ripples on it
        shifts += [centroid_near(changed, spot, 9) - before for spot, before in zip(spots, plain, strict=True)]
    assert np.linalg.norm(np.median(shifts, axis=0)) < 0.02
    assert np.median(np.abs(shifts)) < 0.1


def test_photometric_changes_change_the_light() -> None:
    view = np.full((60, 80, 3), 120, np.uint8)
    means = [change_photometry(view, np.random.default_rng(s), HomographyConfig()).mean() for s in range(20)]
    assert min(means) < 100 < 140 < max(means)
    unchanged = change_photometry(view, np.random.default_rng(0), PLAIN)
    np.testing.assert_allclose(unchanged, view, atol=1)


def test_shrinking_does_not_alias() -> None:
    """A checkerboard of single pixels, shrunk 3.3 times, is gray; plain bilinear sampling would show moire."""
    y, x = np.mgrid[:600, :600]
    photo = np.repeat((255 * ((x + y) % 2)).astype(np.uint8)[:, :, None], 3, axis=2)
    scaling = resizing_homography((600, 600), (182, 182))
    view = warp_photo(photo, scaling, (182, 182))
    plain = cv2.warpPerspective(photo, scaling, (182, 182))
    assert view.astype(float).std() < 20.0
    assert plain.astype(float).std() > 40.0


@pytest.mark.parametrize("size", [(640, 480), (300, 500), (64, 64)])
def test_drawn_homographies_keep_to_the_ranges(size: tuple[int, int], rng: np.random.Generator) -> None:
    config = HomographyConfig(min_overlap=0.5)
    x, y = np.meshgrid(np.linspace(0, size[0] - 1, 60), np.linspace(0, size[1] - 1, 60))
    points = np.stack([x, y], -1).reshape(-1, 2)
    zooms = []
    for _ in range(60):
        truth = HomographyTruth(H10=random_homography(rng, size, config))
        for way in (truth, truth.swapped()):
            assert way.project(points, size)[1].mean() > 0.47  # measured on another grid than drawn by
        centre = (np.array(size) - 1) / 2
        mapped, _ = truth.project(centre + np.array([[0, 0], [1, 0], [0, 1]]), size)
        # The centre is moved by the shift alone.
        assert (np.abs(mapped[0] - centre) <= 0.1 * np.array(size) + 1e-9).all()
        zooms.append(np.linalg.norm(mapped[1:] - mapped[0], axis=1).max())
    assert min(zooms) > 0.6 * np.cos(np.radians(50.0)) - 1e-3
    assert min(zooms) < 0.85
    assert 1.15 < max(zooms) < 1.6


def test_tilt_turn_and_zoom_are_what_they_say(rng: np.random.Generator) -> None:
    turned = random_homography(rng, (200, 200), replace(STILL, rotation_deg=30.0))
    np.testing.assert_allclose(turned[:2, :2] @ turned[:2, :2].T, np.eye(2), atol=1e-12)
    zoomed = random_homography(rng, (200, 200), replace(STILL, scale=(1.25, 1.25)))
    np.testing.assert_allclose(zoomed[:2, :2], 1.25 * np.eye(2), atol=1e-12)
    tilted = random_homography(rng, (200, 200), replace(STILL, tilt_deg=50.0))
    c = 99.5
    centre = HomographyTruth(H10=tilted).project(np.array([[c, c], [c + 1e-4, c], [c, c + 1e-4]]), (200, 200))[0]
    np.testing.assert_allclose(centre[0], [c, c], atol=1e-9)
    stretch = np.linalg.svd((centre[1:] - centre[0]) / 1e-4)[1]
    assert stretch[0] == pytest.approx(1.0, abs=1e-4)
    assert np.cos(np.radians(50.0)) - 1e-4 <= stretch[1] < 1.0


def test_wrong_options_and_folders(tmp_path: Path, photos: Path) -> None:
    for count, seed in ((0, 0), (1, -1)):
        with pytest.raises(ConfigError, match="count"):
            random_homography_set(photos, count=count, seed=seed)
    wrong: list[tuple[str, Any]] = [
        ("max_side", 10),
        ("tilt_deg", 90.0),
        ("min_overlap", 0.9),
        ("scale", (1.2, 0.8)),
        ("gamma", (0.0, 1.0)),
        ("jpeg_quality", (50, 101)),
        ("shadow", 1.5),
        ("noise", -0.1),
        ("blur_px", -1.0),
    ]
    for name, value in wrong:
        with pytest.raises(ConfigError, match=name):
            HomographyConfig(**{name: value})
    far = HomographyConfig(scale=(0.1, 0.1), min_overlap=0.5)
    with pytest.raises(ConfigError, match="overlap"):
        random_homography_set(photos, count=1, config=far)
    with pytest.raises(DatasetError, match="no such folder"):
        random_homography_set(tmp_path / "none", count=1)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="no images in this folder"):
        random_homography_set(tmp_path / "empty", count=1)
    write_image(tmp_path / "small" / "a.png", np.zeros((40, 100, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"a\.png: 100x40 is too small"):
        random_homography_set(tmp_path / "small", count=1)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.jpg").write_bytes(b"not a photo")
    with pytest.raises(InputError, match=r"a\.jpg"):
        random_homography_set(tmp_path / "bad", count=1)


def test_the_shared_photos(shared: Path) -> None:
    found = random_homography_set(shared / "data" / "photos" / "val", count=3, seed=1)
    for pair in found.pairs:
        image0, image1 = pair.image0.read(), pair.image1.read()
        assert image0.shape == image1.shape
        back = cv2.warpPerspective(image1, np.linalg.inv(homography(pair)), (image0.shape[1], image0.shape[0]))
        seen = cv2.warpPerspective(np.ones_like(image1[:, :, 0]), np.linalg.inv(homography(pair)), back.shape[1::-1])
        inside = cv2.erode(seen, np.ones((9, 9))) > 0
        correlation = np.corrcoef(image0[inside].mean(axis=1), back[inside].mean(axis=1))[0, 1]
        assert correlation > 0.85
