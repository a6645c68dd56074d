"""Detectors over a backbone: branches, growing from one without, checkpoints, presets, extraction, export."""

from __future__ import annotations

import copy
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from semkey.errors import CheckpointError, ConfigError, InputError
from semkey.model.config import ExtractionConfig, ModelConfig
from semkey.model.preprocess import prepare, prepare_colors, to_gray, to_rgb
from semkey.model.presets import HALF, load_detector, preset_names, presets, training_command
from semkey.model.semantic_detector import SemanticKeypointDetector

pytest.importorskip("transformers", reason="transformers comes with the extra 'backbones'")

from backbone_fakes import FAMILIES, backbone_of, tiny_backbone, write_folder
from semkey.model.building import build_detector, grow_from, random_detector
from semkey.model.checkpoint import load_checkpoint, load_weights, read_config, save_checkpoint
from training_fakes import MODEL


def config(**changes) -> ModelConfig:
    return ModelConfig.from_mapping({**MODEL, "backbone": "vit-tiny", "backbone_layers": [2, 4], **changes})


def detector(family="dinov2-reg", *, seed: int = 0, **changes) -> SemanticKeypointDetector:
    torch.manual_seed(seed)
    backbone = tiny_backbone(family, layers=(2, 4))
    return SemanticKeypointDetector(config(**changes), ExtractionConfig(max_keypoints=50), backbone=backbone).eval()


def views(height: int = 96, width: int = 128, count: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, 1, height, width, generator=generator), torch.rand(
        count, 3, height, width, generator=generator
    )


# -- branches ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("branches", ["hybrid", "semantic"])
def test_maps_have_the_same_shapes_over_every_backbone(family, branches) -> None:
    model = detector(family, branches=branches)
    maps = model(*views())
    assert maps.log_probability.shape == (1, 1, 96, 128)
    assert maps.grid.shape == (1, 16, 12, 16)
    assert maps.fine.shape == (1, 16, 24, 32)
    assert maps.detail.shape == ((1, 0, 12, 16) if model.config.detector == "pixels" else (1, 8, 48, 64))
    grid = backbone_of(model).grid(96, 128)
    context = [(6, 8), (3, 4)] if branches == "hybrid" else []
    assert [tuple(m.shape[-2:]) for m in maps.coarse] == [*context, grid, grid]


def test_fine_is_the_network_without_a_backbone() -> None:
    torch.manual_seed(0)
    fine = SemanticKeypointDetector(config(branches="fine")).eval()
    torch.manual_seed(0)
    plain = SemanticKeypointDetector(ModelConfig.from_mapping(MODEL)).eval()
    assert fine.backbone is None
    image, _ = views()
    assert torch.equal(fine(image).log_probability, plain(image).log_probability)


def test_semantic_reads_the_image_in_grey_for_positions_inside_cells_alone() -> None:
    model = detector(branches="semantic")
    assert not list(model.stem.parameters())
    assert not list(model.context.parameters())
    image, colors = views()
    before, after = model(image, colors), model(image.roll(1, dims=3), colors)
    assert torch.equal(before.grid, after.grid)
    assert torch.equal(before.fine, after.fine)
    assert not torch.equal(before.log_probability, after.log_probability)


def test_every_branch_uses_the_colours() -> None:
    image, colors = views()
    for branches in ("hybrid", "semantic"):
        model = detector(branches=branches)
        assert not torch.equal(model(image, colors).fine, model(image, 1.0 - colors).fine)
        with pytest.raises(InputError, match="in colour as well"):
            model(image)
        semantic = backbone_of(model)(colors)
        assert torch.equal(model(image, semantic=semantic).fine, model(image, colors).fine)


def test_configurations_that_cannot_be() -> None:
    for wrong, words in (
        ({"backbone": "none"}, "need a backbone"),
        ({"branches": "coarse"}, "must be one of hybrid, fine, semantic"),
        ({"backbone": "dinov4"}, "is not known"),
    ):
        with pytest.raises(ConfigError, match=words):
            config(**wrong)
    with pytest.raises(ConfigError, match="needs that backbone"):
        SemanticKeypointDetector(config())
    with pytest.raises(ConfigError, match="gives layers"):
        SemanticKeypointDetector(config(), backbone=tiny_backbone(layers=(1, 4)))


