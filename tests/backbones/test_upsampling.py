"""Finer maps of a backbone's tokens, over a network whose tokens are known: means of squares, or of places."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from semkey.backbones.backbone import Backbone, BackboneIdentity, Upsampling
from semkey.backbones.geometry import resample
from semkey.backbones.guided_upsampling import GuidedUpsampling
from semkey.backbones.specs import Architecture
from semkey.errors import ConfigError
from semkey.model.building import grow_from, random_detector
from semkey.model.config import ModelConfig
from semkey.model.semantic_detector import SemanticKeypointDetector

FINER: tuple[Upsampling, ...] = ("shift-average", "resolution")


class Means(nn.Module):
    """A network of one layer whose tokens are a function of each patch's mean colour."""

    def __init__(self, patch: int, power: int) -> None:
        super().__init__()
        self.patch, self.power, self.layernorm = patch, power, nn.Identity()

    def forward(self, images: torch.Tensor, **options: Any) -> SimpleNamespace:
        tokens = F.avg_pool2d(images, self.patch).flatten(2).transpose(1, 2) ** self.power
        return SimpleNamespace(last_hidden_state=torch.cat([tokens.mean(dim=1, keepdim=True), tokens], dim=1))


def means(upsampling: Upsampling, patch: int, power: int = 1) -> Backbone:
    architecture = Architecture(
        family="dinov2", patch=patch, width=3, layers=1, heads=1, hidden=3, image=patch, mean=(0, 0, 0), std=(1, 1, 1)
    )
    return Backbone(
        Means(patch, power), architecture, identity=BackboneIdentity(name="means"), upsampling=upsampling
    ).eval()


def ramps(height: int, width: int) -> torch.Tensor:
    """(1, 3, H, W): the row, the column, and a constant, of each pixel."""
    rows, columns = torch.meshgrid(torch.arange(float(height)), torch.arange(float(width)), indexing="ij")
    return torch.stack([rows, columns, torch.ones(height, width)])[None]


