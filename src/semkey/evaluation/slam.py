"""The kind ``slam``: the same back end with different features, on whole sequences, several runs each.

Every run is a process of its own (:mod:`semkey.evaluation.slam_child`) with a seed of its own: 0, 1, 2, ... The
figures of a method on a sequence are medians over its runs, and the lowest and highest ATE stand beside them. A run
whose trajectory has fewer than three poses with ground truth, or whose process ended in an error, has failed: its
errors are infinite. Runs of different methods take turns, so that a slow spell of a shared machine hits all alike.

The absolute trajectory error is over the poses that a run gave, so a tracker that gives up early looks accurate: read
it together with the share of frames tracked.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args

import numpy as np

from semkey.datasets import FrameSequence, Sensor, open_sequence, parse_camera
from semkey.errors import ConfigError
from semkey.evaluation.cv2_odometry import NAME as CV2_ODOMETRY
from semkey.evaluation.environment import describe_environment
from semkey.evaluation.methods import create_method
from semkey.evaluation.results import Curve, Evaluation, Metric, Row, SetResult
from semkey.evaluation.row_store import RowStore, content_key, file_name
from semkey.evaluation.runner import ROWS_FOLDER, Progress
from semkey.evaluation.slam_child import SlamRunError, measure_in_child
from semkey.evaluation.slam_measures import FAILED

logger = logging.getLogger(__name__)

KIND = "slam"
CURVE_LABELS = {"error": ("time from the first true pose, s", "position error, m")}
TRAJECTORIES_FOLDER = "trajectories"

# Packages whose code decides what a row says; extraction is part of a method's fingerprint.
_CODE = ("datasets", "evaluation", "geometry", "matching", "metrics", "slam")
_LONG_PATH_M = 50.0
"""Where a true path is longer, drift is a headline metric: it is that of a vehicle."""


@dataclass(frozen=True, kw_only=True)
class SlamRunConfig:
    """How runs are made.

    Attributes:
        runs: of every method on every sequence, >= 1; run ``k`` has seed ``seed + k``.
        keypoints: most keypoints of an image, >= 1.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        max_frames: stop after so many used frames; None for all.
        sensor: what to track with: ``rgbd``, ``stereo`` or ``mono``; None takes the best that each sequence has.
        realtime: play sequences by their timestamps, and drop frames that would come too late.
        seed: of the first run, >= 0.

    Raises:
        ConfigError: a value is out of range.
    """

    runs: int = 3
    keypoints: int = 1024
    device: str = "auto"
    max_frames: int | None = None
    sensor: Sensor | None = None
    realtime: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.runs < 1 or self.keypoints < 1 or (self.max_frames is not None and self.max_frames < 1):
            raise ConfigError("runs, keypoints and max_frames must be positive")
        if self.sensor is not None and self.sensor not in get_args(Sensor):
            raise ConfigError(f"sensor '{self.sensor}' is unknown; choose one of {', '.join(get_args(Sensor))}")
        if self.seed < 0:
            raise ConfigError(f"seed must not be negative, got {self.seed}")


@dataclass(frozen=True, kw_only=True, eq=False)
class SlamSet:
    """A sequence to run on.

    Attributes:
        name: unique among the sets.
        path: what :func:`semkey.datasets.open_sequence` opens.
        format: as there.
        camera: ``fx,fy,cx,cy`` in pixels, None for the data set's own.
        every: use every n-th frame.
        sequence: what was opened there.
    """

    name: str
    path: Path
    sequence: FrameSequence
    format: str = "auto"
    camera: str | None = None
    every: int = 1


@dataclass(frozen=True, kw_only=True)
class SlamMethod:
    """Features by name, with everything that results depend on; JSON-ready."""

    name: str
    fingerprint: Mapping[str, Any]
    weights: tuple[Path, ...] = ()


def slam_sets(
    paths: Sequence[Path | str],
    *,
    every: int = 1,
    format: str = "auto",
    camera: str | None = None,
    names: Sequence[str] | None = None,
) -> list[SlamSet]:
    """Sequences by path; ``PATH@N`` uses every N-th frame of that one.

    Args:
        paths: what :func:`semkey.datasets.open_sequence` opens.
        every: use every n-th frame of those without ``@N``.
        format: of all of them.
        camera: of all of them, ``fx,fy,cx,cy`` in pixels; None for the data sets' own.
        names: what they are called; None for the names of the sequences.

    Raises:
        ConfigError: ``every`` is not positive, or a sequence has no camera.
        DatasetError: one cannot be opened.
    """
    sets: list[SlamSet] = []
    for number, given in enumerate(paths):
        path, step = _split_step(str(given), every)
        if step < 1:
            raise ConfigError(f"{given}: every must be positive, got {step}")
        sequence = open_sequence(path, format=format, camera=None if camera is None else parse_camera(camera))
        if sequence.camera is None:
            raise ConfigError(f"{path}: the camera is not known; pass --camera fx,fy,cx,cy")
        # The folder of a 7-Scenes sequence is called seq-01 in every scene.
        parent = path.resolve().parent.name
        name = f"{parent}/{sequence.name}" if sequence.format == "7scenes" else sequence.name
        name = name if names is None else names[number]
        name = name if step == 1 else f"{name}, every {step}"
        sets.append(SlamSet(name=name, path=path, sequence=sequence, format=format, camera=camera, every=step))
    return sets


def create_slam_methods(
    names: Sequence[str], *, keypoints: int = 1024, device: str = "auto", weights: Sequence[Path] = ()
) -> list[SlamMethod]:
    """Methods by name, before any work: an unknown name or missing weights end the run at once.

    Args:
        names: what :func:`semkey.extractors.create_extractor` takes, or ``cv2-odometry``.
        keypoints: most keypoints of an image.
        device: where networks run.
        weights: folders where released weights are looked for first.

    Raises:
        ConfigError: an unknown name, or one that occurs twice.
        CheckpointError: weights are missing.
    """
    twice = next((name for name in names if list(names).count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"features '{twice}' occur twice")
    if not names:
        raise ConfigError("there are no features to evaluate")
    methods = []
    for name in names:
        if name == CV2_ODOMETRY:
            import cv2

            fingerprint: dict[str, Any] = {"name": name, "versions": {"opencv": cv2.__version__}}
        else:
            method = create_method(name, keypoints=keypoints, device=device, weights=weights)
            fingerprint = {"name": name, "extraction": dict(method.extraction)}
        methods.append(SlamMethod(name=name, fingerprint=fingerprint, weights=tuple(weights)))
    return methods


def run_slam_evaluation(
    methods: Sequence[SlamMethod],
    sets: Sequence[SlamSet],
    config: SlamRunConfig | None = None,
    *,
    out: str | Path,
    options: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Run every method on every sequence, several times.

    Each run's row is appended to ``OUT/rows/METHOD/SET.jsonl`` when it is done, and its trajectory is written to
    ``OUT/trajectories/METHOD/SET/seed-K.txt``. A later call with the same settings and code takes the rows that are
    there, so that an interrupted evaluation goes on, and more ``runs`` are added to those there are.

    Args:
        methods: with unique names.
        sets: with unique names.
        config: default :class:`SlamRunConfig`.
        out: folder for rows and trajectories; made if missing.
        options: how it was set up beside ``config``, for ``results.json``.
        environment: default :func:`describe_environment`.
        progress: told about every run.

    Raises:
        ConfigError: names are not unique, or there is nothing to run.
        InputError: the folder cannot be written to.
    """
    config = config or SlamRunConfig()
    names = [slam_set.name for slam_set in sets]
    if not sets or not methods:
        raise ConfigError("there is nothing to run: give features and sequences")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"sequence '{twice}' occurs twice; names must be unique")
    out = Path(out)
    total = config.runs * len(sets) * len(methods)
    done = 0
    for run in range(config.runs):
        for slam_set in sets:
            for method in methods:
                if progress is not None:
                    progress(done, total, f"{method.name}, {slam_set.name}")
                with _store(out, method, slam_set, config) as store:
                    name = f"seed-{config.seed + run}"
                    if name not in store:
                        store.append(_run(out, method, slam_set, config, config.seed + run))
                done += 1
    if progress is not None:
        progress(done, total, "")
    results: dict[str, dict[str, SetResult]] = {}
    for method in methods:
        results[method.name] = {}
        for slam_set in sets:
            with _store(out, method, slam_set, config) as store:
                rows = [store[f"seed-{config.seed + run}"] for run in range(config.runs)]
            results[method.name][slam_set.name] = summarise_runs(rows)
    return Evaluation(
        kind=KIND,
        options={**asdict(config), **(options or {})},
        environment=describe_environment(config.device) if environment is None else environment,
        methods={method.name: dict(method.fingerprint) for method in methods},
        sets={slam_set.name: _describe(slam_set, config) for slam_set in sets},
        metrics=_metrics(results, is_long=any(_path_length(slam_set.sequence) > _LONG_PATH_M for slam_set in sets)),
        results=results,
        curve_labels=CURVE_LABELS,
    )


