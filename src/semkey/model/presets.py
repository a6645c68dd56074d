"""Named detectors whose weights come with the package, and :func:`load`."""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch

from semkey.errors import CheckpointError, ConfigError
from semkey.model.checkpoint import load_checkpoint
from semkey.model.config import ExtractionConfig
from semkey.model.semantic_detector import SemanticKeypointDetector


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


def select_device(device: str | torch.device) -> torch.device:
    """The torch device for ``"auto"`` (the first GPU where there is one, else the CPU), ``"cpu"``, ``"cuda:1"``, ...

    Raises:
        ConfigError: no such device here.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device '{device}' cannot be used here ({reason}): use auto or cpu") from None
    return chosen


def load(
    preset_or_path: str | Path = "compact",
    *,
    max_keypoints: int = 1024,
    device: str | torch.device = "auto",
    **extraction: object,
) -> SemanticKeypointDetector:
    """A trained detector, ready to extract.

    Args:
        preset_or_path: a preset's name (``compact``) or the path of a .safetensors checkpoint.
        max_keypoints: at most this many keypoints per image.
        device: "auto", "cpu", "cuda", "cuda:1", ...
        **extraction: other fields of :class:`semkey.model.config.ExtractionConfig`, e.g. ``min_score=0.05``.

    Raises:
        CheckpointError: unknown preset, or a checkpoint that is missing, damaged or made for another network.
        ConfigError: unknown or invalid setting or device.
    """
    settings = ExtractionConfig.from_mapping({"max_keypoints": max_keypoints, **extraction})
    target = select_device(device)
    name = str(preset_or_path)
    known = presets()
    if name in known:
        model = load_checkpoint(known[name].path, known[name].sha256)
    elif isinstance(preset_or_path, Path) or name.endswith(".safetensors") or Path(name).is_file():
        model = load_checkpoint(preset_or_path)
    else:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f", did you mean '{near[0]}'?" if near else ""
        raise CheckpointError(f"unknown preset '{name}'{hint} (presets: {', '.join(known)}; or a .safetensors path)")
    model.extraction = settings
    return model.optimize().to(target)
