"""What all released networks that semkey is compared with share: weights, sizes, and pixels of the image as given."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray

from semkey.downloads import file_sha256
from semkey.errors import CheckpointError
from semkey.extractors.detector import Detector, MaskLike, check_points
from semkey.extractors.peer_weights import find_weights, load_weights_file
from semkey.geometry.pixels import resize_keypoints
from semkey.images.masks import check_mask, in_mask, shrink_mask
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


class PeerExtractor(Detector):
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

    @property
    def network(self) -> nn.Module:
        """The network with the released weights; its ``forward`` gives what its authors made it give."""
        return self._network

    def extract(self, image: ImageLike, mask: MaskLike | None = None) -> Features:
        """Find and describe keypoints.

        Args:
            image: see :meth:`Detector.extract`.
            mask: see :meth:`Detector.extract`.

        Returns:
            At most ``max_keypoints`` features on ``device``, strongest first, in pixels of the image as given;
            reliability is 1 throughout, there is no global descriptor.

        Raises:
            InputError: the image or the mask cannot be used.
        """
        with torch.inference_mode():
            tensor, size, (width, height) = self._prepared(image)
            usable = None if mask is None else check_mask(mask, (width, height))
            keypoints, scores, descriptors = self._detect(tensor, self._usable_pixels(usable, size, tensor))

            keypoints = keypoints.float()
            kept = (keypoints <= keypoints.new_tensor(size) - 0.5).all(dim=1)
            keypoints = resize_keypoints(keypoints, size, (width, height))
            limit = keypoints.new_tensor([width - 1.0, height - 1.0])
            keypoints = torch.minimum(keypoints.clamp(min=0.0), limit)
            if usable is not None:
                kept &= torch.from_numpy(in_mask(keypoints.cpu().numpy(), usable)).to(self.device)
            chosen = kept.nonzero()[:, 0]
            order = chosen[scores[chosen].argsort(descending=True, stable=True)][: self.max_keypoints]
            found = (keypoints[order], scores[order], descriptors[order])
        return self._features(*found, (width, height))

    def describe(self, image: ImageLike, points: ArrayLike | torch.Tensor) -> Features:
        """Describe keypoints of one's own.

        Raises:
            InputError: see :meth:`Detector.describe`.
        """
        with torch.inference_mode():
            tensor, size, original_size = self._prepared(image)
            keypoints = check_points(points, original_size).to(self.device)
            scores, descriptors = self._describe(tensor, resize_keypoints(keypoints, original_size, size))
        return self._features(keypoints, scores, descriptors, original_size)

    def _prepared(self, image: ImageLike) -> tuple[torch.Tensor, tuple[int, int], tuple[int, int]]:
        """The network's input (1, 3, H, W), the (width, height) of its part that is image, and that of the image."""
        tensor = to_rgb(image).to(self.device)[None]
        height, width = tensor.shape[-2:]
        shrink = min(1.0, (MAX_PIXELS / (width * height)) ** 0.5)
        size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
        if size != (width, height):
            tensor = F.interpolate(tensor, size[::-1], mode="bilinear", align_corners=False, antialias=True)
        pad = (max(0, MIN_SIDE - size[0]), max(0, MIN_SIDE - size[1]))
        if any(pad):
            tensor = F.pad(tensor, (0, pad[0], 0, pad[1]), mode="replicate")
        return tensor, size, (width, height)

    def _usable_pixels(
        self, usable: NDArray[np.bool_] | None, size: tuple[int, int], tensor: torch.Tensor
    ) -> torch.Tensor | None:
        """The mask of the network's input, (H, W) bool on the device."""
        if usable is None:
            return None
        pixels = torch.zeros(tensor.shape[-2:], dtype=torch.bool)
        pixels[: size[1], : size[0]] = torch.from_numpy(shrink_mask(usable, size))
        return pixels.to(self.device)

    def _features(
        self, keypoints: torch.Tensor, scores: torch.Tensor, descriptors: torch.Tensor, image_size: tuple[int, int]
    ) -> Features:
        """Features of ordinary tensors, where those given are of inference mode."""
        return Features(
            keypoints=keypoints.clone(),
            scores=scores.clone().float().clamp(0, 1),
            reliability=torch.ones(len(keypoints), device=self.device),
            descriptors=F.normalize(descriptors.clone().float(), dim=1),
            global_descriptor=torch.zeros(0, device=self.device),
            image_size=image_size,
            method=self.name,
        )

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
    def _detect(
        self, image: torch.Tensor, usable: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Keypoints (N, 2) in pixels of ``image`` (1, 3, H, W), scores (N,) in [0, 1] and descriptors (N, D).

        Where ``usable`` (H, W) bool is given, the strongest of usable pixels are among them, and others may be.
        """

    @abstractmethod
    def _describe(self, image: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (N,) and descriptors (N, D) at pixels (N, 2) of ``image``."""

    def _loaded_part(self) -> nn.Module:
        """The module that the released tensors belong to."""
        return self._network

    def _tensors(self, stored: dict[str, Any]) -> dict[str, Any]:
        """The tensors within a weights file."""
        return stored
