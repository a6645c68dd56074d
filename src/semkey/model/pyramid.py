"""Feature pyramid: 1 x 1 laterals of fine and coarse scales, fused on one grid of 8 x 8-pixel cells."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from semkey.model.layers import ConvBlock


class FeaturePyramid(nn.Module):
    """Fuses strides 2 (if there is one), 4, 8 (stem) and the coarse maps (context branch or backbone).

    The finer maps reach the grid by space-to-depth, not by pooling, so that a cell still knows where inside its 8 x 8
    pixels an edge lies.

    Args:
        stem: channels of the stem's maps, finest first.
        coarse: channels of the coarse maps.
        channels: of both results.
        fine_stride: of the map that descriptors are read from, 4 or 8 (faster).
    """

    def __init__(self, stem: Sequence[int], coarse: Sequence[int], channels: int, fine_stride: int = 4) -> None:
        super().__init__()
        self.fine_index = -2 if fine_stride == 4 else -1
        # A 1 x 1 convolution after space-to-depth is a convolution whose kernel and stride are the block's side.
        self.lateral2 = nn.Conv2d(stem[0], channels, 4, stride=4) if len(stem) == 3 else None
        self.lateral4 = nn.Conv2d(stem[-2], channels, 2, stride=2)
        self.lateral8 = nn.Conv2d(stem[-1], channels, 1)
        self.coarse = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in coarse)
        self.fuse = ConvBlock(channels, channels)
        self.fine = nn.Conv2d(stem[self.fine_index], channels, 1)
        self.fine_from_grid = nn.Conv2d(channels, channels, 1)

    def forward(
        self, stem: Sequence[torch.Tensor], coarse: Sequence[torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Fuse the scales.

        Args:
            stem: maps (B, C, H/2, W/2) (if there is one), (B, C, H/4, W/4), (B, C, H/8, W/8).
            coarse: maps (B, C, h, w) of any coarser grid that covers the same image, finest first.

        Returns:
            ``grid`` (B, channels, H/8, W/8) and ``fine`` (B, channels, H/s, W/s) for the fine stride s.
        """
        *_, stride4, stride8 = stem
        grid = self.lateral4(stride4) + self.lateral8(stride8)
        if self.lateral2 is not None:
            grid = grid + self.lateral2(stem[0])
        for lateral, feature_map in zip(self.coarse, coarse, strict=True):
            grid = grid + _resize(lateral(feature_map), grid)
        grid = self.fuse(grid)
        source = stem[self.fine_index]
        return grid, self.fine(source) + _resize(self.fine_from_grid(grid), source)


def _resize(feature_map: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    if feature_map.shape[-2:] == like.shape[-2:]:
        return feature_map
    return F.interpolate(feature_map, size=like.shape[-2:], mode="bilinear", align_corners=False)
