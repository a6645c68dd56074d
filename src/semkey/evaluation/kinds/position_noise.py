"""How far right matches lie from their true place, along and across the local edge: counted per pair, then pooled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from semkey.evaluation.running.results import Metric, Row
from semkey.evaluation.running.summary import MIN_PAIRS_FOR_INTERVAL, finite_intervals
from semkey.images.structure_tensor import structure_tensors
from semkey.metrics.bootstrap import bootstrap_intervals
from semkey.metrics.edges import along_and_across, edge_directions

RIGHT_PX = 3.0
"""Matches nearer than this to their true place are right ones; others say nothing about the noise of positions."""

_BIN_PX = 0.01
_BINS = round(RIGHT_PX / _BIN_PX)
_KEYS = ("on_edges", "on_corners", "along", "across")
ROW_KEYS = tuple(f"noise_{key}" for key in _KEYS)

NOISE_METRICS = (
    Metric(name="noise_px", label="position noise, median, px", higher_is_better=False, digits=2, headline=True),
    Metric(name="noise_p90_px", label="position noise, 90th percentile, px", higher_is_better=False, digits=2),
    Metric(name="noise_along_px", label="position noise along the edge, median, px", higher_is_better=False, digits=2),
    Metric(name="noise_across_px", label="position noise across it, median, px", higher_is_better=False, digits=2),
    Metric(name="noise_corners_px", label="position noise off edges, median, px", higher_is_better=False, digits=2),
    Metric(name="on_edges", label="right matches on edges, %", higher_is_better=None, percent=True),
)


@dataclass(frozen=True, kw_only=True, eq=False)
class NoiseCounts:
    """Histograms of errors in [0, 3] px with bins of 0.01 px, (300,) or (P, 300) int64; one per kind of error.

    Attributes:
        on_edges: distances of right matches on edges.
        on_corners: distances of all other right matches.
        along: parts of the errors of all right matches along the local edge.
        across: parts across it.
    """

    on_edges: NDArray[np.int64]
    on_corners: NDArray[np.int64]
    along: NDArray[np.int64]
    across: NDArray[np.int64]

    @classmethod
    def of(cls, image1: NDArray[np.uint8], found: NDArray[Any], true: NDArray[Any]) -> Self:
        """Counts of one pair.

        Args:
            image1: (H, W, 3) RGB uint8, where the edges are.
            found: (M, 2) keypoints of image 1 that have a match.
            true: (M, 2) where the matches should be; NaN where that is unknown.
        """
        errors = found - true
        with np.errstate(invalid="ignore"):
            right = np.linalg.norm(errors, axis=1) <= RIGHT_PX
        errors = errors[right]
        directions, is_edge = edge_directions(structure_tensors(image1, found[right]))
        along, across = along_and_across(errors, directions)
        distances = np.linalg.norm(errors, axis=1)
        return cls(
            on_edges=_counted(distances[is_edge]),
            on_corners=_counted(distances[~is_edge]),
            along=_counted(along),
            across=_counted(across),
        )

    @classmethod
    def none(cls) -> Self:
        """Of a pair whose truth does not say where points lie."""
        return cls(**{key: np.zeros(_BINS, np.int64) for key in _KEYS})

    @classmethod
    def of_rows(cls, rows: Sequence[Row]) -> Self:
        """The counts (P, 300) of rows that :meth:`row` has filled."""
        parts = {key: np.array([_unpacked(row[f"noise_{key}"]) for row in rows], np.int64) for key in _KEYS}
        return cls(**{key: part.reshape(-1, _BINS) for key, part in parts.items()})

    def row(self) -> Row:
        """For a row: per histogram the bins that are not empty and their counts, one after the other."""
        return {f"noise_{key}": _packed(getattr(self, key)) for key in _KEYS}

    def metrics(self, indices: NDArray[np.int64] | None = None) -> dict[str, float]:
        """:data:`NOISE_METRICS` over all pairs, or over those at ``indices`` (repetitions count); NaN without any."""
        pairs = len(self.on_edges)
        drawn = np.ones(pairs) if indices is None else np.bincount(indices, minlength=pairs).astype(np.float64)
        edges, corners, along, across = (drawn @ getattr(self, key) for key in _KEYS)
        total = edges.sum() + corners.sum()
        return {
            "noise_px": _quantile(edges + corners, 0.5),
            "noise_p90_px": _quantile(edges + corners, 0.9),
            "noise_along_px": _quantile(along, 0.5),
            "noise_across_px": _quantile(across, 0.5),
            "noise_corners_px": _quantile(corners, 0.5),
            "on_edges": float(edges.sum() / total) if total else float("nan"),
        }

    def intervals(self, *, seed: int) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals over the pairs."""
        names = list(self.metrics())
        if len(self.on_edges) < MIN_PAIRS_FOR_INTERVAL:
            return {}
        ends = bootstrap_intervals(lambda drawn: list(self.metrics(drawn).values()), len(self.on_edges), seed=seed)
        return finite_intervals(names, ends)


def without_counts(row: Mapping[str, object]) -> Row:
    """The row without its histograms, which a report does not show."""
    return {key: value for key, value in row.items() if key not in ROW_KEYS}


def _counted(errors: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.bincount(np.minimum(errors / _BIN_PX, _BINS - 1).astype(np.int64), minlength=_BINS)


def _quantile(counts: NDArray[np.float64], share: float) -> float:
    """The value below which ``share`` of the counted errors lie, within its bin by linear interpolation."""
    total = counts.sum()
    if total == 0:
        return float("nan")
    reached = np.cumsum(counts)
    index = int(np.searchsorted(reached, share * total))
    before = reached[index] - counts[index]
    return float((index + (share * total - before) / counts[index]) * _BIN_PX)


def _packed(counts: NDArray[np.int64]) -> list[int]:
    filled = np.flatnonzero(counts)
    return [*filled.tolist(), *counts[filled].tolist()]


def _unpacked(stored: Sequence[int]) -> NDArray[np.int64]:
    counts = np.zeros(_BINS, np.int64)
    half = len(stored) // 2
    counts[np.array(stored[:half], dtype=np.int64)] = np.array(stored[half:], dtype=np.int64)
    return counts
