"""Tiny transformers of every family, in memory and as folders that backbones are loaded from."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import save_file

from semkey.backbones.backbone import Backbone
from semkey.backbones.loading import random_backbone
from semkey.backbones.specs import Architecture, Family
from semkey.model.semantic_detector import SemanticKeypointDetector

MODEL_TYPES = {"vit": "vit", "dinov2": "dinov2", "dinov2-reg": "dinov2_with_registers", "dinov3": "dinov3_vit"}
FAMILIES: tuple[Family, ...] = ("vit", "dinov2", "dinov2-reg", "dinov3")


def tiny(family: Family = "dinov2-reg", layers: int = 4) -> Architecture:
    """A network of 32 channels; patches of 14 pixels for DINOv2, of 16 for the others."""
    patch = 14 if family.startswith("dinov2") else 16
    return Architecture(
        family=family,
        patch=patch,
        width=32,
        layers=layers,
        heads=2,
        hidden=128,
        image=4 * patch,
        registers=0 if family in ("vit", "dinov2") else 4,
        norm_eps=1e-5 if family == "dinov3" else 1e-6,
    )


def tiny_backbone(family: Family = "dinov2-reg", *, seed: int = 0, layers: tuple[int, ...] = ()) -> Backbone:
    return random_backbone(tiny(family), layers, seed=seed)


def write_folder(folder: Path, family: Family = "dinov2-reg", *, seed: int = 0) -> Path:
    """A folder with ``config.json`` and ``model.safetensors``, as the hub has them."""
    architecture = tiny(family)
    network = random_backbone(architecture, seed=seed).network
    config = {
        "model_type": MODEL_TYPES[family],
        "hidden_size": architecture.width,
        "num_hidden_layers": architecture.layers,
        "num_attention_heads": architecture.heads,
        "intermediate_size": architecture.hidden,
        "mlp_ratio": 4,
        "image_size": architecture.image,
        "patch_size": architecture.patch,
        "num_register_tokens": architecture.registers,
        "layer_norm_eps": architecture.norm_eps,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file({name: value.contiguous() for name, value in network.state_dict().items()}, folder / "model.safetensors")
    return folder


def backbone_of(model: SemanticKeypointDetector) -> Backbone:
    """The backbone of a detector that has one."""
    assert model.backbone is not None
    return model.backbone
