"""Differentiable keypoint detection: maxima of a score map and their sub-pixel positions by soft-argmax.

ALIKE (Zhao et al. 2022, section III-B): non-maximum suppression on the detached map, then a softmax of the window
around each maximum. Scores lie in [0, 1]; positions are pixels, x y, pixel centres at integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True, kw_only=True)
class Peaks:
    """Maxima of one score map, strongest first.

    Attributes:
        pixels: (N, 2) int64, the integer maxima, x y.
        keypoints: (N, 2) float32, refined by soft-argmax, pixels.
        scores: (N,) float32, the score at the maximum.
        windows: (N, window**2) float32, the scores around each maximum, row by row.
    """

    pixels: torch.Tensor
    keypoints: torch.Tensor
    scores: torch.Tensor
    windows: torch.Tensor


def local_maxima(scores: torch.Tensor, radius: int, border: int, count: int) -> torch.Tensor:
    """Pixels that are the maximum of their (2 radius + 1)^2 window, strongest first.

    Of equal neighbours the first in row order wins, so no two maxima lie within ``radius`` of each other. Equal to a
    max-pooling of the whole map, but it only looks at one candidate per cell of (radius + 1)^2 pixels: no two
    maxima share a cell.

    Args:
        scores: (H, W) float32.
        radius: suppression radius, pixels.
        border: pixels next to the border that cannot be maxima.
        count: at most this many are returned.

    Returns:
        (N, 2) int64 pixels x y.
    """
    height, width = scores.shape
    if min(height, width) <= 2 * border:
        return torch.zeros((0, 2), dtype=torch.int64, device=scores.device)
    cell = radius + 1
    masked = torch.full_like(scores, float("-inf"))
    inner = (slice(border, height - border), slice(border, width - border))
    masked[inner] = scores[inner]
    pad = (radius, radius + cell, radius, radius + cell)
    padded = F.pad(masked[None, None], pad, value=float("-inf"))[0, 0]
    rows, columns = -(-height // cell), -(-width // cell)
    tiles = padded[radius : radius + rows * cell, radius : radius + columns * cell]
    values, indices = F.max_pool2d(tiles[None], cell, return_indices=True)
    values, indices = values.reshape(-1), indices.reshape(-1)
    y, x = indices // tiles.shape[1], indices % tiles.shape[1]

    # The strongest candidates are tested first; nearly always a few times `count` of them suffice.
    order = torch.argsort(values, descending=True, stable=True)
    order = order[torch.isfinite(values[order])]
    side = 2 * radius + 1
    steps = torch.arange(side, device=scores.device)
    window = (steps[:, None] * padded.shape[1] + steps).reshape(-1)
    center = side * side // 2
    kept: list[torch.Tensor] = []
    found = 0
    chunk = max(4 * count, 1024)
    for start in range(0, len(order), chunk):
        part = order[start : start + chunk]
        neighbours = padded.reshape(-1)[(y[part] * padded.shape[1] + x[part])[:, None] + window]
        own = neighbours[:, center, None]
        is_maximum = (neighbours[:, :center] < own).all(dim=1) & (neighbours[:, center + 1 :] <= own).all(dim=1)
        kept.append(part[is_maximum])
        found += int(is_maximum.sum())
        if found >= count:
            break
    chosen = torch.cat(kept)[:count] if kept else order[:0]
    return torch.stack([x[chosen], y[chosen]], dim=1)


def soft_argmax(windows: torch.Tensor, temperature: float) -> torch.Tensor:
    """Expected position in a window under softmax(scores / temperature) (ALIKE, eq. 4).

    Args:
        windows: (..., k * k) scores, row by row, k odd.
        temperature: on scores in [0, 1].

    Returns:
        (..., 2) shift x y from the window's centre, pixels.
    """
    side = round(windows.shape[-1] ** 0.5)
    steps = torch.arange(side, dtype=windows.dtype, device=windows.device) - side // 2
    grid = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).reshape(-1, 2)
    return torch.softmax(windows / temperature, dim=-1) @ grid


def read_windows(scores: torch.Tensor, pixels: torch.Tensor, side: int) -> torch.Tensor:
    """Scores around integer pixels.

    Args:
        scores: (H, W).
        pixels: (N, 2) int64 x y, at least ``side // 2`` away from the border.
        side: window side, odd.

    Returns:
        (N, side * side), row by row; differentiable with respect to ``scores``.
    """
    steps = torch.arange(side, device=scores.device) - side // 2
    rows = pixels[:, 1, None, None] + steps[:, None]
    columns = pixels[:, 0, None, None] + steps[None, :]
    return scores[rows, columns].flatten(1)


def detect_peaks(
    scores: torch.Tensor, *, radius: int, window: int, temperature: float, count: int, min_score: float = 0.0
) -> Peaks:
    """Maxima of a score map with sub-pixel positions.

    Args:
        scores: (H, W) float32 in [0, 1].
        radius: suppression radius, pixels.
        window: side of the soft-argmax window, odd.
        temperature: of the soft-argmax.
        count: at most this many.
        min_score: maxima below it are dropped.
    """
    pixels = local_maxima(scores.detach(), radius, window // 2, count)
    peak_scores = scores[pixels[:, 1], pixels[:, 0]]
    if min_score > 0.0:
        strong = peak_scores >= min_score
        pixels, peak_scores = pixels[strong], peak_scores[strong]
    windows = read_windows(scores, pixels, window)
    keypoints = pixels.float() + soft_argmax(windows, temperature)
    return Peaks(pixels=pixels, keypoints=keypoints, scores=peak_scores, windows=windows)
