"""Neural reprojection error: how improbable descriptors make the true place of a match."""

from __future__ import annotations

import torch
import torch.nn.functional as F


def sparse_nre_loss(
    descriptors0: torch.Tensor, descriptors1: torch.Tensor, target: torch.Tensor, *, temperature: float = 0.05
) -> torch.Tensor:
    """Cross-entropy between the true match among keypoints of view 1 and the softmax of similarities.

    ALIKED's sparse neural reprojection error (Zhao et al. 2023), ``-log softmax(S / t)[match]``; the
    keypoints of view 1 may be more than the matches, all of them are negatives. A keypoint without match should be
    unlike all others: ``-log`` of an additional class of similarity 1 (as ALIKE's code treats points outside the
    other view).

    Args:
        descriptors0: (B, N, D) unit norm.
        descriptors1: (B, M, D) unit norm.
        target: (B, N) int64, the index in view 1 of the match; -1 where view 1 does not show the point.
        temperature: softmax temperature on cosine similarities.

    Returns:
        (B, N) loss per point of view 0. The other direction is the same with sides exchanged.
    """
    logits = (descriptors0 @ descriptors1.transpose(1, 2) - 1.0) / temperature
    if logits.shape[-1] == 0:  # nothing that could be mistaken for a match
        return logits.sum(dim=2)
    everything = logits.logsumexp(dim=2)
    match = logits.gather(2, target.clamp(min=0)[..., None])[..., 0]
    return torch.where(target >= 0, everything - match, F.softplus(everything))
