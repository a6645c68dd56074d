"""From the rows of pairs to the metrics of a set: means, areas under curves, groups and bootstrap intervals."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from semkey.errors import ConfigError
from semkey.evaluation.data.pairs import HomographyTruth, ImagePair, PoseTruth
from semkey.evaluation.running.results import Row
from semkey.matching.mutual import Matches
from semkey.metrics.bootstrap import bootstrap_intervals
from semkey.metrics.keypoints import MappedKeypoints, match_distances
from semkey.metrics.two_view import area_under_curve
from semkey.model.features import Features

TruthKind = TypeVar("TruthKind", HomographyTruth, PoseTruth)

MIN_PAIRS_FOR_INTERVAL = 5
"""With fewer, resampling pairs says next to nothing, so no interval is given."""


def map_keypoints(
    truth: HomographyTruth | PoseTruth, features0: Features, features1: Features
) -> tuple[MappedKeypoints, MappedKeypoints]:
    """The keypoints of both images and where the truth puts them in the other image."""
    views = []
    for direction, source, target in ((truth, features0, features1), (truth.swapped(), features1, features0)):
        keypoints = to_array(source.keypoints)
        mapped, visible = direction.project(keypoints, target.image_size)
        views.append(MappedKeypoints(keypoints=keypoints, mapped=mapped, visible=visible))
    return views[0], views[1]


def matched_indices(matches: Matches) -> NDArray[np.int64]:
    """(M, 2) int64 indices of the matches."""
    return matches.indices.detach().cpu().numpy().astype(np.int64).reshape(-1, 2)


def judged_distances(
    truth: HomographyTruth | PoseTruth, view0: MappedKeypoints, view1: MappedKeypoints, indices: NDArray[np.int64]
) -> NDArray[np.float64]:
    """How far each match (M,) is from the truth, pixels of image 1; NaN where that cannot be said.

    Depth has holes and edges; a homography is known everywhere, so a point that it sends beyond the horizon has no
    place in image 1 and its match is wrong (``inf``).
    """
    distances = match_distances(view0, view1, indices)
    return np.where(np.isnan(distances), np.inf, distances) if isinstance(truth, HomographyTruth) else distances


def to_array(tensor: torch.Tensor) -> NDArray[np.float64]:
    """A tensor of any device as a float64 array."""
    return tensor.detach().cpu().numpy().astype(np.float64)


def number(value: float | str | None) -> float:
    """A number of a row, also of one that went through JSON: None is NaN, ``"inf"`` is infinity."""
    return float("nan") if value is None else float(value)


def at(value: float) -> str:
    """A threshold as it stands in the name of a metric: ``3`` for 3.0, ``0.5`` for 0.5."""
    return f"{value:g}"


def check_thresholds(name: str, values: Sequence[float], *, may_be_empty: bool = False) -> None:
    """Raises ConfigError unless ``values`` are positive, finite and increasing."""
    increasing = all(first < second for first, second in itertools.pairwise(values))
    positive = all(0 < value < float("inf") for value in values)
    if not (increasing and positive and (values or may_be_empty)):
        raise ConfigError(f"{name} must be positive and increasing, got {list(values)}")


def truth_of_kind(pair: ImagePair, kind: type[TruthKind], what: str) -> TruthKind:
    """The truth of ``pair``; raises ConfigError where it is of another kind than a protocol can measure."""
    if not isinstance(pair.truth, kind):
        raise ConfigError(f"pair {pair.name} has no {what}: evaluate this data with another kind")
    return pair.truth


@dataclass(frozen=True, kw_only=True, eq=False)
class Columns:
    """What the metrics of a set are made of, one row per pair.

    Attributes:
        means: (P, K) values; a metric is the mean of its column without NaN.
        mean_names: the K metrics.
        areas: pairs of (P,) errors and, by metric, an upper end; a metric is the area under the errors' recall curve
            up to it.
    """

    means: NDArray[np.float64]
    mean_names: Sequence[str]
    areas: Sequence[tuple[NDArray[np.float64], Mapping[str, float]]] = ()

    @classmethod
    def of(
        cls,
        rows: Sequence[Row],
        means: Mapping[str, tuple[str, int | None]],
        areas: Mapping[str, Mapping[str, float]] | None = None,
    ) -> Columns:
        """Collect columns from rows.

        Args:
            rows: of the pairs.
            means: metric to (key in the rows, index into the list there or None where it is a number).
            areas: key in the rows to upper ends by metric.
        """
        values = [[number(row[key] if i is None else row[key][i]) for key, i in means.values()] for row in rows]
        return cls(
            means=np.array(values, dtype=np.float64).reshape(len(rows), len(means)),
            mean_names=list(means),
            areas=[(np.array([number(row[key]) for row in rows]), ends) for key, ends in (areas or {}).items()],
        )

    def metrics(self, indices: NDArray[np.int64] | None = None) -> dict[str, float]:
        """The metrics over all pairs, or over those at ``indices`` (repetitions count)."""
        chosen = np.arange(len(self.means)) if indices is None else indices
        drawn = np.bincount(chosen, minlength=len(self.means)).astype(np.float64)
        defined = ~np.isnan(self.means)
        counts = drawn @ defined
        sums = drawn @ np.where(defined, self.means, 0.0)
        averages = np.where(counts > 0, sums / np.where(counts > 0, counts, 1), np.nan)
        values = dict(zip(self.mean_names, averages.tolist(), strict=True))
        for errors, ends in self.areas:
            areas = area_under_curve(errors[chosen], list(ends.values())) if len(chosen) else [float("nan")] * len(ends)
            values |= dict(zip(ends, areas, strict=True))
        return values

    def intervals(self, *, seed: int) -> dict[str, tuple[float, float]]:
        """95 % bootstrap intervals over the pairs, of those metrics that have a finite one."""
        names = list(self.metrics())
        if len(self.means) < MIN_PAIRS_FOR_INTERVAL or not names:
            return {}
        ends = bootstrap_intervals(lambda drawn: list(self.metrics(drawn).values()), len(self.means), seed=seed)
        return finite_intervals(names, ends)


def finite_intervals(names: Sequence[str], ends: NDArray[np.float64]) -> dict[str, tuple[float, float]]:
    """Intervals by name from (K, 2) ends, without those that are not finite."""
    return {
        name: (float(low), float(high))
        for name, (low, high) in zip(names, ends, strict=True)
        if np.isfinite([low, high]).all()
    }


def group_indices(rows: Sequence[Row]) -> dict[str, NDArray[np.int64]]:
    """Indices of the rows of each group, in order of appearance; rows without a group are in none."""
    groups: dict[str, list[int]] = {}
    for index, row in enumerate(rows):
        if row.get("group"):
            groups.setdefault(row["group"], []).append(index)
    return {name: np.array(indices) for name, indices in groups.items()}
