"""Detectors over a backbone before any training: a convolutional half that is trained, and laterals of zero."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from semkey.backbones.local_files import WEIGHTS_FILE
from semkey.backbones.specs import BACKBONES
from semkey.model.building import build_detector, grow_from, random_detector
from semkey.model.checkpoint import load_checkpoint, read_config
from semkey.model.config import ExtractionConfig
from semkey.model.semantic_detector import SemanticKeypointDetector


def is_backbone(name: str) -> bool:
    """Whether a name is a backbone's preset, or a folder that holds one."""
    return name in BACKBONES or all((Path(name) / file).is_file() for file in ("config.json", WEIGHTS_FILE))


def start_over(
    backbone: str, half: Path, sha256: str | None = None, *, weights: Sequence[Path] = ()
) -> SemanticKeypointDetector:
    """A detector over a backbone that computes what a trained one without a backbone does.

    What the backbone adds to the features starts from zero, so keypoints, scores, reliability and descriptors are those
    of the trained detector, bit for bit; training goes on from there. The backbone itself is there for global
    descriptors (``extraction.place``) and for whatever else reads ``DenseMaps.semantic``.

    Args:
        backbone: see :func:`semkey.backbones.loading.load_backbone`.
        half: checkpoint of the detector without one.
        sha256: expected hash of that file (hex); None accepts any.
        weights: folders where the backbone's weights are looked for first.

    Raises:
        ConfigError: unknown backbone, or transformers is not installed.
        CheckpointError: the checkpoint or the backbone's weights cannot be had.
    """
    trained = load_checkpoint(half, sha256)
    model = build_detector(replace(trained.config, backbone=backbone), weights=weights)
    grow_from(model, trained)
    return model


def random_start(backbone: str, half: Path, extraction: ExtractionConfig | None = None) -> SemanticKeypointDetector:
    """The same network with random weights: speed and memory do not depend on them.

    Raises:
        ConfigError: no preset of a backbone, or transformers is not installed.
    """
    return random_detector(replace(read_config(half), backbone=backbone), extraction)
