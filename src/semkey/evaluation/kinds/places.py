"""The kind ``places``: does an image's nearest earlier image show the same place?

Each frame of a posed sequence is a query against the frames that are at least ``min_gap_s`` older: what a loop closure
has to choose from. A frame shows the same place if the cameras are within ``max_distance_m`` of each other and turned
against each other by at most ``max_angle_deg``. Only queries for which such a frame exists count; recall@k is the
share of them with one among the k nearest by the cosine of the descriptors. ``chance`` is the share of right frames
among those to choose from: what a random choice would get.

With ``together`` the frames of all sequences are one collection: those of the other sequences, whose places are others,
are to choose from as well, whatever their time. ``elsewhere`` is the share of queries whose nearest frame is one of
them: the false alarms between rooms that look alike. A set of its own has the queries of all sequences.

Intervals are 95 % percentile bootstrap intervals over queries. Queries that follow each other look alike, so that they
are narrower than the spread between sequences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from semkey.datasets import FrameSequence
from semkey.errors import ConfigError, DatasetError
from semkey.evaluation.kinds.place_methods import PlaceMethod
from semkey.evaluation.running.environment import describe_environment
from semkey.evaluation.running.pair_runner import Progress
from semkey.evaluation.running.results import Curve, Evaluation, Metric, Row, SetResult
from semkey.metrics.bootstrap import bootstrap_intervals
from semkey.settings import Settings

KIND = "places"
TOGETHER = "together"
"""The set of all queries, where sequences are one collection."""
CURVE_LABELS = {"recall": ("k", "recall@k")}

_RANKS = (1, 5, 10)
_CURVE = 20


@dataclass(frozen=True, kw_only=True)
class PlacesConfig(Settings):
    """What counts as the same place.

    Attributes:
        max_distance_m: between the cameras, metres.
        max_angle_deg: between their orientations, degrees.
        min_gap_s: a frame is compared with those that are at least so much older, seconds.
        stride: every so manyth frame of the sequence.
        seed: of the bootstrap and of vocabularies that are trained on the way.
        together: frames of the other sequences are to choose from as well; none of them is right.

    Raises:
        ConfigError: a value is out of range.
    """

    max_distance_m: float = 0.3
    max_angle_deg: float = 20.0
    min_gap_s: float = 5.0
    stride: int = 1
    seed: int = 0
    together: bool = False

    def __post_init__(self) -> None:
        if self.max_distance_m <= 0 or self.max_angle_deg <= 0 or self.min_gap_s <= 0:
            raise ConfigError("max_distance_m, max_angle_deg and min_gap_s must be positive")
        if self.stride < 1 or self.seed < 0:
            raise ConfigError("stride must be 1 or more, seed 0 or more")


def run_places(
    methods: Sequence[PlaceMethod],
    sequences: Sequence[FrameSequence],
    config: PlacesConfig | None = None,
    *,
    environment: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure all methods on posed sequences.

    Args:
        methods: with unique names.
        sequences: with ground-truth poses; each is a set of its own.
        config: default :class:`PlacesConfig`.
        environment: default :func:`describe_environment`.
        progress: told about every frame of every method.

    Returns:
        One row per query: ``name``, ``rank`` of the first right frame (from 1, infinite where none is within the twenty
        nearest), ``right`` and ``candidates`` counts, and ``elsewhere``, 1 where the nearest frame is of another
        sequence. With ``config.together`` a further set, :data:`TOGETHER`, has the queries of all.

    Raises:
        ConfigError: no methods, or two of one name.
        DatasetError: a sequence without poses, or whose camera never comes back to a place.
    """
    config = config or PlacesConfig()
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"methods must be given once each, got {', '.join(names) or 'none'}")
    together = config.together and len(sequences) > 1
    taken = {sequence.name for sequence in sequences} | ({TOGETHER} if together else set())
    if len(taken) < len(sequences) + together:
        raise ConfigError(f"sequences must have different names{f', none of them {TOGETHER}' if together else ''}")
    truths = {sequence.name: _truth(sequence, config) for sequence in sequences}
    total, done = sum(len(truth.frames) for truth in truths.values()), 0
    described: dict[str, dict[str, torch.Tensor]] = {name: {} for name in names}
    for sequence in sequences:
        found: dict[str, list[torch.Tensor]] = {name: [] for name in names}
        for index in truths[sequence.name].frames:
            image = sequence[index].image
            for method in methods:
                found[method.name].append(method.describe(image))
            done += 1
            if progress is not None:
                progress(done, total, sequence.name)
        for name in names:
            described[name][sequence.name] = torch.stack(found[name])
    results: dict[str, dict[str, SetResult]] = {name: {} for name in names}
    for name, own in described.items():
        for sequence in sequences:
            others = [rows for other, rows in own.items() if other != sequence.name] if together else []
            foreign = torch.cat(others) if others else None
            rows = _rows(own[sequence.name], truths[sequence.name], foreign)
            results[name][sequence.name] = summarise(rows, own[sequence.name].shape[1], config.seed)
        if together:
            every = [
                {**row, "name": f"{one}, {row['name']}"} for one, part in results[name].items() for row in part.rows
            ]
            results[name][TOGETHER] = summarise(every, own[sequences[0].name].shape[1], config.seed)
    counts = {name: (int(truth.counts.sum()), len(truth.frames)) for name, truth in truths.items()}
    if together:
        counts[TOGETHER] = (sum(count for count, _ in counts.values()), sum(frames for _, frames in counts.values()))
    return Evaluation(
        kind=KIND,
        options={
            "max_distance_m": config.max_distance_m,
            "max_angle_deg": config.max_angle_deg,
            "min_gap_s": config.min_gap_s,
            "stride": config.stride,
            "seed": config.seed,
            "together": together,
        },
        environment=describe_environment() if environment is None else environment,
        methods={method.name: dict(method.fingerprint) for method in methods},
        sets={
            name: {"description": f"{count} revisits among {frames} frames", "pairs": count}
            for name, (count, frames) in counts.items()
        },
        metrics=[
            *(
                Metric(name=f"recall@{k}", label=f"recall@{k}, %", percent=True, digits=1, headline=True)
                for k in _RANKS
            ),
            *(
                [
                    Metric(
                        name="elsewhere",
                        label="elsewhere, %",
                        percent=True,
                        digits=1,
                        headline=True,
                        higher_is_better=False,
                    )
                ]
                if together
                else []
            ),
            Metric(name="chance", label="chance, %", higher_is_better=None, percent=True, digits=1, headline=True),
            Metric(name="dimensions", label="dimensions", higher_is_better=None, digits=0, headline=True),
        ],
        results=results,
        curve_labels=CURVE_LABELS,
    )


