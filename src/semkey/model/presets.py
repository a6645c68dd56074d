"""Named detectors whose weights come with the package, and :func:`load_detector`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch

from semkey.backbones.specs import BACKBONES
from semkey.errors import CheckpointError
from semkey.model.building import random_detector
from semkey.model.checkpoint import load_checkpoint, read_config
from semkey.model.config import ExtractionConfig, ModelConfig
from semkey.model.precision import uses_bfloat16
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.runtime import select_device
from semkey.settings import did_you_mean

_CONFIGURED = ("vit-tiny", "dinov2-small")
"""Presets over a backbone with a training configuration of their own; the others are changes of the last one."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A detector that ships with the package.

    Attributes:
        name: what the user calls it.
        summary: one line for ``semkey info``.
        sha256: of the weights file, hex; checked at every load.
    """

    name: str
    summary: str
    sha256: str

    @property
    def path(self) -> Path:
        """Where the weights lie."""
        return Path(str(files("semkey").joinpath("weights", f"{self.name}.safetensors")))


@cache
def presets() -> dict[str, Preset]:
    """The detectors that ship with the package, by name (from ``weights/manifest.json``)."""
    manifest = json.loads(files("semkey").joinpath("weights", "manifest.json").read_text(encoding="utf-8"))
    return {name: Preset(name=name, summary=row["summary"], sha256=row["sha256"]) for name, row in manifest.items()}


def load_detector(
    preset_or_path: str | Path = "compact",
    *,
    max_keypoints: int = 1024,
    device: str | torch.device = "auto",
    weights: Sequence[Path] = (),
    **extraction: object,
) -> SemanticKeypointDetector:
    """A trained detector, ready to extract.

    Args:
        preset_or_path: a preset's name (``compact``; :func:`preset_names` has all) or the path of a .safetensors
            checkpoint. A preset over a backbone reads its official weights, and downloads them where they are not on
            this machine.
        max_keypoints: at most this many keypoints per image.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        weights: folders where the weights of a backbone are looked for first.
        **extraction: other fields of :class:`semkey.model.config.ExtractionConfig`, e.g. ``min_score=0.05``.

    Raises:
        CheckpointError: unknown preset, one whose heads do not ship, or a checkpoint that is missing, damaged or made
            for another network.
        ConfigError: unknown or invalid setting or device.
    """
    settings = ExtractionConfig.from_mapping({"max_keypoints": max_keypoints, **extraction})
    target = select_device(device)
    name = str(preset_or_path)
    known = presets()
    if name in known:
        model = load_checkpoint(known[name].path, known[name].sha256, weights=weights)
    elif isinstance(preset_or_path, Path) or name.endswith(".safetensors") or Path(name).is_file():
        model = load_checkpoint(preset_or_path, weights=weights)
    else:
        raise CheckpointError(_why_not(name))
    model.extraction = settings
    return _ready(model, target)


def load_random(
    preset: str, *, max_keypoints: int = 1024, device: str | torch.device = "auto"
) -> SemanticKeypointDetector:
    """The network of a preset with random weights, backbone included: for measurements of speed and memory.

    Raises:
        CheckpointError: unknown preset.
        ConfigError: unknown device, or a package is missing.
    """
    if preset not in preset_names():
        raise CheckpointError(_why_not(preset))
    known = presets()
    config = read_config(known[preset].path) if preset in known else ModelConfig(backbone=preset)
    model = random_detector(config, ExtractionConfig(max_keypoints=max_keypoints))
    return _ready(model, select_device(device))


def _ready(model: SemanticKeypointDetector, device: torch.device) -> SemanticKeypointDetector:
    """The model as it extracts fastest on a device."""
    model.optimize().to(device)
    if model.backbone is not None and uses_bfloat16(model.extraction.precision, device):
        model.backbone.reduce()
    return model


def preset_names() -> list[str]:
    """Detectors by name: those that ship, then those whose heads have to be trained first."""
    return [*presets(), *(name for name in BACKBONES if name not in presets())]


def training_command(preset: str) -> str:
    """The command that trains the heads of a preset that ships without."""
    config = preset if preset in _CONFIGURED else "dinov2-small"
    change = "" if preset == config else f" --set name={preset} --set model.backbone={preset}"
    return f"semkey train configs/{config}.yaml --set data.photos=PHOTOS{change} --out runs/{preset}"


def _why_not(name: str) -> str:
    if name in BACKBONES:
        return (
            f"preset '{name}' ships without trained heads; train them with `{training_command(name)}`, then load "
            f"runs/{name}/{name}.safetensors"
        )
    hint = did_you_mean(name, preset_names())
    known = f"presets: {', '.join(preset_names())}; or a .safetensors path"
    return f"unknown preset '{name}'{hint and ', '}{hint} ({known})"
