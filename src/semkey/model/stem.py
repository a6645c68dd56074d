"""The convolutional parts that read the image: stem (strides 2, 4, 8), context branch (16, 32) and detail stem (2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from semkey.model.layers import Cells, ConvBlock, Downsample, ResidualBlock, merge_cells

GRID_STRIDE = 8


class Stem(nn.Module):
    """Fine features of a normalised grey image at strides 2, 4 and 8, or at 4 and 8 only.

    Args:
        channels: of the maps, finest first; two numbers leave out stride 2, which is most of the work, none leaves out
            everything: a network that reads a backbone alone.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.channels = tuple(channels)
        self.stride2: nn.Module | None = None
        if not channels:
            return
        *_, second, third = channels
        if len(channels) == 3:
            first = channels[0]
            self.stride2 = nn.Sequential(Cells(2), ConvBlock(4, first), ConvBlock(first, first))
            self.stride4 = nn.Sequential(Downsample(first, second), ResidualBlock(second))
        else:
            self.stride4 = nn.Sequential(Cells(4), ConvBlock(16, second), ConvBlock(second, second))
        self.stride8 = nn.Sequential(Downsample(second, third), ResidualBlock(third))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(B, 1, H, W), H and W multiples of 8 -> maps (B, C, H/s, W/s), finest first."""
        if not self.channels:
            return ()
        if self.stride2 is None:
            stride4 = self.stride4(image)
            return stride4, self.stride8(stride4)
        stride2 = self.stride2(image)
        stride4 = self.stride4(stride2)
        return stride2, stride4, self.stride8(stride4)


class Context(nn.Module):
    """Coarse features at strides 16 and 32, computed from the stem's stride-8 map; none where there is no stem.

    Args:
        stem: channels of the stem's maps.
        channels: of the two maps.
    """

    def __init__(self, stem: Sequence[int], channels: tuple[int, int]) -> None:
        super().__init__()
        self.is_empty = not stem
        if self.is_empty:
            return
        channels_in = stem[-1]
        self.stride16 = nn.Sequential(Downsample(channels_in, channels[0]), ResidualBlock(channels[0]))
        self.stride32 = nn.Sequential(Downsample(channels[0], channels[1]), ResidualBlock(channels[1]))

    def forward(self, stem: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """The stem's maps, the last one (B, C, h, w), h and w multiples of 4 -> (B, C, h/2, w/2), (B, C, h/4, w/4)."""
        if self.is_empty:
            return ()
        stride16 = self.stride16(stem[-1])
        return stride16, self.stride32(stride16)


class DetailStem(nn.Module):
    """Where inside a cell a corner lies, read from the image by convolutions of its own.

    Descriptors want features that change little with the place, positions want the opposite: where both share their
    first layers, the descriptor's gradients win and keypoints end a pixel or two off.

    Args:
        channels: of its map.
        stride: pixels per cell of its map, 2 or 4.
    """

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.layers = nn.Sequential(Cells(stride), ConvBlock(stride**2, channels), ConvBlock(channels, channels))
        self.features = nn.Conv2d(channels, channels, 3, padding=1)
        self.logits = nn.Conv2d(channels, stride**2, 3, padding=1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Read the image.

        Args:
            image: (B, 1, H, W), normalised, H and W multiples of 8.

        Returns:
            ``detail`` (B, C, H/s, W/s) for stride s, and ``logits`` (B, 64, H/8, W/8): one number per pixel of a grid
            cell, row by row, computed the same way at every place.
        """
        detail = self.layers(image)
        logits = self.logits(F.relu(detail + self.features(detail)))
        return detail, merge_cells(logits, self.stride, GRID_STRIDE)
