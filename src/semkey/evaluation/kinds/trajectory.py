"""The kind ``trajectory``: estimated camera trajectories against ground truth.

ATE and RPE are those of Sturm et al. (IROS 2012), see :mod:`semkey.metrics.trajectory`. Their statistics are over the
poses that a method gave, so a tracker that gives up early looks accurate: the share of frames that were tracked stands
beside them, and with several estimates ``ATE of common poses`` is over the ground-truth poses that all of them tracked,
aligned anew on these. An estimate with fewer than three poses near ground truth has failed: its errors are infinite; so
are its relative errors alone, if no two of its poses are as far apart as asked for.

Under ``sim3`` the relative errors are those of the estimate scaled by the factor that the alignment found. There are no
intervals: errors of one run follow each other in time, and resampling them would say nothing about another run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from semkey.errors import ConfigError, InputError
from semkey.evaluation.data.trajectories import GroundTruth
from semkey.evaluation.report.pictures import ReportPicture
from semkey.evaluation.running.environment import describe_environment
from semkey.evaluation.running.pair_runner import Progress
from semkey.evaluation.running.results import Curve, Evaluation, Metric, SetResult
from semkey.geometry.trajectories import Trajectory, associate_by_time
from semkey.metrics.relative_pairs import DeltaUnit, relative_pairs
from semkey.metrics.trajectory import Alignment, TrajectoryError, absolute_trajectory_error, relative_pose_errors
from semkey.settings import Settings

KIND = "trajectory"
CURVE_LABELS = {
    "error": ("time from the start of the ground truth, s", "position error, m"),
    "recall": ("position error, m", "share of all frames"),
}

# Steps longer than this many median ones count as time in which the camera was lost.
_GAP_FACTOR = 1.5
_CURVE_POINTS = 500


@dataclass(frozen=True, kw_only=True)
class TrajectoryConfig(Settings):
    """What is measured.

    Attributes:
        alignment: ``se3`` for metric trajectories, ``sim3`` where the scale is unknown, ``none`` as given.
        max_difference_s: an estimated and a true pose belong together if their stamps differ by less, > 0.
        delta: distance of the two poses of a relative error, > 0.
        unit: of ``delta``: ``frames``, ``s`` or ``m`` along the true path.
        all_pairs: relative errors from every pose, instead of one after the other.

    Raises:
        ConfigError: a value is out of range.
    """

    alignment: Alignment = "se3"
    max_difference_s: float = 0.02
    delta: float = 1
    unit: DeltaUnit = "frames"
    all_pairs: bool = False

    def __post_init__(self) -> None:
        if self.alignment not in get_args(Alignment):
            raise ConfigError(f"alignment '{self.alignment}' is unknown; choose among {', '.join(get_args(Alignment))}")
        if self.unit not in get_args(DeltaUnit):
            raise ConfigError(f"unit '{self.unit}' is unknown; choose among {', '.join(get_args(DeltaUnit))}")
        if not (math.isfinite(self.max_difference_s) and self.max_difference_s > 0):
            raise ConfigError(f"max_difference_s must be positive, got {self.max_difference_s}")
        if not (math.isfinite(self.delta) and self.delta > 0):
            raise ConfigError(f"delta must be positive, got {self.delta}")
        if self.unit == "frames" and self.delta != int(self.delta):
            raise ConfigError(f"delta must be a whole number of frames, got {self.delta}")


def evaluate_trajectory(
    estimates: Mapping[str, Trajectory],
    ground_truth: GroundTruth,
    config: TrajectoryConfig | None = None,
    *,
    files: Mapping[str, str | Path] | None = None,
    environment: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure estimated trajectories; each is a method, and the ground truth is the one set.

    ``tracked`` is the share of frames with an estimated pose if the frames' stamps are known; otherwise the share of
    the ground truth's time between estimated poses that follow each other without a gap (of more than 1.5 times the
    median step).

    Args:
        estimates: by name, at least one.
        ground_truth: see :func:`read_ground_truth`.
        config: default :class:`TrajectoryConfig`.
        files: where the estimates come from, for the report.
        environment: default :func:`describe_environment`.
        progress: told about every estimate.

    Returns:
        One row per pair of poses in time: ``name`` (stamp of the estimate, s) and ``error`` (m). ``failures`` are the
        frames that were not tracked, where frames are known.

    Raises:
        ConfigError: there are no estimates.
        InputError: no two true poses are ``delta`` apart.
    """
    config = config or TrajectoryConfig()
    if not estimates:
        raise ConfigError("there is no estimated trajectory to evaluate")
    reference = ground_truth.trajectory
    # An estimate without two poses that far apart has failed; ground truth without them is a wrong option.
    relative_pairs(reference, delta=config.delta, unit=config.unit, all_pairs=config.all_pairs)
    if progress is not None:
        progress(0, len(estimates), "")
    common = _common_poses(estimates, ground_truth, config)
    results = {}
    for done, (name, estimate) in enumerate(estimates.items(), start=1):
        results[name] = {ground_truth.name: _measure(estimate, ground_truth, common, config)}
        if progress is not None:
            progress(done, len(estimates), name)
    frames = ground_truth.frame_timestamps
    counted = "unknown" if frames is None else str(len(frames))
    return Evaluation(
        kind=KIND,
        options=asdict(config) | {"tracked_of": "time" if frames is None else "frames"},
        environment=describe_environment("cpu") if environment is None else environment,
        methods={
            name: {"poses": len(estimate), **({"file": str(files[name])} if files and name in files else {})}
            for name, estimate in estimates.items()
        },
        sets={
            ground_truth.name: {
                "description": f"{len(reference)} true poses over {np.ptp(reference.timestamps):.1f} s, path of "
                f"{_path_length(reference):.2f} m; number of frames: {counted}",
                "pairs": len(reference) if frames is None else len(frames),
            }
        },
        metrics=_metrics(config, has_frames=frames is not None, several=len(estimates) > 1),
        results=results,
        curve_labels=CURVE_LABELS,
    )


