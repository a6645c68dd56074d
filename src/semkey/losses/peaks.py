"""Losses that make a score map peaky and spread its peaks: they act against collapse to a constant map."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from semkey.model.dkd import soft_argmax


def dispersity_loss(
    windows: torch.Tensor, scores: torch.Tensor, *, temperature: float = 0.1, gate: float = 0.1
) -> torch.Tensor:
    """Mean spread of the scores around keypoints: ALIKE's dispersity peak loss (Zhao et al. 2022).

    ``sum_i a_i |(c_i - p) / r|^2`` with ``a = softmax(scores / temperature)`` over the window, p the soft-argmax and r
    the window's radius, as in the released code (weights of raw scores would give almost no gradient). A flat 5 x 5
    window gives 1, a single peak 0. Where all scores lie below ``gate`` it is 0: it does not prevent collapse.

    Args:
        windows: (N, k * k) scores in [0, 1] around keypoints, row by row, k odd.
        scores: (N,) score of each keypoint; those at or below ``gate`` do not count.
        temperature: of the softmax.
        gate: score.

    Returns:
        Scalar; 0 without keypoints.
    """
    side = round(windows.shape[-1] ** 0.5)
    radius = side // 2
    steps = torch.arange(side, dtype=windows.dtype, device=windows.device) - radius
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).reshape(-1, 2)
    gaps = (grid - soft_argmax(windows, temperature)[:, None]) / radius
    dispersity = (torch.softmax(windows / temperature, dim=-1) * gaps.square().sum(dim=-1)).sum(dim=-1)
    used = (scores.detach() > gate).to(windows)
    return (dispersity * used).sum() / used.sum().clamp(min=1.0)


def peakiness_loss(scores: torch.Tensor, *, valid: torch.Tensor | None = None, window: int = 16) -> torch.Tensor:
    """One minus the mean difference between the maximum and the mean of windows.

    R2D2 (Revaud et al. 2019, section 3.1, local peakiness), windows of ``window + 1`` pixels around every pixel, inside
    the map. R2D2's code first smooths the map by a 3 x 3 mean, which is left out here: peaks may be one pixel wide. A
    constant map has the greatest loss, 1.

    Args:
        scores: (B, H, W) in [0, 1].
        valid: (B, H, W) bool; windows with an invalid pixel are left out.
        window: pixels, even.

    Returns:
        Scalar in [0, 1]; 0 where no window is left.
    """
    side = window + 1
    if min(scores.shape[-2:]) < side:
        return scores.sum() * 0.0
    mean = F.avg_pool2d(F.avg_pool2d(scores[:, None], (1, side), stride=1), (side, 1), stride=1)
    peak = _window_maximum(scores[:, None], side) - mean
    used = torch.ones_like(peak)
    if valid is not None:
        used = 1.0 - _window_maximum(1.0 - valid[:, None].to(scores), side)
    return ((1.0 - peak) * used).sum() / used.sum().clamp(min=1.0)


def _window_maximum(maps: torch.Tensor, side: int) -> torch.Tensor:
    """Maximum of each window inside (B, 1, H, W): rows first, then columns, which costs ``2 side`` per pixel."""
    return F.max_pool2d(F.max_pool2d(maps, (1, side), stride=1), (side, 1), stride=1)


def coverage_loss(probability: torch.Tensor, *, valid: torch.Tensor | None = None, cell: int = 32) -> torch.Tensor:
    """Expected share of cells without any keypoint, if pixels fire independently: mean of ``prod (1 - p)``.

    Keypoints in all parts of an image make poses well conditioned. The slope vanishes in cells that have keypoints,
    so the term does not raise the number of keypoints there.

    Args:
        probability: (B, H, W) of a keypoint at each pixel, in [0, 1].
        valid: (B, H, W) bool; cells with an invalid pixel are left out.
        cell: side of a cell, pixels; what is left over at the right and lower border is ignored.

    Returns:
        Scalar in [0, 1]; 0 where no cell is left.
    """
    if min(probability.shape[-2:]) < cell:
        return probability.sum() * 0.0
    log_silent = torch.log1p(-probability.clamp(max=1.0 - 1e-6))
    empty = (F.avg_pool2d(log_silent[:, None], cell) * cell**2).exp()
    used = torch.ones_like(empty)
    if valid is not None:
        used = 1.0 - F.max_pool2d(1.0 - valid[:, None].to(probability), cell)
    return (empty * used).sum() / used.sum().clamp(min=1.0)
