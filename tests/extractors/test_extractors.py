from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from semkey.errors import ConfigError, InputError
from semkey.extractors import ClassicalExtractor, create_extractor
from semkey.images import read_image, write_image
from semkey.matching import match
from semkey.model.features import Features

CLASSICAL = ["orb", "sift"]
WIDTHS = {"orb": 256, "sift": 128}


def blobs(rng: np.random.Generator, size: tuple[int, int] = (480, 640)) -> np.ndarray:
    """A textured image: noise at several scales."""
    height, width = size
    image = np.zeros(size, dtype=np.float32)
    for sigma in (1.5, 3, 6):
        layer = cv2.GaussianBlur(rng.normal(size=size).astype(np.float32), (0, 0), sigma)
        image += layer / layer.std()
    gray = np.clip(128 + 40 * image, 0, 255).astype(np.uint8)
    assert gray.shape == (height, width)
    return np.repeat(gray[:, :, None], 3, axis=2)


def assert_valid(features: Features, name: str, max_keypoints: int, width: int, height: int) -> None:
    assert len(features) <= max_keypoints
    assert features.image_size == (width, height)
    assert features.descriptors.shape == (len(features), WIDTHS[name])
    for tensor in (features.keypoints, features.scores, features.reliability, features.descriptors):
        assert tensor.dtype == torch.float32
        assert bool(torch.isfinite(tensor).all())
    assert bool((features.keypoints >= 0).all())
    assert bool((features.keypoints <= torch.tensor([width - 1.0, height - 1.0])).all())
    assert bool((features.scores.diff() <= 0).all()), "strongest first"
    assert bool(((features.scores >= 0) & (features.scores <= 1)).all())
    torch.testing.assert_close(features.descriptors.norm(dim=1), torch.ones(len(features)))


@pytest.mark.parametrize("name", CLASSICAL)
@pytest.mark.parametrize("max_keypoints", [1, 100, 1024])
def test_features_are_valid(name: str, max_keypoints: int, rng: np.random.Generator) -> None:
    features = create_extractor(name, max_keypoints=max_keypoints).extract(blobs(rng))
    assert_valid(features, name, max_keypoints, 640, 480)
    assert len(features) == max_keypoints
    assert features.scores[0] == 1
    assert features.reliability.unique().tolist() == [1]
    assert features.global_descriptor.shape == (0,)


@pytest.mark.parametrize("name", CLASSICAL)
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3), (7, 7), (8, 8), (9, 31), (16, 16), (63, 65)])
def test_tiny_images_give_valid_features(name: str, size: tuple[int, int], rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    assert_valid(create_extractor(name).extract(image), name, 1024, size[1], size[0])


@pytest.mark.parametrize("name", CLASSICAL)
@pytest.mark.parametrize("value", [0, 100, 255])
def test_constant_images_give_no_features(name: str, value: int) -> None:
    features = create_extractor(name).extract(np.full((240, 320, 3), value, dtype=np.uint8))
    assert_valid(features, name, 1024, 320, 240)
    assert len(features) == 0
    assert len(match(features, features)) == 0


@settings(deadline=None, max_examples=25)
@given(st.sampled_from(CLASSICAL), hnp.arrays(np.uint8, st.tuples(st.integers(1, 90), st.integers(1, 90))))
def test_any_image_gives_valid_features(name: str, image: np.ndarray) -> None:
    features = create_extractor(name, max_keypoints=50).extract(image)
    assert_valid(features, name, 50, image.shape[1], image.shape[0])


@pytest.mark.parametrize("name", CLASSICAL)
def test_every_form_of_an_image_gives_the_same_features(name: str, tmp_path: Path, rng: np.random.Generator) -> None:
    image = blobs(rng, (200, 300))
    write_image(tmp_path / "a.png", image)
    extractor = create_extractor(name)
    expected = extractor.extract(image)
    tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    for other in (tmp_path / "a.png", str(tmp_path / "a.png"), image[:, :, 0], tensor):
        features = extractor.extract(other)
        torch.testing.assert_close(features.keypoints, expected.keypoints)
        torch.testing.assert_close(features.descriptors, expected.descriptors)


@pytest.mark.parametrize("name", CLASSICAL)
def test_nan_and_wrong_arrays_are_refused(name: str) -> None:
    extractor = create_extractor(name)
    for bad in (torch.full((3, 64, 64), float("nan")), np.zeros((64, 64, 3)), np.zeros((0, 5, 3), np.uint8), 5):
        with pytest.raises(InputError):
            extractor.extract(bad)  # ty: ignore[invalid-argument-type]


def test_orb_cosine_is_the_hamming_distance(rng: np.random.Generator) -> None:
    image = blobs(rng)
    features = create_extractor("orb", max_keypoints=200).extract(image)
    bits = (features.descriptors > 0).int()
    hamming = (bits[:, None] != bits[None]).sum(dim=2)
    cosine = features.descriptors @ features.descriptors.T
    assert torch.equal(cosine, 1 - 2 * hamming / 256), "exact, being sums of powers of two"
    assert bool((features.descriptors.abs() == 1 / 16).all())


def test_orb_descriptors_are_opencvs(rng: np.random.Generator) -> None:
    image = blobs(rng)
    features = create_extractor("orb").extract(image)
    detector = cv2.ORB.create(nfeatures=1024, fastThreshold=7)
    found, packed = detector.detectAndCompute(image[:, :, 0], None)
    by_place = {(*keypoint.pt, keypoint.octave): row for keypoint, row in zip(found, packed, strict=True)}
    rows = {tuple(np.unpackbits(row)) for row in by_place.values()}
    ours = {tuple(row) for row in (features.descriptors > 0).to(torch.uint8).numpy()}
    assert ours == rows


def test_rootsift_is_the_square_root_of_l1_normalised_sift(rng: np.random.Generator) -> None:
    image = blobs(rng)
    features = create_extractor("sift", max_keypoints=300).extract(image)
    found, raw = cv2.SIFT.create(nfeatures=300, enable_precise_upscale=True).detectAndCompute(image[:, :, 0], None)
    order = np.argsort([-keypoint.response for keypoint in found], kind="stable")[:300]
    expected = np.sqrt(raw[order] / raw[order].sum(axis=1, keepdims=True))
    np.testing.assert_allclose(features.descriptors.numpy(), expected, atol=1e-6)


def test_zero_sift_descriptor_stays_a_unit_vector() -> None:
    extractor = create_extractor("sift")
    assert isinstance(extractor, ClassicalExtractor)
    np.testing.assert_allclose(np.linalg.norm(extractor._normalize(np.zeros((2, 128), np.float32)), axis=1), 1)


def test_sift_finds_blobs_where_they_are() -> None:
    y, x = np.mgrid[:300, :400]
    rng = np.random.default_rng(0)
    centres = np.stack(np.meshgrid(np.arange(40, 370, 50), np.arange(40, 270, 50)), axis=-1).reshape(-1, 2)
    centres = centres + rng.uniform(0, 1, centres.shape)
    image = np.full((300, 400), 60.0)
    for centre in centres:
        image += 150 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * 4.0**2))
    features = create_extractor("sift").extract(np.clip(image, 0, 255).astype(np.uint8))
    distance = torch.cdist(torch.from_numpy(centres).float(), features.keypoints)
    nearest = features.keypoints[distance.argmin(dim=1)].numpy()
    assert np.abs(nearest - centres).max() < 0.2
    assert np.abs((nearest - centres).mean(axis=0)).max() < 0.05, "a bias of 0.25 px is OpenCV's imprecise upscaling"


