"""CLIDD (Yao et al. 2026, arXiv 2601.09230): small features with a descriptor that is computed at keypoints alone."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from semkey.extractors.peer import PeerExtractor
from semkey.model.layers import sample_map

STRIDES = (2, 8, 32)
"""Of the three levels; image sides have to be multiples of the last."""

SCORE_THRESHOLD = -5.0
NMS_RADIUS = 2
BORDER = 4
MAX_OFFSET_PX = 128.0
DESCRIPTOR_SIZE = 64


class CliddSize(NamedTuple):
    """One released size: channels of the three levels, and how many places of each level a descriptor reads."""

    widths: tuple[int, int, int]
    samples: int


CLIDD_SIZES = {
    "clidd-n64": CliddSize((8, 8, 8), 8),
    "clidd-s64": CliddSize((8, 24, 32), 16),
    "clidd-m64": CliddSize((16, 32, 48), 16),
    "clidd-l64": CliddSize((16, 48, 96), 16),
}
"""By name; 19, 100, 168 and 348 thousand parameters."""


class CliddNetwork(nn.Module):
    """Three levels of features, a score per pixel, and descriptors that read all levels at learned places.

    Modules are named as in the released files.

    Args:
        size: widths and number of samples.
    """

    def __init__(self, size: CliddSize) -> None:
        super().__init__()
        first, second, third = size.widths
        self.block1 = nn.Sequential(
            _Unit(_convolution(3, first, kernel=4, stride=2)),
            _Unit(_convolution(first, first)),
            _Residual(first, first),
        )
        self.block2 = nn.Sequential(nn.AvgPool2d(4), _Residual(first, second))
        self.block3 = nn.Sequential(nn.AvgPool2d(4), _Residual(second, third))
        hidden = 8
        self.conv1, self.conv2, self.conv3 = (nn.Conv2d(width, hidden, 1) for width in size.widths)
        self.score_head = nn.Sequential(
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(hidden, 4, 3, padding=1),
            nn.PixelShuffle(2),
        )
        self.dcn = nn.Conv2d(sum(size.widths), len(size.widths) * size.samples * 2, 1)
        self.post_conv = nn.Conv2d(sum(size.widths), DESCRIPTOR_SIZE, (1, size.samples))
        self.samples = size.samples

    def forward(self, image: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Levels (1, C, H / stride, W / stride) and logits (1, 1, H, W) of RGB (1, 3, H, W) in [0, 1]."""
        level1 = self.block1(image)
        level2 = self.block2(level1)
        level3 = self.block3(level2)
        coarse = self.conv2(level2) + _enlarged(self.conv3(level3))
        logits = self.score_head(self.conv1(level1) + _enlarged(coarse))
        return [level1, level2, level3], logits

    def describe(self, levels: list[torch.Tensor], keypoints: torch.Tensor) -> torch.Tensor:
        """Descriptors (N, 64) of unit norm at pixels (N, 2) of the image that ``levels`` are of."""
        if len(keypoints) == 0:
            return keypoints.new_zeros(0, DESCRIPTOR_SIZE)
        size = STRIDES[0] * keypoints.new_tensor(levels[0].shape[:1:-1])  # width, height of the image
        here = torch.cat([_read(level, keypoints[:, None], size) for level in levels])
        offsets = F.conv2d(here[None], self.dcn.weight, self.dcn.bias)[0, :, :, 0].T
        offsets = offsets.clamp(-MAX_OFFSET_PX, MAX_OFFSET_PX).unflatten(1, (len(levels), self.samples, 2))
        places = keypoints[:, None, None] + offsets
        read = torch.cat([_read(level, places[:, index], size) for index, level in enumerate(levels)])
        return F.normalize(F.conv2d(read[None], self.post_conv.weight, self.post_conv.bias)[0, :, :, 0].T, dim=1)


class CliddExtractor(PeerExtractor):
    """CLIDD as released: maxima of 5x5 with a logit above -5, 4 px from the border, on whole pixels.

    Scores are the logistic function of the logits. An image whose sides are no multiples of 32 is continued to the
    right and below by its last row and column, so that pixels stay what they are; the authors' script resizes it.
    """

    def _weights_file(self) -> str:
        return f"{self.name}.pth"

    def _options(self) -> dict[str, Any]:
        return {"score_threshold": SCORE_THRESHOLD, "nms_radius": NMS_RADIUS, "border": BORDER, "sizes": "padded"}

    def _build(self) -> nn.Module:
        return CliddNetwork(CLIDD_SIZES[self.name])

    def _detect(
        self, image: torch.Tensor, usable: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        network, levels, logits = self._maps(image)
        height, width = image.shape[-2:]
        if usable is not None:
            logits[0, 0, :height, :width].masked_fill_(~usable, -torch.inf)
        is_maximum = logits == F.max_pool2d(logits, 2 * NMS_RADIUS + 1, stride=1, padding=NMS_RADIUS)
        inner = (is_maximum & (logits > SCORE_THRESHOLD))[0, 0, BORDER : height - BORDER, BORDER : width - BORDER]
        rows, columns = (inner.nonzero() + BORDER).T
        # Here, since the scores of strong maxima round to the same number.
        found, order = logits[0, 0, rows, columns].sort(descending=True, stable=True)
        chosen = order[: self.max_keypoints]
        keypoints = torch.stack([columns, rows], dim=1)[chosen].to(image.dtype)
        return keypoints, torch.sigmoid(found[: self.max_keypoints]), network.describe(levels, keypoints)

    def _describe(self, image: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        network, levels, logits = self._maps(image)
        return torch.sigmoid(sample_map(logits, points[None], 1)[0, :, 0]), network.describe(levels, points)

    def _maps(self, image: torch.Tensor) -> tuple[CliddNetwork, list[torch.Tensor], torch.Tensor]:
        network = self._network
        assert isinstance(network, CliddNetwork)
        height, width = image.shape[-2:]
        step = STRIDES[-1]
        levels, logits = network(F.pad(image, (0, -width % step, 0, -height % step), mode="replicate"))
        return network, levels, logits


class _Unit(nn.Module):
    """A convolution, batch normalisation and ReLU."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.layer = nn.Sequential(convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU())

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return self.layer(features)


class _Residual(nn.Module):
    """Two 3x3 convolutions beside a skip connection, 1x1 where the widths differ."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.layer = nn.Sequential(
            _convolution(before, after),
            nn.BatchNorm2d(after),
            nn.ReLU(),
            _convolution(after, after),
            nn.BatchNorm2d(after),
        )
        self.skip = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return F.relu(self.layer(features) + self.skip(features))


def _convolution(before: int, after: int, *, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, stride, padding=1, bias=False)


def _enlarged(features: torch.Tensor) -> torch.Tensor:
    return F.interpolate(features, scale_factor=4.0, mode="bilinear", align_corners=False)


def _read(level: torch.Tensor, places: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
    """A level (1, C, h, w) at pixels (N, M, 2) of an image of ``size`` (width, height): (C, N, M), 0 beyond it."""
    grid = (places + 0.5) / size * 2 - 1
    return F.grid_sample(level, grid[None], mode="bilinear", padding_mode="zeros", align_corners=False)[0]
