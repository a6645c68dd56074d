"""Losses of reliability: will the match of a keypoint be right?"""

from __future__ import annotations

import torch
import torch.nn.functional as F


@torch.no_grad()
def match_success(
    descriptors0: torch.Tensor,
    descriptors1: torch.Tensor,
    projected0: torch.Tensor,
    keypoints1: torch.Tensor,
    *,
    max_distance: float = 3.0,
) -> torch.Tensor:
    """Whether the mutual nearest neighbour of each keypoint is right; no match counts as wrong.

    Args:
        descriptors0: (N, D) unit norm.
        descriptors1: (M, D) unit norm.
        projected0: (N, 2) pixels of view 1 where the keypoints of view 0 lie.
        keypoints1: (M, 2) pixels of view 1.
        max_distance: a match is right when it is closer than this, pixels.

    Returns:
        (N,) bool, without gradients.
    """
    if len(descriptors0) == 0 or len(descriptors1) == 0:
        return torch.zeros(len(descriptors0), dtype=torch.bool, device=descriptors0.device)
    similarity = descriptors0 @ descriptors1.T
    best = similarity.argmax(dim=1)
    mutual = similarity.argmax(dim=0)[best] == torch.arange(len(best), device=best.device)
    return mutual & ((projected0 - keypoints1[best]).norm(dim=1) < max_distance)


def reliability_bce_loss(logits: torch.Tensor, success: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy between predicted probability and success of matches; 0 for an empty set.

    Its minimum is a calibrated probability. With logits of detached features it cannot change matching.

    Args:
        logits: (N,), before the sigmoid.
        success: (N,) bool or in [0, 1], see :func:`match_success`.
    """
    if len(logits) == 0:
        return logits.sum()
    return F.binary_cross_entropy_with_logits(logits, success.to(logits))


def position_labels(
    projected0: torch.Tensor, points1: torch.Tensor, *, positive_px: float = 3.0, negative_px: float = 5.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which points of view 1 are matches of each point of view 0, by position.

    Args:
        projected0: (N, 2) pixels of view 1.
        points1: (M, 2) pixels of view 1.
        positive_px: closer than this is a match.
        negative_px: further away is none; what lies between is neither.

    Returns:
        (N, M) bool matches, and (N, M) bool: match or not, as opposed to neither.
    """
    distance = torch.cdist(projected0.detach(), points1.detach())
    return distance < positive_px, (distance < positive_px) | (distance > negative_px)


def average_precision(
    similarity: torch.Tensor, labels: torch.Tensor, *, valid: torch.Tensor | None = None, bins: int = 20
) -> torch.Tensor:
    """Average precision of ranking by similarity, differentiable through soft bins.

    He et al. 2018 (section 4) and Revaud et al. 2019 ("Learning with Average Precision", section 3.3), used by R2D2:
    similarities fall into ``bins`` centres from 1 down to 0 with triangular weights, and ``AP = sum_q precision_q *
    recall increment_q``. Candidates that share bins are ties, so the result is a lower resolution of the exact one;
    a wrong candidate has a slope only where it shares a bin with a right one, which needs many candidates.

    Args:
        similarity: (N, M) of each query with all candidates; values outside [0, 1] count as its ends.
        labels: (N, M) bool, which candidates are right.
        valid: (N, M) bool, which candidates count; all by default.
        bins: number of bins, at least 2.

    Returns:
        (N,) in [0, 1]; 0 for a query without a right candidate.
    """
    centres = torch.linspace(1.0, 0.0, bins, dtype=similarity.dtype, device=similarity.device)
    gaps = (similarity.clamp(0.0, 1.0)[:, None] - centres[:, None]).abs()  # (N, bins, M)
    share = (1.0 - gaps * (bins - 1)).clamp(min=0.0)
    if valid is not None:
        share = share * valid[:, None]
    total = share.sum(dim=2).cumsum(dim=1)
    right = (share * labels[:, None]).sum(dim=2)
    precision = right.cumsum(dim=1) / total.clamp(min=1e-12)
    return (precision * right).sum(dim=1) / right.sum(dim=1).clamp(min=1e-12)


def reliability_ap_loss(precision: torch.Tensor, reliability: torch.Tensor, *, base: float = 0.5) -> torch.Tensor:
    """``1 - [AP * R + (1 - R) * base]`` per point (R2D2, Revaud et al. 2019, section 3.2).

    A point with an average precision above ``base`` gains by being reliable, one below by not being it: reliability
    becomes a decision at ``base``, not a calibrated probability.

    Args:
        precision: (N,) average precision in [0, 1]; detach it to train reliability alone.
        reliability: (N,) in [0, 1].
        base: in [0, 1].

    Returns:
        (N,) in [0, 1].
    """
    return 1.0 - (precision * reliability + (1.0 - reliability) * base)
