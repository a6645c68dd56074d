"""What keypoints were worth where nothing is known but which images show the same place.

Matches of one scene agree with one fundamental matrix, those of different scenes with none. How many agree by chance is
told by the number of false alarms (Moisan and Stival 2004), so that a few matches that RANSAC can always make agree are
no reward.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from semkey.matching.robust import estimate_fundamental

MAX_LOG10_ALARMS = -3.0
"""Matches count as of one scene where chance gives so many inliers in one of a thousand cases."""

_SAMPLE, _MODELS = 7, 3  # a fundamental matrix is fixed by seven matches, up to three solutions
_FEWEST = 12


def mutual_matches(descriptors0: torch.Tensor, descriptors1: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices (M,) of mutual nearest neighbours among descriptors (N0, D) and (N1, D) of unit norm."""
    if len(descriptors0) == 0 or len(descriptors1) == 0:
        nothing = torch.zeros(0, dtype=torch.int64, device=descriptors0.device)
        return nothing, nothing
    similarity = descriptors0 @ descriptors1.T
    best = similarity.argmax(dim=1)
    own = torch.arange(len(best), device=best.device)
    kept = similarity.argmax(dim=0)[best] == own
    return own[kept], best[kept]


def sampson_distances(
    F: NDArray[np.float64], points0: NDArray[np.float64], points1: NDArray[np.float64]
) -> NDArray[np.float64]:
    """First-order distances (M,) in pixels of matches (M, 2) from the epipolar constraint (Hartley and Zisserman 11.9).

    NaN where a match lies on both epipoles.
    """
    x0, x1 = (np.concatenate([points, np.ones((len(points), 1))], axis=1) for points in (points0, points1))
    line1, line0 = x0 @ F.T, x1 @ F
    slope = np.square(line0[:, :2]).sum(axis=1) + np.square(line1[:, :2]).sum(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.abs((line1 * x1).sum(axis=1)) / np.sqrt(slope)


def log10_false_alarms(inliers: int, matches: int, max_error_px: float, size: tuple[int, int]) -> float:
    """How often chance gives a fundamental matrix with so many inliers, as a power of ten (Moisan and Stival, eq. 4).

    Args:
        inliers: of the best matrix.
        matches: among which it was looked for.
        max_error_px: of an inlier.
        size: (width, height) of the images in pixels.

    Returns:
        Infinite where a sample alone, or less, agrees.
    """
    if inliers <= _SAMPLE:
        return math.inf
    # a strip of twice the width of the error along the longest line that an image holds
    chance = min(2.0 * max_error_px * math.hypot(*size) / (size[0] * size[1]), 1.0)
    return (
        math.log10(_MODELS * (matches - _SAMPLE))
        + _log10_choose(matches, inliers)
        + _log10_choose(inliers, _SAMPLE)
        + (inliers - _SAMPLE) * math.log10(chance)
    )


def agreement(
    points0: NDArray[np.float64],
    points1: NDArray[np.float64],
    size: tuple[int, int],
    *,
    max_error_px: float,
    believe: bool = False,
    seed: int = 0,
) -> NDArray[np.float64]:
    """How far matches lie from the fundamental matrix that most of them agree with.

    Args:
        points0: (M, 2) pixels.
        points1: (M, 2) pixels of their matches.
        size: (width, height) of both images.
        max_error_px: of an inlier.
        believe: take the matrix even where chance would give one as good.
        seed: of RANSAC.

    Returns:
        (M,) pixels; infinite for outliers, and for all where there is no such matrix.
    """
    nothing = np.full(len(points0), np.inf)
    if len(points0) < _FEWEST:
        return nothing
    found = estimate_fundamental(points0, points1, max_error_px=max_error_px, seed=seed)
    if found.model is None:
        return nothing
    by_chance = log10_false_alarms(found.inlier_count, len(points0), max_error_px, size)
    if by_chance > MAX_LOG10_ALARMS and not believe:
        return nothing
    distances = sampson_distances(found.model, points0, points1)
    return np.where(found.inliers & np.isfinite(distances), distances, np.inf)


def track_reward(
    errors: Sequence[NDArray[np.float64]] | NDArray[np.float64], max_error_px: float
) -> NDArray[np.float64]:
    """What tracks are worth: how long they last, and how exactly.

    TraqPoint (Liu et al. 2026) rewards keypoints by their whole track and not by one pair; its rewards are others.

    Args:
        errors: (T - 1, N): of N keypoints of the first of T images their match's distance in each later one, pixels;
            infinite where there is no match, or a wrong one.
        max_error_px: from which an error is worth nothing.

    Returns:
        (N,) in [0, 1]: the sum over the images up to the first in which the keypoint is lost of 1 - error /
        max_error_px, as a share of T - 1.
    """
    table = np.asarray(errors, dtype=np.float64)
    alive = np.logical_and.accumulate(np.isfinite(table), axis=0)
    worth = np.where(alive, 1.0 - np.minimum(np.where(alive, table, 0.0) / max_error_px, 1.0), 0.0)
    return worth.sum(axis=0) / len(table)


def _log10_choose(n: int, k: int) -> float:
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(10.0)
