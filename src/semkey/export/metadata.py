"""What an exported file says of the weights in it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from semkey.downloads import file_sha256
from semkey.model.presets import presets
from semkey.model.semantic_detector import SemanticKeypointDetector

_LICENSE = "Apache-2.0"
_UNKNOWN_LICENSE = "not stated (the licence of the checkpoint is its author's to say)"


def weights_metadata(name: str, detector: SemanticKeypointDetector) -> dict[str, Any]:
    """Preset or file, its SHA-256, licence and the settings of network and extraction.

    Args:
        name: preset, or path of a checkpoint.
        detector: made of it.
    """
    preset = presets().get(name)
    path = preset.path if preset else Path(name)
    backbone = {} if detector.backbone is None else {"backbone": asdict(detector.backbone.identity)}
    return {
        **backbone,
        "preset": name if preset else path.name,
        "weights_sha256": file_sha256(path),
        "license": _LICENSE if preset else _UNKNOWN_LICENSE,
        "model": detector.config.to_mapping(),
        "extraction": asdict(detector.extraction),
    }
