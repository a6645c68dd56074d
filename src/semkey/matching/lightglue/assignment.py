"""From LightGlue's log assignment to matches."""

from __future__ import annotations

import torch


def partners_by_scores(scores: torch.Tensor, threshold: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Which keypoints are the best of their row and column, with a confidence above a threshold.

    Args:
        scores: (B, M + 1, N + 1) log assignment; the last row and column are of what is unmatchable.
        threshold: smallest confidence.

    Returns:
        (B, M) int64 the keypoint of image 1 for each of image 0, -1 for none; (B, N) likewise for image 1; and (B, M)
        float32 confidences in [0, 1] of the best of each row.
    """
    inner = scores[:, :-1, :-1].float()
    best0, nearest0 = inner.max(dim=2)
    nearest1 = inner.argmax(dim=1)
    confidence = best0.exp().clamp(0, 1)
    rows = torch.arange(inner.shape[1], device=inner.device)
    keep0 = (nearest1.gather(1, nearest0) == rows) & (confidence > threshold)
    columns = torch.arange(inner.shape[2], device=inner.device)
    keep1 = (nearest0.gather(1, nearest1) == columns) & keep0.gather(1, nearest1)
    none = nearest0.new_tensor(-1)
    return torch.where(keep0, nearest0, none), torch.where(keep1, nearest1, none), confidence


def best_pairs(scores: torch.Tensor, threshold: float) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Indices (M, 2) and confidences (M,) of the matches of each pair of a batch, from its log assignment."""
    partners0, _, confidences = partners_by_scores(scores, threshold)
    results = []
    for partners, confidence in zip(partners0, confidences, strict=True):
        (rows,) = (partners >= 0).nonzero(as_tuple=True)
        results.append((torch.stack([rows, partners[rows]], dim=1), confidence[rows]))
    return results
