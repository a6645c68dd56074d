"""Any detector with what a frozen backbone sees at its keypoints: matching leaves out what looks unlike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike
from torch import nn

from semkey.backbones.loading import load_backbone
from semkey.extractors.detector import Detector, MaskLike
from semkey.model.features import Features
from semkey.model.precision import uses_bfloat16
from semkey.model.preprocess import ImageLike, load_pixels, to_rgb


class GuidedDetector(Detector):
    """A detector whose features have :attr:`semkey.Features.semantics`.

    Args:
        detector: finds and describes.
        guide: name of the backbone, see :func:`semkey.backbones.loading.load_backbone`.
        weights: folders where its weights are looked for first.

    Raises:
        ConfigError: unknown backbone, or transformers is not installed.
        CheckpointError: its weights cannot be had.
    """

    def __init__(self, detector: Detector, guide: str, weights: Sequence[Path] = ()) -> None:
        self._detector = detector
        self.name, self.max_keypoints, self.device = detector.name, detector.max_keypoints, detector.device
        self._backbone = load_backbone(guide, weights=weights).to(self.device)
        self._reduced = uses_bfloat16("auto", self.device)
        precision = "bfloat16" if self._reduced else "float32"
        self.settings: dict[str, Any] = {
            **detector.settings,
            "guide": {**asdict(self._backbone.identity), "precision": precision},
            "parameters": int(detector.settings.get("parameters", 0)) + self._backbone.parameter_count,
            "weights_bytes": int(detector.settings.get("weights_bytes", 0)) + self._backbone.weight_bytes,
        }

    @property
    def network(self) -> nn.Module:
        """The detector's own, without the backbone."""
        return self._detector.network

    def extract(self, image: ImageLike, mask: MaskLike | None = None) -> Features:
        """See :meth:`Detector.extract`."""
        pixels = load_pixels(image)
        return self._guided(self._detector.extract(pixels, mask), pixels)

    def describe(self, image: ImageLike, points: ArrayLike | torch.Tensor) -> Features:
        """See :meth:`Detector.describe`."""
        pixels = load_pixels(image)
        return self._guided(self._detector.describe(pixels, points), pixels)

    def _guided(self, features: Features, pixels: ImageLike) -> Features:
        device = self._backbone.mean.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self._reduced):
            seen = self._backbone(to_rgb(pixels)[None].to(device))
        tokens = seen.maps[-1].float()
        # Token (i, j) covers the pixels p i .. p i + p - 1: pixel x lies at (x + 0.5) / p cells from the left edge.
        cells = tokens.new_tensor([tokens.shape[3], tokens.shape[2]]) * seen.patch
        places = 2 * (features.keypoints.to(device) + 0.5) / cells - 1
        values = F.grid_sample(tokens, places[None, None], padding_mode="border", align_corners=False)[0, :, 0].T
        return replace(features, semantics=F.normalize(values, dim=1).to(features.keypoints.device))
