"""SLAM over a whole sequence."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from semkey.datasets import BrokenFrame, Frame, FrameSequence
from semkey.datasets.sequence import Sensor
from semkey.errors import ConfigError
from semkey.extractors import Extractor
from semkey.geometry.camera import PinholeCamera
from semkey.metrics.trajectory import Alignment, Trajectory
from semkey.slam.config import SlamConfig, image_scale
from semkey.slam.events import FrameEvent, KeyframeEvent, LoopEvent, LoopRecord, ObserverGroup, SlamObserver
from semkey.slam.keyframe import ObservedFrame
from semkey.slam.lines import SegmentExtractor
from semkey.slam.local_mapping import LocalMapping
from semkey.slam.map import SlamMap
from semkey.slam.pipeline import FramePipeline, PreparedFrame
from semkey.slam.records import FrameRecord
from semkey.slam.sensing import Observe, choose_sensor, make_observer
from semkey.slam.timing import StageTimer
from semkey.slam.tracker import Tracker

logger = logging.getLogger(__name__)

# Frames that may wait between two stages: enough that a slow keyframe holds nobody up at once.
_FRAMES_AHEAD = 2


@dataclass(frozen=True, kw_only=True)
class LostEvent:
    """A stretch of frames without a pose.

    Attributes:
        first_frame: index of the first lost frame.
        last_frame: index of the last lost frame.
        recovered: how it ended: ``relocalised`` (the old map was found again), ``new submap`` (it was not, and the
            next pose continues at the last known one), ``tracked on`` (only frames that could not be read were missing)
            or ``not`` (the run ended lost).
    """

    first_frame: int
    last_frame: int
    recovered: str


@dataclass(kw_only=True)
class SlamResult:
    """Everything that a run found out.

    Attributes:
        sequence_name: name of the input.
        sequence_format: its format.
        features: name of the extractor.
        camera: of the input.
        config: settings of the run.
        sensor: what was tracked with; the poses of ``mono`` have no absolute scale.
        frames: one record for each processed frame, in order, lost ones too.
        ground_truth: poses T_world_cam (4, 4) of processed frames that have one, by frame index.
        stage_seconds: wall time by stage, seconds. Reading and extraction run ahead of the other stages and at the same
            time; ``wait`` is how long those waited for them.
        stage_samples: by stage, its seconds in each frame that had it.
        dropped: frames left out because time ran short (only with ``realtime``).
        problems: what was wrong with the input and did not end the run, a line each.
        seconds: wall time of the run.
        tracking_seconds: of it until the last frame was done, without the adjustment of the whole map at the end.
        interrupted: whether the run was stopped before its end.
        slam_map: the map as it was at the end; None before the first frame.
        loops: loops closed and submaps merged, in order.
    """

    sequence_name: str
    sequence_format: str
    features: str
    camera: PinholeCamera
    config: SlamConfig
    sensor: Sensor = "rgbd"
    frames: list[FrameRecord] = field(default_factory=list)
    ground_truth: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    stage_seconds: dict[str, float] = field(default_factory=dict)
    stage_samples: dict[str, list[float]] = field(default_factory=dict)
    seconds: float = 0.0
    tracking_seconds: float = 0.0
    interrupted: bool = False
    slam_map: SlamMap | None = None
    loops: list[LoopRecord] = field(default_factory=list)
    dropped: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def alignment(self) -> Alignment:
        """How the trajectory is laid on ground truth to be judged: with a scale of its own where it has none."""
        return "sim3" if self.sensor == "mono" else "se3"

    @property
    def keyframe_indices(self) -> list[int]:
        """Frame indices of the keyframes."""
        return [record.index for record in self.frames if record.is_keyframe]

    @property
    def tracked(self) -> int:
        """Number of frames with a pose."""
        return sum(record.T_world_cam is not None for record in self.frames)

    @property
    def poses(self) -> list[NDArray[np.float64] | None]:
        """T_world_cam (4, 4) for each processed frame by what is known now, None where lost."""
        return [self.pose(record) for record in self.frames]

    def pose(self, record: FrameRecord) -> NDArray[np.float64] | None:
        """T_world_cam (4, 4) of a frame after all corrections of the map, None where lost."""
        if record.reference_keyframe is None or record.T_keyframe_cam is None or self.slam_map is None:
            return record.T_world_cam
        return self.slam_map.absolute_pose(record.reference_keyframe, record.T_keyframe_cam)

    @property
    def lost_events(self) -> list[LostEvent]:
        """The stretches of lost frames, in order."""
        events: list[LostEvent] = []
        stretch: list[FrameRecord] = []
        for record in self.frames:
            if record.T_world_cam is None:
                stretch.append(record)
            elif stretch:
                ended = {"start": "new submap", "relocalised": "relocalised"}
                events.append(_lost_event(stretch, ended.get(record.method, "tracked on")))
                stretch = []
        if stretch:
            events.append(_lost_event(stretch, "not"))
        return events

    def trajectory(self) -> Trajectory:
        """The poses of all tracked frames, after all corrections of the map.

        Frames whose timestamp does not increase are left out, since a trajectory is a function of time.
        """
        return _trajectory((record.timestamp, self.pose(record)) for record in self.frames)

    def live_trajectory(self) -> Trajectory:
        """The poses of all tracked frames as they were known at their time."""
        return _trajectory((record.timestamp, record.T_world_cam) for record in self.frames)

    def ground_truth_trajectory(self) -> Trajectory:
        """The ground-truth poses of the processed frames; empty where the input has none."""
        return _trajectory((record.timestamp, self.ground_truth.get(record.index)) for record in self.frames)


class SlamInterrupted(KeyboardInterrupt):
    """An interrupt during :func:`run_slam`; ``result`` holds the frames done before it."""

    def __init__(self, result: SlamResult) -> None:
        super().__init__("the run was interrupted")
        self.result = result


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


def _lost_event(stretch: list[FrameRecord], recovered: str) -> LostEvent:
    return LostEvent(first_frame=stretch[0].index, last_frame=stretch[-1].index, recovered=recovered)


def _trajectory(rows: Iterable[tuple[float, NDArray[np.float64] | None]]) -> Trajectory:
    timestamps: list[float] = []
    poses: list[NDArray[np.float64]] = []
    for timestamp, pose in rows:
        if pose is not None and (not timestamps or timestamp > timestamps[-1]):
            timestamps.append(timestamp)
            poses.append(pose)
    return Trajectory(np.array(timestamps), np.stack(poses) if poses else np.zeros((0, 4, 4)))
