"""Losses of descriptors over corresponding points."""

from __future__ import annotations

import torch


def dual_softmax_loss(
    descriptors0: torch.Tensor,
    descriptors1: torch.Tensor,
    points1: torch.Tensor,
    *,
    temperature: float = 0.05,
    exclusion_px: float = 5.0,
) -> torch.Tensor:
    """Negative log-likelihood of the true matches under a softmax over rows and over columns.

    XFeat (Potje et al. 2024, eq. 6) and LoFTR; neighbours of the true match closer than ``exclusion_px`` are not
    used as negatives.

    Args:
        descriptors0: (B, N, D) unit norm; row i of both sides shows the same scene point.
        descriptors1: (B, N, D).
        points1: (B, N, 2) pixels of the second view.
        temperature: softmax temperature on cosine similarities.
        exclusion_px: pixels.

    Returns:
        (B, N) loss per point, the sum of both directions.
    """
    similarity = descriptors0 @ descriptors1.transpose(1, 2) / temperature
    count = similarity.shape[-1]
    near = torch.cdist(points1, points1) < exclusion_px
    near &= ~torch.eye(count, dtype=torch.bool, device=near.device)
    similarity = similarity.masked_fill(near, float("-inf"))
    diagonal = similarity.diagonal(dim1=1, dim2=2)
    return (similarity.logsumexp(dim=2) - diagonal) + (similarity.logsumexp(dim=1) - diagonal)


def place_loss(global0: torch.Tensor, global1: torch.Tensor, temperature: float = 0.1) -> torch.Tensor:
    """InfoNCE between two views of each image, the other images of the batch as negatives (van den Oord 2018, eq. 4).

    Args:
        global0: (B, G) unit norm.
        global1: (B, G) unit norm.
        temperature: softmax temperature.
    """
    similarity = global0 @ global1.T / temperature
    target = torch.arange(len(similarity), device=similarity.device)
    return (
        torch.nn.functional.cross_entropy(similarity, target) + torch.nn.functional.cross_entropy(similarity.T, target)
    ) / 2
