"""What all released networks that semkey is compared with share: weights, sizes, and pixels of the image as given."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F

from semkey.downloads import file_sha256
from semkey.errors import CheckpointError
from semkey.extractors.peer_weights import find_weights, load_weights_file
from semkey.geometry.pixels import resize_keypoints
from semkey.model.features import Features
from semkey.model.preprocess import ImageLike, to_rgb

if TYPE_CHECKING:
    from torch import nn

MAX_PIXELS = 4_000_000
"""Larger images are reduced to this many pixels: at full resolution ALIKED-N16 holds about 2 kB per pixel."""

MIN_SIDE = 32
"""Smaller images are continued to the right and below by their last row and column: the networks halve them 5 times."""


def load_parameters(network: nn.Module, tensors: dict[str, Any], path: Path, derived: tuple[str, ...] = ()) -> None:
    """Copy released tensors into a network.

    Args:
        network: receives them.
        tensors: name to tensor.
        path: where they come from, for the message.
        derived: prefixes of the network's entries that are not in released files: constants that follow from its
            configuration, and parts that are not used here.

    Raises:
        CheckpointError: another entry is missing, or one has another shape or no place in the network.
    """
    try:
        result = network.load_state_dict(tensors, strict=False)
    except (RuntimeError, AttributeError) as error:
        raise CheckpointError(f"{path}: does not fit this network ({' '.join(str(error).split())[:200]})") from None
    missing = [name for name in result.missing_keys if not name.startswith(derived or ("\0",))]
    if missing or result.unexpected_keys:
        kind, name = ("missing", missing[0]) if missing else ("foreign", result.unexpected_keys[0])
        raise CheckpointError(f"{path}: {kind} tensor '{name}', so it belongs to another network")


class PeerExtractor(ABC):
    """A released network with its released weights, in float32 and evaluation mode.

    Args:
        name: a key of :data:`semkey.extractors.peers.PEERS`.
        max_keypoints: largest number of keypoints per image, >= 1.
        device: where the network runs.
        weights: folders where the weights are looked for first, see
            :func:`semkey.extractors.peer_weights.find_weights`.

    Attributes:
        name: as given.
        settings: everything that results depend on besides the versions of the libraries; JSON-ready.

    Raises:
        ConfigError: a package that the network comes from is not installed, or a weights folder does not exist.
        CheckpointError: weights are not found, or are not the released ones.
    """

    derived: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str, *, max_keypoints: int, device: torch.device, weights: Sequence[Path] = ()) -> None:
        self.name = name
        self.max_keypoints = max_keypoints
        self.device = device
        with torch.random.fork_rng(devices=[]):  # the initial values, replaced below, take no caller's random numbers
            self._network = self._build()
        path = find_weights(self._weights_file(), weights)
        load_parameters(self._loaded_part(), self._tensors(load_weights_file(path)), path, self.derived)
        self._network.eval().requires_grad_(False).to(device)
        self.settings: dict[str, Any] = {
            "kind": "peer",
            "weights": path.name,
            "weights_sha256": file_sha256(path),
            "weights_bytes": path.stat().st_size,
            "parameters": sum(parameter.numel() for parameter in self._network.parameters()),
            "precision": "float32",
            "max_pixels": MAX_PIXELS,
            **self._options(),
        }

    def extract(self, image: ImageLike) -> Features:
        """Detect and describe keypoints.

        Args:
            image: a path, uint8 (H, W, 3) RGB or (H, W), or float tensor (3, H, W) or (1, H, W) in [0, 1].

        Returns:
            At most ``max_keypoints`` features on ``device``, strongest first, in pixels of the image as given;
            reliability is 1 throughout, there is no global descriptor.

        Raises:
            InputError: the image cannot be read or used.
        """
        with torch.inference_mode():
            original = to_rgb(image).to(self.device)[None]
            height, width = original.shape[-2:]
            shrink = min(1.0, (MAX_PIXELS / (width * height)) ** 0.5)
            size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
            tensor = original
            if size != (width, height):
                tensor = F.interpolate(tensor, size[::-1], mode="bilinear", align_corners=False, antialias=True)
            pad = (max(0, MIN_SIDE - size[0]), max(0, MIN_SIDE - size[1]))
            if any(pad):
                tensor = F.pad(tensor, (0, pad[0], 0, pad[1]), mode="replicate")
            keypoints, scores, descriptors = self._detect(tensor)

            keypoints = keypoints.float()
            kept = (keypoints <= keypoints.new_tensor(size) - 0.5).all(dim=1).nonzero()[:, 0]
            order = kept[scores[kept].argsort(descending=True, stable=True)][: self.max_keypoints]
            keypoints = resize_keypoints(keypoints[order], size, (width, height))
            limit = keypoints.new_tensor([width - 1.0, height - 1.0])
            features = Features(
                keypoints=torch.minimum(keypoints.clamp(min=0.0), limit),
                scores=scores[order].float().clamp(0, 1),
                reliability=torch.ones(len(order), device=self.device),
                descriptors=F.normalize(descriptors[order].float(), dim=1),
                global_descriptor=torch.zeros(0, device=self.device),
                image_size=(width, height),
            )
        return features

    @abstractmethod
    def _weights_file(self) -> str:
        """Key of the weights in the table of releases."""

    @abstractmethod
    def _build(self) -> nn.Module:
        """The network, untrained."""

    @abstractmethod
    def _options(self) -> dict[str, Any]:
        """What it was configured with, for ``settings``."""

    @abstractmethod
    def _detect(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Keypoints (N, 2) in pixels of ``image`` (1, 3, H, W), scores (N,) in [0, 1] and descriptors (N, D)."""

    def _loaded_part(self) -> nn.Module:
        """The module that the released tensors belong to."""
        return self._network

    def _tensors(self, stored: dict[str, Any]) -> dict[str, Any]:
        """The tensors within a weights file."""
        return stored
