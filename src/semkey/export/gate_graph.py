"""What :mod:`semkey.model.gate` asks, whether there is more than noise around a keypoint, as tensor operations."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from semkey.model import gate

# Halvings of the interval that the noise's quantile lies in: 24 bits, as a float32 has.
_HALVINGS = 24


class StructureGate(nn.Module):
    """Contrast to noise around keypoints, what :func:`semkey.model.gate.contrast_to_noise` computes with OpenCV.

    Of images with an odd width or height, the last column or row is left out of the half-size image.
    """

    mask: torch.Tensor
    small: torch.Tensor
    laplacian: torch.Tensor
    large: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.from_numpy(gate._NOISE_MASK)[None, None])
        self.register_buffer("small", gaussian_row(gate._SCALE_PX / 2))
        self.register_buffer("large", gaussian_row(gate._WINDOW_PX / 2))
        cross = torch.tensor([[0.0, 1.0, 0.0], [1.0, -4.0, 1.0], [0.0, 1.0, 0.0]])
        self.register_buffer("laplacian", cross[None, None])

    def forward(self, gray: torch.Tensor, keypoints: torch.Tensor) -> torch.Tensor:
        """Ratios (B, N) at keypoints (B, N, 2) of images (B, 1, H, W) in grey levels from 0 to 255."""
        half = F.avg_pool2d(gray, 2)
        smooth = blurred(half, self.small)
        laplacian = F.conv2d(F.pad(smooth, (1, 1, 1, 1), mode="reflect"), self.laplacian)
        edge = gate._EDGE
        inner = F.pad(laplacian[..., edge:-edge, edge:-edge], (edge,) * 4)
        energy = blurred(inner * inner, self.large)
        height, width = energy.shape[-2:]
        places = torch.round((keypoints - 0.5) / 2).long()
        columns, rows = places[..., 0].clamp(min=0), places[..., 1].clamp(min=0)
        flat = torch.clamp(rows, max=height - 1) * width + torch.clamp(columns, max=width - 1)
        noise = self._noise(gray)
        return energy.flatten(1).gather(1, flat) / (noise * noise * gate._WHITE_NOISE_ENERGY)

    def _noise(self, gray: torch.Tensor) -> torch.Tensor:
        """Standard deviation (B, 1) of the noise: a quantile, found by halving an interval rather than by sorting."""
        response = F.conv2d(gray, self.mask, stride=2).abs().flatten(1)
        low = torch.zeros_like(response[:, :1])
        high = response.amax(dim=1, keepdim=True)
        for _ in range(_HALVINGS):
            middle = 0.5 * (low + high)
            enough = (response <= middle).float().mean(dim=1, keepdim=True) >= gate._QUANTILE
            low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
        return (high / (gate._NORMAL_QUANTILE * gate._NOISE_GAIN)).clamp(min=gate._LEAST_NOISE)


def gaussian_row(sigma: float) -> torch.Tensor:
    """A row (1, 1, 1, K) that blurs like OpenCV's of float images."""
    side = round(sigma * 4 * 2 + 1) | 1
    weights = torch.tensor([math.exp(-0.5 * ((k - side // 2) / sigma) ** 2) for k in range(side)])
    return (weights / weights.sum())[None, None, None]


def blurred(maps: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    """Maps (B, 1, H, W) blurred by a row (1, 1, 1, K) in both directions, mirrored at the border."""
    reach = row.shape[-1] // 2
    padded = F.pad(maps, (reach,) * 4, mode="reflect")
    return F.conv2d(F.conv2d(padded, row), row.transpose(2, 3))
