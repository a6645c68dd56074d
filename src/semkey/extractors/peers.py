"""Released networks that semkey is compared with: ALIKED, XFeat and DISK through kornia, and the list of all."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING, Any, ClassVar

import torch
import torch.nn.functional as F

from semkey.errors import ConfigError
from semkey.extractors.clidd import CLIDD_SIZES, CliddExtractor
from semkey.extractors.peer import PeerExtractor
from semkey.model.layers import sample_map

if TYPE_CHECKING:
    from torch import nn


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


class AlikedExtractor(PeerExtractor):
    """ALIKED (Zhao et al. 2023): the strongest maxima of the score map, NMS radius 2, without a score threshold.

    kornia pads the image to multiples of 32 on all sides and takes the padding off again, so keypoints need no change.
    Scores, positions and descriptors are those of the authors' network. The choice of keypoints is not quite: the
    authors' code also returns points on the flank of a stronger maximum, kornia only strict maxima; about four of five
    keypoints are the same at 1024 per image, and kornia's give more correct matches.
    """

    derived: ClassVar[tuple[str, ...]] = ("dkd.hw_grid",)

    def _weights_file(self) -> str:
        return f"{self.name}.pth"

    def _options(self) -> dict[str, Any]:
        return {"detection_threshold": 0.0, "nms_radius": 2}

    def _build(self) -> nn.Module:
        return import_kornia_feature().ALIKED(
            self.name, max_num_keypoints=self.max_keypoints, detection_threshold=0.0, nms_radius=2
        )

    def _detect(
        self, image: torch.Tensor, usable: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        if usable is None:
            found = self._network(image)[0]
            return found.keypoints, found.keypoint_scores, found.descriptors
        network: Any = self._network
        features, scores = network.extract_dense_map(image)
        # The soft-argmax of 5x5 moves a maximum by up to two pixels: not into the mask.
        away = 1 - F.max_pool2d((~usable)[None, None].to(scores.dtype), 5, stride=1, padding=2)
        keypoints, found_scores, _ = network.dkd(scores * away)
        descriptors, _ = network.desc_head(features, keypoints)
        return (keypoints[0] + 1) / 2 * _last_pixel(image), found_scores[0], descriptors[0]

    def _describe(self, image: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        network: Any = self._network
        features, scores = network.extract_dense_map(image)
        descriptors, _ = network.desc_head(features, [points / _last_pixel(image) * 2 - 1])
        return sample_map(scores, points[None], 1)[0, :, 0], descriptors[0]


class XFeatExtractor(PeerExtractor):
    """XFeat, sparse (Potje et al. 2024), with the released threshold of 0.05 on the keypoint map.

    XFeat resizes the image to multiples of 32 and reports pixel ``i`` of the result at ``i * ratio``; the centre of
    that pixel is at ``(i + 0.5) * ratio - 0.5`` of the image, which is what is returned here (the same at 640x480).
    """

    derived: ClassVar[tuple[str, ...]] = ("fine_matcher",)

    def _weights_file(self) -> str:
        return "xfeat.pt"

    def _options(self) -> dict[str, Any]:
        return {"detection_threshold": 0.05, "half_pixel_correction": True}

    def _build(self) -> nn.Module:
        return import_kornia_feature().XFeat(top_k=self.max_keypoints, detection_threshold=0.05)

    def _loaded_part(self) -> nn.Module:
        network = self._network.net
        assert isinstance(network, torch.nn.Module)
        return network

    def _detect(
        self, image: torch.Tensor, usable: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        network: Any = self._network
        # It describes what it returns alone; all of what it found is asked for, to choose under the mask.
        count = self.max_keypoints if usable is None else image.shape[-2] * image.shape[-1]
        found = network.detectAndCompute(image, top_k=count)[0]
        height, width = image.shape[-2:]
        ratio = image.new_tensor([width / (width // 32 * 32), height / (height // 32 * 32)])
        return found["keypoints"] + (0.5 * ratio - 0.5), found["scores"], found["descriptors"]

    def _describe(self, image: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        network: Any = self._network
        resized, _, _ = network._preprocess_tensor(image)
        height, width = resized.shape[-2:]
        ratio = points.new_tensor([image.shape[-1] / width, image.shape[-2] / height])
        places = ((points + 0.5) / ratio - 0.5).clamp(min=0.0)[None]
        dense, logits, reliability = network.net(resized)
        heat = network._get_kpts_heatmap(logits)
        scores = network._nearest(heat, places, height, width) * network._bilinear(reliability, places, height, width)
        return scores[0, :, 0], network.interpolator(F.normalize(dense, dim=1), places, H=height, W=width)[0]


class DiskExtractor(PeerExtractor):
    """DISK (Tyszkiewicz et al. 2020), weights trained with depth: the strongest maxima in 5x5 windows, logit above 0.

    kornia pads to multiples of 16 on the right and below. Scores are the logistic function of the network's logits.
    """

    def _weights_file(self) -> str:
        return "disk-depth-save.pth"

    def _options(self) -> dict[str, Any]:
        return {"window_size": 5, "score_threshold": 0.0}

    def _build(self) -> nn.Module:
        return import_kornia_feature().DISK()

    def _tensors(self, stored: dict[str, Any]) -> dict[str, Any]:
        return stored["extractor"]

    def _detect(
        self, image: torch.Tensor, usable: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        count = self.max_keypoints if usable is None else None
        found = self._network(image, n=count, window_size=5, score_threshold=0.0, pad_if_not_divisible=True)[0]
        return found.keypoints, torch.sigmoid(found.detection_scores), found.descriptors

    def _describe(self, image: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        network: Any = self._network
        height, width = image.shape[-2:]
        heat, dense = network.heatmap_and_dense_descriptors(F.pad(image, (0, -width % 16, 0, -height % 16)))
        return torch.sigmoid(sample_map(heat, points[None], 1)[0, :, 0]), sample_map(dense, points[None], 1)[0]


def _last_pixel(image: torch.Tensor) -> torch.Tensor:
    """X and y of an image's last pixel, by which ALIKED divides positions."""
    return image.new_tensor([image.shape[-1] - 1, image.shape[-2] - 1])


PEERS: dict[str, type[PeerExtractor]] = {
    "aliked-t16": AlikedExtractor,
    "aliked-n16": AlikedExtractor,
    "aliked-n16rot": AlikedExtractor,
    "aliked-n32": AlikedExtractor,
    "xfeat": XFeatExtractor,
    "disk": DiskExtractor,
    **dict.fromkeys(CLIDD_SIZES, CliddExtractor),
}
