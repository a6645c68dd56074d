"""SLAM over a whole sequence."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from semkey.datasets import Frame, FrameSequence
from semkey.errors import ConfigError, DatasetError
from semkey.extractors import Extractor
from semkey.geometry.camera import PinholeCamera
from semkey.metrics.trajectory import Trajectory
from semkey.model.features import Features
from semkey.slam.config import SlamConfig
from semkey.slam.events import FrameEvent, KeyframeEvent, LoopEvent, LoopRecord, ObserverGroup, SlamObserver
from semkey.slam.keyframe import ObservedFrame, observe_frame
from semkey.slam.line_matching import observe_lines
from semkey.slam.lines import FeaturesWithSegments, SegmentExtractor
from semkey.slam.local_mapping import LocalMapping
from semkey.slam.map import SlamMap
from semkey.slam.timing import StageTimer
from semkey.slam.tracker import FrameRecord, Tracker, image_scale

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LostEvent:
    """A stretch of frames without a pose.

    Attributes:
        first_frame: index of the first lost frame.
        last_frame: index of the last lost frame.
        recovered: how it ended: ``relocalised`` (the old map was found again), ``new submap`` (it was not, and the
            next pose continues at the last known one) or ``not`` (the run ended lost).
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
        frames: one record for each processed frame, in order, lost ones too.
        ground_truth: poses T_world_cam (4, 4) of processed frames that have one, by frame index.
        stage_seconds: wall time by stage, seconds.
        seconds: wall time of the run.
        interrupted: whether the run was stopped before its end.
        slam_map: the map as it was at the end; None before the first frame.
        loops: loops that were closed and submaps that were merged, in order.
    """

    sequence_name: str
    sequence_format: str
    features: str
    camera: PinholeCamera
    config: SlamConfig
    frames: list[FrameRecord] = field(default_factory=list)
    ground_truth: dict[int, NDArray[np.float64]] = field(default_factory=dict)
    stage_seconds: dict[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    interrupted: bool = False
    slam_map: SlamMap | None = None
    loops: list[LoopRecord] = field(default_factory=list)

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
                recovered = "new submap" if record.method == "start" else "relocalised"
                events.append(_lost_event(stretch, recovered))
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
    observers: Sequence[SlamObserver] = (),
) -> SlamResult:
    """Track an RGB-D camera through a sequence and map what it sees.

    Every frame is matched to landmarks of nearby keyframes, guided by the predicted pose, and placed by PnP-RANSAC and
    a robust refinement over pixels and depths. The world frame is the camera frame of the first tracked frame.
    Deterministic for a seed, given a deterministic extractor.

    Args:
        sequence: frames with depth, and a camera.
        extractor: features of each frame.
        config: settings; None for the defaults.
        progress: called with the record of every frame when it is done.
        every: use every n-th frame.
        max_frames: stop after so many used frames; None for all.
        observers: told what happens, see :mod:`semkey.slam.events`.

    Raises:
        DatasetError: the sequence has no depth.
        ConfigError: it has no camera, or ``every`` or ``max_frames`` is not positive.
        SlamInterrupted: the run was interrupted (Ctrl-C); carries the result so far.
    """
    config = config or SlamConfig()
    camera = require_rgbd(sequence)
    if every < 1 or (max_frames is not None and max_frames < 1):
        raise ConfigError(f"every and max_frames must be positive, got {every} and {max_frames}")
    slam_map = SlamMap(camera, config.map, pixel_sigma=config.tracking.pixel_sigma * image_scale(camera))
    result = SlamResult(
        sequence_name=sequence.name,
        sequence_format=sequence.format,
        features=extractor.name,
        camera=camera,
        config=config,
        slam_map=slam_map,
    )
    if config.lines.enabled and not isinstance(extractor, SegmentExtractor):
        extractor = SegmentExtractor(extractor, config.lines)
    timer = StageTimer()
    mapping = LocalMapping(slam_map, config.map, timer)
    tracker = Tracker(slam_map, mapping, config, timer)
    told = ObserverGroup(observers)
    start = time.perf_counter()
    told.on_start(result, slam_map)
    try:
        for index in range(0, len(sequence), every)[:max_frames]:
            with timer.stage("read"):
                frame = sequence[index]
            with timer.stage("extract"):
                features = extractor.extract(frame.image)
            with timer.stage("depth"):
                observed = _observe(sequence, frame, features, config)
            record = tracker.track(observed)
            if record.T_world_cam is None:
                logger.info("frame %d: lost (%d keypoints)", index, record.keypoints)
            result.frames.append(record)
            if frame.T_world_cam is not None:
                result.ground_truth[index] = frame.T_world_cam
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
                        frame=frame,
                        observed=observed,
                        landmark_ids=tracker.tracked_landmarks,
                        slam_map=slam_map,
                    )
                )
            if progress is not None:
                progress(record)
        mapping.finish()
    except KeyboardInterrupt:
        result.interrupted = True
    finally:
        mapping.close()
        result.seconds = time.perf_counter() - start
        result.stage_seconds = dict(timer.seconds)
        told.on_end(result, slam_map)
    if result.interrupted:
        raise SlamInterrupted(result)
    return result


def _observe(sequence: FrameSequence, frame: Frame, features: Features, config: SlamConfig) -> ObservedFrame:
    """The arrays that tracking works on; where depth comes from depends on the sensor."""
    if frame.depth is None:
        raise DatasetError(f"{sequence.name}: frame {frame.index} has no depth; RGB-D SLAM needs it")
    limits = {"min_depth": config.tracking.min_depth, "max_depth": config.tracking.max_depth}
    observed = observe_frame(frame.index, frame.timestamp, features, frame.depth, **limits)
    if isinstance(features, FeaturesWithSegments):
        assert sequence.camera is not None
        observed = replace(observed, lines=observe_lines(features.segments, frame.depth, sequence.camera, **limits))
    return observed


def require_rgbd(sequence: FrameSequence) -> PinholeCamera:
    """The camera of a sequence that SLAM can run on.

    Raises:
        DatasetError: the sequence has no depth.
        ConfigError: it has no camera.
    """
    if not sequence.has_depth:
        raise DatasetError(
            f"{sequence.name}: no depth in this input (format {sequence.format}); SLAM needs RGB-D, "
            "as in the formats tum and 7scenes"
        )
    if sequence.camera is None:
        raise ConfigError(f"{sequence.name}: the camera is not known; pass --camera fx,fy,cx,cy")
    return sequence.camera


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