@dataclass(frozen=True, kw_only=True)
class _Truth:
    """Of the F frames that are used: which may be compared with which (F, F), and which show the same place."""

    frames: list[int]
    allowed: NDArray[np.bool_]
    right: NDArray[np.bool_]

    @property
    def counts(self) -> NDArray[np.bool_]:
        """(F,) which frames are queries: their place was seen before."""
        return np.asarray(self.right.any(axis=1))


def _truth(sequence: FrameSequence, config: PlacesConfig) -> _Truth:
    frames = [i for i, pose in enumerate(sequence.ground_truth) if pose is not None][:: config.stride]
    if len(frames) < 2:
        raise DatasetError(f"{sequence.name}: {len(frames)} frames have a ground-truth pose, places need two or more")
    poses = np.stack([pose for pose in (sequence.ground_truth[i] for i in frames) if pose is not None])
    times = sequence.timestamps[frames]
    distance = np.linalg.norm(poses[:, None, :3, 3] - poses[None, :, :3, 3], axis=-1)
    trace = np.einsum("iab,jab->ij", poses[:, :3, :3], poses[:, :3, :3])
    angle = np.degrees(np.arccos(np.clip((trace - 1.0) / 2.0, -1.0, 1.0)))
    allowed = times[:, None] - times[None] >= config.min_gap_s
    right = allowed & (distance <= config.max_distance_m) & (angle <= config.max_angle_deg)
    if not right.any():
        raise DatasetError(
            f"{sequence.name}: no frame comes back to a place within {config.max_distance_m:g} m and "
            f"{config.max_angle_deg:g} degrees after {config.min_gap_s:g} s: widen them, or take another sequence"
        )
    return _Truth(frames=frames, allowed=allowed, right=right)


def _rows(descriptors: torch.Tensor, truth: _Truth, foreign: torch.Tensor | None = None) -> list[Row]:
    """Of the descriptors (F, G) of a sequence's frames, and (M, G) of frames of other sequences."""
    own = len(descriptors)
    collection = descriptors if foreign is None else torch.cat([descriptors, foreign])
    similarity = (descriptors @ collection.T).numpy()
    others = np.arange(own, len(collection))
    allowed = np.pad(truth.allowed, ((0, 0), (0, len(others))), constant_values=True)
    is_right = np.pad(truth.right, ((0, 0), (0, len(others))))
    rows: list[Row] = []
    for query in np.flatnonzero(truth.counts):
        candidates = np.flatnonzero(allowed[query])
        order = candidates[np.argsort(-similarity[query, candidates], kind="stable")]
        hits = np.flatnonzero(is_right[query, order])
        rows.append(
            {
                "name": f"frame {truth.frames[query]}",
                "rank": float(hits[0] + 1) if hits[0] < _CURVE else float("inf"),
                "right": int(truth.right[query].sum()),
                "candidates": len(candidates),
                "elsewhere": int(order[0] >= own),
            }
        )
    return rows


def summarise(rows: Sequence[Row], dimensions: int, seed: int) -> SetResult:
    """Metrics of queries, with intervals over them, and the curve of recall."""
    ranks = np.array([row["rank"] for row in rows])
    elsewhere = np.array([row["elsewhere"] for row in rows])
    names = [*(f"recall@{k}" for k in _RANKS), "elsewhere"]

    def shares(chosen: NDArray[np.int64]) -> NDArray[np.float64]:
        return np.array([*((ranks[chosen] <= k).mean() for k in _RANKS), elsewhere[chosen].mean()])

    found = shares(np.arange(len(ranks)))
    intervals = bootstrap_intervals(shares, len(ranks), seed=seed)
    return SetResult(
        count=len(rows),
        metrics={
            **{name: float(value) for name, value in zip(names, found, strict=True)},
            "chance": float(np.mean([row["right"] / row["candidates"] for row in rows])),
            "dimensions": float(dimensions),
        },
        intervals={name: (float(low), float(high)) for name, (low, high) in zip(names, intervals, strict=True)},
        curves={
            "recall": Curve(x=list(range(1, _CURVE + 1)), y=[float((ranks <= k).mean()) for k in range(1, _CURVE + 1)])
        },
        rows=list(rows),
    )
