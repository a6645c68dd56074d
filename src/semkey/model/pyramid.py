"""Feature pyramid: 1 x 1 laterals of fine and coarse scales, fused on one grid of 8 x 8-pixel cells."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from semkey.backbones.backbone import BackboneFeatures
from semkey.backbones.geometry import resample
from semkey.backbones.guided_upsampling import GuidedUpsampling
from semkey.model.layers import ConvBlock
from semkey.model.stem import GRID_STRIDE


class FeaturePyramid(nn.Module):
    """Fuses strides 2 (if there is one), 4, 8 (stem), 16, 32 (context) and a backbone's layers.

    The finer maps reach the grid by space-to-depth, not by pooling, so that a cell still knows where inside its 8 x 8
    pixels an edge lies. A backbone's maps share one grid of their own: they are added up on it, and the sum is read at
    the true places of the cells.

    Args:
        stem: channels of the stem's maps, finest first; empty where there is none.
        coarse: channels of the context's maps; empty where there is none.
        channels: of both results.
        fine_stride: of the map that descriptors are read from, 4 or 8 (faster).
        semantic: channels of the backbone's maps; empty where there is none.
        guided: the backbone's maps are read by attention of the stem's, see
            :class:`semkey.backbones.guided_upsampling.GuidedUpsampling`.
    """

    def __init__(
        self,
        stem: Sequence[int],
        coarse: Sequence[int],
        channels: int,
        fine_stride: int = 4,
        semantic: Sequence[int] = (),
        *,
        guided: bool = False,
    ) -> None:
        super().__init__()
        self.fine_stride, self.fine_index = fine_stride, -2 if fine_stride == 4 else -1
        # A 1 x 1 convolution after space-to-depth is a convolution whose kernel and stride are the block's side.
        self.lateral2 = nn.Conv2d(stem[0], channels, 4, stride=4) if len(stem) == 3 else None
        self.lateral4 = nn.Conv2d(stem[-2], channels, 2, stride=2) if stem else None
        self.lateral8 = nn.Conv2d(stem[-1], channels, 1) if stem else None
        self.coarse = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in coarse)
        self.fuse = ConvBlock(channels, channels)
        self.fine = nn.Conv2d(stem[self.fine_index], channels, 1) if stem else None
        self.fine_from_grid = nn.Conv2d(channels, channels, 1)
        self.semantic = nn.ModuleList(nn.Conv2d(width, channels, 1) for width in semantic)
        self.upsampler = GuidedUpsampling(channels, channels) if guided and semantic else None

    def forward(
        self,
        stem: Sequence[torch.Tensor],
        coarse: Sequence[torch.Tensor],
        semantic: BackboneFeatures | None = None,
        size: tuple[int, int] = (0, 0),
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Fuse the scales.

        Args:
            stem: maps (B, C, H/2, W/2) (if there is one), (B, C, H/4, W/4), (B, C, H/8, W/8).
            coarse: maps (B, C, h, w) of any coarser grid that covers the same image, finest first.
            semantic: of a backbone with the same channels, on a grid that covers the image or more.
            size: H and W, pixels; needed with a backbone.

        Returns:
            ``grid`` (B, channels, H/8, W/8) and ``fine`` (B, channels, H/s, W/s) for the fine stride s.
        """
        parts = []
        if self.lateral4 is not None and self.lateral8 is not None:
            parts.append(self.lateral4(stem[-2]) + self.lateral8(stem[-1]))
        if self.lateral2 is not None:
            parts.append(self.lateral2(stem[0]))
        for lateral, feature_map in zip(self.coarse, coarse, strict=True):
            parts.append(_resize(lateral(feature_map), parts[0].shape[-2:]))
        if semantic is not None:
            laterals = [lateral(m) for lateral, m in zip(self.semantic, semantic.maps, strict=True)]
            cells = (size[0] // GRID_STRIDE, size[1] // GRID_STRIDE)
            if self.upsampler is None:
                parts.append(resample(_sum(laterals), semantic.patch, GRID_STRIDE, cells))
            else:
                parts.append(self.upsampler(_sum(laterals), parts[0], semantic.patch, GRID_STRIDE))
        grid = self.fuse(_sum(parts))
        scale = GRID_STRIDE // self.fine_stride
        fine = _resize(self.fine_from_grid(grid), (scale * grid.shape[-2], scale * grid.shape[-1]))
        return grid, fine if self.fine is None else self.fine(stem[self.fine_index]) + fine


def _resize(feature_map: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    if tuple(feature_map.shape[-2:]) == tuple(size):
        return feature_map
    return F.interpolate(feature_map, size=tuple(size), mode="bilinear", align_corners=False)


def _sum(maps: Sequence[torch.Tensor]) -> torch.Tensor:
    total = maps[0]
    for feature_map in maps[1:]:
        total = total + feature_map
    return total
