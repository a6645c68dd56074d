"""Named detectors whose weights come with the package, and :func:`load_detector`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch

from semkey.backbones.global_descriptors import VladVocabulary
from semkey.backbones.specs import BACKBONES
from semkey.errors import CheckpointError, ConfigError
from semkey.model.building import random_detector
from semkey.model.checkpoint import load_checkpoint, read_config
from semkey.model.config import ExtractionConfig
from semkey.model.precision import uses_bfloat16
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.model.starting import is_backbone, random_start, start_over
from semkey.runtime import select_device
from semkey.settings import did_you_mean

HALF = "compact"
"""The preset that is the convolutional half of those over a backbone whose heads nobody has trained."""


@dataclass(frozen=True, kw_only=True)
class Preset:
    """A detector that ships with the package.

    Attributes:
        name: what the user calls it.
        summary: one line for ``semkey info``.
        sha256: of the weights file, hex; checked at every load.
        same_descriptors: SHA-256 of earlier weights, whose descriptors, of points and of places, are the same bit for
            bit: only where keypoints are found has changed, so maps made with them are good for these weights too.
    """

    name: str
    summary: str
    sha256: str
    same_descriptors: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """Where the weights lie."""
        return Path(str(files("semkey").joinpath("weights", f"{self.name}.safetensors")))


@cache
def presets() -> dict[str, Preset]:
    """The detectors that ship with the package, by name (from ``weights/manifest.json``)."""
    manifest = json.loads(files("semkey").joinpath("weights", "manifest.json").read_text(encoding="utf-8"))
    return {
        name: Preset(
            name=name,
            summary=row["summary"],
            sha256=row["sha256"],
            same_descriptors=tuple(row.get("same_descriptors", ())),
        )
        for name, row in manifest.items()
    }


def have_same_descriptors(first: str | None, second: str | None) -> bool:
    """Whether two weights, by the SHA-256 of their files, give the same descriptors as far as semkey knows."""
    families = ({preset.sha256, *preset.same_descriptors} for preset in presets().values())
    return first == second or any({first, second} <= family for family in families)


def load_detector(
    preset_or_path: str | Path = "compact",
    *,
    max_keypoints: int = 1024,
    device: str | torch.device = "auto",
    weights: Sequence[Path] = (),
    reduce: bool = True,
    **extraction: object,
) -> SemanticKeypointDetector:
    """A detector, ready to extract.

    Args:
        preset_or_path: a preset's name (``compact``; :func:`preset_names` has all), the path of a .safetensors
            checkpoint, or a folder with a backbone's ``config.json`` and ``model.safetensors``. A preset over a
            backbone reads its official weights, and downloads them where they are not on this machine. Presets whose
            heads do not ship, and folders, give the keypoints and descriptors of ``compact``, and the backbone's
            generalised mean as global descriptor, until they are trained (:func:`semkey.model.starting.start_over`).
        max_keypoints: at most this many keypoints per image.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        weights: folders where the weights of a backbone are looked for first.
        reduce: keep a backbone's weights in bfloat16 where extraction computes in it; a graph for another runtime is
            made of whole ones.
        **extraction: other fields of :class:`semkey.model.config.ExtractionConfig`, e.g. ``min_score=0.05``,
            ``place="cls"``.

    Raises:
        CheckpointError: unknown preset; a checkpoint, or weights of a backbone, that are missing, damaged or made for
            another network; a vocabulary of another backbone.
        ConfigError: unknown or invalid setting or device, or a package is missing.
    """
    target = select_device(device)
    name = str(preset_or_path)
    known = presets()
    is_start = name not in known and is_backbone(name)
    if is_start and "place" not in extraction:
        extraction = {"place": "vlad" if extraction.get("vocabulary") else "gem", **extraction}
    settings = ExtractionConfig.from_mapping({"max_keypoints": max_keypoints, **extraction})
    if name in known:
        model = load_checkpoint(known[name].path, known[name].sha256, weights=weights)
    elif is_start:
        model = start_over(name, known[HALF].path, known[HALF].sha256, weights=weights)
    elif isinstance(preset_or_path, Path) or name.endswith(".safetensors") or Path(name).is_file():
        model = load_checkpoint(preset_or_path, weights=weights)
    else:
        raise CheckpointError(_unknown(name))
    model.extraction = settings
    if settings.place != "trained" and model.backbone is None:
        raise ConfigError(f"place '{settings.place}' is over a backbone, '{name}' has none: take one of {_over()}")
    if settings.vocabulary and model.backbone is not None:
        model.vocabulary = VladVocabulary.read(settings.vocabulary, model.backbone)
    return _ready(model, target, reduce=reduce)


def load_random(
    preset: str, *, max_keypoints: int = 1024, device: str | torch.device = "auto", reduce: bool = True
) -> SemanticKeypointDetector:
    """The network of a preset with random weights, backbone included: for measurements of speed and memory.

    Arguments as for :func:`load_detector`.

    Raises:
        CheckpointError: unknown preset.
        ConfigError: unknown device, or a package is missing.
    """
    if preset not in preset_names():
        raise CheckpointError(_unknown(preset))
    known = presets()
    extraction = ExtractionConfig(max_keypoints=max_keypoints)
    if preset in known:
        model = random_detector(read_config(known[preset].path), extraction)
    else:
        model = random_start(preset, known[HALF].path, replace(extraction, place="gem"))
    return _ready(model, select_device(device), reduce=reduce)


def _ready(model: SemanticKeypointDetector, device: torch.device, *, reduce: bool) -> SemanticKeypointDetector:
    """The model as it extracts fastest on a device."""
    model.optimize().to(device)
    if reduce and model.backbone is not None and uses_bfloat16(model.extraction.precision, device):
        model.backbone.reduce()
    return model


def preset_names() -> list[str]:
    """Detectors by name: those whose trained weights ship, then those that start from ``compact`` over a backbone."""
    return [*presets(), *(name for name in BACKBONES if name not in presets())]


def training_command(preset: str) -> str:
    """The command that trains the heads of a preset."""
    return f"semkey train {preset} --set data.photos=PHOTOS --out runs/{preset}"


def _over() -> str:
    return ", ".join(BACKBONES)


def _unknown(name: str) -> str:
    hint = did_you_mean(name, preset_names())
    known = f"presets: {', '.join(preset_names())}; or a .safetensors path"
    return f"unknown preset '{name}'{hint and ', '}{hint} ({known})"