def summarise_runs(rows: Sequence[Row]) -> SetResult:
    """Medians over runs, the range of the ATE, and the error over time of the run whose ATE is the median one."""
    names = {name for row in rows for name, value in row.items() if _is_number(value)}
    metrics = {name: _median([row.get(name, math.nan) for row in rows]) for name in sorted(names)}
    errors = [row.get("ate_rmse_m", math.nan) for row in rows]
    if any(not math.isnan(error) for error in errors):
        metrics |= {"ate_lowest_m": float(np.nanmin(errors)), "ate_highest_m": float(np.nanmax(errors))}
    middle = rows[median_run(rows)]
    curves = {"error": Curve(x=middle["error_t"], y=middle["error_m"])} if middle.get("error_t") else {}
    failures = sum(error == math.inf for error in errors)
    kept = [{name: value for name, value in row.items() if name not in ("error_t", "error_m")} for row in rows]
    return SetResult(count=len(rows), failures=failures, metrics=metrics, curves=curves, rows=kept)


def median_run(rows: Sequence[Row]) -> int:
    """Position of the run whose ATE is the median one, the lower of two in the middle."""
    order = sorted(range(len(rows)), key=lambda k: (math.isnan(e := rows[k].get("ate_rmse_m", math.nan)), e, k))
    return order[(len(rows) - 1) // 2]


def trajectory_file(out: Path, method: str, slam_set: str, seed: int) -> Path:
    """Where the trajectory of a run lies."""
    return out / TRAJECTORIES_FOLDER / file_name(method) / file_name(slam_set) / f"seed-{seed}.txt"


def _run(out: Path, method: SlamMethod, slam_set: SlamSet, config: SlamRunConfig, seed: int) -> Row:
    path = trajectory_file(out, method.name, slam_set.name, seed)
    request = {
        "path": str(slam_set.path.resolve()),
        "format": slam_set.format,
        "camera": slam_set.camera,
        "every": slam_set.every,
        "max_frames": config.max_frames,
        "features": method.name,
        "keypoints": config.keypoints,
        "device": config.device,
        "weights": [str(folder) for folder in method.weights],
        "seed": seed,
        "sensor": config.sensor,
        "realtime": config.realtime,
        "trajectory": str(path.resolve()),
    }
    row: Row = {"name": f"seed-{seed}"}
    try:
        row |= measure_in_child(request)
    except SlamRunError as error:
        logger.warning("%s", error)
        row |= {**FAILED, "frames": 0, "tracked": 0.0, "failure": str(error)}
    return row | {"error": row.get("ate_rmse_m", math.nan)}


def _store(out: Path, method: SlamMethod, slam_set: SlamSet, config: SlamRunConfig) -> RowStore:
    sequence = slam_set.sequence
    settings = {name: value for name, value in asdict(config).items() if name not in ("runs", "seed")}
    content = {
        "method": method.fingerprint,
        "kind": KIND,
        "config": settings,
        "set": [slam_set.name, str(slam_set.path.resolve()), slam_set.every, slam_set.camera, slam_set.format],
        "frames": [len(sequence), float(sequence.timestamps.sum()), repr(sequence.camera)],
    }
    return RowStore(out / ROWS_FOLDER, method.name, slam_set.name, content_key(content, _CODE))


def _describe(slam_set: SlamSet, config: SlamRunConfig) -> dict[str, Any]:
    sequence = slam_set.sequence
    frames = len(range(0, len(sequence), slam_set.every)[: config.max_frames])
    camera = sequence.camera
    size = "" if camera is None else f" of {camera.width}x{camera.height}"
    truth = f", path of {_path_length(sequence):.1f} m" if sequence.has_ground_truth else ", no ground truth"
    return {
        "description": f"{sequence.format}, {config.sensor or sequence.sensor}, {frames} frames{size}{truth}",
        "pairs": frames,
    }


def _split_step(given: str, every: int) -> tuple[Path, int]:
    head, at, step = given.rpartition("@")
    if at and step.isdecimal() and not Path(given).exists():
        return Path(head), int(step)
    return Path(given), every


def _path_length(sequence: FrameSequence) -> float:
    positions = [pose[:3, 3] for pose in sequence.ground_truth if pose is not None]
    return float(np.linalg.norm(np.diff(positions, axis=0), axis=1).sum()) if len(positions) > 1 else 0.0


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _median(values: Sequence[float]) -> float:
    """Of the values that are known; of an even number the worse of the middle two is not averaged with infinity."""
    known = sorted(value for value in values if not math.isnan(value))
    if not known:
        return math.nan
    low, high = known[(len(known) - 1) // 2], known[len(known) // 2]
    return high if math.isinf(high) else (low + high) / 2


def _metrics(results: Mapping[str, Mapping[str, SetResult]], *, is_long: bool) -> list[Metric]:
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
        down("rpe_trans_m", "RPE, m", 4, headline=True),
        down("rpe_rot_deg", "RPE, °", 3, headline=True),
        down("drift_percent", "drift, %", 2, headline=is_long),
        Metric(name="fps", label="frames/s", headline=True),
        down("peak_mb", "memory, MB", 0, headline=True),
        down("finish_s", "adjusting the whole map at the end, s", 1),
        down("growth_mb", "memory that the run added, MB", 0),
        count("background_mb", "memory of the largest process beside it, MB"),
        down("ate_lowest_m", "ATE of the best run, m", 4),
        down("ate_highest_m", "ATE of the worst run, m", 4),
        down("ate_live_rmse_m", "ATE of poses as known at their time, m", 4),
        count("scale", "scale to ground truth", 4),
        count("frames", "frames"),
        count("lost_events", "times lost"),
        count("dropped", "frames dropped"),
        count("problems", "problems of the input"),
        count("keyframes", "keyframes kept"),
        count("submaps", "submaps"),
        count("loops", "loops closed"),
        *(count(name, f"{name[6:-3]}, ms per frame", 1) for name in sorted(stages)),
    ]


__all__ = [
    "CURVE_LABELS",
    "KIND",
    "SlamMethod",
    "SlamRunConfig",
    "SlamSet",
    "create_slam_methods",
    "median_run",
    "run_slam_evaluation",
    "slam_sets",
    "summarise_runs",
    "trajectory_file",
]
