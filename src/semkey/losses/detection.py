"""Losses of the score map: heat maps around target keypoints, and sub-pixel position of their peaks."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from semkey.model.dkd import soft_argmax


def render_targets(
    keypoints: torch.Tensor, strengths: torch.Tensor, size: tuple[int, int], sigma: float = 1.0
) -> torch.Tensor:
    """Heat map with one Gaussian per keypoint, centred at its sub-pixel position; overlaps take the maximum.

    Args:
        keypoints: (N, 2) pixels x y; those outside the image are ignored.
        strengths: (N,) peak heights in [0, 1].
        size: (height, width).
        sigma: pixels.

    Returns:
        (H, W) float32 in [0, 1].
    """
    height, width = size
    steps = torch.arange(-3, 4, device=keypoints.device)
    shift_y, shift_x = torch.meshgrid(steps, steps, indexing="ij")
    base = keypoints.round().long()
    x = base[:, 0, None, None] + shift_x
    y = base[:, 1, None, None] + shift_y
    squared = (x - keypoints[:, 0, None, None]) ** 2 + (y - keypoints[:, 1, None, None]) ** 2
    values = strengths[:, None, None] * torch.exp(-squared / (2.0 * sigma**2))
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    heat = torch.zeros(height * width, device=keypoints.device)
    return heat.scatter_reduce(0, (y * width + x)[inside], values[inside], reduce="amax").reshape(height, width)


def quality_focal_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Quality focal loss (Li et al. 2020, eq. 4, beta = 2), summed and divided by the sum of targets.

    Its minimum is p = target everywhere, so a constant map is not a minimum unless the target is constant.

    Args:
        logits: any shape.
        targets: the same shape, in [0, 1].
    """
    gap = (targets - torch.sigmoid(logits)).abs()
    loss = gap**2 * F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return loss.sum() / targets.sum().clamp(min=1.0)


def subpixel_loss(windows: torch.Tensor, shifts: torch.Tensor, temperature: float = 0.1) -> torch.Tensor:
    """Mean L1 distance between the soft-argmax of score windows and the true shift from their centre, pixels.

    Args:
        windows: (N, k * k) scores in [0, 1].
        shifts: (N, 2) true sub-pixel shift x y.
        temperature: of the soft-argmax.
    """
    if len(windows) == 0:
        return windows.sum()
    return (soft_argmax(windows, temperature) - shifts).abs().sum(dim=-1).mean()
