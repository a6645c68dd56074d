"""Keypoint probabilities per pixel: full-resolution evidence beside the grid's logits, without fixed cells.

A detector whose first layer has a stride, or whose probabilities compete inside fixed cells, answers differently when
the same picture is moved by a pixel, and its keypoints jitter between the frames of a moving camera. Here every layer
at full resolution has stride 1, the grid's logits are smoothed, and each pixel competes with those of the window around
it.
"""

from __future__ import annotations

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

WINDOW = 7
"""Side of the window whose pixels share one keypoint, pixels: that of suppression at its usual radius of 3."""
LARGEST_LOGIT = 20.0
"""Logits are cut off here: exp of more would leave float32 no digits for the others of a window."""


class PixelStem(nn.Module):
    """Where a corner lies, read from the image at full resolution: a logit per pixel, to be added to the grid's.

    All layers have stride 1, so it follows every shift of the picture exactly; one place sees 13 x 13 pixels. It takes
    the place of :class:`~semkey.model.stem.DetailStem`, whose answers at stride 2 depend on whether a shift is odd:
    their average over the four phases is what it learns from first. On a CPU a convolution of full-resolution maps
    costs what its inputs cost, whatever the outputs up to 16.

    Args:
        channels: of the layers but the last, which has twice as many.
        layers: 3, or 2 (faster; one place sees 9 x 9 pixels).
    """

    def __init__(self, channels: int, layers: int = 3) -> None:
        super().__init__()
        middle = (nn.Conv2d(channels, channels, 3, padding=2, dilation=2, bias=False), *_normalised(channels))
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 5, padding=2, bias=False),
            *_normalised(channels),
            *(middle if layers == 3 else ()),
            nn.Conv2d(channels, 2 * channels, 3, padding=2, dilation=2, bias=False),
            *_normalised(2 * channels),
            nn.Conv2d(2 * channels, 1, 1),
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W), normalised -> logits (B, 1, H, W)."""
        return self.layers(image.contiguous(memory_format=torch.channels_last))


class CellSmoothing(nn.Module):
    """The grid's logits in their places, smoothed: they jump where cells meet, and move with the grid."""

    def __init__(self, side: int = 5, sigma: float = 0.6) -> None:
        super().__init__()
        self.kernel = nn.Conv2d(1, 1, side, padding=side // 2, bias=False)
        steps = torch.arange(side) - side // 2
        line = torch.exp(-(steps**2) / (2 * sigma**2))
        with torch.no_grad():
            self.kernel.weight.copy_((line[:, None] * line / line.sum() ** 2)[None, None])

    def forward(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, 1, H, W) float32 -> the same."""
        weight = self.kernel.weight
        if _is_plain(logits) and not weight.requires_grad:  # a tenth of the time of a convolution
            kernel = weight[0, 0].float().numpy()
            rows = [cv2.filter2D(row, -1, kernel, borderType=cv2.BORDER_CONSTANT) for row in logits[:, 0].numpy()]
            return torch.from_numpy(np.stack(rows))[:, None]
        with torch.autocast(logits.device.type, enabled=False):
            return self.kernel(logits)


def _normalised(channels: int) -> tuple[nn.Module, nn.Module]:
    return nn.BatchNorm2d(channels), nn.ReLU(inplace=True)


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
    if _is_plain(values):
        rows = [
            cv2.boxFilter(row, -1, (side, side), normalize=False, borderType=cv2.BORDER_CONSTANT)
            for row in values[:, 0].numpy()
        ]
        return torch.from_numpy(np.stack(rows))[:, None]
    reach = side // 2
    # means times their number: ONNX has no divisor of one's own, and its exporter forgets that one was given
    across = F.avg_pool2d(values, (1, side), stride=1, padding=(0, reach)) * side
    return F.avg_pool2d(across, (side, 1), stride=1, padding=(reach, 0)) * side


def _is_plain(values: torch.Tensor) -> bool:
    """Whether OpenCV may compute on the values: no gradients, no graph that is recorded."""
    recorded = torch.jit.is_tracing() or torch.compiler.is_compiling() or torch.onnx.is_in_onnx_export()
    return values.device.type == "cpu" and not values.requires_grad and not recorded
