"""One run of SLAM in a process of its own: its memory is its own, and a crash ends one run and not all.

The process makes the extractor, extracts once (what libraries set up on first use is no frame's time), notes its
resident memory, and runs. It ends when the process that started it does.
"""

from __future__ import annotations

import resource
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from semkey.errors import SemkeyError
from semkey.evaluation.running.memory import peak_bytes, reset_peak, resident_bytes
from semkey.evaluation.running.question import NoAnswerError, answer, ask
from semkey.evaluation.running.results import Row, plain, row_from_json

if TYPE_CHECKING:
    from semkey.datasets import FrameSequence
    from semkey.evaluation.slam.extraction import CachedExtractor
    from semkey.extractors import Extractor

_MEGABYTE = 1e6
# What features from a cache say nothing about.
_OF_EXTRACTION = ("fps", "peak_mb", "growth_mb", "stage_extract_ms", "stage_wait_ms")
# The process is tuned before numpy and torch are loaded: they read their settings then.
_START = """
from semkey.runtime import tune_process
tune_process()
from semkey.evaluation.slam.child import main
main()
"""


class SlamRunError(SemkeyError):
    """The process of a run failed; the message holds its last line."""


def measure_in_child(request: Mapping[str, Any]) -> Row:
    """Run what ``request`` says and return its measures.

    Args:
        request: ``path``, ``format``, ``camera`` (``fx,fy,cx,cy`` or None), ``every``, ``max_frames``, ``sensor`` (None
            for the best that the data offer), ``features``, ``lines`` (whether line segments are used), ``keypoints``,
            ``device``, ``runtime``, ``weights`` (folders), ``seed``, ``realtime``, ``settings`` (changes of
            ``SlamConfig``), ``cache`` (a folder for features, or None),
            ``read_cache`` (whether features that are there are taken), and ``trajectory`` (a file to write it to).

    Raises:
        SlamRunError: it failed; the message says why.
        KeyboardInterrupt: somebody asked the process to end: that says nothing about the run.
    """
    try:
        return row_from_json(ask(_START, request))
    except NoAnswerError as error:
        raise SlamRunError(f"{request['features']} on {request['path']}: {error}") from None


def measure_here(request: Mapping[str, Any]) -> Row:
    """What the process does: see :func:`measure_in_child`."""
    from semkey.datasets import open_sequence, parse_camera
    from semkey.evaluation.slam import cv2_odometry
    from semkey.geometry.trajectories import write_tum_trajectory

    camera = None if request["camera"] is None else parse_camera(request["camera"])
    sequence = open_sequence(request["path"], format=request["format"], camera=camera)
    if request["features"] == cv2_odometry.NAME:
        row, trajectory = _run_opencv(sequence, request)
    else:
        row, trajectory = _run_slam(sequence, request)
    write_tum_trajectory(request["trajectory"], trajectory)
    return row


def _run_slam(sequence: FrameSequence, request: Mapping[str, Any]) -> tuple[Row, Any]:
    from semkey.evaluation.slam.map_measures import measure_map
    from semkey.evaluation.slam.measures import measure_run
    from semkey.evaluation.slam.uncertainty import UncertaintyListener
    from semkey.slam import SlamConfig, run_slam
    from semkey.slam.config import LineConfig

    uncertainty = UncertaintyListener()
    extractor, cached = _extractor(request)
    extractor.extract(sequence[0].image)
    hits_before = 0 if cached is None else cached.hits
    before = _start_of_memory()
    result = run_slam(
        sequence,
        extractor,
        SlamConfig(seed=request["seed"], lines=LineConfig(enabled=request["lines"])).with_changes(request["settings"]),
        every=request["every"],
        max_frames=request["max_frames"],
        sensor=request["sensor"],
        realtime=request["realtime"],
        listeners=[uncertainty],
    )
    memory = _memory_since(before)
    frames = max(len(result.frames), 1)
    slam_map = result.slam_map
    row: Row = {
        "frames": len(result.frames),
        "tracked": result.tracked / frames,
        "fps": len(result.frames) / result.tracking_seconds if result.tracking_seconds > 0 else 0.0,
        "finish_s": result.seconds - result.tracking_seconds,
        **memory,
        "lost_events": len(result.lost_events),
        "dropped": result.dropped,
        "problems": len(result.problems),
        "keyframes": 0 if slam_map is None else len(slam_map.keyframes),
        "submaps": 0 if slam_map is None else len({keyframe.submap for keyframe in slam_map.keyframes.values()}),
        "loops": sum(loop.kind == "loop" for loop in result.loops),
        "merges": sum(loop.kind == "merge" for loop in result.loops),
        "alignment": result.alignment,
        **measure_map(result),
        # Without a metric scale errors in metres say nothing about a covariance in map units.
        **({} if result.sensor == "mono" else uncertainty.measures()),
        **{f"stage_{name}_ms": 1000.0 * seconds / frames for name, seconds in result.stage_seconds.items()},
    }
    if slam_map is not None and slam_map.lines is not None:
        row["map_lines"] = len(slam_map.lines)
    if cached is not None and cached.hits > hits_before:
        row = {name: value for name, value in row.items() if name not in _OF_EXTRACTION} | {"extraction": "cached"}
    measures = measure_run(
        result.trajectory(),
        result.ground_truth_trajectory(),
        alignment=result.alignment,
        live=result.live_trajectory(),
    )
    return row | measures, result.trajectory()


