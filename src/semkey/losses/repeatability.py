"""Losses that make two views of a scene fire at the same points."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from semkey.losses.warping import warp_map


def cosine_repeatability_loss(
    scores0: torch.Tensor,
    scores1: torch.Tensor,
    warp10: torch.Tensor,
    *,
    valid0: torch.Tensor | None = None,
    window: int = 16,
) -> torch.Tensor:
    """One minus the mean cosine between windows of a score map and of the other view's, warped.

    R2D2 (Revaud et al. 2019, section 3.1, cosine similarity), windows of ``window`` pixels, half a window apart. Only
    pixels that both views show count, and only windows where they are at least half. Two maps without structure,
    whatever their height, are at its minimum: train it with :func:`semkey.losses.peaks.peakiness_loss` or another term
    against collapse.

    Args:
        scores0: (B, H, W) >= 0.
        scores1: (B, H, W) >= 0 of view 1.
        warp10: (B, H, W, 2) where each pixel of view 0 lies in view 1, NaN where not seen.
        valid0: (B, H, W) bool, pixels of view 0 that count; all by default.
        window: pixels, even.

    Returns:
        Scalar in [0, 1]; 0 where no window is left.
    """
    warped, seen = warp_map(scores1[:, None], warp10)
    keep = seen if valid0 is None else seen & valid0
    shown = keep[:, None].to(scores0)
    a, b = scores0[:, None] * shown, warped * shown
    # a window's inner product is the mean of products times its area: no window is ever copied out
    products = F.avg_pool2d(torch.cat([a * b, a * a, b * b, shown], dim=1), window, stride=window // 2)
    dot, square_a, square_b, share = products.unbind(dim=1)
    used = (share >= 0.5).to(scores0)
    # the small constant keeps the slope of the norm finite where a window is dark in both views
    dark = 1e-6 / window**2
    cosine = dot / ((square_a + dark) * (square_b + dark)).sqrt()
    return ((1.0 - cosine) * used).sum() / used.sum().clamp(min=1.0)


def mutual_nearest(
    points0: torch.Tensor, points1: torch.Tensor, max_distance: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Pairs of points of two sets that are each other's nearest.

    Args:
        points0: (N, 2).
        points1: (M, 2).
        max_distance: pairs further apart are left out.

    Returns:
        Indices (K,) int64 into ``points0`` and into ``points1``.
    """
    if len(points0) == 0 or len(points1) == 0:
        nothing = torch.zeros(0, dtype=torch.int64, device=points0.device)
        return nothing, nothing
    distance = torch.cdist(points0.detach(), points1.detach())
    nearest_distance, nearest = distance.min(dim=1)
    itself = torch.arange(len(points0), device=points0.device)
    kept = torch.nonzero((distance.argmin(dim=0)[nearest] == itself) & (nearest_distance < max_distance))[:, 0]
    return kept, nearest[kept]