@pytest.mark.parametrize("name", CLASSICAL)
def test_shifted_image_matches_itself(name: str, rng: np.random.Generator) -> None:
    image = blobs(rng, (500, 660))
    extractor = create_extractor(name)
    features0, features1 = extractor.extract(image[:480, :640]), extractor.extract(image[12:492, 8:648])
    matches = match(features0, features1)
    moved = features0.keypoints[matches.indices[:, 0]] - features1.keypoints[matches.indices[:, 1]]
    # ORB finds corners at whole pixels of its pyramid, whose coarsest level has pixels of 1.2^7 = 3.6.
    right = (moved - torch.tensor([8.0, 12.0])).norm(dim=1) < 3.6
    assert len(matches) > 400
    assert right.float().mean() > 0.9


@pytest.mark.parametrize("name", CLASSICAL)
def test_extraction_is_deterministic(name: str, rng: np.random.Generator) -> None:
    image = blobs(rng)
    first, second = create_extractor(name).extract(image), create_extractor(name).extract(image)
    assert torch.equal(first.keypoints, second.keypoints)
    assert torch.equal(first.descriptors, second.descriptors)


@pytest.mark.slow
@pytest.mark.parametrize("name", CLASSICAL)
def test_a_hundred_megapixels_work(name: str, rng: np.random.Generator) -> None:
    patch = blobs(rng, (300, 400))
    image = cv2.resize(patch, (12000, 9000), interpolation=cv2.INTER_LINEAR)
    features = create_extractor(name).extract(image)
    assert_valid(features, name, 1024, 12000, 9000)
    assert len(features) > 500
    assert features.keypoints[:, 0].max() > 6000, "positions must come back in pixels of the original"


def test_orb_is_not_dominated_by_python(shared: Path) -> None:
    image = read_image(shared / "data/planar/graf/img1.png")
    extractor = create_extractor("orb")
    assert isinstance(extractor, ClassicalExtractor)
    gray = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    whole, inside = [], []
    for _ in range(7):
        start = time.perf_counter()
        extractor.extract(image)
        middle = time.perf_counter()
        extractor._detector.detectAndCompute(gray, None)
        whole.append(middle - start)
        inside.append(time.perf_counter() - middle)
    assert min(whole) < 2 * min(inside) + 2e-3


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("orbb", "did you mean 'orb'"),
        ("superpoint", r"\.safetensors"),
        ("", "choose one of compact, nano, vit-tiny, orb, sift"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(name: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        create_extractor(name)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(ConfigError, match="max_keypoints"):
        create_extractor("orb", max_keypoints=0)
    with pytest.raises(ConfigError, match="device 'warp'"):
        create_extractor("orb", device="warp")


def test_name_tells_the_extractor() -> None:
    assert [create_extractor(name).name for name in CLASSICAL] == CLASSICAL
