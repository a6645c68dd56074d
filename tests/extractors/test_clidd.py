"""CLIDD: the network of the paper, its pixels, what a descriptor reads, and the released weights on a real pair."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from semkey.errors import CheckpointError
from semkey.extractors import create_extractor
from semkey.extractors.clidd import CLIDD_SIZES, CliddNetwork, CliddSize
from semkey.images import read_image
from semkey.matching import match


@pytest.mark.parametrize(
    ("name", "thousands"), [("clidd-n64", 19), ("clidd-s64", 100), ("clidd-m64", 168), ("clidd-l64", 348)]
)
def test_parameters_are_those_of_the_paper(name: str, thousands: int) -> None:
    network = CliddNetwork(CLIDD_SIZES[name])
    assert round(sum(parameter.numel() for parameter in network.parameters()) / 1000) == thousands


@pytest.fixture
def reader() -> CliddNetwork:
    """A network whose descriptor is one channel of one level at one place: level 0 unless a test says otherwise."""
    network = CliddNetwork(CliddSize((2, 2, 2), 4)).eval().requires_grad_(False)
    for parameter in (network.dcn.weight, network.dcn.bias, network.post_conv.weight, network.post_conv.bias):
        assert parameter is not None
        parameter.zero_()
    return network


def ramps(width: int = 128, height: int = 96) -> list[torch.Tensor]:
    """Levels that hold the x and y of their own cell centres in pixels of the image."""
    levels = []
    for stride in (2, 8, 32):
        x = (torch.arange(width // stride) + 0.5) * stride - 0.5
        y = (torch.arange(height // stride) + 0.5) * stride - 0.5
        levels.append(torch.stack(torch.meshgrid(x, y, indexing="xy"))[None])
    return levels


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_descriptor_reads_each_level_where_the_keypoint_is(level: int, reader: CliddNetwork) -> None:
    """On ramps of coordinates what is read is the place: an error of half a cell would show as such."""
    reader.post_conv.weight[0, 2 * level, 0, 0] = 1.0
    reader.post_conv.weight[1, 2 * level + 1, 0, 0] = 1.0
    keypoints = torch.tensor([[40.0, 33.0], [51.25, 60.5]])
    expected = F.normalize(F.pad(keypoints, (0, 62)), dim=1)
    torch.testing.assert_close(reader.describe(ramps(), keypoints), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_offsets_are_pixels_in_the_order_level_sample_xy(level: int, reader: CliddNetwork) -> None:
    sample = 3
    assert reader.dcn.bias is not None
    reader.dcn.bias[(level * 4 + sample) * 2] = 5.0
    reader.dcn.bias[(level * 4 + sample) * 2 + 1] = -7.0
    reader.post_conv.weight[0, 2 * level, 0, sample] = 1.0
    reader.post_conv.weight[1, 2 * level + 1, 0, sample] = 1.0
    found = reader.describe(ramps(), torch.tensor([[40.0, 33.0]]))
    expected = F.normalize(torch.tensor([[45.0, 26.0]]), dim=1)
    torch.testing.assert_close(found[:, :2], expected, atol=1e-5, rtol=0)


def test_offsets_are_limited_to_128_pixels(reader: CliddNetwork) -> None:
    assert reader.dcn.bias is not None
    reader.dcn.bias[0] = 1000.0
    reader.post_conv.weight[0, 0, 0, 0] = 1.0
    reader.post_conv.weight[1, 1, 0, 0] = 1.0
    found = reader.describe(ramps(width=512), torch.tensor([[40.0, 33.0]]))
    torch.testing.assert_close(found[0, :2], F.normalize(torch.tensor([168.0, 33.0]), dim=0), atol=1e-5, rtol=0)


def test_without_weights_the_message_says_where_to_put_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMKEY_SHARED", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("SEMKEY_WEIGHTS", raising=False)
    with pytest.raises(CheckpointError, match=r"clidd-n64.pth were not found: put .* --weights"):
        create_extractor("clidd-n64", device="cpu")


def test_released_weights_find_whole_pixels_and_match_a_real_pair(
    shared: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the sequence's homography; without kornia, since nothing of it is used."""
    monkeypatch.setitem(sys.modules, "kornia", None)
    folder = shared / "data/planar/hpatches/v_dogman"
    extractor = create_extractor("clidd-s64", max_keypoints=512, device="cpu", weights=[shared / "weights"])
    images = [read_image(next(folder.glob(f"{number}.*"))) for number in (1, 2)]
    features = [extractor.extract(image) for image in images]
    for image, found in zip(images, features, strict=True):
        height, width = image.shape[:2]
        assert len(found) == 512
        assert torch.equal(found.keypoints, found.keypoints.round())
        assert bool((found.keypoints >= 4).all())
        assert bool((found.keypoints <= torch.tensor([width - 5.0, height - 5.0])).all())
    indices = match(*features).indices.numpy()
    points0, points1 = (
        found.keypoints.double().numpy()[index] for found, index in zip(features, indices.T, strict=True)
    )
    H = np.loadtxt(folder / "H_1_2")
    mapped = np.c_[points0, np.ones(len(points0))] @ H.T
    right = np.linalg.norm(mapped[:, :2] / mapped[:, 2:] - points1, axis=1) <= 3
    assert right.sum() > 220  # 281 measured
    assert right.mean() > 0.8  # 0.875 measured
