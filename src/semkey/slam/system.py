"""SLAM over a whole sequence."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace

import numpy as np

from semkey.datasets import BrokenFrame, Frame, FrameSequence
from semkey.datasets.sequence import Sensor
from semkey.errors import ConfigError
from semkey.extractors import Extractor
from semkey.slam.config import SlamConfig, image_scale
from semkey.slam.events import FrameEvent, KeyframeEvent, LoopEvent, ObserverGroup, SlamObserver
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.frames.segments import SegmentExtractor
from semkey.slam.frames.sensing import Observe, choose_sensor, make_observer
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.mapping.local_mapping import LocalMapping
from semkey.slam.pipeline import FramePipeline, PreparedFrame
from semkey.slam.records import FrameRecord
from semkey.slam.result import SlamInterrupted, SlamResult
from semkey.slam.timing import StageTimer
from semkey.slam.tracking.tracker import Tracker

logger = logging.getLogger(__name__)

# Frames that may wait between two stages: enough that a slow keyframe holds nobody up at once.
_FRAMES_AHEAD = 2


def run_slam(
    sequence: FrameSequence,
    extractor: Extractor,
    config: SlamConfig | None = None,
    progress: Callable[[FrameRecord], None] | None = None,
    *,
    every: int = 1,
    max_frames: int | None = None,
    sensor: Sensor | None = None,
    observers: Sequence[SlamObserver] = (),
    slam_map: SlamMap | None = None,
    resume: SlamResult | None = None,
    overlap: bool = True,
    realtime: bool = False,
) -> SlamResult:
    """Track a camera through a sequence and map what it sees.

    Every frame is matched to landmarks of nearby keyframes, guided by the predicted pose, and placed by PnP-RANSAC and
    a robust refinement over pixels and depths. The world frame is the camera frame of the first tracked frame.
    Deterministic for a seed, given a deterministic extractor, unless ``realtime``.

    A frame that cannot be read has no pose, and the run goes on; ``SlamResult.problems`` says so. So it does of a frame
    whose timestamp does not increase, which is left out.

    Args:
        sequence: frames, and their camera.
        extractor: features of each frame.
        config: settings; None for the defaults.
        progress: called with the record of every frame when it is done.
        every: use every n-th frame.
        max_frames: stop after so many used frames; None for all.
        sensor: what to track with: depth images, stereo pairs or single images (whose map has no absolute scale: a unit
            is the median depth of the first landmarks); None takes the best that the input has.
        observers: told what happens, see :mod:`semkey.slam.events`.
        slam_map: a map to be found in and to continue, of the same kind of features; None starts with an empty one.
        resume: the result of an earlier part of the same run, with its map: goes on behind its last frame, and the
            returned result covers both parts.
        overlap: read and extract frames, in threads, while earlier ones are tracked. The poses are the same without.
        realtime: play the sequence by its timestamps, and drop frames that would come too late.

    Raises:
        DatasetError: the sequence has not what ``sensor`` needs.
        ConfigError: it has no camera, or ``every`` or ``max_frames`` is not positive.
        SlamInterrupted: the run was interrupted (Ctrl-C); carries the result so far.
    """
    config = config or SlamConfig()
    chosen, camera = choose_sensor(sequence, sensor)
    sequence = sequence.limited_to(chosen)
    observe = make_observer(sequence, chosen, config)
    if every < 1 or (max_frames is not None and max_frames < 1):
        raise ConfigError(f"every and max_frames must be positive, got {every} and {max_frames}")
    if resume is not None:
        slam_map = resume.slam_map
    if slam_map is None:
        slam_map = SlamMap(camera, config.map, pixel_sigma=config.tracking.pixel_sigma * image_scale(camera))
    result = resume or SlamResult(
        sequence_name=sequence.name,
        sequence_format=sequence.format,
        features=extractor.name,
        camera=camera,
        config=config,
        sensor=chosen,
        slam_map=slam_map,
        problems=[fault.message for fault in sequence.faults],
    )
    if config.lines.enabled and not isinstance(extractor, SegmentExtractor):
        extractor = SegmentExtractor(extractor, config.lines)
    result.interrupted = False
    timer = StageTimer(result.stage_seconds, result.stage_samples)
    map_config, distortion_sigma = config.map, 0.0
    if chosen == "mono":
        mono = config.mono
        counts = {"adjusted_landmarks": mono.adjusted_landmarks, "adjustment_iterations": mono.adjustment_iterations}
        map_config, distortion_sigma = replace(config.map, **counts), mono.distortion_sigma
    mapping = LocalMapping(slam_map, map_config, timer, realtime=realtime, distortion_sigma=distortion_sigma)
    tracker = Tracker(slam_map, mapping, config, timer, sensor=chosen)
    tracker.follow(result.frames)
    told = ObserverGroup(observers)
    done = result.frames[-1].index if result.frames else -1
    indices = [index for index in range(0, len(sequence), every)[:max_frames] if index > done]
    start = time.perf_counter() - result.seconds
    told.on_start(result, slam_map)
    try:
        with _frames(sequence, extractor, observe, indices, overlap=overlap, realtime=realtime) as frames:
            for prepared in _timed(frames, timer):
                frame, observed = prepared.frame, prepared.observed
                result.dropped += prepared.dropped
                last = result.frames[-1].timestamp if result.frames else -np.inf
                if not last < frame.timestamp < np.inf:
                    problem = f"its time {frame.timestamp:.6f} s is not after that of the last one, {last:.6f} s"
                    result.problems.append(f"frame {frame.index}: left out, {problem}")
                    continue
                if isinstance(frame, BrokenFrame):
                    result.problems.append(f"frame {frame.index}: {frame.error}")
                    logger.warning("frame %d: %s", frame.index, frame.error)
                record = tracker.skip(frame.index, frame.timestamp) if observed is None else tracker.track(observed)
                if record.T_world_cam is None:
                    logger.info("frame %d: %s (%d keypoints)", frame.index, record.method, record.keypoints)
                result.frames.append(record)
                for late in tracker.take_late_records():
                    positions = {known.index: k for k, known in enumerate(result.frames)}
                    result.frames[positions[late.index]] = late
                if frame.T_world_cam is not None:
                    result.ground_truth[frame.index] = frame.T_world_cam
                if tracker.loop is not None:
                    result.loops.append(tracker.loop)
                with timer.stage("observers"):
                    if record.is_keyframe:
                        told.on_keyframe(KeyframeEvent(keyframe=slam_map.newest, slam_map=slam_map))
                    if tracker.loop is not None:
                        told.on_loop(LoopEvent(loop=tracker.loop, slam_map=slam_map))
                    told.on_frame(
                        FrameEvent(
                            record=record,
                            frame=frame if isinstance(frame, Frame) else None,
                            observed=observed,
                            landmark_ids=tracker.tracked_landmarks,
                            slam_map=slam_map,
                        )
                    )
                timer.end_frame()
                if progress is not None:
                    progress(record)
                result.tracking_seconds = time.perf_counter() - start
        mapping.finish()
    except KeyboardInterrupt:
        result.interrupted = True
    finally:
        mapping.close()
        result.seconds = time.perf_counter() - start
        told.on_end(result, slam_map)
    if result.interrupted:
        raise SlamInterrupted(result)
    return result


def _frames(
    sequence: FrameSequence,
    extractor: Extractor,
    observe: Observe,
    indices: Sequence[int],
    *,
    overlap: bool,
    realtime: bool,
) -> FramePipeline[ObservedFrame]:
    """The frames with their features and depths, prepared ahead of tracking if ``overlap``."""

    def prepare(frame: Frame, timer: StageTimer) -> ObservedFrame:
        with timer.stage("extract"):
            features = extractor.extract(frame.image)
        with timer.stage("depth"):
            return observe(frame, features)

    return FramePipeline(sequence, prepare, indices, ahead=_FRAMES_AHEAD if overlap else 0, realtime=realtime)


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
