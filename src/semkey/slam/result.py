"""Everything that a run found out."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.sequence import Sensor
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.trajectories import Trajectory
from semkey.metrics.trajectory import Alignment
from semkey.slam.config import SlamConfig
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.records import FrameRecord, LoopRecord, TrackedFrame

# A frame with fewer keypoints shows too little to be placed by.
_FEW_KEYPOINTS = 20


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


@dataclass(kw_only=True, repr=False)
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
        left_out: frames left out because their time is not after that of the ones before them.
        problems: what was wrong with the input and did not end the run, a line each.
        seconds: wall time of the run.
        tracking_seconds: of it until the last frame was done, without the adjustment of the whole map at the end.
        interrupted: whether the run was stopped before its end.
        slam_map: the map as it was at the end; None before the first frame.
        loops: loops closed and submaps merged, in order.

    Example:
        >>> import semkey
        >>> result = semkey.run_slam("room", "orb", max_frames=3)
        >>> result
        SlamResult(room: 3 of 3 frames tracked, rgbd, orb)
        >>> len(result.trajectory())
        3
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
    left_out: int = 0
    problems: list[str] = field(default_factory=list)

    def __repr__(self) -> str:
        frames = f"{self.tracked} of {len(self.frames)} frames tracked"
        return f"SlamResult({self.sequence_name}: {frames}, {self.sensor}, {self.features})"

    def copy(self) -> SlamResult:
        """The same run, to be gone on with: lists, figures and the map are copies, images' features are shared."""
        return replace(
            self,
            frames=list(self.frames),
            ground_truth=dict(self.ground_truth),
            stage_seconds=dict(self.stage_seconds),
            stage_samples={name: list(samples) for name, samples in self.stage_samples.items()},
            slam_map=None if self.slam_map is None else self.slam_map.copy(),
            loops=list(self.loops),
            problems=list(self.problems),
        )

    def add(self, tracked: TrackedFrame) -> None:
        """Take in a frame that was tracked, and what it has changed about earlier ones."""
        self.frames.append(tracked.record)
        if tracked.late:
            positions = {record.index: k for k, record in enumerate(self.frames)}
            for late in tracked.late:
                self.frames[positions[late.index]] = late
        if tracked.loop is not None:
            self.loops.append(tracked.loop)

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
    def shortfall(self) -> str | None:
        """Why less than half of the frames were tracked, in a sentence; None where it was half or more."""
        lost = [record for record in self.frames if record.T_world_cam is None]
        if 2 * self.tracked >= len(self.frames) and self.tracked:
            return None
        if not self.frames:
            return "there was no frame"
        unreadable = sum(record.method == "unreadable" for record in lost)
        bare = sum(record.keypoints < _FEW_KEYPOINTS for record in lost) - unreadable
        head = f"{self.tracked} of {len(self.frames)} frames were tracked"
        if 2 * unreadable > len(lost):
            return f"{head}: {unreadable} could not be read"
        if 2 * bare > len(lost):
            return f"{head}: {bare} show too little, with fewer than {_FEW_KEYPOINTS} keypoints"
        if self.slam_map is None or not self.slam_map.keyframes:
            needed = "motion seen from the side was" if self.sensor == "mono" else "keypoints with depth were"
            return f"{head}: no map could be started, for which {needed} missing"
        return f"{head}: the others show nothing that could be told from chance to be in the map"

    @property
    def poses(self) -> list[NDArray[np.float64] | None]:
        """T_world_cam (4, 4) for each processed frame by what is known now, None where lost."""
        return [self.pose(record) for record in self.frames]

    def pose(self, record: FrameRecord) -> NDArray[np.float64] | None:
        """T_world_cam (4, 4) of a frame after all corrections of the map, None where lost."""
        if record.reference_keyframe is None or record.T_keyframe_cam is None or self.slam_map is None:
            return record.T_world_cam
        return self.slam_map.tree.absolute_pose(record.reference_keyframe, record.T_keyframe_cam)

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