# -- growing -----------------------------------------------------------------------------------------------------------


def test_a_grown_hybrid_computes_what_it_grew_from() -> None:
    torch.manual_seed(5)
    plain = SemanticKeypointDetector(ModelConfig.from_mapping(MODEL)).eval()
    hybrid = detector()
    image, colors = views()
    assert not torch.allclose(hybrid(image, colors).grid, plain(image).grid)
    grow_from(hybrid, plain)
    before, after = plain(image), hybrid(image, colors)
    for name in ("log_probability", "grid", "fine", "detail"):
        assert torch.equal(getattr(after, name), getattr(before, name)), name
    torch.testing.assert_close(hybrid.place(after.coarse), plain.place(before.coarse))
    hybrid.train()(image, colors).grid.square().sum().backward()
    gradients = [weight.grad for weight in hybrid.pyramid.semantic.parameters()]
    assert all(gradient is not None and float(gradient.abs().max()) > 0 for gradient in gradients), "they can learn"


def test_the_shipped_compact_grows_into_a_hybrid(shared) -> None:
    compact = presets()["compact"]
    plain = load_checkpoint(compact.path, compact.sha256).eval()
    hybrid = build_detector(dataclasses.replace(plain.config, backbone="vit-tiny")).eval()
    assert grow_from(hybrid, plain) == ()
    image, colors = views(64, 96)
    assert torch.equal(hybrid(image, colors).log_probability, plain(image).log_probability)


def test_the_shipped_compact_is_the_fine_half_of_a_hybrid() -> None:
    compact = presets()["compact"]
    plain = load_checkpoint(compact.path, compact.sha256).eval()
    model = build_detector(dataclasses.replace(plain.config, backbone="vit-tiny", branches="fine"))
    assert model.backbone is None
    assert model.config.network == plain.config
    load_weights(model, compact.path, compact.sha256)
    image, _ = views(64, 96)
    assert torch.equal(model.eval()(image).log_probability, plain(image).log_probability)
    with pytest.raises(CheckpointError, match="made for"):
        load_weights(detector(), compact.path, compact.sha256)


def test_networks_of_other_shapes_do_not_grow() -> None:
    other = SemanticKeypointDetector(ModelConfig.from_mapping({**MODEL, "grid_channels": 8}))
    with pytest.raises(ConfigError, match="cannot be grown"):
        grow_from(detector(), other)
    with pytest.raises(ConfigError, match=r"nothing in the network takes|cannot be grown"):
        grow_from(detector(branches="semantic"), SemanticKeypointDetector(ModelConfig.from_mapping(MODEL)))


# -- frozen, checkpoints -----------------------------------------------------------------------------------------------


def test_the_backbone_is_in_no_list_of_what_learns() -> None:
    model = detector().train().requires_grad_(True)
    assert not backbone_of(model).training
    assert not any(m.training for m in backbone_of(model).network.modules())
    assert not any(name.startswith("backbone") for name in [*model.state_dict(), *dict(model.named_parameters())])
    image, colors = views(count=2)
    weights = {name: value.clone() for name, value in backbone_of(model).network.state_dict().items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    maps = model(image, colors)
    (maps.log_probability.mean() + maps.fine.square().mean()).backward()
    optimizer.step()
    assert all(torch.equal(value, weights[name]) for name, value in backbone_of(model).network.state_dict().items())
    assert all(parameter.grad is None for parameter in backbone_of(model).network.parameters())
    assert backbone_of(copy.deepcopy(model)).network is backbone_of(model).network


def test_checkpoints_hold_the_heads_and_name_the_backbone(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "net")
    model = build_detector(config(backbone=str(folder)))
    save_checkpoint(model, tmp_path / "heads.safetensors")
    from safetensors import safe_open

    with safe_open(tmp_path / "heads.safetensors", framework="pt") as file:
        stored = json.loads(file.metadata()["backbone"])
        names = set(file.keys())
    assert stored == {"name": str(folder), "revision": "", "content": backbone_of(model).identity.content}
    assert names == set(model.state_dict())
    image, colors = views()
    again = load_checkpoint(tmp_path / "heads.safetensors")
    assert torch.equal(again.eval()(image, colors).grid, model.eval()(image, colors).grid)
    load_weights(model, tmp_path / "heads.safetensors")


def test_heads_over_another_backbone_are_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "net", seed=0)
    save_checkpoint(build_detector(config(backbone=str(folder))), tmp_path / "heads.safetensors")
    write_folder(folder, seed=1)
    with pytest.raises(CheckpointError, match=r"heads\.safetensors: trained over .* the backbone here has"):
        load_checkpoint(tmp_path / "heads.safetensors")
    with pytest.raises(CheckpointError, match="trained over"):
        load_weights(build_detector(config(backbone=str(folder))), tmp_path / "heads.safetensors")


