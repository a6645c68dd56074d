"""Detectors with their backbone: with its weights, with random ones, grown from one without, and as a tuple of maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from semkey.backbones.backbone import Backbone
from semkey.backbones.loading import load_backbone, random_backbone
from semkey.errors import ConfigError, InputError
from semkey.model.config import ExtractionConfig, ModelConfig
from semkey.model.semantic_detector import SemanticKeypointDetector

_LEAVES = ("reliability", "covariance")
"""Heads that nothing else reads from: each can be trained on its own, and be of another kind or absent."""


def changed_heads(config: ModelConfig, other: ModelConfig) -> tuple[str, ...]:
    """The heads that nothing reads from and that differ between two networks."""
    return tuple(name for name in _LEAVES if getattr(config, name) != getattr(other, name))


def is_of(tensor: str, heads: Sequence[str]) -> bool:
    """Whether a tensor, by its name, is of one of these heads."""
    return tensor.partition(".")[0] in heads


def with_heads_of(config: ModelConfig, other: ModelConfig) -> ModelConfig:
    """A configuration with the heads that nothing reads from as another one has them."""
    return replace(config, **{name: getattr(other, name) for name in _LEAVES})


def load_backbone_of(config: ModelConfig, *, weights: Sequence[Path] = ()) -> Backbone | None:
    """The backbone that a configuration uses, with its official weights; None where it uses none.

    Raises:
        ConfigError: see :func:`semkey.backbones.loading.load_backbone`.
        CheckpointError: likewise.
    """
    if not config.uses_backbone:
        return None
    return load_backbone(config.backbone, config.backbone_layers, weights=weights).upsampled(config.upsampling)


def build_detector(
    config: ModelConfig, extraction: ExtractionConfig | None = None, *, weights: Sequence[Path] = ()
) -> SemanticKeypointDetector:
    """A detector with its backbone's official weights and random heads, on the CPU.

    Raises:
        ConfigError: see :func:`semkey.backbones.loading.load_backbone`.
        CheckpointError: likewise.
    """
    return SemanticKeypointDetector(config, extraction, backbone=load_backbone_of(config, weights=weights))


def random_detector(config: ModelConfig, extraction: ExtractionConfig | None = None) -> SemanticKeypointDetector:
    """A detector whose backbone, too, has random weights: speed and memory do not depend on them.

    Raises:
        ConfigError: the backbone is no preset, or transformers is not installed.
    """
    backbone = None
    if config.uses_backbone:
        backbone = random_backbone(config.backbone, config.backbone_layers).upsampled(config.upsampling)
    return SemanticKeypointDetector(config, extraction, backbone=backbone)


@torch.no_grad()
def grow_from(model: SemanticKeypointDetector, other: SemanticKeypointDetector) -> tuple[str, ...]:
    """Copy the weights of a detector without a backbone into a hybrid one, which then computes the same.

    What the backbone adds starts from zero: its laterals, and its part of the place descriptor. Training goes on from
    there. Heads of reliability and covariance of another kind are left as they are.

    Args:
        model: whose configuration uses a backbone beside the convolutions.
        other: of the same widths.

    Returns:
        The heads that are left.

    Raises:
        ConfigError: the two differ in more than the backbone.
    """
    source, target = other.state_dict(), model.state_dict()
    changed = changed_heads(other.config, model.config)
    if changed:
        source, target = (
            {name: value for name, value in tensors.items() if not is_of(name, changed)} for tensors in (source, target)
        )
    for name, value in target.items():
        if name.startswith("pyramid.semantic."):
            value.zero_()
        elif name.startswith("pyramid.upsampler."):
            continue  # it reads nothing but zeros as yet
        elif name == "place.project.weight" and name in source and value.shape[1] > source[name].shape[1]:
            known = source.pop(name)
            value.zero_()
            value[:, : known.shape[1]] = known
        elif name in source and source[name].shape == value.shape:
            value.copy_(source.pop(name))
        else:
            raise ConfigError(
                f"a network without '{name}' of that shape cannot be grown: {other.config}, {model.config}"
            )
    if source:
        raise ConfigError(f"nothing in the network takes '{min(source)}': {other.config}, {model.config}")
    return changed


class DenseNetwork(nn.Module):
    """The dense maps of a detector as a tuple, for ``torch.export``, ONNX and profilers.

    The choice of keypoints is not in it; :class:`semkey.model.dense.DenseMaps` says what the maps are.

    Args:
        detector: whose parameters it shares.

    Example:
        >>> import semkey, torch
        >>> network = semkey.load("nano", device="cpu").network
        >>> program = torch.export.export(network, (torch.zeros(1, 1, 64, 96),))
        >>> [tuple(tensor.shape) for tensor in program.module()(torch.zeros(1, 1, 64, 96))][:1]
        [(1, 1, 64, 96)]
    """

    def __init__(self, detector: SemanticKeypointDetector) -> None:
        super().__init__()
        self.detector = detector
        # A frozen backbone is in nobody's parameters; an exported program has to hold them.
        self.backbone = None if detector.backbone is None else detector.backbone.network

    def forward(self, images: torch.Tensor, colors: torch.Tensor | None = None) -> tuple[torch.Tensor, ...]:
        """Dense maps.

        Args:
            images: (B, 1, H, W) float32 grey of zero mean and unit variance, H and W multiples of 32.
            colors: (B, 3, H, W) float32 in [0, 1], the same images in colour; needed where there is a backbone.

        Returns:
            Log-probability (B, 1, H, W) of a keypoint at each pixel; fused features (B, C, H/8, W/8); the map that
            descriptors are read from; the map that sub-pixel offsets are read from; the global descriptor (B, G).

        Raises:
            InputError: images of another shape.
        """
        if images.ndim != 4 or images.shape[1] != 1:
            raise InputError(f"images have shape {tuple(images.shape)}: pass grey ones, (B, 1, H, W)")
        if any(isinstance(side, int) and side % 32 for side in images.shape[2:]):  # symbols have no value yet
            raise InputError(f"images have shape {tuple(images.shape)}: height and width must be multiples of 32")
        maps = self.detector(images, colors)
        return maps.log_probability, maps.grid, maps.fine, maps.detail, self.detector.describe_place(maps)
