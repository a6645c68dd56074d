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


def dense_nre_loss(
    descriptors0: torch.Tensor,
    descriptor_map1: torch.Tensor,
    points1: torch.Tensor,
    seen: torch.Tensor,
    *,
    stride: int,
    temperature: float = 0.02,
) -> torch.Tensor:
    """Cross-entropy of the reprojected place under the softmax of similarities with a whole descriptor map.

    ALIKE (Zhao et al. 2022; after Germain et al. 2021): ``-log q(p)``, the probability of all pixels
    ``q = softmax((S - 1) / t)`` read bilinearly at the sub-pixel place p. A point that view 1 does not show gets
    ``-log`` of an additional class of similarity 1, as in ALIKE's code.

    Args:
        descriptors0: (B, N, D) unit norm.
        descriptor_map1: (B, D, h, w) unit norm along D, of view 1.
        points1: (B, N, 2) pixels of view 1, where the points of ``descriptors0`` lie; of any value where not seen.
        seen: (B, N) bool, whether view 1 shows the point.
        stride: pixels per cell of the map; cell (0, 0) has its centre at ``(stride - 1) / 2``.
        temperature: softmax temperature on cosine similarities.

    Returns:
        (B, N) loss per point. Its minimum is 0 at the centre of a cell and log 4 in the middle between four.
    """
    height, width = descriptor_map1.shape[-2:]
    logits = (descriptors0 @ descriptor_map1.flatten(2) - 1.0) / temperature  # (B, N, h * w)
    everything = logits.logsumexp(dim=2)
    place = ((points1 + 0.5) / stride - 0.5).masked_fill(~seen[..., None], 0.0)
    x, y = place[..., 0].clamp(0, width - 1), place[..., 1].clamp(0, height - 1)
    left, top = x.detach().floor(), y.detach().floor()
    right, lower = x - left, y - top
    near = []
    for step_y, weight_y in ((0, 1.0 - lower), (1, lower)):
        for step_x, weight_x in ((0, 1.0 - right), (1, right)):
            index = (top.long() + step_y).clamp(max=height - 1) * width + (left.long() + step_x).clamp(max=width - 1)
            # log of a weight of 0 would be -inf, with NaN in its gradient
            log_weight = (weight_y * weight_x).clamp(min=1e-12).log()
            near.append(logits.gather(2, index[..., None])[..., 0] + log_weight)
    place_loss = everything - torch.stack(near).logsumexp(dim=0)
    return torch.where(seen, place_loss, F.softplus(everything))