def _extractor(request: Mapping[str, Any]) -> tuple[Extractor, CachedExtractor | None]:
    """The extractor, and the same once more where it keeps its features in a cache."""
    from semkey.evaluation.slam.extraction import CachedExtractor
    from semkey.evaluation.slam.methods import create_features
    from semkey.extractors import create_extractor
    from semkey.extractors.places import split_places
    from semkey.extractors.registry import is_own

    name, keypoints, device = request["features"], request["keypoints"], request["device"]
    runtime = request["runtime"]
    weights = [Path(folder) for folder in request["weights"]]
    # Descriptors of lines are sampled from the map that keypoints come from, which no cache has.
    if request["cache"] is None or request["lines"]:
        own = runtime if is_own(split_places(name)[0]) else "torch"
        return create_extractor(name, max_keypoints=keypoints, device=device, weights=weights, runtime=own), None
    method = create_features(name, keypoints=keypoints, device=device, weights=weights, runtime=runtime)
    cached = CachedExtractor(method, Path(request["cache"]), read=request["read_cache"])
    return cached, cached


def _run_opencv(sequence: FrameSequence, request: Mapping[str, Any]) -> tuple[Row, Any]:
    import numpy as np

    from semkey.evaluation.slam.cv2_odometry import run_cv2_odometry
    from semkey.evaluation.slam.measures import measure_run
    from semkey.geometry.trajectories import Trajectory

    before = _start_of_memory()
    indices = range(0, len(sequence), request["every"])[: request["max_frames"]]
    run = run_cv2_odometry(sequence, indices)
    memory = _memory_since(before)
    kept = [k for k, pose in enumerate(run.poses) if pose is not None]
    known = [k for k in indices if sequence.ground_truth[k] is not None]
    estimated = Trajectory(
        np.array([run.timestamps[k] for k in kept]), np.array([run.poses[k] for k in kept]).reshape(-1, 4, 4)
    )
    truth = Trajectory(
        np.array([float(sequence.timestamps[k]) for k in known]),
        np.array([sequence.ground_truth[k] for k in known]).reshape(-1, 4, 4),
    )
    frames = max(len(run.poses), 1)
    row: Row = {
        "frames": len(run.poses),
        "tracked": len(kept) / frames,
        "fps": len(run.poses) / run.seconds if run.seconds > 0 else 0.0,
        **memory,
        "alignment": "se3",
        **{f"stage_{name}_ms": 1000.0 * seconds / frames for name, seconds in run.stage_seconds.items()},
    }
    return row | measure_run(estimated, truth, alignment="se3"), estimated


def _start_of_memory() -> int | None:
    reset_peak()
    return resident_bytes()


def _memory_since(before: int | None) -> dict[str, float | None]:
    """MB (10^6 bytes): the peak of the process, of it since the run began, and of the largest process it started."""
    peak = peak_bytes()
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    return {
        "peak_mb": None if peak is None else peak / _MEGABYTE,
        "growth_mb": None if peak is None or before is None else max(0, peak - before) / _MEGABYTE,
        "background_mb": children / _MEGABYTE,
    }


def main() -> None:
    """The process."""
    answer(lambda request: plain(measure_here(request)))
