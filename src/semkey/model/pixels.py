"""Keypoint probabilities per pixel: full-resolution evidence under interpolated context, without fixed cells.

A detector whose first layer has a stride, or whose probabilities compete inside fixed cells, answers differently when
the same picture is moved by a pixel, and its keypoints jitter between the frames of a moving camera. Here every layer
at full resolution has stride 1, coarser evidence is interpolated, and each pixel competes with those of the window
around it.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from semkey.model.layers import ConvBlock
from semkey.model.stem import GRID_STRIDE

WINDOW = 7
"""Side of the window whose pixels share one keypoint, pixels: that of suppression at its usual radius of 3."""
LARGEST_LOGIT = 20.0
"""Logits are cut off here: exp of more would leave float32 no digits for the others of a window."""


class PixelStem(nn.Module):
    """A few filters of the image at full resolution, and a strided map of them, which blurs as it reduces.

    Args:
        pixel_channels: filters at full resolution.
        detail_channels: of the strided map.
        stride: of that map, 2 or 4 (faster).
    """

    def __init__(self, pixel_channels: int, detail_channels: int, stride: int) -> None:
        super().__init__()
        self.filters = nn.Conv2d(1, pixel_channels, 3, padding=1)
        # A kernel of twice the stride overlaps its neighbours: it can blur what the stride would alias.
        down = nn.Conv2d(pixel_channels, detail_channels, 2 * stride, stride=stride, padding=stride // 2, bias=False)
        self.detail = nn.Sequential(
            down,
            nn.BatchNorm2d(detail_channels),
            nn.ReLU(inplace=True),
            ConvBlock(detail_channels, detail_channels),
        )

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B, 1, H, W) normalised -> the map (B, D, H/s, W/s), and the filters' answers, at least 0, (B, P, H, W)."""
        filtered = F.relu(self.filters(image))
        return self.detail(filtered), filtered


class PixelDetector(nn.Module):
    """A keypoint's log-probability at every pixel.

    The filters' answers at a pixel, what the strided map says of its surroundings and whether the grid takes the place
    to be worth a keypoint are added, the latter two interpolated bilinearly; one 3 x 3 convolution makes the logit.

    Args:
        grid_channels: of the fused pyramid map, stride 8.
        hidden: channels of the head on the grid.
        pixel_channels: of the filters' answers.
        mixed_channels: of the sum at full resolution.
        detail_channels: of the strided map.
        detail_stride: its stride, 2 or 4.
    """

    bilinear: torch.Tensor

    def __init__(
        self,
        grid_channels: int,
        hidden: int,
        *,
        pixel_channels: int,
        mixed_channels: int,
        detail_channels: int,
        detail_stride: int,
    ) -> None:
        super().__init__()
        self.stride = detail_stride
        self.context = nn.Sequential(ConvBlock(grid_channels, hidden), nn.Conv2d(hidden, mixed_channels, 1))
        self.detail = nn.Conv2d(detail_channels, mixed_channels, 1, bias=False)
        self.pixels = nn.Conv2d(pixel_channels, mixed_channels, 1, bias=False)
        self.logit = nn.Conv2d(mixed_channels, 1, 3, padding=1)
        assert self.logit.bias is not None
        nn.init.constant_(self.logit.bias, -4.0)  # few pixels are keypoints
        centres = (torch.arange(2 * detail_stride) + 0.5) / detail_stride - 1.0
        weights = 1.0 - centres.abs()
        self.register_buffer("bilinear", weights[:, None] * weights, persistent=False)

    def forward(self, grid: torch.Tensor, detail: torch.Tensor, filtered: torch.Tensor) -> torch.Tensor:
        """Put the evidence together.

        Args:
            grid: (B, C, H/8, W/8) of the pyramid.
            detail: (B, D, H/s, W/s) of the :class:`PixelStem`.
            filtered: (B, P, H, W) of it.

        Returns:
            Log-probabilities (B, 1, H, W), float32, at most 0.
        """
        context = self.context(grid).float()
        context = F.interpolate(context, scale_factor=GRID_STRIDE // self.stride, mode="bilinear", align_corners=False)
        coarse = self.detail(detail)
        mixed = self.pixels(filtered) + self._enlarged(coarse + context.to(coarse.dtype))
        return window_log_probability(self.logit(F.relu(mixed)).float())

    def _enlarged(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> (B, C, s h, s w) bilinearly, towards 0 beyond the edge.

        A transposed convolution that mixes no channels: with channels last it is quicker than interpolation.
        """
        identity = torch.eye(maps.shape[1], dtype=maps.dtype, device=maps.device)
        kernel = identity[:, :, None, None] * self.bilinear.to(maps.dtype)
        return F.conv_transpose2d(maps, kernel, stride=self.stride, padding=self.stride // 2)


def window_log_probability(logits: torch.Tensor) -> torch.Tensor:
    """The log-probability that a pixel, of all in the window around it, is the keypoint.

    ``log(exp(l) / (1 + sum over the window of exp(l)))``: SuperPoint's softmax over a cell and "no keypoint here"
    (DeTone et al. 2018), with the cell centred on each pixel.

    Args:
        logits: (B, 1, H, W) float32.

    Returns:
        (B, 1, H, W), at most 0.
    """
    logits = logits.clamp(max=LARGEST_LOGIT)
    return logits - torch.log1p(window_sum(torch.exp(logits)))


def window_sum(values: torch.Tensor, side: int = WINDOW) -> torch.Tensor:
    """Sum over the window around each pixel of maps (B, 1, H, W), which are 0 beyond their edge."""
    plain = values.device.type == "cpu" and not values.requires_grad
    if plain and not torch.jit.is_tracing() and not torch.compiler.is_compiling():
        rows = [
            cv2.boxFilter(row, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT)
            for row in values[:, 0].numpy()
        ]
        return torch.from_numpy(np.stack(rows))[:, None]
    reach = side // 2
    across = F.avg_pool2d(values, (1, side), stride=1, padding=(0, reach), divisor_override=1)
    return F.avg_pool2d(across, (side, 1), stride=1, padding=(reach, 0), divisor_override=1)
