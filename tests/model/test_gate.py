"""Nothing to see gives nothing; what there is to see stays."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

import semkey
from command_line import Run
from pictures import blocks
from semkey.evaluation.data.negatives import negative_images
from semkey.extractors import create_extractor
from semkey.images import read_image
from semkey.images.writing import write_image
from semkey.model.gate import (
    LEAST_RATIO,
    LEAST_SHARPNESS,
    LEAST_SHARPNESS_OF_IMAGE,
    contrast_to_noise,
    has_structure,
    noise_level,
    sharpness,
)

FEATURES = ("compact", "nano", "sift", "orb")


def gray(values: np.ndarray) -> np.ndarray:
    return np.repeat(np.clip(values, 0, 255).astype(np.uint8)[..., None], 3, axis=2)


def featureless() -> dict[str, np.ndarray]:
    """Images (240, 320, 3) in which there is nothing to find."""
    y, x = np.mgrid[:240, :320].astype(np.float32)
    rng = np.random.default_rng(0)
    wall = gray(120 + 40 * np.sin(x / 60) * np.cos(y / 50))  # colours far out of focus
    return {
        "black": gray(0 * x),
        "grey": gray(0 * x + 118),
        "white": gray(0 * x + 255),
        "gradient": gray(20 + x * 200 / 320),
        "Gaussian noise": np.clip(120 + rng.normal(0, 10, (240, 320, 3)), 0, 255).astype(np.uint8),
        "weak noise": np.clip(60 + rng.normal(0, 2, (240, 320, 3)), 0, 255).astype(np.uint8),
        "dark noise": rng.integers(0, 21, (240, 320, 3), dtype=np.uint8),
        "full noise": rng.integers(0, 256, (240, 320, 3), dtype=np.uint8),
        "out of focus": np.clip(wall + rng.normal(0, 2, wall.shape), 0, 255).astype(np.uint8),
    }


@pytest.mark.parametrize("name", FEATURES)
def test_nothing_to_see_gives_nothing_or_next_to_nothing(name: str) -> None:
    extractor = create_extractor(name)
    counts = {what: len(extractor.extract(image)) for what, image in featureless().items()}
    assert max(counts.values()) <= 10, counts
    assert counts["black"] == counts["grey"] == counts["white"] == 0


def test_the_noise_level_is_that_of_the_noise_and_not_of_the_picture() -> None:
    rng = np.random.default_rng(1)
    y, x = np.mgrid[:240, :320].astype(np.float32)
    for sigma in (1.0, 3.0, 12.0):
        noise = rng.normal(0, sigma, (240, 320)).astype(np.float32)
        assert noise_level(100 + noise) == pytest.approx(sigma, rel=0.05)
        assert noise_level(x / 2 + y / 4 + noise) == pytest.approx(sigma, rel=0.05)
    # A tenth of white pixels is no noise of its quieter part.
    salt = np.full((240, 320), 100, np.float32)
    salt[rng.random(salt.shape) < 0.1] = 255
    assert noise_level(salt + rng.normal(0, 1, salt.shape).astype(np.float32)) < 4.0


def test_noise_has_a_ratio_of_one_and_a_weak_corner_many() -> None:
    rng = np.random.default_rng(2)
    image = np.full((240, 320), 100, np.float32)
    image[120:, 160:] += 12.0
    points = np.stack([rng.uniform(20, 140, 500), rng.uniform(20, 100, 500)], axis=1).astype(np.float32)
    corner = np.array([[159.5, 119.5]], dtype=np.float32)
    for sigma in (1.0, 2.0):
        noisy = image + rng.normal(0, sigma, image.shape).astype(np.float32)
        ratios = contrast_to_noise(noisy, points)
        assert ratios.mean() == pytest.approx(1.0, abs=0.15)
        assert ratios.max() < LEAST_RATIO
        assert contrast_to_noise(noisy, corner)[0] > LEAST_RATIO / sigma**2
    # The whole of an eighth of the light is still a picture.
    assert contrast_to_noise(np.float32(0.125) * image, corner)[0] > LEAST_RATIO / 4


def test_black_against_white_has_no_matches(run: Run, tmp_path: Path) -> None:
    for name, value in (("black.png", 0), ("white.png", 255)):
        write_image(tmp_path / name, np.full((240, 320, 3), value, np.uint8))
    outcome = run("match", tmp_path / "black.png", tmp_path / "white.png", "-g", "homography")
    assert "650" not in outcome.out
    features = semkey.load("nano").extract(tmp_path / "black.png")
    assert len(features) == 0
    assert features.descriptors.shape[1] > 0


def test_a_low_texture_interior_keeps_its_keypoints(shared: Path) -> None:
    folder = shared / "data" / "tum" / "rgbd_dataset_freiburg3_cabinet_subsampled" / "rgb"
    detector = semkey.load("nano")
    for path in sorted(folder.iterdir())[::20]:
        assert len(detector.extract(path)) >= 0.95 * 1024
        darker = (read_image(path) * 0.5).astype(np.uint8)
        assert len(detector.extract(darker)) >= 0.7 * 1024


@pytest.mark.parametrize("name", FEATURES)
def test_photos_far_out_of_focus_have_no_keypoints_however_plain_their_sharpest_parts_are(
    shared: Path, name: str
) -> None:
    """Where a photo is plain there is little energy at either scale, and their ratio says nothing."""
    photos = sorted((shared / "data" / "photos" / "val").iterdir())
    pictures = [read_image(photos[index]) for index in (39, 44, 114, 136)]
    extractor = create_extractor(name)
    for negative in negative_images(pictures)["defocus"]:
        assert len(extractor.extract(negative.image)) == 0


def disc(image: np.ndarray, radius: int) -> np.ndarray:
    offsets = np.arange(-radius, radius + 1)
    inside = (np.hypot(*np.meshgrid(offsets, offsets)) <= radius).astype(np.float32)
    return cv2.filter2D(image, -1, inside / inside.sum(), borderType=cv2.BORDER_REFLECT_101)


@pytest.mark.parametrize("name", FEATURES)
def test_far_out_of_focus_there_are_no_places_but_moved_and_enlarged_pictures_keep_theirs(name: str) -> None:
    extractor = create_extractor(name)
    picture = blocks(480, 640, seed=4, size=24)
    noise = np.random.default_rng(5).normal(0, 2, picture.shape)

    def count(image: np.ndarray) -> int:
        return len(extractor.extract(np.clip(image + noise, 0, 255).astype(np.uint8)))

    assert count(disc(picture.astype(np.float32), 20)) == 0
    moved = cv2.filter2D(picture.astype(np.float32), -1, np.full((1, 31), 1 / 31, np.float32))
    assert count(moved) > 100
    assert count(cv2.resize(picture[:240, :320], (640, 480), interpolation=cv2.INTER_CUBIC)) > 100


def test_sharpness_falls_with_the_blur_and_not_with_the_contrast_or_the_noise() -> None:
    picture = cv2.cvtColor(blocks(240, 320, seed=6, size=20), cv2.COLOR_RGB2GRAY).astype(np.float32)
    x, y = np.meshgrid(np.arange(20, 300, 20) - 0.5, np.arange(20, 220, 20) - 0.5)
    corners = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)

    def blurred_by(sigma: float) -> np.ndarray:
        return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma), dtype=np.float32)

    values = [sharpness(blurred_by(sigma), corners) for sigma in (0.5, 2.0, 4.0, 8.0)]
    assert values == sorted(values, reverse=True)
    assert values[1] > LEAST_SHARPNESS > values[3]
    blurred = blurred_by(2.0)
    assert sharpness(0.3 * blurred, corners) == pytest.approx(values[1], rel=0.1)
    noisy = blurred + np.random.default_rng(7).normal(0, 2, picture.shape).astype(np.float32)
    assert sharpness(noisy, corners) == pytest.approx(values[1], rel=0.2)
    assert sharpness(np.zeros((8, 8), np.float32), corners[:1]) == np.inf


def test_large_blobs_are_in_focus_although_their_middles_have_no_edges() -> None:
    picture = cv2.cvtColor(blocks(480, 640, seed=8, size=80), cv2.COLOR_RGB2GRAY).astype(np.float32)
    x, y = np.meshgrid(np.arange(40, 640, 80), np.arange(40, 480, 80))
    middles = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    bumps = np.zeros_like(picture)
    bumps[40::80, 40::80] = 30 * 2 * np.pi * 8**2
    picture += cv2.GaussianBlur(bumps, (0, 0), 8)
    assert sharpness(picture, middles) < LEAST_SHARPNESS
    assert sharpness(picture) > LEAST_SHARPNESS_OF_IMAGE
    assert has_structure(torch.from_numpy(picture), torch.from_numpy(middles)).any()
    blurred = np.asarray(disc(picture, 20), dtype=np.float32)
    assert sharpness(blurred) < LEAST_SHARPNESS_OF_IMAGE
    assert not has_structure(torch.from_numpy(blurred), torch.from_numpy(middles)).any()


def test_a_large_picture_is_as_sharp_as_it_looks() -> None:
    picture = cv2.cvtColor(blocks(300, 400, seed=6, size=10), cv2.COLOR_RGB2GRAY).astype(np.float32)
    large = np.asarray(cv2.resize(picture, (4000, 3000), interpolation=cv2.INTER_CUBIC), dtype=np.float32)
    assert sharpness(large) > LEAST_SHARPNESS_OF_IMAGE
    x, y = np.meshgrid(np.arange(10, 390, 10) - 0.5, np.arange(10, 290, 10) - 0.5)
    corners = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float32)
    places = (corners + 0.5) * 10 - 0.5
    assert sharpness(large, places) > LEAST_SHARPNESS
    assert has_structure(torch.from_numpy(large), torch.from_numpy(places)).all()
    assert sharpness(np.asarray(disc(large, 60), dtype=np.float32)) < LEAST_SHARPNESS_OF_IMAGE
