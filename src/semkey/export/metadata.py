"""What an exported file says of the weights in it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from semkey.backbones.backbone import Backbone
from semkey.backbones.specs import BACKBONES
from semkey.downloads import file_sha256
from semkey.model.presets import HALF, presets
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.model.starting import is_backbone

LICENSE = "Apache-2.0"
"""Of the weights that come with semkey."""
UNKNOWN_LICENSE = "not stated (the licence of the checkpoint is its author's to say)"


def weights_metadata(name: str, detector: SemanticKeypointDetector) -> dict[str, Any]:
    """Preset or file, its SHA-256, licence, backbone, and the settings of network and extraction.

    Args:
        name: preset, path of a checkpoint, or a backbone whose heads nobody has trained: the hash is then that of the
            heads of ``compact``.
        detector: made of it.
    """
    known = presets()
    is_start = name not in known and is_backbone(name)
    path = known[HALF if is_start else name].path if is_start or name in known else Path(name)
    licence = LICENSE if is_start or name in known else UNKNOWN_LICENSE
    said: dict[str, Any] = {"preset": name if name in known or name in BACKBONES else Path(name).name}
    if detector.backbone is not None:
        said["backbone"] = _backbone(detector.backbone)
        if said["backbone"]["license"] != licence:
            licence = f"{licence}; of the backbone: {said['backbone']['license']}"
    return {
        **said,
        "weights_sha256": file_sha256(path),
        "license": licence,
        "model": detector.config.to_mapping(),
        "extraction": asdict(detector.extraction),
    }


def _backbone(backbone: Backbone) -> dict[str, str]:
    preset = BACKBONES.get(backbone.identity.name)
    licence = preset.source.licence if preset else "not stated (see where it is from)"
    return {**asdict(backbone.identity), "license": licence}
