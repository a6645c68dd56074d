"""The kind ``slam``: the same back end with different features, on whole sequences, several runs each.

Every run is a process of its own (:mod:`semkey.evaluation.slam.child`) with a seed of its own: 0, 1, 2, ... The
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

from semkey.datasets import Sensor
from semkey.errors import ConfigError
from semkey.evaluation.running.environment import describe_environment
from semkey.evaluation.running.pair_runner import ROWS_FOLDER, Progress
from semkey.evaluation.running.results import Evaluation, Row, SetResult
from semkey.evaluation.running.row_store import RowStore, content_key, file_name
from semkey.evaluation.slam.child import SlamRunError, measure_in_child
from semkey.evaluation.slam.code import code_now, code_of
from semkey.evaluation.slam.measures import FAILED
from semkey.evaluation.slam.methods import SlamMethod
from semkey.evaluation.slam.sets import SlamSet
from semkey.evaluation.slam.summary import slam_metrics, summarise_runs
from semkey.settings import Settings
from semkey.slam.config import SlamConfig

logger = logging.getLogger(__name__)

KIND = "slam"
CURVE_LABELS = {
    "error": ("time from the first true pose, s", "position error, m"),
    "calibration": ("confidence of the covariance (the diagonal is right)", "frames whose error lies within it"),
}
TRAJECTORIES_FOLDER = "trajectories"

_LONG_PATH_M = 50.0
"""Where a true path is longer, drift is a headline metric: it is that of a vehicle."""


@dataclass(frozen=True, kw_only=True)
class SlamRunConfig(Settings):
    """How runs are made.

    Attributes:
        runs: of every method on every sequence, >= 1; run ``k`` has seed ``seed + k``.
        keypoints: most keypoints of an image, >= 1.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        max_frames: stop after so many used frames; None for all.
        sensor: what to track with: ``rgbd``, ``stereo`` or ``mono``; None takes the best that each sequence has.
        realtime: play sequences by their timestamps, and drop frames that would come too late.
        seed: of the first run, >= 0.
        settings: changes of :class:`semkey.slam.config.SlamConfig`, such as ``tracking.min_inliers=20``.

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
    settings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.runs < 1 or self.keypoints < 1 or (self.max_frames is not None and self.max_frames < 1):
            raise ConfigError("runs, keypoints and max_frames must be positive")
        if self.sensor is not None and self.sensor not in get_args(Sensor):
            raise ConfigError(f"sensor '{self.sensor}' is unknown; choose one of {', '.join(get_args(Sensor))}")
        if self.seed < 0:
            raise ConfigError(f"seed must not be negative, got {self.seed}")
        SlamConfig().with_changes(self.settings)

    @property
    def seeds(self) -> range:
        """The seeds of all runs."""
        return range(self.seed, self.seed + self.runs)