def trajectory_pictures(
    estimates: Mapping[str, Trajectory], ground_truth: GroundTruth, config: TrajectoryConfig | None = None
) -> list[ReportPicture]:
    """Every estimate from above and from the side, with its error over time and the frames that were lost."""
    from semkey.visualization.trajectory import trajectory_figure

    config = config or TrajectoryConfig()
    pictures = []
    for name, estimate in estimates.items():
        frames = ground_truth.frame_timestamps
        lost = None if frames is None else ~_tracked_frames(estimate, frames, config)
        data = trajectory_figure(
            estimate,
            ground_truth.trajectory,
            frame_timestamps=frames,
            lost_mask=lost,
            alignment=config.alignment,
            title=f"{name} on {ground_truth.name}",
        )
        pictures.append(
            ReportPicture(section="Trajectories", caption=f"{name}, alignment {config.alignment}", data=data)
        )
    return pictures


def _common_poses(
    estimates: Mapping[str, Trajectory], ground_truth: GroundTruth, config: TrajectoryConfig
) -> NDArray[np.int64]:
    """Indices of the true poses that every estimate has a pose for."""
    common = np.arange(len(ground_truth.trajectory), dtype=np.int64)
    for estimate in estimates.values():
        pairs = associate_by_time(
            estimate.timestamps, ground_truth.trajectory.timestamps, max_difference_s=config.max_difference_s
        )
        common = np.intersect1d(common, pairs[:, 1])
    return common


def _measure(
    estimate: Trajectory, ground_truth: GroundTruth, common: NDArray[np.int64], config: TrajectoryConfig
) -> SetResult:
    reference = ground_truth.trajectory
    tracked, count, failures = _tracking(estimate, ground_truth, config)
    absolute = _absolute_or_none(estimate, reference, config)
    if absolute is None:
        return SetResult(count=count, failures=failures, metrics=_failed_metrics(tracked))
    on_common = _absolute_or_none(estimate, reference.select(common), config)
    start = float(reference.timestamps[0])
    return SetResult(
        count=count,
        failures=failures,
        metrics={
            "tracked": tracked,
            **{f"ate_{name}_m": value for name, value in asdict(absolute.statistics).items()},
            **_relative_metrics(estimate, reference, absolute, config),
            "ate_common_rmse_m": math.inf if on_common is None else on_common.statistics.rmse,
            "scale": absolute.similarity.scale,
            "poses": float(len(absolute.errors)),
        },
        curves={
            "error": _thinned(absolute.timestamps - start, absolute.errors),
            "recall": _recall(absolute.errors, max(count, len(absolute.errors))),
        },
        rows=[
            {"name": f"{stamp:.6f}", "error": round(error, 6)}
            for stamp, error in zip(absolute.timestamps.tolist(), absolute.errors.tolist(), strict=True)
        ],
    )


def _absolute_or_none(estimate: Trajectory, reference: Trajectory, config: TrajectoryConfig) -> TrajectoryError | None:
    """The absolute error; None where too few poses, or no motion under sim3, leave it undefined: a failure."""
    try:
        return absolute_trajectory_error(
            estimate, reference, alignment=config.alignment, max_difference_s=config.max_difference_s
        )
    except InputError:
        return None


