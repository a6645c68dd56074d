"""The kind ``localisation``: how exactly keypoints lie on synthetic corners and blobs whose positions are known.

Every method extracts from the same images of :mod:`semkey.evaluation.data.corners`; there is one set per pattern.
A corner is found if a keypoint lies within ``radius_px`` of its true position; the error is the distance of the
*nearest* such keypoint. A method that fires several times around a corner gains by that choice, so the error of the
*strongest* keypoint within the radius and the number of keypoints there stand beside it. Errors, bias and locking are
over found corners only, so a method that misses the hard ones is flattered; the shares of all corners that were found
at all and within 1 px count every miss. "Found where nothing is" is the share of flat places, away from every corner,
that have a keypoint within the radius: a method's chance to find a corner without seeing it.

Intervals are 95 % percentile bootstrap intervals over the corners. The length of a mean vector is never negative, so
the lower end of the bias's interval does not reach 0 even where there is none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey.errors import ConfigError
from semkey.evaluation.data.corners import PATTERNS, CornerImage, RenderingConfig, corner_images
from semkey.evaluation.running.environment import describe_environment
from semkey.evaluation.running.methods import Method
from semkey.evaluation.running.pair_runner import Progress
from semkey.evaluation.running.results import Curve, Evaluation, Metric, Row, SetResult
from semkey.metrics.bootstrap import bootstrap_intervals
from semkey.metrics.localisation import (
    LocalisationStatistics,
    detections_near,
    mean_along,
    phase_curve,
    pixel_locking,
)
from semkey.settings import Settings

KIND = "localisation"

METRICS = (
    Metric(name="found", label="found, %", percent=True, headline=True),
    Metric(name="within_1px", label="found within 1 px, %", percent=True, headline=True),
    Metric(name="median_px", label="median error, px", higher_is_better=False, digits=3, headline=True),
    Metric(name="mean_px", label="mean error, px", higher_is_better=False, digits=3),
    Metric(name="rmse_px", label="RMSE, px", higher_is_better=False, digits=3, headline=True),
    Metric(name="bias_px", label="bias, px", higher_is_better=False, digits=3, headline=True),
    Metric(name="bias_x_px", label="bias in x, px", higher_is_better=None, digits=3),
    Metric(name="bias_y_px", label="bias in y, px", higher_is_better=None, digits=3),
    Metric(name="drift_px", label="drift along the pattern's axis, px", higher_is_better=None, digits=3),
    Metric(name="across_px", label="drift across it, px", higher_is_better=None, digits=3),
    Metric(name="locking", label="pixel locking, %", higher_is_better=None, percent=True),
    Metric(name="strongest_median_px", label="median error of the strongest, px", higher_is_better=False, digits=3),
    Metric(name="keypoints_per_corner", label="keypoints per found corner", higher_is_better=None, digits=2),
    Metric(name="found_by_chance", label="found where nothing is, %", higher_is_better=False, percent=True),
)
CURVE_LABELS = {
    "recall": ("error threshold, px", "share of all corners"),
    "pixel_phase": ("true position from the nearest pixel centre, px", "mean signed error, px"),
}
_INTERVALS = ("found", "within_1px", "median_px", "rmse_px", "bias_px")
_RECALL_STEPS = 30


@dataclass(frozen=True, kw_only=True)
class LocalisationConfig(Settings):
    """What is measured.

    Attributes:
        corners: per pattern, >= 1.
        seed: of the images and of the bootstrap, >= 0.
        radius_px: a corner is found if a keypoint is nearer than this, in (0, 10].
        patterns: some of :data:`PATTERNS`, each once.
        rendering: how the images are made.

    Raises:
        ConfigError: a value is out of range.
    """

    corners: int = 500
    seed: int = 0
    radius_px: float = 3.0
    patterns: tuple[str, ...] = tuple(PATTERNS)
    rendering: RenderingConfig = field(default_factory=RenderingConfig)

    def __post_init__(self) -> None:
        if self.corners < 1:
            raise ConfigError(f"the number of corners must be at least 1, got {self.corners}")
        if self.seed < 0:
            raise ConfigError(f"seed must not be negative, got {self.seed}")
        # Beyond 10 px the edges of a pattern, not its corner, would answer.
        if not 0 < self.radius_px <= 10:
            raise ConfigError(f"radius_px lies in (0, 10], got {self.radius_px}")
        if not self.patterns or len(set(self.patterns)) < len(self.patterns):
            raise ConfigError(f"patterns must be given once each, got {', '.join(self.patterns) or 'none'}")
        for pattern in self.patterns:
            if pattern not in PATTERNS:
                raise ConfigError(f"pattern '{pattern}' is unknown; choose among {', '.join(PATTERNS)}")


def run_localisation(
    methods: Sequence[Method],
    config: LocalisationConfig | None = None,
    *,
    environment: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure every method on every pattern; the same images for all.

    Args:
        methods: with unique names.
        config: default :class:`LocalisationConfig`.
        environment: default :func:`describe_environment`.
        progress: told about every image.

    Returns:
        One set per pattern, one row per corner: ``name``, ``group`` where the pattern has some, ``error`` (distance of
        the nearest keypoint; infinite for a miss), ``dx`` and ``dy`` (its position minus the true one; NaN for a miss)
        and ``keypoints`` within the radius. A miss is a failure.

    Raises:
        ConfigError: no methods, or two of one name.
        InputError: a method broke its promises (:meth:`semkey.model.features.Features.check`).
    """
    config = config or LocalisationConfig()
    names = [method.name for method in methods]
    if not names or len(set(names)) < len(names):
        raise ConfigError(f"methods must be given once each, got {', '.join(names) or 'none'}")
    columns, rows = config.rendering.tiles
    total = len(methods) * len(config.patterns) * math.ceil(config.corners / (columns * rows))
    done = 0
    if progress is not None:
        progress(done, total, "")
    results: dict[str, dict[str, SetResult]] = {name: {} for name in names}
    for pattern in config.patterns:
        images = corner_images(pattern, count=config.corners, seed=config.seed, config=config.rendering)
        for method in methods:
            measured = []
            for image in images:
                keypoints = method.extract(image.image).keypoints.numpy()
                measured.append(_measure(image, keypoints, config.radius_px))
                done += 1
                if progress is not None:
                    progress(done, total, f"{method.name}, {pattern}")
            results[method.name][pattern] = _summarise(pattern, images, measured, config)
    return Evaluation(
        kind=KIND,
        options=asdict(config),
        environment=describe_environment() if environment is None else environment,
        methods={method.name: method.fingerprint for method in methods},
        sets={pattern: _describe(pattern, config) for pattern in config.patterns},
        metrics=METRICS,
        results=results,
        curve_labels=CURVE_LABELS,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Measured:
    """One image: (N, 2) differences to the nearest and strongest keypoint, NaN for misses; counts; hits at decoys."""

    differences: NDArray[np.float64]
    strongest: NDArray[np.float64]
    counts: NDArray[np.int64]
    decoys_hit: NDArray[np.bool_]


def _measure(image: CornerImage, keypoints: NDArray[np.float32], radius_px: float) -> _Measured:
    found = detections_near(keypoints, image.positions, radius_px)
    # One point too many, so that a miss (-1) picks NaN.
    padded = np.concatenate([keypoints.astype(np.float64).reshape(-1, 2), np.full((1, 2), np.nan)])
    return _Measured(
        differences=padded[found.nearest] - image.positions,
        strongest=padded[found.strongest] - image.positions,
        counts=found.counts,
        decoys_hit=detections_near(keypoints, image.decoys, radius_px).counts > 0,
    )


def _summarise(
    pattern: str, images: Sequence[CornerImage], measured: Sequence[_Measured], config: LocalisationConfig
) -> SetResult:
    positions = np.concatenate([image.positions for image in images])
    axes = np.concatenate([image.axes for image in images])
    groups = np.array([group for image in images for group in image.groups])
    differences = np.concatenate([item.differences for item in measured])
    strongest = np.linalg.norm(np.concatenate([item.strongest for item in measured]), axis=1)
    counts = np.concatenate([item.counts for item in measured])
    decoys_hit = np.concatenate([item.decoys_hit for item in measured])
    found = counts > 0
    errors = np.where(found, np.linalg.norm(differences, axis=1), np.inf)

    def metrics(chosen: NDArray[Any]) -> dict[str, float]:
        """Of the corners ``chosen`` (indices)."""
        kept = chosen[found[chosen]]
        statistics = LocalisationStatistics.of(differences[kept])
        drift, across = mean_along(differences[kept], axes[kept])
        return {
            "found": len(kept) / len(chosen),
            "within_1px": float((errors[chosen] < 1.0).mean()),
            **{f"{name}_px": value for name, value in asdict(statistics).items()},
            "drift_px": drift,
            "across_px": across,
            "locking": pixel_locking(positions[kept], differences[kept]),
            "strongest_median_px": float(np.median(strongest[kept])) if len(kept) else float("nan"),
            "keypoints_per_corner": float(counts[kept].mean()) if len(kept) else float("nan"),
        }

    def resampled(chosen: NDArray[Any]) -> list[float]:
        kept = chosen[found[chosen]]
        statistics = LocalisationStatistics.of(differences[kept])
        return [
            len(kept) / len(chosen),
            (errors[chosen] < 1.0).mean(),
            statistics.median,
            statistics.rmse,
            statistics.bias,
        ]

    everything = np.arange(len(positions))
    intervals = bootstrap_intervals(resampled, len(positions), seed=config.seed)
    thresholds = np.linspace(0, config.radius_px, _RECALL_STEPS + 1)
    recall = (errors[:, None] < thresholds).mean(axis=0)
    phase_x, phase_y = phase_curve(positions[found], differences[found])
    return SetResult(
        count=len(positions),
        failures=int((~found).sum()),
        metrics=metrics(everything) | {"found_by_chance": float(decoys_hit.mean())},
        intervals={name: (float(low), float(high)) for name, (low, high) in zip(_INTERVALS, intervals, strict=True)},
        groups={str(name): metrics(np.flatnonzero(groups == name)) for name in np.unique(groups[groups != ""])},
        curves={
            "recall": Curve(x=thresholds.tolist(), y=recall.tolist()),
            "pixel_phase": Curve(x=phase_x.tolist(), y=phase_y.tolist()),
        },
        rows=[
            _row(f"{pattern} {index}", str(groups[index]), differences[index], count)
            for index, count in enumerate(counts.tolist())
        ],
    )


def _row(name: str, group: str, difference: NDArray[np.float64], count: int) -> Row:
    row: Row = {"name": name, "group": group} if group else {"name": name}
    if count == 0:
        return row | {"error": math.inf, "dx": math.nan, "dy": math.nan, "keypoints": 0}
    dx, dy = difference.tolist()
    return row | {"error": round(math.hypot(dx, dy), 4), "dx": round(dx, 4), "dy": round(dy, 4), "keypoints": count}


def _describe(pattern: str, config: LocalisationConfig) -> dict[str, Any]:
    rendering = config.rendering
    text = (
        f"{config.corners} synthetic patterns '{pattern}' at random sub-pixel positions and angles in images of "
        f"{rendering.width}x{rendering.height}, blur {rendering.blur_px[0]:g} to {rendering.blur_px[1]:g} px, contrast "
        f"{rendering.contrast[0]:g} to {rendering.contrast[1]:g}, noise {rendering.noise:g}, seed {config.seed}"
    )
    return {"description": text, "pairs": config.corners}
