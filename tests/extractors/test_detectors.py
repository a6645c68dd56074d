"""Every feature is one kind of object: it extracts, under masks too, describes points, prints in one line."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data

from semkey.errors import CheckpointError, ConfigError, InputError, SemkeyError
from semkey.extractors import ClassicalExtractor, Detector, load
from semkey.images import write_image
from semkey.images.masks import in_mask
from semkey.model.features import Features
from semkey.model.presets import presets

ALWAYS = ["compact", "nano", "orb", "sift"]
WITH_WEIGHTS = ["vit-tiny", "aliked-t16", "xfeat", "clidd-n64"]
SIZE = (512, 384)


@cache
def detector(name: str, max_keypoints: int = 300) -> Detector:
    return load(name, max_keypoints=max_keypoints, device="cpu")


@pytest.fixture(params=[*ALWAYS, *WITH_WEIGHTS])
def name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param in WITH_WEIGHTS:
        shared = request.getfixturevalue("shared")
        monkeypatch.setenv("SEMKEY_WEIGHTS", str(shared / "weights"))
        try:
            detector(request.param)
        except SemkeyError as error:
            pytest.skip(str(error))
    return request.param


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    return np.ascontiguousarray(data.astronaut()[: SIZE[1]])


def test_one_kind_of_object(name: str, photo: np.ndarray) -> None:
    one = detector(name)
    assert isinstance(one, Detector)
    assert (one.name, one.max_keypoints) == (name, 300)
    assert repr(one) == f"Detector({name}: at most 300 keypoints, on cpu)"
    features = one.extract(photo)
    features.check(size=SIZE, max_keypoints=300)
    assert features.method == name
    assert 290 <= len(features) <= 300, "a few may lie where there is nothing but noise"


def test_tensors_are_ordinary_ones(name: str, photo: np.ndarray) -> None:
    features = detector(name).extract(photo)
    others = detector(name).describe(photo, [[30.0, 40.0], [200.0, 100.0]])
    for tensor in (
        features.keypoints,
        features.scores,
        features.reliability,
        features.descriptors,
        features.global_descriptor,
        others.keypoints,
        others.descriptors,
    ):
        assert not tensor.is_inference()
        tensor.add_(0.0)
        wanted = tensor.clone().requires_grad_()
        (wanted**2).sum().backward()
        assert wanted.grad is not None
    weight = torch.nn.Linear(features.descriptors.shape[1], 2)
    weight(features.descriptors).sum().backward()


def left_out(shape: tuple[int, int]) -> np.ndarray:
    """The face, a stripe and a checkered corner."""
    mask = np.full(shape, 255, np.uint8)
    mask[40:200, 150:320] = 0
    mask[:, 400:412] = 0
    mask[300:, :100][::2] = 0
    return mask


def test_no_keypoint_on_masked_pixels_and_the_others_are_as_many(name: str, photo: np.ndarray) -> None:
    mask = left_out(photo.shape[:2])
    one = detector(name)
    whole, features = one.extract(photo), one.extract(photo, mask)
    hit = ~in_mask(whole.keypoints.numpy(), mask > 0)
    assert hit.sum() > 20, "the mask must take something away"
    assert in_mask(features.keypoints.numpy(), mask > 0).all()
    # ORB has a quota for each of its reduced images, and its fit may leave the mask by a pixel.
    assert len(features) >= (285 if name in ("orb", "sift") else 298)
    features.check(size=SIZE, max_keypoints=300)
    # What is far from the mask is found as before.
    kept = whole.keypoints[~torch.from_numpy(hit)]
    again = torch.cdist(kept, features.keypoints).min(dim=1).values < 0.5
    assert again.float().mean() > 0.9


def test_masks_of_everything_and_nothing(name: str, photo: np.ndarray) -> None:
    one = detector(name)
    nothing = one.extract(photo, np.zeros(photo.shape[:2], np.uint8))
    assert len(nothing) == 0
    assert nothing.descriptors.shape == (0, one.extract(photo).descriptors.shape[1])
    everything = one.extract(photo, np.ones(photo.shape[:2], bool))
    plain = one.extract(photo)
    assert len(everything) == len(plain)
    torch.testing.assert_close(everything.keypoints, plain.keypoints)


@pytest.mark.parametrize("name", ["compact", "sift"])
def test_masks_hold_on_reduced_images(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semkey.extractors.classical.MAX_PIXELS", 60_000)
    image = np.ascontiguousarray(np.tile(data.astronaut(), (1, 2, 1))[:, :777])
    mask = np.full(image.shape[:2], 255, np.uint8)
    mask[100:400:2] = 0  # single rows, narrower than a reduced pixel
    options: dict[str, Any] = {"max_side": 300} if name == "compact" else {}
    one = load(name, max_keypoints=300, device="cpu", **options)
    features = one.extract(image, mask)
    assert len(features) > 100
    assert in_mask(features.keypoints.numpy(), mask > 0).all()
    assert ((features.keypoints[:, 1] < 100) | (features.keypoints[:, 1] > 400)).all()


def test_what_is_masked_does_not_suppress_what_is_beside_it() -> None:
    """Two blobs three pixels apart: the stronger one hides the other until it is masked."""
    image = np.full((96, 96), 90, np.uint8)
    yy, xx = np.mgrid[:96, :96]
    for x, height in ((40.0, 150.0), (44.0, 110.0)):
        image = np.maximum(image, 90 + height * np.exp(-((xx - x) ** 2 + (yy - 48) ** 2) / 3.0)).astype(np.uint8)
    mask = np.full(image.shape, 255, np.uint8)
    mask[:, :42] = 0
    features = detector("compact").extract(image, mask)
    assert (features.keypoints[:, 0] > 41.5).all()
    near = (features.keypoints - torch.tensor([44.0, 48.0])).norm(dim=1).min()
    assert near < 2.5


def test_own_points_are_described_in_their_order(name: str, photo: np.ndarray) -> None:
    one = detector(name)
    found = one.extract(photo)
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(0))[:120]
    mine = one.describe(photo, found.keypoints[order])
    assert torch.equal(mine.keypoints, found.keypoints[order])
    assert (mine.method, mine.image_size) == (name, SIZE)
    cosine = (mine.descriptors * found.descriptors[order]).sum(dim=1)
    if isinstance(one, ClassicalExtractor):  # these are described upright and at one scale here
        inside = ((mine.keypoints > 60) & (mine.keypoints < torch.tensor(SIZE) - 60)).all(dim=1)
        wanted = one.extract_and_describe(photo, mine.keypoints)[1]
        torch.testing.assert_close(mine.descriptors[inside], wanted[inside])
        assert inside.sum() > 40
    elif name == "xfeat":  # whose own keypoints are moved by the change to multiples of 32
        assert cosine.median() > 0.999
    else:
        assert cosine.min() > 0.999
        torch.testing.assert_close(mine.scores, found.scores[order], atol=0.25, rtol=0)
    assert (mine.descriptors.norm(dim=1) - 1).abs().max() < 1e-3
    assert len(one.describe(photo, np.zeros((0, 2)))) == 0


def test_points_at_the_edge_are_described_too(name: str, photo: np.ndarray) -> None:
    corners = [[0.0, 0.0], [SIZE[0] - 1.0, 0.0], [SIZE[0] - 0.6, SIZE[1] - 0.6], [-0.4, SIZE[1] - 1.0]]
    features = detector(name).describe(photo, corners)
    assert torch.isfinite(features.descriptors).all()
    assert (features.descriptors.norm(dim=1) - 1).abs().max() < 1e-3


@pytest.mark.parametrize(
    ("points", "words"),
    [
        ([[512.0, 3.0]], r"point \(512, 3\) to describe lies outside the image of 512x384"),
        ([[float("nan"), 3.0]], "finite pixels"),
        ([[1.0, 2.0, 3.0]], r"got shape \(1, 3\)"),
        ([1.0, 2.0], r"got shape \(2,\)"),
        ("here", "points to describe are"),
    ],
)
@pytest.mark.parametrize("name", ["compact", "orb"])
def test_points_that_are_none_are_one_line(name: str, photo: np.ndarray, points: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        detector(name).describe(photo, points)  # ty: ignore[invalid-argument-type]


# -- networks ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["compact", "nano"])
def test_the_network_is_exported_as_a_tuple_of_tensors(name: str, photo: np.ndarray) -> None:
    network = detector(name).network
    images = torch.randn(1, 1, 64, 96, generator=torch.Generator().manual_seed(0))
    maps = network(images)
    assert isinstance(maps, tuple)
    assert all(isinstance(part, torch.Tensor) for part in maps)
    assert maps[0].shape == (1, 1, 64, 96)
    program = torch.export.export(network, (images,))
    for ours, exported in zip(maps, program.module()(images), strict=True):
        torch.testing.assert_close(exported, ours)


def test_only_networks_have_one(name: str) -> None:
    if name in ("orb", "sift"):
        with pytest.raises(ConfigError, match=f"features '{name}' have no network"):
            _ = detector(name).network
    else:
        assert isinstance(detector(name).network, torch.nn.Module)


def test_half_precision_is_one_line(photo: np.ndarray) -> None:
    one = load("nano", device="cpu")
    for half in (torch.float16, torch.bfloat16):
        one.network.to(half)
        for attempt in (lambda: one.extract(photo), lambda: one.describe(photo, [[1.0, 1.0]])):
            with pytest.raises(ConfigError, match=f"weights are {half}: extraction computes in bfloat16 by itself"):
                attempt()


@pytest.mark.parametrize("name", ["nano", "orb"])
def test_what_belongs_to_the_network_is_looked_for_there(name: str) -> None:
    for method in ("half", "eval", "parameters", "cuda"):
        with pytest.raises(AttributeError, match=r"the network is detector\.network; device= and precision="):
            getattr(detector(name), method)
    with pytest.raises(AttributeError, match=r"^'Detector' object has no attribute 'extrct'$"):
        _ = detector(name).extrct


# -- names ---------------------------------------------------------------------------------------------------------


def test_a_checkpoint_by_its_path(photo: np.ndarray) -> None:
    path = presets()["nano"].path
    for given in (path, str(path)):
        one = load(given, max_keypoints=100, device="cpu")
        assert torch.equal(one.extract(photo).keypoints, load("nano", max_keypoints=100).extract(photo).keypoints)


@pytest.mark.parametrize(
    ("arguments", "options", "kind", "words"),
    [
        (("compct",), {}, ConfigError, r"unknown features 'compct': .* \(did you mean 'compact'\?\)"),
        ((Path("nowhere.safetensors"),), {}, CheckpointError, "nowhere.safetensors: no such checkpoint"),
        (("nowhere.safetensors",), {}, CheckpointError, "nowhere.safetensors"),
        (("orb",), {"min_score": 0.5}, ConfigError, "features 'orb' have no setting 'min_score'"),
        (("compact",), {"min_scor": 0.5}, ConfigError, "min_scor"),
        (("compact",), {"device": "gpu"}, ConfigError, "device 'gpu' cannot be used here"),
        (("sift",), {"device": "gpu"}, ConfigError, "device 'gpu' cannot be used here"),
        (("nano",), {"max_keypoints": 0}, ConfigError, "max_keypoints must be at least 1"),
        (("dinov2-small",), {}, CheckpointError, "the weights of 'dinov2-small' .* are not on this machine"),
    ],
)
def test_what_cannot_be_loaded_is_one_line(
    arguments: tuple, options: dict, kind: type[SemkeyError], words: str
) -> None:
    with pytest.raises(kind, match=words) as raised:
        load(*arguments, **options)
    assert "\n" not in str(raised.value)


def test_settings_of_extraction_are_passed_on(photo: np.ndarray) -> None:
    strict = load("nano", min_score=0.6, device="cpu").extract(photo)
    assert 0 < len(strict) < 1024
    assert strict.scores.min() >= 0.6


# -- images that are none ------------------------------------------------------------------------------------------

RGB = np.zeros((40, 50, 3), np.uint8)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("nowhere.jpg", "image not found: nowhere.jpg"),
        (np.zeros((40, 50, 4), np.uint8), "RGBA"),
        (RGB.astype(np.float32), "dtype float32: pass uint8"),
        (RGB.astype(np.int64), "dtype int64"),
        (RGB.astype(np.uint16), "dtype uint16"),
        (RGB[None], r"shape \(1, 40, 50, 3\).*one image at a time"),
        (RGB.transpose(2, 0, 1), r"shape \(3, 40, 50\).*channels last"),
        (np.zeros((0, 50, 3), np.uint8), "at least 1 x 1"),
        (torch.rand(1, 3, 40, 50), "one image at a time"),
        (torch.rand(40, 50, 3), "channels first"),
        (torch.rand(4, 40, 50), "RGBA"),
        (torch.rand(3, 40, 50) * 255, r"scale it to \[0, 1\]"),
        (torch.full((3, 40, 50), torch.nan), "NaN"),
        (torch.zeros(3, 40, 50, dtype=torch.uint8), "dtype torch.uint8"),
        ([RGB, RGB], "cannot use list as an image"),
        (None, "cannot use NoneType as an image"),
    ],
    # by what is wrong: the values of an image are no name, and random ones differ between processes
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.parametrize("name", ["nano", "orb"])
def test_what_is_no_image_is_one_line(name: str, image: object, words: str) -> None:
    one = detector(name)
    for attempt in (lambda: one.extract(image), lambda: one.describe(image, [[1.0, 1.0]])):  # ty: ignore
        with pytest.raises(InputError, match=words) as raised:
            attempt()
        assert "\n" not in str(raised.value)


def test_images_of_pillow_are_taken(photo: np.ndarray) -> None:
    image = pytest.importorskip("PIL.Image").fromarray(photo)
    assert torch.equal(detector("nano").extract(image).keypoints, detector("nano").extract(photo).keypoints)


@pytest.mark.parametrize("name", ["nano", "orb", "sift"])
def test_a_mask_of_another_size_is_one_line(name: str, photo: np.ndarray) -> None:
    with pytest.raises(InputError, match="mask has 384x512 pixels, its image 512x384"):
        detector(name).extract(photo, np.ones((SIZE[0], SIZE[1]), np.uint8))


# -- own extractors ------------------------------------------------------------------------------------------------


class Grid:
    """Keypoints on a grid, without masks."""

    name = "grid"

    def extract(self, image: np.ndarray) -> Features:
        height, width = image.shape[:2]
        yy, xx = torch.meshgrid(torch.arange(5.0, height, 10), torch.arange(5.0, width, 10), indexing="ij")
        points = torch.stack([xx, yy], dim=-1).reshape(-1, 2)
        return Features(
            keypoints=points,
            scores=torch.ones(len(points)),
            reliability=torch.ones(len(points)),
            descriptors=torch.nn.functional.normalize(torch.rand(len(points), 8), dim=1),
            global_descriptor=torch.zeros(0),
            image_size=(width, height),
        )


def create(max_keypoints: int, device: str) -> Grid:
    return Grid()


def test_own_extractors_know_masks_and_paths_without_knowing_them(
    photo: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parent)
    one = load("test_detectors:create")
    mask = left_out(photo.shape[:2])
    features = one.extract(photo, mask)
    assert 0 < len(features) < len(one.extract(photo))
    assert in_mask(features.keypoints.numpy(), mask > 0).all()
    assert features.method == "test_detectors:create"
    file = tmp_path / "photo.png"
    write_image(file, photo)
    assert len(one.extract(file)) == len(one.extract(photo)), "a path is read for them: they take pixels"
    with pytest.raises(ConfigError, match="describe only keypoints that they have found themselves"):
        one.describe(photo, [[1.0, 1.0]])
    with pytest.raises(ConfigError, match="no network"):
        _ = one.network
