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


def triplet_loss(
    descriptors0: torch.Tensor,
    descriptors1: torch.Tensor,
    points0: torch.Tensor,
    points1: torch.Tensor,
    *,
    margin: float = 1.0,
    exclusion_px: float = 5.0,
) -> torch.Tensor:
    """Triplet loss with the hardest negative of row and column.

    HardNet (Mishchuk et al. 2017, section 3.1): ``max(0, margin + d(a_i, p_i) - min(min_j d(a_i, p_j),
    min_j d(a_j, p_i)))`` with ``d = sqrt(2 - 2 cos)``. Points closer than ``exclusion_px`` to the true match are no
    negatives: with dense keypoints the hardest one would always be the neighbouring pixel. HardNet's code also leaves
    out negatives at a distance below 0.008, because its patches can repeat. Here positions tell what is the same
    point, and that rule would make "all descriptors equal" free of loss.

    Args:
        descriptors0: (B, N, D) unit norm; row i of both sides shows the same scene point.
        descriptors1: (B, N, D) unit norm.
        points0: (B, N, 2) pixels of the first view.
        points1: (B, N, 2) pixels of the second view.
        margin: between distances, which lie in [0, 2].
        exclusion_px: pixels.

    Returns:
        (B, N) loss per point; 0 for a point without any negative.
    """
    # added inside the root as in HardNet's code: the slope of sqrt at 0 is infinite
    distance = ((2.0 - 2.0 * descriptors0 @ descriptors1.transpose(1, 2)).clamp(min=0.0) + 1e-6).sqrt()
    itself = torch.eye(distance.shape[-1], dtype=torch.bool, device=distance.device)
    # row i holds negatives in view 1 of the match points1[i], column i those in view 0 of points0[i]
    near1 = (torch.cdist(points1, points1) < exclusion_px) | itself
    near0 = (torch.cdist(points0, points0) < exclusion_px) | itself
    positive = distance.diagonal(dim1=1, dim2=2)
    if distance.shape[-1] == 0:
        return positive
    row = distance.masked_fill(near1, float("inf")).min(dim=2).values
    column = distance.masked_fill(near0, float("inf")).min(dim=1).values
    return (margin + positive - torch.minimum(row, column)).clamp(min=0.0)


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
