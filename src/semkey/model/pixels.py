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
    """Evidence of corners and blobs at full resolution: two or three convolutions of stride 1, the last one dilated.

    Nothing here has a stride, so it follows every shift of the picture exactly. A branch at stride 2, blurred as it
    reduces and interpolated bilinearly, was measured to be where such a detector loses its keypoints under a shift.

    Args:
        channels: of the layers before the last.
        mixed: of the result.
        layers: 3 x 3, 3 x 3 and dilated for 3, 5 x 5 and dilated (faster) for 2.
    """

    def __init__(self, channels: int, mixed: int, layers: int = 3) -> None:
        super().__init__()
        first = (ConvBlock(1, channels), ConvBlock(channels, channels)) if layers == 3 else (_five(channels),)
        self.layers = nn.Sequential(*first, nn.Conv2d(channels, mixed, 3, padding=2, dilation=2))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W), normalised -> (B, M, H, W); one place sees 9 x 9 pixels."""
        return self.layers(image)


def _five(channels: int) -> nn.Sequential:
    convolution = nn.Conv2d(1, channels, 5, padding=2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


class PixelDetector(nn.Module):
    """A keypoint's log-probability at every pixel.

    What the grid says of a place, brought to full resolution bilinearly, is added to the evidence there before the last
    nonlinearity, and so decides which evidence counts; or, faster, to the logit. One 3 x 3 convolution makes the logit.

    Args:
        grid_channels: of the fused pyramid map, stride 8.
        hidden: channels of the head on the grid.
        mixed: channels of the evidence.
        gated: whether the grid's view is added to the evidence; else to the logit.
    """

    bilinear: torch.Tensor

    def __init__(self, grid_channels: int, hidden: int, mixed: int, *, gated: bool = True) -> None:
        super().__init__()
        self.gated = gated
        self.context = nn.Sequential(ConvBlock(grid_channels, hidden), nn.Conv2d(hidden, mixed if gated else 1, 1))
        self.logit = nn.Conv2d(mixed, 1, 3, padding=1)
        assert self.logit.bias is not None
        nn.init.constant_(self.logit.bias, -4.0)  # few pixels are keypoints
        steps = torch.tensor([0.25, 0.75, 0.75, 0.25])
        self.register_buffer("bilinear", steps[:, None] * steps, persistent=False)

    def forward(self, grid: torch.Tensor, evidence: torch.Tensor) -> torch.Tensor:
        """Weigh the evidence.

        Args:
            grid: (B, C, H/8, W/8) of the pyramid.
            evidence: (B, M, H, W) of the :class:`PixelStem`.

        Returns:
            Log-probabilities (B, 1, H, W), float32, at most 0.
        """
        context = self.context(grid).float()
        if not self.gated:
            wide = F.interpolate(context, scale_factor=GRID_STRIDE, mode="bilinear", align_corners=False)
            return window_log_probability(self.logit(F.relu(evidence)).float() + wide)
        context = F.interpolate(context, scale_factor=GRID_STRIDE // 2, mode="bilinear", align_corners=False)
        mixed = F.relu(evidence + self._doubled(context.to(evidence.dtype)))
        return window_log_probability(self.logit(mixed).float())

    def _doubled(self, maps: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) -> (B, C, 2h, 2w) bilinearly, towards 0 beyond the edge.

        A transposed convolution that mixes no channels: with channels last it is quicker than interpolation.
        """
        identity = torch.eye(maps.shape[1], dtype=maps.dtype, device=maps.device)
        return F.conv_transpose2d(maps, identity[:, :, None, None] * self.bilinear.to(maps.dtype), stride=2, padding=1)


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
    # means times their number: ONNX has no divisor of one's own, and its exporter forgets that one was given
    across = F.avg_pool2d(values, (1, side), stride=1, padding=(0, reach)) * side
    return F.avg_pool2d(across, (side, 1), stride=1, padding=(reach, 0)) * side
