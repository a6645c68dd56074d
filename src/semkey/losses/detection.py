"""Losses of the score map: heat maps around target keypoints, and sub-pixel position of their peaks."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from semkey.model.dkd import soft_argmax


def render_targets(
    keypoints: torch.Tensor, strengths: torch.Tensor, size: tuple[int, int], sigma: float = 0.8
) -> torch.Tensor:
    """Probability map with one Gaussian per keypoint, centred at its sub-pixel position; overlaps take the maximum.

    Args:
        keypoints: (N, 2) pixels x y; those outside the image are ignored.
        strengths: (N,) mass of each Gaussian, in [0, 1].
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
    values = strengths[:, None, None] * torch.exp(-squared / (2.0 * sigma**2)) / (2.0 * torch.pi * sigma**2)
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    heat = torch.zeros(height * width, device=keypoints.device)
    return heat.scatter_reduce(0, (y * width + x)[inside], values[inside], reduce="amax").reshape(height, width)


def cell_cross_entropy(
    log_probability: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor, cell: int = 8
) -> torch.Tensor:
    """Cross-entropy per cell between target and predicted place of a keypoint, or its absence.

    The soft-label form of SuperPoint's detector loss (DeTone et al. 2018, eq. 2). A cell's classes are its pixels and
    "none". Its minimum is the target distribution: a constant map is no minimum.

    Args:
        log_probability: (B, H, W) at most 0; what is left of each cell's probability is "none".
        targets: (B, H, W) >= 0, probability per pixel; a cell that sums to more than 1 is scaled to 1.
        valid: (B, H, W) bool; cells with an invalid pixel are left out.
        cell: side of a cell, pixels; divides H and W.

    Returns:
        Mean over the valid cells.
    """
    predicted = F.pixel_unshuffle(log_probability[:, None], cell)
    wanted = F.pixel_unshuffle(targets[:, None], cell)
    total = wanted.sum(dim=1, keepdim=True)
    wanted = wanted / total.clamp(min=1.0)
    none = (1.0 - total).clamp(min=0.0)[:, 0]
    log_none = torch.log((1.0 - predicted.exp().sum(dim=1)).clamp(min=1e-6))
    loss = -(wanted * predicted).sum(dim=1) - none * log_none
    keep = F.pixel_unshuffle(valid[:, None].float(), cell).amin(dim=1)
    return (loss * keep).sum() / keep.sum().clamp(min=1.0)


def pixel_cross_entropy(
    log_probability: torch.Tensor, targets: torch.Tensor, valid: torch.Tensor, window: int = 7
) -> torch.Tensor:
    """Cross-entropy per pixel between the target's and the predicted probability of a keypoint, without cells.

    The counterpart of :func:`cell_cross_entropy` for a detector whose pixels compete in sliding windows. Its minimum is
    the target map, so neither a constant map nor silence is one where there are targets.

    Args:
        log_probability: (B, H, W) at most 0.
        targets: (B, H, W) in [0, 1], probability per pixel.
        valid: (B, H, W) bool; other pixels are left out.
        window: side in pixels of the window whose pixels share one keypoint: the loss is summed over so many, which
            gives it the scale of :func:`cell_cross_entropy`.

    Returns:
        ``window**2`` times the mean over the valid pixels.
    """
    log_none = torch.log((-torch.expm1(log_probability)).clamp(min=1e-6))
    loss = -(targets * log_probability + (1.0 - targets) * log_none)
    keep = valid.to(loss)
    return window**2 * (loss * keep).sum() / keep.sum().clamp(min=1.0)


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


def success_loss(probabilities: torch.Tensor, success: torch.Tensor) -> torch.Tensor:
    """Cross-entropy between the probability of each detected keypoint and whether it served its purpose.

    A keypoint's probability is the mass of the 3 x 3 pixels around its maximum. Where a keypoint is found again and
    matched it rises, elsewhere it falls, so that the strongest keypoints are those that last. DISK (Tyszkiewicz et al.
    2020) and DaD (Edstedt et al. 2025) reach the same by policy gradients; known labels allow the plain cross-entropy.

    Args:
        probabilities: (N, k * k) of the window around each maximum, row by row, k odd and at least 3.
        success: (N,) in [0, 1], without gradients.

    Returns:
        Scalar; 0 without keypoints.
    """
    if len(probabilities) == 0:
        return probabilities.sum()
    side = round(probabilities.shape[-1] ** 0.5)
    first = side // 2 - 1
    middle = probabilities.unflatten(-1, (side, side))[:, first : first + 3, first : first + 3]
    mass = middle.sum(dim=(1, 2)).clamp(1e-6, 1.0 - 1e-6)
    return F.binary_cross_entropy(mass, success.to(mass))
