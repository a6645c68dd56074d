"""Differentiable keypoint detection: maxima of a score map and their sub-pixel positions by soft-argmax.

ALIKE (Zhao et al. 2022, section III-B): non-maximum suppression on the detached map, then a softmax of the window
around each maximum. Scores lie in [0, 1]; positions are pixels, x y, pixel centres at integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F

from semkey.model.layers import sample_map


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

    def select(self, indices: torch.Tensor) -> Peaks:
        """The maxima at ``indices`` ((M,) integer or (N,) boolean), in that order."""
        return Peaks(
            pixels=self.pixels[indices],
            keypoints=self.keypoints[indices],
            scores=self.scores[indices],
            windows=self.windows[indices],
        )


def local_maxima(scores: torch.Tensor, radius: int, border: int, count: int) -> torch.Tensor:
    """Pixels that are the maximum of their (2 radius + 1)^2 window, strongest first.

    Of equal neighbours the first in row order wins, so no two maxima lie within ``radius`` of each other.

    Args:
        scores: (H, W) float32.
        radius: suppression radius, pixels.
        border: pixels next to the border that cannot be maxima; what lies there does not suppress others.
        count: at most this many are returned.

    Returns:
        (N, 2) int64 pixels x y.
    """
    height, width = scores.shape
    if min(height, width) <= 2 * border:
        return torch.zeros((0, 2), dtype=torch.int64, device=scores.device)
    inner = scores[border : height - border, border : width - border].contiguous()
    pixels = _candidates(inner, radius)
    values = inner.reshape(-1)[pixels]
    chunk = count + 64
    if len(pixels) > 2 * chunk:  # most are too weak: sorting the strongest is quicker, and enough but for many ties
        strong = values >= torch.topk(values, chunk, sorted=False).values.min()
        found = _first_maxima(inner, pixels[strong], values[strong], radius, count)
        if len(found) == count:
            return found + border
    return _first_maxima(inner, pixels, values, radius, count) + border


def _candidates(inner: torch.Tensor, radius: int) -> torch.Tensor:
    """Flat indices (N,) of the pixels of a map (H, W) that nothing in their window exceeds, in row order."""
    side = 2 * radius + 1
    if inner.device.type == "cpu":  # several times faster than the same in torch
        array = inner.numpy()
        return torch.from_numpy(np.flatnonzero(array >= cv2.dilate(array, np.ones((side, side), np.uint8))))
    highest = F.max_pool2d(inner[None], side, stride=1, padding=radius)[0]
    return torch.nonzero((inner >= highest).reshape(-1))[:, 0]


def _first_maxima(
    inner: torch.Tensor, pixels: torch.Tensor, values: torch.Tensor, radius: int, count: int
) -> torch.Tensor:
    """Of flat ``pixels`` with their ``values``, strongest first, those that no equal one precedes in their window."""
    values, order = torch.sort(values, descending=True, stable=True)
    pixels = pixels[order]
    width = inner.shape[1]
    # Only exact ties are left to break: a pixel with an equal one before it in its window is no maximum.
    steps = torch.arange(-radius, radius + 1, device=inner.device)
    down, right = (
        part.reshape(-1)[: 2 * radius * (radius + 1)] for part in torch.meshgrid(steps, steps, indexing="ij")
    )
    kept: list[torch.Tensor] = []
    found, chunk = 0, count + 64
    for start in range(0, len(pixels), chunk):
        part = pixels[start : start + chunk]
        y, x = part // width, part % width
        near_y, near_x = y[:, None] + down, x[:, None] + right
        is_inside = (near_y >= 0) & (near_x >= 0) & (near_x < width)
        neighbours = inner.reshape(-1)[torch.where(is_inside, near_y * width + near_x, 0)]
        is_tie = is_inside & (neighbours >= values[start : start + chunk, None])
        first = ~is_tie.any(dim=1)
        kept.append(torch.stack([x[first], y[first]], dim=1))
        found += len(kept[-1])
        if found >= count:
            break
    return torch.cat(kept)[:count] if kept else pixels.new_zeros((0, 2))


def soft_argmax(windows: torch.Tensor, temperature: float) -> torch.Tensor:
    """Expected position in a window under softmax(scores / temperature) (ALIKE, eq. 4).

    Args:
        windows: (..., k * k) scores, row by row, k odd.
        temperature: on scores in [0, 1].

    Returns:
        (..., 2) shift x y from the window's centre, pixels.
    """
    side = round(float(windows.shape[-1]) ** 0.5)
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
    scores: torch.Tensor,
    *,
    radius: int,
    window: int,
    temperature: float,
    count: int,
    min_score: float = 0.0,
    border: int = 0,
) -> Peaks:
    """Maxima of a score map with sub-pixel positions.

    Args:
        scores: (H, W) float32 in [0, 1].
        radius: suppression radius, pixels.
        window: side of the soft-argmax window, odd.
        temperature: of the soft-argmax.
        count: at most this many.
        min_score: maxima below it are dropped.
        border: no maxima closer than this to the map's edge, pixels; at least half the window in any case.
    """
    pixels = local_maxima(scores.detach(), radius, max(window // 2, border), count)
    peak_scores = scores[pixels[:, 1], pixels[:, 0]]
    if min_score > 0.0:
        strong = peak_scores >= min_score
        pixels, peak_scores = pixels[strong], peak_scores[strong]
    windows = read_windows(scores, pixels, window)
    keypoints = pixels.float() + soft_argmax(windows, temperature)
    return Peaks(pixels=pixels, keypoints=keypoints, scores=peak_scores, windows=windows)


def peaks_at(scores: torch.Tensor, points: torch.Tensor, window: int) -> Peaks:
    """Given points as if they were maxima: what heads read that judge maxima.

    Args:
        scores: (H, W) float32.
        points: (N, 2) float32 pixels.
        window: side of the window around each that is read, odd.

    Returns:
        In the order of the points: their nearest pixels (half a window away from the edge), themselves, and the scores
        there, read bilinearly.
    """
    height, width = scores.shape
    margin = window // 2
    limit = torch.tensor([width - 1 - margin, height - 1 - margin], device=points.device)
    pixels = torch.minimum(points.round().long().clamp(min=margin), limit)
    read = sample_map(scores[None, None], points[None], 1)[0, :, 0]
    return Peaks(pixels=pixels, keypoints=points, scores=read, windows=read_windows(scores, pixels, window))