# -- presets -----------------------------------------------------------------------------------------------------------


def test_unknown_presets_name_the_nearest() -> None:
    with pytest.raises(CheckpointError, match="did you mean 'dinov2-base"):
        load_detector("dinov2-bas")


def test_every_preset_over_a_backbone_can_be_trained_by_its_name() -> None:
    from semkey.training import TrainConfig

    for name in preset_names():
        if name in ("compact", "nano"):
            continue
        words = training_command(name).split()
        loaded = TrainConfig.load(words[2], ["data.photos=photos"])
        assert (loaded.name, loaded.model.backbone) == (name, name)
        if name not in presets():
            assert loaded.init == HALF
            half = read_config(presets()[HALF].path)
            assert loaded.model == dataclasses.replace(half, backbone=name), "it starts from what semkey.load gives"
            assert loaded.stages.detector.keep_best == "matching_score"


# -- extraction --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (37, 61), (97, 150)])
def test_extraction_keeps_its_promises_at_any_size(size: tuple[int, int]) -> None:
    model = detector().optimize()
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    features = model.extract(image)
    assert features.image_size == (size[1], size[0])
    assert len(features) <= 50
    assert features.descriptors.dtype == torch.float32
    torch.testing.assert_close(features.descriptors.norm(dim=1), torch.ones(len(features)), atol=1e-5, rtol=0)
    (again,) = model.extract_batch([image])
    assert torch.equal(again.descriptors, features.descriptors)


def test_the_backbone_sees_the_colours_on_the_pixels_that_the_stem_sees() -> None:
    image = np.zeros((90, 200, 3), np.uint8)
    image[30:60, 100:140] = (250, 120, 10)
    prepared = prepare(to_gray(image), 100)
    colors = prepare_colors(to_rgb(image), prepared)
    assert colors.shape == (1, 3, *prepared.tensor.shape[-2:])
    gray = (colors[0] * torch.tensor([0.299, 0.587, 0.114])[:, None, None]).sum(dim=0)
    shown = prepared.tensor[0, 0]
    assert float(torch.corrcoef(torch.stack([gray.flatten(), shown.flatten()]))[0, 1]) > 0.9999
    assert float(colors.min()) >= 0.0
    assert float(colors.max()) <= 1.0


def test_grey_images_and_colour_images_of_them_are_the_same() -> None:
    model = detector().optimize()
    gray = np.random.default_rng(0).integers(0, 256, (64, 96), dtype=np.uint8)
    one, other = model.extract(gray), model.extract(np.repeat(gray[..., None], 3, axis=2))
    torch.testing.assert_close(one.keypoints, other.keypoints)


@pytest.mark.parametrize("family", ["dinov2-reg", "dinov3"])
def test_a_random_dino_detector_can_be_exported(family) -> None:
    model = detector(family).requires_grad_(False)
    image, colors = views(64, 96)

    class Maps(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model
            self.network = backbone_of(model).network  # registered here, so that its tensors go into the file

        def forward(self, image: torch.Tensor, colors: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            maps = self.model(image, colors)
            return maps.log_probability, maps.fine

    exported = torch.export.export(Maps(), (image, colors), strict=False).module()
    for found, wanted in zip(exported(image, colors), Maps()(image, colors), strict=True):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


def test_random_detectors_of_presets_leave_no_trace_in_the_seed() -> None:
    torch.manual_seed(0)
    model = random_detector(ModelConfig.from_mapping({**MODEL, "backbone": "vit-tiny"}))
    assert backbone_of(model).identity.content == ""
    assert backbone_of(model).parameter_count == 5_524_416