def _relative_metrics(
    estimate: Trajectory, reference: Trajectory, absolute: TrajectoryError, config: TrajectoryConfig
) -> dict[str, float]:
    """Relative errors; infinite where the estimate has no two poses that far apart."""
    scaled = estimate.mapped(absolute.similarity) if config.alignment == "sim3" else estimate
    try:
        relative = relative_pose_errors(
            scaled,
            reference,
            delta=config.delta,
            unit=config.unit,
            all_pairs=config.all_pairs,
            max_difference_s=config.max_difference_s,
        )
    except InputError:
        return {f"{error}_{name}_{unit}": math.inf for error, unit in _ERRORS[1:] for name in _STATISTICS}
    metrics = {f"rpe_trans_{name}_m": value for name, value in asdict(relative.translation).items()}
    return metrics | {f"rpe_rot_{name}_deg": value for name, value in asdict(relative.rotation_deg).items()}


def _failed_metrics(tracked: float) -> dict[str, float]:
    names = [f"{error}_{name}_{unit}" for error, unit in _ERRORS for name in _STATISTICS]
    return {
        "tracked": tracked,
        **dict.fromkeys([*names, "ate_common_rmse_m"], math.inf),
        "scale": math.nan,
        "poses": 0.0,
    }


def _tracking(estimate: Trajectory, ground_truth: GroundTruth, config: TrajectoryConfig) -> tuple[float, int, int]:
    """Share tracked, number of frames (of poses near ground truth where frames are unknown), and frames lost."""
    frames = ground_truth.frame_timestamps
    if frames is not None:
        found = int(_tracked_frames(estimate, frames, config).sum())
        return found / len(frames), len(frames), len(frames) - found
    stamps = ground_truth.trajectory.timestamps
    pairs = associate_by_time(estimate.timestamps, stamps, max_difference_s=config.max_difference_s)
    near = estimate.timestamps[pairs[:, 0]]
    steps = np.diff(near)
    span = float(np.ptp(stamps)) if len(stamps) else 0.0
    if len(steps) == 0 or span == 0:
        return 0.0, len(pairs), 0
    covered = float(steps[steps <= _GAP_FACTOR * np.median(steps)].sum())
    return min(covered / span, 1.0), len(pairs), 0


def _tracked_frames(estimate: Trajectory, frames: NDArray[np.float64], config: TrajectoryConfig) -> NDArray[np.bool_]:
    tracked = np.zeros(len(frames), dtype=bool)
    pairs = associate_by_time(estimate.timestamps, frames, max_difference_s=config.max_difference_s)
    tracked[pairs[:, 1]] = True
    return tracked


def _path_length(trajectory: Trajectory) -> float:
    return float(np.linalg.norm(np.diff(trajectory.positions, axis=0), axis=1).sum())


def _thinned(x: NDArray[np.float64], y: NDArray[np.float64]) -> Curve:
    """At most 500 points, evenly spaced, first and last among them."""
    chosen = np.unique(np.linspace(0, len(x) - 1, min(len(x), _CURVE_POINTS)).round().astype(int))
    return Curve(
        x=[round(value, 6) for value in x[chosen].tolist()], y=[round(value, 6) for value in y[chosen].tolist()]
    )


def _recall(errors: NDArray[np.float64], total: int) -> Curve:
    """Share of all frames, lost ones included, with at most each error."""
    ordered = np.sort(errors)
    return _thinned(np.concatenate([[0.0], ordered]), np.arange(len(ordered) + 1) / total)


_STATISTICS = ("rmse", "mean", "median", "max")
_ERRORS = (("ate", "m"), ("rpe_trans", "m"), ("rpe_rot", "deg"))


def _metrics(config: TrajectoryConfig, *, has_frames: bool, several: bool) -> list[Metric]:
    share = "frames tracked, %" if has_frames else "ground truth's time covered, %"
    metrics = [Metric(name="tracked", label=share, percent=True, headline=True)]
    titles = {"rmse": "RMSE", "mean": "mean", "median": "median", "max": "maximum"}
    unit_name = "frame" if config.unit == "frames" and config.delta == 1 else config.unit
    over = f" over {config.delta:g} {unit_name}"
    labels = {"ate": "ATE", "rpe_trans": f"RPE{over}", "rpe_rot": f"RPE{over}"}
    for error, unit in _ERRORS:
        for name in _STATISTICS:
            metrics.append(
                Metric(
                    name=f"{error}_{name}_{unit}",
                    label=f"{labels[error]} {titles[name]}, {'°' if unit == 'deg' else unit}",
                    higher_is_better=False,
                    digits=3 if unit == "deg" else 4,
                    headline=name == "rmse",
                )
            )
            if error == "ate" and name == "rmse" and several:
                metrics.append(
                    Metric(
                        name="ate_common_rmse_m",
                        label="ATE RMSE of common poses, m",
                        higher_is_better=False,
                        digits=4,
                        headline=True,
                    )
                )
    if config.alignment == "sim3":
        metrics.append(Metric(name="scale", label="scale to ground truth", higher_is_better=None, digits=4))
    metrics.append(Metric(name="poses", label="poses compared", higher_is_better=None, digits=0))
    return metrics
