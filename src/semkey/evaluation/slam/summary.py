"""Runs of ``semkey eval slam`` summed up: medians, the spread of the error, and how to read the numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from semkey.evaluation.running.results import Curve, Metric, Row, SetResult

# Curves of a run: what lies on their axes.
_CURVES = {"error": ("error_t", "error_m"), "calibration": ("confidence", "within")}


def summarise_runs(rows: Sequence[Row]) -> SetResult:
    """Medians over runs, the range of the ATE, and the curves of the run whose ATE is the median one.

    Runs whose features were read from a cache have no frames per second and no memory; ``timed_runs`` says how many
    have.
    """
    names = {name for row in rows for name, value in row.items() if _is_number(value)}
    metrics = {name: _median([row.get(name, math.nan) for row in rows]) for name in sorted(names)}
    errors = [row.get("ate_rmse_m", math.nan) for row in rows]
    if any(not math.isnan(error) for error in errors):
        metrics |= {"ate_lowest_m": float(np.nanmin(errors)), "ate_highest_m": float(np.nanmax(errors))}
    metrics["timed_runs"] = float(sum(not math.isnan(row.get("fps", math.nan)) for row in rows))
    middle = rows[median_run(rows)]
    curves = {name: Curve(x=middle[x], y=middle[y]) for name, (x, y) in _CURVES.items() if middle.get(x)}
    failures = sum(error == math.inf for error in errors)
    of_curves = {axis for axes in _CURVES.values() for axis in axes}
    kept = [{name: value for name, value in row.items() if name not in of_curves} for row in rows]
    return SetResult(count=len(rows), failures=failures, metrics=metrics, curves=curves, rows=kept)


def median_run(rows: Sequence[Row]) -> int:
    """Position of the run whose ATE is the median one, the lower of two in the middle."""
    order = sorted(range(len(rows)), key=lambda k: (math.isnan(e := rows[k].get("ate_rmse_m", math.nan)), e, k))
    return order[(len(rows) - 1) // 2]


def slam_metrics(
    results: Mapping[str, Mapping[str, SetResult]], *, runs: int, has_long_path: bool = False
) -> list[Metric]:
    """How to read the metrics of these results.

    Args:
        results: by method, then by set.
        runs: with several the range of the ATE is a headline metric.
        has_long_path: drift is a headline metric: the path is that of a vehicle.
    """
    stages = {
        name for sets in results.values() for result in sets.values() for name in result.metrics if name[:6] == "stage_"
    }

    def down(name: str, label: str, digits: int, *, headline: bool = False) -> Metric:
        return Metric(name=name, label=label, higher_is_better=False, digits=digits, headline=headline)

    def count(name: str, label: str, digits: int = 0) -> Metric:
        return Metric(name=name, label=label, higher_is_better=None, digits=digits)

    return [
        Metric(name="tracked", label="frames tracked, %", percent=True, headline=True),
        down("ate_rmse_m", "ATE, m", 4, headline=True),
        down("ate_lowest_m", "ATE of the best run, m", 4, headline=runs > 1),
        down("ate_highest_m", "ATE of the worst run, m", 4, headline=runs > 1),
        down("rpe_trans_m", "RPE, m", 4, headline=True),
        down("rpe_rot_deg", "RPE, °", 3, headline=True),
        down("drift_percent", "drift, %", 2, headline=has_long_path),
        Metric(name="fps", label="frames/s", headline=True),
        down("peak_mb", "memory, MB", 0, headline=True),
        down("finish_s", "adjusting the whole map at the end, s", 1),
        down("growth_mb", "memory that the run added, MB", 0),
        count("background_mb", "memory of the largest process beside it, MB"),
        count("timed_runs", "runs that frames/s and memory are of"),
        down("ate_live_rmse_m", "ATE of poses as known at their time, m", 4),
        count("scale", "scale to ground truth", 4),
        count("frames", "frames"),
        count("lost_events", "times lost"),
        count("dropped", "frames dropped"),
        count("problems", "problems of the input"),
        count("keyframes", "keyframes kept"),
        count("submaps", "submaps left at the end"),
        count("loops", "loops closed"),
        count("merges", "submaps merged"),
        down("false_loops", "of them, loops and merges of different places", 0),
        Metric(name="track_frames", label="frames in which a landmark was found, median"),
        Metric(name="track_keyframes", label="keyframes that see a landmark, median"),
        count("map_lines", "lines of the map"),
        count("nees", "normalised error squared, mean (6 is true)", 2),
        count("nees_median", "normalised error squared, median (5.35)", 2),
        Metric(name="nees_within", label="within the 95 % bound, %", percent=True, higher_is_better=None),
        count("nees_frames", "frames that the normalised error is of"),
        count("sigma_mm", "standard deviation promised, mm", 2),
        count("sigma_error_mm", "error of these poses, RMS, mm", 2),
        count("quality", "quality, median", 2),
        *(count(name, f"{name[6:-3]}, ms per frame", 1) for name in sorted(stages)),
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _median(values: Sequence[float]) -> float:
    """Of the values that are known; of an even number the worse of the middle two is not averaged with infinity."""
    known = sorted(value for value in values if not math.isnan(value))
    if not known:
        return math.nan
    low, high = known[(len(known) - 1) // 2], known[len(known) // 2]
    return high if math.isinf(high) else (low + high) / 2
