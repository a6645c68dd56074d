"""A whole sequence through :class:`semkey.slam.system.Slam`: files, threads, listeners, faults of the input."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from semkey.datasets import BrokenFrame, Frame, FrameSequence, open_sequence
from semkey.datasets.readers.listing import jumped_back
from semkey.datasets.sequence import Sensor
from semkey.errors import ConfigError, DatasetError, check_type
from semkey.extractors import Extractor, as_detector
from semkey.slam.config import SlamConfig
from semkey.slam.events import FrameEvent, KeyframeEvent, ListenerGroup, LoopEvent, SlamListener
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.frames.sensing import choose_sensor
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.pipeline import FramePipeline, PreparedFrame
from semkey.slam.records import FrameRecord, TrackedFrame
from semkey.slam.result import SlamInterrupted, SlamResult
from semkey.slam.system import Slam, feature_name
from semkey.slam.timing import StageTimer

if TYPE_CHECKING:
    from semkey.slam.output.lost_pictures import LostFramePictures

logger = logging.getLogger(__name__)

# Frames that may wait between two stages: enough that one slow keyframe does not stop the others.
_FRAMES_AHEAD = 2


def run_slam(
    sequence: FrameSequence | str | Path,
    detector: Extractor | str | Path,
    config: SlamConfig | None = None,
    *,
    out: str | Path | None = None,
    progress: Callable[[FrameRecord], None] | None = None,
    every: int = 1,
    max_frames: int | None = None,
    sensor: Sensor | None = None,
    listeners: Sequence[SlamListener] = (),
    slam_map: SlamMap | None = None,
    resume: SlamResult | None = None,
    overlap: bool = True,
    realtime: bool = False,
    localize_only: bool = False,
) -> SlamResult:
    """Track a camera through a sequence and map what it sees.

    Every frame is matched to landmarks of nearby keyframes, guided by the predicted pose, and placed by PnP-RANSAC and
    a robust refinement over pixels and depths. The world frame is the camera frame of the first tracked frame.
    Deterministic for a seed, given a deterministic detector, unless ``realtime``.

    A frame that cannot be read has no pose, and the run goes on; ``SlamResult.problems`` says so. So it does of a frame
    whose timestamp does not increase, which is left out.

        result = semkey.run_slam("rgbd_dataset_freiburg3_cabinet", "nano", out="run")

    Args:
        sequence: frames, and their camera, or the path of an input as for :func:`semkey.datasets.open_sequence`.
        detector: features of each frame: an extractor, or the name of one.
        config: settings; None for the defaults.
        out: a folder for the files that ``semkey slam`` writes: trajectories, report, picture; None writes none.
        progress: called with the record of every frame when it is done.
        every: use every n-th frame.
        max_frames: stop after so many used frames; None for all.
        sensor: what to track with: depth images, stereo pairs or single images (whose map has no absolute scale: a unit
            is the median depth of the first landmarks); None takes the best that the input has.
        listeners: hear what happens, see :mod:`semkey.slam.events`.
        slam_map: a map to be found in and to continue, of the same kind of features, which grows; None starts with an
            empty one.
        resume: the result of an earlier part of the same run, with its map: goes on behind its last frame. The
            returned result covers both parts; the given one stays as it is.
        overlap: read and extract frames, in threads, while earlier ones are tracked. The poses are the same without.
        realtime: play the sequence by its timestamps, and drop frames that would come too late.
        localize_only: find the frames in ``slam_map``, which stays as it is.

    Raises:
        DatasetError: the sequence cannot be opened, or has not what ``sensor`` needs.
        ConfigError: it has no camera, the detector is unknown, or ``every`` or ``max_frames`` is not positive.
        InputError: the folder cannot be written.
        SlamInterrupted: the run was interrupted (Ctrl-C); carries the result so far.

    Example:
        >>> import semkey
        >>> result = semkey.run_slam("room", semkey.load("nano", max_keypoints=300), out="run", max_frames=4)
        >>> result.tracked
        4
    """
    if every < 1 or (max_frames is not None and max_frames < 1):
        raise ConfigError(f"every and max_frames must be positive, got {every} and {max_frames}")
    for value, kind, what in ((config, SlamConfig, "config"), (resume, SlamResult, "resume")):
        if value is not None:
            check_type(value, kind, f"{what}=", f"pass a semkey.{kind.__name__}")
    if out is not None:
        from semkey.slam.output.report import check_out_dir

        check_out_dir(Path(out))
    frames = sequence if isinstance(sequence, FrameSequence) else open_sequence(sequence)
    chosen, camera = choose_sensor(frames, sensor)
    frames = frames.limited_to(chosen)
    extractor = as_detector(detector)
    if resume is not None:
        result = resume.copy()
        result.config = config or resume.config
        result.interrupted = False
    else:
        result = SlamResult(
            sequence_name=frames.name,
            sequence_format=frames.format,
            features=feature_name(extractor),
            camera=camera,
            config=config or SlamConfig(),
            sensor=chosen,
            slam_map=slam_map,
            problems=[fault.message for fault in frames.faults],
        )
    done = result.frames[-1].index if result.frames else -1
    indices = [index for index in range(0, len(frames), every)[:max_frames] if index > done]
    _check_clock(frames, indices)
    pictures = None if out is None else _lost_frame_pictures()
    group = ListenerGroup([*listeners, *([] if pictures is None else [pictures])])
    slam = Slam(
        camera, extractor, chosen, frames.baseline, result=result, realtime=realtime, localize_only=localize_only
    )
    ahead = _FRAMES_AHEAD if overlap else 0
    pipeline = FramePipeline(
        frames, lambda frame, timer: slam.observe(frame, timer=timer), indices, ahead=ahead, realtime=realtime
    )
    _run(slam, pipeline, group, progress)
    if out is not None and pictures is not None:
        from semkey.slam.output.saving import save_run

        save_run(result, out, lost_pictures=pictures.pictures)
    if result.interrupted:
        raise SlamInterrupted(result)
    return result


def _check_clock(frames: FrameSequence, indices: Sequence[int]) -> None:
    """Refuse a recording whose clock jumped back: all frames behind would be left out.

    Raises:
        DatasetError: more than a tenth of the frames lie in the past of earlier ones.
    """
    stamps = np.asarray(frames.timestamps, dtype=np.float64)[indices]
    if frames.is_live or not len(stamps):
        return
    late = np.flatnonzero(stamps[1:] < np.fmax.accumulate(stamps)[:-1]) + 1
    if len(late) > max(1, 0.1 * len(stamps)):
        first = late[0]
        raise DatasetError(
            f"{frames.name}: time jumps back at {indices[first]} ({stamps[first - 1]} s to {stamps[first]} s): "
            f"{jumped_back(len(late), len(stamps))}"
        )


def _run(
    slam: Slam,
    pipeline: FramePipeline[ObservedFrame],
    listeners: SlamListener,
    progress: Callable[[FrameRecord], None] | None,
) -> None:
    """Track all frames, and adjust the whole map at the end; Ctrl-C ends the run and is kept in the result."""
    result = slam.result
    start = time.perf_counter() - result.seconds
    listeners.on_start(result, slam.slam_map)
    try:
        with pipeline:
            for prepared in _timed(pipeline, slam.timer):
                tracked = _track(slam, prepared)
                if tracked is None:
                    continue
                with slam.timer.stage("listeners"):
                    _tell(listeners, slam, prepared, tracked)
                slam.timer.end_frame()
                if progress is not None:
                    progress(tracked.record)
                result.tracking_seconds = time.perf_counter() - start
        slam.finish()
    except KeyboardInterrupt:
        result.interrupted = True
    finally:
        slam.close()
        result.seconds = time.perf_counter() - start
        listeners.on_end(result, slam.slam_map)


def _track(slam: Slam, prepared: PreparedFrame[ObservedFrame]) -> TrackedFrame | None:
    """Track one frame, and note what is wrong with it; None where it is left out, since it comes out of order."""
    result, frame = slam.result, prepared.frame
    result.dropped += prepared.dropped
    last = result.frames[-1].timestamp if result.frames else -np.inf
    if not last < frame.timestamp < np.inf:
        problem = f"its time {frame.timestamp:.6f} s is not after that of the last one, {last:.6f} s"
        result.problems.append(f"frame {frame.index}: left out, {problem}")
        result.left_out += 1
        return None
    if isinstance(frame, BrokenFrame):
        result.problems.append(f"frame {frame.index}: {frame.error}")
        logger.warning("frame %d: %s", frame.index, frame.error)
    if prepared.observed is None:
        tracked = slam.skip(frame.index, frame.timestamp)
    else:
        tracked = slam.track_observed(prepared.observed)
    if tracked.T_world_cam is None:
        logger.info("frame %d: %s (%d keypoints)", frame.index, tracked.record.method, tracked.record.keypoints)
    if frame.T_world_cam is not None:
        result.ground_truth[frame.index] = frame.T_world_cam
    return tracked


def _tell(listeners: SlamListener, slam: Slam, prepared: PreparedFrame[ObservedFrame], tracked: TrackedFrame) -> None:
    slam_map = slam.slam_map
    if tracked.is_keyframe:
        listeners.on_keyframe(KeyframeEvent(keyframe=slam_map.tree.newest, slam_map=slam_map))
    if tracked.loop is not None:
        listeners.on_loop(LoopEvent(loop=tracked.loop, slam_map=slam_map))
    listeners.on_frame(
        FrameEvent(
            record=tracked.record,
            frame=prepared.frame if isinstance(prepared.frame, Frame) else None,
            observed=prepared.observed,
            landmark_ids=tracked.landmark_ids,
            slam_map=slam_map,
        )
    )


def _lost_frame_pictures() -> LostFramePictures:
    from semkey.slam.output.lost_pictures import LostFramePictures

    return LostFramePictures()


def _timed(
    frames: Iterable[PreparedFrame[ObservedFrame]], timer: StageTimer
) -> Generator[PreparedFrame[ObservedFrame]]:
    """The frames, with the time that they took and that was waited for them counted."""
    waiting = iter(frames)
    while True:
        start = time.perf_counter()
        prepared = next(waiting, None)
        if prepared is None:
            return
        waited = time.perf_counter() - start
        for stage, seconds in prepared.stage_seconds.items():
            timer.add(stage, seconds)
        timer.add("wait", waited)
        yield prepared