def run_slam_evaluation(
    methods: Sequence[SlamMethod],
    sets: Sequence[SlamSet],
    config: SlamRunConfig | None = None,
    *,
    out: str | Path,
    cache: Path | None = None,
    options: Mapping[str, Any] | None = None,
    environment: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Run every method on every sequence, several times.

    Each run's row is appended to ``OUT/rows/METHOD/SET.jsonl`` when it is done, and its trajectory is written to
    ``OUT/trajectories/METHOD/SET/seed-K.txt``. A later call with the same settings and code takes the rows that are
    there, so that an interrupted evaluation goes on, and more ``runs`` are added to those there are. A run that ended
    in an error is tried again. OpenCV's odometry is left out of sequences without depth images.

    Args:
        methods: with unique names.
        sets: with unique names.
        config: default :class:`SlamRunConfig`.
        out: folder for rows and trajectories; made if missing.
        cache: a folder where features are kept for later runs of the same method; None extracts in every run. The first
            run of a method on a sequence always extracts: frames per second and memory are those of such runs alone.
        options: how it was set up beside ``config``, for ``results.json``.
        environment: default :func:`describe_environment`.
        progress: told about every run.

    Raises:
        ConfigError: names are not unique, there is nothing to run, a cache with ``realtime``, or the code of semkey
            was changed meanwhile.
        InputError: the folder cannot be written to.
    """
    config = config or SlamRunConfig()
    _check(methods, sets, config, cache)
    out = Path(out)
    code = code_now()
    jobs = [
        _Job(method=method, slam_set=slam_set, config=config, out=out, key=_key(method, slam_set, config))
        for slam_set in sets
        for method in methods
        if _can_run(method, slam_set, config)
    ]
    total, done = config.runs * len(jobs), 0
    for seed in config.seeds:
        for job in jobs:
            if progress is not None:
                progress(done, total, f"{job.method.name}, {job.slam_set.name}")
            with job.store() as store:
                if not _is_done(store, seed):
                    row = job.run(seed, cache, read_cache=_has_time(store, config))
                    if code_now() != code:
                        raise ConfigError(
                            "semkey's code was changed while it was being measured; start again: what was done before "
                            "and still holds is kept"
                        )
                    store.append(row)
            done += 1
    if progress is not None:
        progress(done, total, "")
    results: dict[str, dict[str, SetResult]] = {method.name: {} for method in methods}
    for job in jobs:
        with job.store() as store:
            rows = [store[_row_name(seed)] for seed in config.seeds]
        results[job.method.name][job.slam_set.name] = summarise_runs(rows)
    has_long_path = any(slam_set.path_length > _LONG_PATH_M for slam_set in sets)
    return Evaluation(
        kind=KIND,
        options={**asdict(config), "cache": cache is not None, **(options or {})},
        environment=describe_environment(config.device) if environment is None else environment,
        methods={method.name: dict(method.fingerprint) for method in methods},
        sets={
            slam_set.name: {
                "description": slam_set.describe(max_frames=config.max_frames, sensor=config.sensor),
                "pairs": slam_set.frames(config.max_frames),
            }
            for slam_set in sets
        },
        metrics=slam_metrics(results, runs=config.runs, has_long_path=has_long_path),
        results=results,
        curve_labels=CURVE_LABELS,
    )


def trajectory_file(out: Path, method: str, slam_set: str, seed: int) -> Path:
    """Where the trajectory of a run lies."""
    return out / TRAJECTORIES_FOLDER / file_name(method) / file_name(slam_set) / f"seed-{seed}.txt"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Job:
    """One method on one sequence; ``key`` is taken before the first run, since the code may change meanwhile."""

    method: SlamMethod
    slam_set: SlamSet
    config: SlamRunConfig
    out: Path
    key: str

    def store(self) -> RowStore:
        """The rows of its runs."""
        return RowStore(self.out / ROWS_FOLDER, self.method.name, self.slam_set.name, self.key)

    def run(self, seed: int, cache: Path | None, *, read_cache: bool) -> Row:
        """The row of one run."""
        method, slam_set, config = self.method, self.slam_set, self.config
        request = {
            "path": str(slam_set.path.resolve()),
            "format": slam_set.format,
            "camera": slam_set.camera,
            "every": slam_set.every,
            "max_frames": config.max_frames,
            "features": method.features,
            "lines": method.lines,
            "keypoints": config.keypoints,
            "device": config.device,
            "runtime": method.runtime,
            "weights": [str(folder.resolve()) for folder in method.weights],
            "seed": seed,
            "sensor": config.sensor,
            "realtime": config.realtime,
            "settings": [*method.settings, *config.settings],
            "cache": None if cache is None else str(cache.resolve()),
            "read_cache": read_cache,
            "trajectory": str(trajectory_file(self.out, method.name, slam_set.name, seed).resolve()),
        }
        row: Row = {"name": _row_name(seed)}
        try:
            row |= measure_in_child(request)
        except SlamRunError as error:
            logger.warning("%s", error)
            row |= {**FAILED, "frames": 0, "tracked": 0.0, "failure": str(error)}
        return row | {"error": row.get("ate_rmse_m", math.nan)}


def _check(methods: Sequence[SlamMethod], sets: Sequence[SlamSet], config: SlamRunConfig, cache: Path | None) -> None:
    names = [slam_set.name for slam_set in sets]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"sequence '{twice}' occurs twice; names must be unique")
    if not any(_can_run(method, slam_set, config) for method in methods for slam_set in sets):
        raise ConfigError("there is nothing to run: give features and sequences (OpenCV's odometry needs depth images)")
    if cache is not None and config.realtime:
        raise ConfigError("features from a cache come too fast to be measured in real time")


def _can_run(method: SlamMethod, slam_set: SlamSet, config: SlamRunConfig) -> bool:
    return not method.is_opencv or slam_set.has_depth(config.sensor)


def _row_name(seed: int) -> str:
    return f"seed-{seed}"


def _is_done(store: RowStore, seed: int) -> bool:
    """Whether a run is there that ended without an error: what killed it may have had nothing to do with it."""
    return _row_name(seed) in store and "failure" not in store[_row_name(seed)]


def _has_time(store: RowStore, config: SlamRunConfig) -> bool:
    """Whether one of the runs extracted its features, so that its frames per second are known."""
    rows = [store[_row_name(seed)] for seed in config.seeds if _row_name(seed) in store]
    return any(not math.isnan(row.get("fps", math.nan)) for row in rows)


def _key(method: SlamMethod, slam_set: SlamSet, config: SlamRunConfig) -> str:
    """A hash of everything that the rows of a method on a sequence depend on, but for the pixels of the images."""
    sequence = slam_set.sequence
    content = {
        "method": method.fingerprint,
        "kind": KIND,
        "config": {name: value for name, value in asdict(config).items() if name not in ("runs", "seed")},
        # A data set may be moved as a whole; the folder's own name holds what a rendered room was made from.
        "set": [slam_set.name, slam_set.path.resolve().name, slam_set.every, slam_set.camera, slam_set.format],
        "frames": [len(sequence), float(sequence.timestamps.sum()), repr(sequence.camera), slam_set.path_length],
        "running": code_of(method),
    }
    return content_key(content, ())


__all__ = ["CURVE_LABELS", "KIND", "SlamRunConfig", "run_slam_evaluation", "trajectory_file"]
