"""Peers behind semkey's interface: valid features for any image, right pixels at any size, plugins."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F

from semkey.downloads import file_sha256
from semkey.errors import CheckpointError, ConfigError, InputError
from semkey.extractors import Extractor, create_extractor, extractor_names, plugins
from semkey.extractors.peer_weights import RELEASES
from semkey.extractors.peers import PEERS, import_kornia_feature
from semkey.geometry.pixels import resize_keypoints
from semkey.images import read_image, write_image

pytest.importorskip("kornia", reason="kornia comes with the extra 'peers'")

WIDTHS = {"aliked-t16": 64, "aliked-n16": 128, "aliked-n16rot": 128, "aliked-n32": 128, "xfeat": 64, "disk": 128}
WIDTHS |= {"clidd-n64": 64, "clidd-s64": 64, "clidd-m64": 64, "clidd-l64": 64}
QUICK = ["aliked-t16", "xfeat", "clidd-n64"]


@pytest.fixture(scope="module")
def quick(shared: Path) -> dict[str, Extractor]:
    return {name: create_extractor(name, device="cpu", weights=[shared / "weights"]) for name in QUICK}


@pytest.fixture(scope="module")
def photo(shared: Path) -> np.ndarray:
    return cv2.resize(read_image(shared / "data/planar/graf/img1.png"), (320, 256), interpolation=cv2.INTER_AREA)


def squares(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Squares of 12 pixels at exact sub-pixel positions, a pixel being the mean of its area; (N, 2) corners."""
    rng = np.random.default_rng(0)
    fine = 8
    image = np.repeat(np.repeat(rng.normal(150, 2, (height, width)), fine, axis=0), fine, axis=1)
    x, y = ((np.arange(count * fine) + 0.5) / fine - 0.5 for count in (width, height))
    corners = []
    for top in np.arange(10, height - 22, 32) + rng.uniform():
        for left in np.arange(10, width - 22, 32) + rng.uniform():
            inside = np.ix_((y > top) & (y < top + 12), (x > left) & (x < left + 12))
            image[inside] = rng.choice([40, 240])
            corners += [(left + dx, top + dy) for dx in (0, 12) for dy in (0, 12)]
    pixels = image.reshape(height, fine, width, fine).mean(axis=(1, 3))
    return np.repeat(np.clip(pixels + 0.5, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2), np.array(corners)


@pytest.mark.slow
@pytest.mark.parametrize("name", WIDTHS)
def test_released_weights_give_valid_features(name: str, shared: Path, photo: np.ndarray) -> None:
    try:
        extractor = create_extractor(name, max_keypoints=300, device="cpu", weights=[shared / "weights"])
    except CheckpointError as error:
        pytest.skip(f"no weights: {error}")
    features = extractor.extract(photo)
    assert extractor.name == name
    assert features.descriptors.shape == (300, WIDTHS[name])
    assert features.image_size == (320, 256)
    for tensor in (features.keypoints, features.scores, features.reliability, features.descriptors):
        assert tensor.dtype == torch.float32
        assert bool(torch.isfinite(tensor).all())
    assert bool((features.scores.diff() <= 0).all()), "strongest first"
    assert bool(((features.scores >= 0) & (features.scores <= 1)).all())
    torch.testing.assert_close(features.descriptors.norm(dim=1), torch.ones(300))


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 3), (7, 7), (31, 31), (33, 65)])
def test_tiny_images_keep_keypoints_inside(name: str, size: tuple[int, int], quick: dict[str, Extractor]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    features = quick[name].extract(image)
    height, width = size
    assert features.image_size == (width, height)
    assert bool((features.keypoints >= 0).all())
    assert bool((features.keypoints <= torch.tensor([width - 1.0, height - 1.0])).all())
    assert bool(torch.isfinite(features.descriptors).all())


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("value", [0, 127, 255])
def test_constant_images_do_not_break(name: str, value: int, quick: dict[str, Extractor]) -> None:
    features = quick[name].extract(np.full((96, 128, 3), value, np.uint8))
    assert bool(torch.isfinite(features.keypoints).all())
    assert bool(torch.isfinite(features.descriptors).all())


@pytest.mark.parametrize("name", QUICK)
def test_every_form_of_an_image_gives_the_same_features(
    name: str, quick: dict[str, Extractor], photo: np.ndarray, tmp_path: Path
) -> None:
    write_image(tmp_path / "a.png", photo)
    expected = quick[name].extract(photo)
    for other in (tmp_path / "a.png", str(tmp_path / "a.png"), torch.from_numpy(photo).permute(2, 0, 1).float() / 255):
        features = quick[name].extract(other)
        torch.testing.assert_close(features.keypoints, expected.keypoints)
        torch.testing.assert_close(features.descriptors, expected.descriptors)
    gray = np.ascontiguousarray(photo[:, :, 0])
    from_gray = quick[name].extract(gray)
    torch.testing.assert_close(from_gray.keypoints, quick[name].extract(np.dstack([gray] * 3)).keypoints)
    for bad in (np.zeros((64, 64, 3)), np.zeros((0, 5, 3), np.uint8), torch.full((3, 64, 64), float("nan")), 5):
        with pytest.raises(InputError):
            quick[name].extract(bad)  # ty: ignore[invalid-argument-type]


@pytest.mark.parametrize("name", QUICK)
def test_extraction_is_deterministic_and_leaves_random_numbers_alone(
    name: str, shared: Path, photo: np.ndarray, quick: dict[str, Extractor]
) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    again = create_extractor(name, device="cpu", weights=[shared / "weights"]).extract(photo)
    torch.testing.assert_close(torch.rand(3), expected, rtol=0, atol=0)
    first = quick[name].extract(photo)
    assert torch.equal(first.keypoints, again.keypoints)
    assert torch.equal(first.descriptors, again.descriptors)


# -- pixels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(320, 256), (319, 255), (301, 229), (290, 250)])
def test_aliked_padding_does_not_move_corners(size: tuple[int, int], quick: dict[str, Extractor]) -> None:
    """The padding to 320x256 is up to 15 pixels on each side: forgotten, it would move every corner by so much."""
    image, corners = squares(320, 256)
    expected = quick["aliked-t16"].extract(image).keypoints
    found = quick["aliked-t16"].extract(image[: size[1], : size[0]]).keypoints
    inside = corners[(corners < np.array(size) - 24).all(axis=1)]
    reference = nearest_errors(expected, inside)
    errors = nearest_errors(found, inside)
    both = (np.hypot(*reference.T) < 2.5) & (np.hypot(*errors.T) < 2.5)
    assert both.sum() > 100
    assert np.abs(np.median(errors[both] - reference[both], axis=0)).max() < 0.05
    assert np.abs(np.median(errors[both], axis=0)).max() < 1


def nearest_errors(keypoints: torch.Tensor, corners: np.ndarray) -> np.ndarray:
    """(N, 2) from each corner to its nearest keypoint."""
    nearest = torch.cdist(torch.from_numpy(corners).float(), keypoints).argmin(dim=1)
    return keypoints[nearest].numpy() - corners


@pytest.mark.parametrize("size", [(320, 256), (319, 255), (330, 63), (95, 127)])
def test_xfeat_keypoints_are_pixel_centres_of_the_image_it_resizes(
    size: tuple[int, int], quick: dict[str, Extractor]
) -> None:
    """XFeat resizes to multiples of 32; the image resized beforehand, where it need not, gives the truth."""
    width, height = size
    image, _ = squares(width, height)
    tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    inner = (width // 32 * 32, height // 32 * 32)
    resized = F.interpolate(tensor[None], inner[::-1], mode="bilinear", align_corners=False)[0]
    found = quick["xfeat"].extract(tensor)
    truth = resize_keypoints(quick["xfeat"].extract(resized).keypoints, inner, size)
    assert len(found) == len(truth) > 10
    truth = torch.minimum(truth.clamp(min=0), torch.tensor([width - 1.0, height - 1.0]))
    torch.testing.assert_close(found.keypoints, truth, atol=1e-3, rtol=0)


@pytest.mark.parametrize("size", [(320, 256), (319, 241), (303, 249)])
def test_disk_padding_does_not_move_keypoints(
    size: tuple[int, int], photo: np.ndarray, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Untrained, so that no file is needed: scores are those of the network at the very pixels that are returned."""
    feature = import_kornia_feature()
    torch.manual_seed(0)
    torch.save({"extractor": feature.DISK().state_dict()}, tmp_path / "depth-save.pth")
    release = RELEASES["disk-depth-save.pth"]
    known = dataclasses.replace(release, sha256=file_sha256(tmp_path / "depth-save.pth"))
    monkeypatch.setitem(RELEASES, "disk-depth-save.pth", known)
    extractor = create_extractor("disk", max_keypoints=2000, device="cpu", weights=[tmp_path])
    features = extractor.extract(photo[: size[1], : size[0]])
    assert features.descriptors.shape == (len(features), 128)
    assert bool((features.scores.diff() <= 0).all())
    assert bool(((features.scores >= 0.5) & (features.scores <= 1)).all()), "logits above 0"
    with torch.inference_mode():
        tensor = torch.from_numpy(photo).permute(2, 0, 1)[None].float() / 255
        network: Any = extractor.network
        heat, _ = network.heatmap_and_dense_descriptors(
            F.pad(tensor[..., : size[1], : size[0]], (0, -size[0] % 16, 0, -size[1] % 16))
        )
    x, y = features.keypoints.long().T
    assert len(features) > 50
    torch.testing.assert_close(torch.sigmoid(heat[0, 0][y, x]), features.scores)


@pytest.mark.parametrize("size", [(319, 255), (287, 223), (301, 277)])
@pytest.mark.parametrize("name", QUICK)
def test_corners_are_found_where_they_are_at_odd_sizes(
    name: str, size: tuple[int, int], quick: dict[str, Extractor]
) -> None:
    """Both networks have biases of their own, but they do not grow with the distance from the origin as scales do."""
    image, corners = squares(*size)
    errors = nearest_errors(quick[name].extract(image).keypoints, corners)
    near = np.hypot(*errors.T) < 3
    assert near.sum() > 0.4 * len(corners)
    growth = [np.polyfit(corners[near, axis], errors[near, axis], 1)[0] * size[axis] for axis in (0, 1)]
    assert np.abs(growth).max() < 1.5
    assert np.abs(np.median(errors[near], axis=0)).max() < 1


@pytest.mark.parametrize("name", QUICK)
def test_large_images_are_reduced_and_keypoints_come_back(
    name: str, quick: dict[str, Extractor], monkeypatch: pytest.MonkeyPatch
) -> None:
    image, _ = squares(480, 384)
    tensor = torch.from_numpy(image).permute(2, 0, 1).float() / 255
    reduced = F.interpolate(tensor[None], (256, 320), mode="bilinear", align_corners=False, antialias=True)[0]
    truth = resize_keypoints(quick[name].extract(reduced).keypoints, (320, 256), (480, 384))
    monkeypatch.setattr("semkey.extractors.peer.MAX_PIXELS", 320 * 256)
    features = quick[name].extract(tensor)
    assert features.image_size == (480, 384)
    assert len(features) > 300
    torch.testing.assert_close(features.keypoints, truth, atol=1e-3, rtol=0)


# -- names and plugins ---------------------------------------------------------------------------------------------


def test_names_list_everything() -> None:
    assert set(PEERS) | {"compact", "orb", "sift"} <= set(extractor_names())
    with pytest.raises(ConfigError, match="did you mean 'aliked-n16'"):
        create_extractor("aliked_n16")


def test_without_kornia_the_message_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "kornia", None)
    monkeypatch.delitem(sys.modules, "kornia.feature", raising=False)
    with pytest.raises(ConfigError, match=r"pip install 'semkey\[peers\]'"):
        create_extractor("xfeat")


PLUGIN = """
import torch
from semkey.model.features import Features


class Corners:
    name = "corners"

    def __init__(self, count, device):
        self.settings = {"weights_sha256": "abc", "count": count, "device": str(device)}

    def extract(self, image):
        height, width = image.shape[:2]
        points = torch.tensor([[1.0, 2.0], [width - 2.0, height - 3.0]])
        return Features(keypoints=points, scores=torch.tensor([1.0, 0.5]), reliability=torch.ones(2),
                        descriptors=torch.eye(2), global_descriptor=torch.zeros(0), image_size=(width, height))


def create(*, max_keypoints, device):
    return Corners(max_keypoints, device)


def nothing(*, max_keypoints, device):
    return 5


def positional(count):
    return Corners(count, "cpu")


constant = 3


def unstorable(*, max_keypoints, device):
    extractor = Corners(max_keypoints, device)
    extractor.settings["network"] = object()
    return extractor
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "corner_plugin.py").write_text(PLUGIN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield "corner_plugin"
    sys.modules.pop("corner_plugin", None)


def test_a_function_of_a_module_in_the_current_folder(plugin: str) -> None:
    extractor = create_extractor(f"{plugin}:create", max_keypoints=7, device="cpu")
    assert extractor.name == f"{plugin}:create"
    assert extractor.extract(np.zeros((20, 30, 3), np.uint8)).keypoints.tolist() == [[1, 2], [28, 17]]
    settings = extractor.settings
    assert settings["weights_sha256"] == "abc"
    assert settings["count"] == 7
    assert settings["device"] == "cpu"
    assert len(settings["source_sha256"]) == 64


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("corner_plugin:absent", "no attribute 'absent'"),
        ("no_such_module_x:create", "No module named"),
        ("corner_plugin:nothing", "needs a name .* int lacks it"),
        ("corner_plugin:constant", "is no function"),
        ("corner_plugin:unstorable", "settings must be a mapping that JSON can hold"),
        ("corner_plugin:positional", "max_keypoints=, device="),
        ("corner_plugin:", "cannot be loaded"),
        (":create", "cannot be loaded"),
    ],
)
def test_plugins_that_cannot_be_used_say_why(plugin: str, name: str, words: str) -> None:
    assert plugin
    with pytest.raises(ConfigError, match=words) as caught:
        create_extractor(name)
    assert name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_entry_points(plugin: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    points = [EntryPoint("corners", f"{plugin}:create", plugins.ENTRY_POINT_GROUP)]

    def entry_points(*, group: str, name: str | None = None) -> list[EntryPoint]:
        assert group == "semkey.extractors"
        return [point for point in points if name in (None, point.name)]

    monkeypatch.setattr(plugins.importlib.metadata, "entry_points", entry_points)
    monkeypatch.syspath_prepend(Path.cwd())
    assert extractor_names()[-1] == "corners"
    extractor = create_extractor("corners", max_keypoints=3, device="cpu")
    assert extractor.name == "corners"
    assert len(extractor.extract(np.zeros((20, 30, 3), np.uint8))) == 2
    with pytest.raises(ConfigError, match="did you mean 'corners'"):
        create_extractor("cornerz")
    points.append(EntryPoint("corners", "other:create", plugins.ENTRY_POINT_GROUP))
    with pytest.raises(ConfigError, match="registered by several packages"):
        create_extractor("corners")
