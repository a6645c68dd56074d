"""How exactly keypoints lie where they should: errors, bias and pixel locking against known positions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError

_BLOCK = 2**22


@dataclass(frozen=True, kw_only=True, eq=False)
class Detections:
    """Which keypoints lie at known positions.

    Attributes:
        nearest: (M,) int64, the nearest keypoint within the radius of each position, -1 where there is none.
        strongest: (M,) int64, the strongest keypoint within the radius (the lowest index), -1 where there is none.
        counts: (M,) int64, keypoints within the radius.
    """

    nearest: NDArray[np.int64]
    strongest: NDArray[np.int64]
    counts: NDArray[np.int64]


def detections_near(keypoints: ArrayLike, positions: ArrayLike, radius_px: float) -> Detections:
    """Find the keypoints at known positions; a keypoint may serve several positions closer than twice the radius.

    Args:
        keypoints: (N, 2) pixels, strongest first.
        positions: (M, 2) pixels.
        radius_px: keypoints closer than this count, > 0.

    Raises:
        InputError: wrong shapes, or a radius that is not positive.
    """
    found, places = (np.asarray(points, dtype=np.float64) for points in (keypoints, positions))
    if found.shape != (len(found), 2) or places.shape != (len(places), 2):
        raise InputError(f"keypoints and positions have shapes {found.shape} and {places.shape}, expected (N, 2)")
    if not radius_px > 0:
        raise InputError(f"the radius must be positive, got {radius_px}")
    nearest, strongest = (np.full(len(places), -1, dtype=np.int64) for _ in range(2))
    counts = np.zeros(len(places), dtype=np.int64)
    if len(found) == 0:
        return Detections(nearest=nearest, strongest=strongest, counts=counts)
    step = max(1, _BLOCK // len(found))
    for start in range(0, len(places), step):
        rows = slice(start, start + step)
        distance = np.linalg.norm(places[rows, None] - found[None], axis=2)
        close = distance < radius_px
        counts[rows] = close.sum(axis=1)
        hit = counts[rows] > 0
        nearest[rows] = np.where(hit, distance.argmin(axis=1), -1)
        strongest[rows] = np.where(hit, close.argmax(axis=1), -1)
    return Detections(nearest=nearest, strongest=strongest, counts=counts)


@dataclass(frozen=True, kw_only=True)
class LocalisationStatistics:
    """Of differences detected minus true, in pixels; NaN throughout for none.

    Attributes:
        median: of the distances.
        mean: of the distances.
        rmse: square root of the mean squared distance.
        bias_x: mean difference along x.
        bias_y: mean difference along y.
        bias: length of the mean difference vector. Noise alone gives ``n`` differences of RMSE ``r`` about
            ``0.89 r / sqrt(n)``.
    """

    median: float
    mean: float
    rmse: float
    bias_x: float
    bias_y: float
    bias: float

    @classmethod
    def of(cls, differences: ArrayLike) -> LocalisationStatistics:
        """The statistics of (K, 2) differences."""
        values = np.asarray(differences, dtype=np.float64).reshape(-1, 2)
        if len(values) == 0:
            nan = float("nan")
            return cls(median=nan, mean=nan, rmse=nan, bias_x=nan, bias_y=nan, bias=nan)
        distances = np.linalg.norm(values, axis=1)
        offset = values.mean(axis=0)
        return cls(
            median=float(np.median(distances)),
            mean=float(distances.mean()),
            rmse=float(np.sqrt(np.mean(distances**2))),
            bias_x=float(offset[0]),
            bias_y=float(offset[1]),
            bias=float(np.linalg.norm(offset)),
        )


def mean_along(differences: ArrayLike, axes: ArrayLike) -> tuple[float, float]:
    """Mean difference in the patterns' own axes.

    Args:
        differences: (K, 2) detected minus true, pixels.
        axes: (K, 2) unit vectors of each pattern's axis.

    Returns:
        Mean along the axes (positive in their direction) and across them (positive a quarter turn from ``x`` to ``y``
        further), pixels; NaN for no differences or where an axis is NaN.
    """
    values = np.asarray(differences, dtype=np.float64).reshape(-1, 2)
    directions = np.asarray(axes, dtype=np.float64).reshape(-1, 2)
    if len(values) == 0:
        return float("nan"), float("nan")
    across = np.stack([-directions[:, 1], directions[:, 0]], axis=1)
    return float((values * directions).sum(axis=1).mean()), float((values * across).sum(axis=1).mean())


def pixel_phase(positions: ArrayLike) -> NDArray[np.float64]:
    """How far true coordinates lie from the nearest pixel centre, in [-0.5, 0.5)."""
    values = np.asarray(positions, dtype=np.float64)
    return values - np.floor(values + 0.5)


def pixel_locking(positions: ArrayLike, differences: ArrayLike) -> float:
    """How much detections are drawn to pixel centres: 0 not at all, 1 if they are whole pixels.

    The negative slope of the least-squares line of the difference over the true position's distance from the nearest
    pixel centre, x and y pooled, each after its mean is taken off (a constant offset is bias, not locking). Negative:
    pushed away from pixel centres.

    Args:
        positions: (K, 2) true positions, pixels.
        differences: (K, 2) detected minus true, pixels.

    Returns:
        The share; NaN for fewer than two differences, or positions that all have the same phase.
    """
    phases = pixel_phase(positions).reshape(-1, 2)
    values = np.asarray(differences, dtype=np.float64).reshape(-1, 2)
    if len(values) < 2:
        return float("nan")
    phases, values = phases - phases.mean(axis=0), values - values.mean(axis=0)
    spread = float((phases**2).sum())
    return float("nan") if spread < 1e-12 else -float((phases * values).sum()) / spread


def phase_curve(
    positions: ArrayLike, differences: ArrayLike, *, bins: int = 10, min_count: int = 20
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean signed error over the true sub-pixel position, x and y pooled.

    Args:
        positions: (K, 2) true positions, pixels.
        differences: (K, 2) detected minus true, pixels.
        bins: of [-0.5, 0.5), equally wide.
        min_count: bins with fewer values (two per position) are left out: their mean would be noise.

    Returns:
        The centres of the bins, and the mean difference in each, pixels.
    """
    phases = pixel_phase(positions).ravel()
    values = np.asarray(differences, dtype=np.float64).ravel()
    index = np.minimum(((phases + 0.5) * bins).astype(np.int64), bins - 1)
    counts = np.bincount(index, minlength=bins)
    filled = counts >= min_count
    centres = (np.arange(bins) + 0.5) / bins - 0.5
    return centres[filled], np.bincount(index, weights=values, minlength=bins)[filled] / counts[filled]
