"""Released networks that semkey is compared with, through kornia: ALIKED, XFeat and DISK."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F

from semkey.downloads import file_sha256
from semkey.errors import CheckpointError, ConfigError
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


def import_kornia_feature() -> ModuleType:
    """``kornia.feature``, imported when a peer is asked for: it takes seconds and is not needed otherwise.

    Raises:
        ConfigError: kornia is not installed.
    """
    try:
        import kornia.feature
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != "kornia":
            raise
        raise ConfigError("ALIKED, XFeat, DISK and LightGlue run through kornia: pip install 'semkey[peers]'") from None
    return kornia.feature


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
        raise CheckpointError(f"{path}: {kind} tensor '{name}': the installed kornia has another network")


class PeerExtractor(ABC):
    """A released network with its released weights, in float32 and evaluation mode.

    Args:
        name: a key of :data:`PEERS`.
        max_keypoints: largest number of keypoints per image, >= 1.
        device: where the network runs.
        weights: folders where the weights are looked for first, see
            :func:`semkey.extractors.peer_weights.find_weights`.

    Attributes:
        name: as given.
        settings: everything that results depend on besides the versions of the libraries; JSON-ready.

    Raises:
        ConfigError: kornia is not installed, or a weights folder does not exist.
        CheckpointError: weights are not found, or are not the released ones.
    """

    derived: ClassVar[tuple[str, ...]] = ()

    def __init__(self, name: str, *, max_keypoints: int, device: torch.device, weights: Sequence[Path] = ()) -> None:
        self.name = name
        self.max_keypoints = max_keypoints
        self.device = device
        feature = import_kornia_feature()
        path = find_weights(self._weights_file(), weights)
        with torch.random.fork_rng(devices=[]):  # the initial values, replaced below, take no caller's random numbers
            self._network = self._build(feature)
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
    def _build(self, feature: ModuleType) -> nn.Module:
        """The network of ``kornia.feature``, untrained."""

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


class AlikedExtractor(PeerExtractor):
    """ALIKED (Zhao et al. 2023): the strongest maxima of the score map, NMS radius 2, without a score threshold.

    kornia pads the image to multiples of 32 on all sides and takes the padding off again, so keypoints need no change.
    Scores, positions and descriptors are those of the authors' network. The choice of keypoints is not quite: the
    authors' code also returns points on the flank of a stronger maximum, kornia only strict maxima; about four of five
    keypoints are the same at 1024 per image, and kornia's give more correct matches.
    """

    derived = ("dkd.hw_grid",)

    def _weights_file(self) -> str:
        return f"{self.name}.pth"

    def _options(self) -> dict[str, Any]:
        return {"detection_threshold": 0.0, "nms_radius": 2}

    def _build(self, feature: ModuleType) -> nn.Module:
        return feature.ALIKED(self.name, max_num_keypoints=self.max_keypoints, detection_threshold=0.0, nms_radius=2)

    def _detect(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = self._network(image)[0]
        return found.keypoints, found.keypoint_scores, found.descriptors


class XFeatExtractor(PeerExtractor):
    """XFeat, sparse (Potje et al. 2024), with the released threshold of 0.05 on the keypoint map.

    XFeat resizes the image to multiples of 32 and reports pixel ``i`` of the result at ``i * ratio``; the centre of
    that pixel is at ``(i + 0.5) * ratio - 0.5`` of the image, which is what is returned here (the same at 640x480).
    """

    derived = ("fine_matcher",)

    def _weights_file(self) -> str:
        return "xfeat.pt"

    def _options(self) -> dict[str, Any]:
        return {"detection_threshold": 0.05, "half_pixel_correction": True}

    def _build(self, feature: ModuleType) -> nn.Module:
        return feature.XFeat(top_k=self.max_keypoints, detection_threshold=0.05)

    def _loaded_part(self) -> nn.Module:
        network = self._network.net
        assert isinstance(network, torch.nn.Module)
        return network

    def _detect(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = self._network.detectAndCompute(image, top_k=self.max_keypoints)[0]  # ty: ignore[not-callable]
        height, width = image.shape[-2:]
        ratio = image.new_tensor([width / (width // 32 * 32), height / (height // 32 * 32)])
        return found["keypoints"] + (0.5 * ratio - 0.5), found["scores"], found["descriptors"]


class DiskExtractor(PeerExtractor):
    """DISK (Tyszkiewicz et al. 2020), weights trained with depth: the strongest maxima in 5x5 windows, logit above 0.

    kornia pads to multiples of 16 on the right and below. Scores are the logistic function of the network's logits.
    """

    def _weights_file(self) -> str:
        return "disk-depth-save.pth"

    def _options(self) -> dict[str, Any]:
        return {"window_size": 5, "score_threshold": 0.0}

    def _build(self, feature: ModuleType) -> nn.Module:
        return feature.DISK()

    def _tensors(self, stored: dict[str, Any]) -> dict[str, Any]:
        return stored["extractor"]

    def _detect(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        found = self._network(
            image, n=self.max_keypoints, window_size=5, score_threshold=0.0, pad_if_not_divisible=True
        )[0]
        return found.keypoints, torch.sigmoid(found.detection_scores), found.descriptors


PEERS: dict[str, type[PeerExtractor]] = {
    "aliked-t16": AlikedExtractor,
    "aliked-n16": AlikedExtractor,
    "aliked-n16rot": AlikedExtractor,
    "aliked-n32": AlikedExtractor,
    "xfeat": XFeatExtractor,
    "disk": DiskExtractor,
}
