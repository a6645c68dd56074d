"""How far, and in which direction, a keypoint is likely to lie from the place it marks: a 2 x 2 covariance of each.

What it reads is detached, so that training it changes neither positions nor matching.
"""

from __future__ import annotations

import math

import torch
from torch import nn

SMALLEST_PX = 0.05
LARGEST_PX = 4.0
"""Standard deviations lie between these: the least noise of any pixel grid, and a keypoint that is hardly a place."""
_START_PX = 0.7


class CovarianceHead(nn.Module):
    """A perceptron from what is known of a keypoint to the Cholesky factor of its covariance.

    It reads the same numbers as :class:`semkey.model.reliability.KeypointReliabilityHead`: the score map around the
    peak shows whether the evidence is a spot or a ridge, and which way the ridge runs.

    Args:
        inputs: how many numbers per keypoint.
        hidden: width of the hidden layer.
    """

    def __init__(self, inputs: int, hidden: int = 32) -> None:
        super().__init__()
        last = nn.Linear(hidden, 3)
        nn.init.zeros_(last.weight)
        with torch.no_grad():
            last.bias.copy_(torch.tensor([math.log(_START_PX), math.log(_START_PX), 0.0]))
        self.layers = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(inplace=True), last)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """(N, K) -> (N, 2, 2) float32, px^2, symmetric and positive definite."""
        return covariance_of_factors(self.layers(inputs).float())


def covariance_of_factors(factors: torch.Tensor) -> torch.Tensor:
    """``L L^T + SMALLEST_PX^2`` with ``L = [[exp a, 0], [c, exp b]]``.

    Args:
        factors: (..., 3), a and b logarithms of pixels, c pixels.

    Returns:
        (..., 2, 2) in px^2.
    """
    limit = math.log(LARGEST_PX)
    first, second = (factors[..., i].clamp(max=limit).exp() for i in (0, 1))
    across = factors[..., 2].clamp(-LARGEST_PX, LARGEST_PX)
    xx, xy = first * first + SMALLEST_PX**2, first * across
    yy = across * across + second * second + SMALLEST_PX**2
    return torch.stack([torch.stack([xx, xy], dim=-1), torch.stack([xy, yy], dim=-1)], dim=-2)
