"""Losses of points that were tracked through a clip: what the network says of them should not change."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def temporal_score_loss(log_probability: torch.Tensor, tracks: torch.Tensor) -> torch.Tensor:
    """How much the probability of a keypoint changes along tracks, relative to what it is on average.

    Read is the mass of the 3 x 3 pixels around a point: where exactly a maximum lies is for others to say. A relative
    change is not made smaller by making all probabilities smaller; a constant map is at its minimum all the same, so it
    needs a loss that asks for keypoints beside it.

    Args:
        log_probability: (T, H, W) of the frames of a clip.
        tracks: (P, T, 2) pixels x y of points in all of them.

    Returns:
        Scalar in [0, 2): the mean absolute deviation from the mean of each track over all tracks, divided by the mean
        mass; 0 without tracks.
    """
    if tracks.numel() == 0:
        return log_probability.sum() * 0.0
    mass = 9.0 * F.avg_pool2d(log_probability.exp()[:, None], 3, stride=1, padding=1)[:, 0]
    height, width = mass.shape[-2:]
    pixels = tracks.detach().round().long()
    x, y = pixels[..., 0].clamp(0, width - 1), pixels[..., 1].clamp(0, height - 1)
    frames = torch.arange(len(mass), device=mass.device).expand(len(tracks), -1)
    seen = mass[frames, y, x]  # (P, T)
    change = (seen - seen.mean(dim=1, keepdim=True)).abs().mean()
    return change / seen.mean().clamp(min=1e-6)


def temporal_descriptor_loss(descriptors: torch.Tensor) -> torch.Tensor:
    """One minus the length of the mean descriptor of each track: 0 where all frames say the same.

    Equal descriptors everywhere are at its minimum: it needs a loss with negatives beside it.

    Args:
        descriptors: (P, T, D) of unit norm.

    Returns:
        Scalar in [0, 1], the mean over tracks; 0 without tracks.
    """
    if descriptors.numel() == 0:
        return descriptors.sum()
    return (1.0 - descriptors.mean(dim=1).norm(dim=-1)).mean()
