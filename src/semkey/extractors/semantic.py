"""semkey's own detectors: presets and checkpoints."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import nn

from semkey.backbones.backbone import Backbone
from semkey.downloads import file_sha256
from semkey.extractors.detector import Detector, MaskLike, check_points
from semkey.images.masks import check_mask
from semkey.model.building import DenseNetwork
from semkey.model.features import Features
from semkey.model.precision import uses_bfloat16
from semkey.model.preprocess import ImageLike, image_size, load_pixels
from semkey.model.presets import HALF, load_detector, load_random, presets
from semkey.model.starting import is_backbone
from semkey.runtime import give_memory_back, select_device
from semkey.runtimes.choosing import choose_runtime, use_runtime

_HUGE_PIXELS = 16_000_000  # what is freed after such an image goes back to the system: 1.1 GB at 40 megapixels


class SemanticExtractor(Detector):
    """A preset or checkpoint of semkey.

    Args:
        name: preset or path, as given.
        max_keypoints: largest number of keypoints per image.
        device: see :func:`semkey.load`.
        weights: folders where the weights of a backbone are looked for first.
        random_weights: random ones instead of trained ones.
        extraction: other fields of :class:`semkey.model.config.ExtractionConfig`.
        runtime: what computes the network, see :func:`semkey.runtimes.choosing.choose_runtime`.

    Attributes:
        runtime: what computes the network: ``torch``, ``onnxruntime`` or ``openvino``.
    """

    def __init__(
        self,
        name: str,
        *,
        max_keypoints: int,
        device: str | torch.device,
        weights: Sequence[Path] = (),
        random_weights: bool = False,
        extraction: dict[str, Any] | None = None,
        runtime: str = "torch",
    ) -> None:
        self.name, self.max_keypoints = name, max_keypoints
        self.runtime = choose_runtime(runtime, select_device(device))
        given: dict[str, Any] = {
            "max_keypoints": max_keypoints,
            "device": device,
            "reduce": self.runtime == "torch",
        }
        if random_weights:
            self._detector = load_random(name, **given)
        else:
            self._detector = load_detector(name, weights=weights, **given, **(extraction or {}))
        self.device = self._detector.device
        use_runtime(self._detector, self.runtime)
        settings, backbone = self._detector.extraction, self._detector.backbone
        reduced = uses_bfloat16(settings.precision, self.device)
        self.settings: dict[str, Any] = {
            "kind": "semkey",
            "parameters": sum(parameter.numel() for parameter in self._detector.parameters()),
            **asdict(settings),
            "precision": "bfloat16" if reduced else "float32",
        }
        if self.runtime != "torch":
            self.settings["runtime"] = self.runtime
        if random_weights:
            self.settings |= {"weights": "random", "weights_bytes": 4 * self.settings["parameters"]}
        else:
            self.settings |= _weights(name, backbone)
        if settings.vocabulary:
            path = Path(settings.vocabulary)
            self.settings |= {"vocabulary": path.name, "vocabulary_sha256": file_sha256(path)}
        if backbone is not None:
            self.settings["backbone"] = asdict(backbone.identity)
            self.settings["parameters"] += backbone.parameter_count
            self.settings["weights_bytes"] += backbone.weight_bytes

    def __repr__(self) -> str:
        by = "" if self.runtime == "torch" else f", by {self.runtime}"
        return f"{super().__repr__()[:-1]}{by})"

    @property
    def network(self) -> nn.Module:
        """The network: normalised grey images in, a tuple of dense maps out (:class:`DenseNetwork`)."""
        return DenseNetwork(self._detector)

    def extract(self, image: ImageLike, mask: MaskLike | None = None) -> Features:
        """See :meth:`Detector.extract`."""
        pixels = load_pixels(image)
        usable = None if mask is None else check_mask(mask, image_size(pixels))
        features = replace(self._detector.extract(pixels, usable), method=self.name)
        if math.prod(image_size(pixels)) > _HUGE_PIXELS:
            give_memory_back()
        return features

    def describe(self, image: ImageLike, points: ArrayLike | torch.Tensor) -> Features:
        """See :meth:`Detector.describe`; scores are those of the score map at the points."""
        pixels = load_pixels(image)
        features = self._detector.describe_points(pixels, check_points(points, image_size(pixels)))
        return replace(features, method=self.name)

    def extract_and_describe(
        self, image: ImageLike, points: torch.Tensor, mask: MaskLike | None = None
    ) -> tuple[Features, torch.Tensor]:
        """Features of one image, and descriptors (M, D) of points (M, 2) in it, from one pass of the network."""
        pixels = load_pixels(image)
        usable = None if mask is None else check_mask(mask, image_size(pixels))
        features, descriptors = self._detector.extract_and_describe(pixels, points, usable)
        return replace(features, method=self.name), descriptors


def _weights(name: str, backbone: Backbone | None) -> dict[str, Any]:
    """Which trained weights a detector has: file, hash and size."""
    shipped = presets().get(name)
    is_start = shipped is None and is_backbone(name)
    path = presets()[HALF].path if is_start else shipped.path if shipped else Path(name)
    sha256 = file_sha256(path)
    if is_start and backbone is not None:  # the same heads over another backbone are other features
        sha256 = hashlib.sha256(f"{sha256} {backbone.identity.content}".encode()).hexdigest()
    return {"weights": path.name, "weights_sha256": sha256, "weights_bytes": path.stat().st_size}