@pytest.mark.parametrize("patch", [14, 16])
@pytest.mark.parametrize("upsampling", FINER)
@pytest.mark.parametrize("size", [(96, 128), (100, 123)])
def test_finer_maps_are_read_at_their_true_places(upsampling: Upsampling, patch: int, size: tuple[int, int]) -> None:
    """A ramp's means are its values at the centres, so each inner cell must have its own centre's value."""
    backbone = means(upsampling, patch)
    features = backbone(ramps(*size))
    half = patch // 2
    assert features.patch == backbone.patch == half
    (found,) = features.maps
    assert tuple(found.shape[-2:]) == backbone.grid(*size) == (-(-size[0] // half), -(-size[1] // half))
    rows, columns = (torch.arange(float(count)) * half + (half - 1) / 2 for count in found.shape[-2:])
    inner = slice(3, -5)
    torch.testing.assert_close(found[0, 0, inner, inner], rows[inner, None].expand_as(found[0, 0, inner, inner]))
    torch.testing.assert_close(found[0, 1, inner, inner], columns[None, inner].expand_as(found[0, 0, inner, inner]))
    torch.testing.assert_close(found[0, 2], torch.ones_like(found[0, 2]))


def test_the_average_follows_a_picture_moved_by_half_a_patch() -> None:
    """What bilinear reading of the tokens does not: there a step moves with the patch grid."""
    torch.manual_seed(0)
    picture = torch.rand(1, 3, 96, 136)
    first, second = picture[..., :128], picture[..., 8:]
    inner = (slice(None), slice(None), slice(3, -3))
    averaged = means("shift-average", 16, power=2)
    before, after = (averaged(one).maps[0][inner] for one in (first, second))
    torch.testing.assert_close(after[..., 3:-5], before[..., 4:-4])
    plain = means("bilinear", 16, power=2)
    before, after = (resample(plain(one).maps[0], 16, 8, (12, 16))[inner] for one in (first, second))
    assert float((after[..., 3:-5] - before[..., 4:-4]).abs().max()) > 0.01


def test_bilinear_gives_the_tokens_as_they_are() -> None:
    torch.manual_seed(0)
    picture = torch.rand(2, 3, 60, 70)
    features = means("bilinear", 14)(picture)
    assert (features.patch, features.maps[0].shape) == (14, (2, 3, 5, 5))
    torch.testing.assert_close(features.maps[0][..., :4, :], F.avg_pool2d(picture, 14)[..., :4, :])


@pytest.mark.parametrize("upsampling", FINER)
def test_networks_read_them_and_copies_keep_them(upsampling: Upsampling) -> None:
    pytest.importorskip("transformers", reason="transformers comes with the extra 'backbones'")
    import copy

    from backbone_fakes import tiny_backbone
    from semkey.model.semantic_detector import SemanticKeypointDetector
    from training_fakes import MODEL

    config = ModelConfig.from_mapping(
        {**MODEL, "backbone": "vit-tiny", "backbone_layers": [2, 4], "upsampling": upsampling}
    )
    plain = tiny_backbone(layers=(2, 4))
    with pytest.raises(ConfigError, match="upsampling is 'bilinear'"):
        SemanticKeypointDetector(config, backbone=plain)
    finer = plain.upsampled(upsampling)
    assert finer.network is plain.network
    model = copy.deepcopy(SemanticKeypointDetector(config, backbone=finer)).eval()
    maps = model(torch.rand(1, 1, 96, 128), torch.rand(1, 3, 96, 128))
    assert maps.semantic is not None
    assert maps.semantic.maps[0].shape[-2:] == (14, 19)
    assert torch.isfinite(maps.grid).all()


def test_what_cannot_be() -> None:
    with pytest.raises(ConfigError, match="are odd"):
        means("resolution", 15)
    with pytest.raises(ConfigError, match="need a backbone"):
        ModelConfig(upsampling="resolution")
    with pytest.raises(ConfigError, match="must be one of"):
        ModelConfig.from_mapping({"backbone": "vit-tiny", "upsampling": "bicubic"})


# -- learned -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("patch", "size"), [(16, (96, 128)), (14, (96, 128)), (14, (32, 64))])
def test_attention_begins_as_bilinear_reading(patch: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    rows, columns = -(-size[0] // patch), -(-size[1] // patch)
    tokens, guide = torch.randn(2, 5, rows, columns), torch.randn(2, 7, size[0] // 8, size[1] // 8)
    found = GuidedUpsampling(7, 5)(tokens, guide, patch, 8)
    torch.testing.assert_close(found, resample(tokens, patch, 8, (size[0] // 8, size[1] // 8)), atol=2e-5, rtol=0)


def test_attention_learns_which_side_of_an_edge_a_cell_belongs_to() -> None:
    """Left tokens are 0, right ones 1; the guide says that the edge lies right of where the tokens meet."""
    torch.manual_seed(0)
    tokens = torch.zeros(1, 4, 4, 4)
    tokens[..., 2:] = 1.0
    guide, wanted = torch.zeros(1, 3, 8, 8), torch.zeros(1, 4, 8, 8)
    guide[..., 5:], wanted[..., 5:] = 1.0, 1.0
    module = GuidedUpsampling(3, 4)
    optimiser = torch.optim.Adam(module.parameters(), lr=0.05)
    errors = []
    for _ in range(150):
        loss = (module(tokens, guide, 16, 8) - wanted).square().mean()
        errors.append(loss.item())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert errors[-1] < 0.35 * errors[0]


def test_attention_follows_the_picture_in_a_grown_network() -> None:
    """A hybrid with it computes the same as the network that it grew from, and its file holds it."""
    config = ModelConfig(backbone="vit-tiny", upsampling="attention")
    model = random_detector(config)
    other = SemanticKeypointDetector(ModelConfig()).eval()
    grow_from(model, other)
    model.eval()
    image, colors = torch.randn(1, 1, 64, 96), torch.rand(1, 3, 64, 96)
    torch.testing.assert_close(model(image, colors).log_probability, other(image).log_probability)
    assert {name for name in model.state_dict() if "upsampler" in name} == {
        f"pyramid.upsampler.{part}" for part in ("gain", "key.bias", "key.weight", "query.bias", "query.weight")
    }


def test_attention_needs_the_convolutions() -> None:
    with pytest.raises(ConfigError, match="guided by the convolutions"):
        ModelConfig(backbone="vit-tiny", upsampling="attention", branches="semantic")
