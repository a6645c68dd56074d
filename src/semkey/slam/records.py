"""What became of each frame and keyframe, and which loops were closed: plain numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

#: What a frame is to somebody who moves the camera: ``tracking`` (it has a pose), ``relocalised`` (it has one again,
#: after a loss or in a loaded map), ``lost`` or ``initialising`` (there is no map yet, and no pose).
FrameStatus = Literal["tracking", "relocalised", "lost", "initialising"]


@dataclass(frozen=True, kw_only=True)
class FrameRecord:
    """What became of one frame.

    Attributes:
        index: position in the sequence.
        timestamp: seconds.
        T_world_cam: (4, 4) pose as it was known when the frame was done, None where tracking was lost.
        reference_keyframe: id of the keyframe that the frame moves with when the map is corrected, None where lost.
        T_keyframe_cam: (4, 4) pose as seen from that keyframe, for
            :meth:`semkey.slam.map.keyframe_tree.KeyframeTree.absolute_pose`.
        matches: associations that the pose was estimated from.
        inliers: landmarks and lines within the 95 % bound of the refined pose; 0 where lost.
        keypoints: extracted keypoints.
        method: ``start``, ``guided``, ``keyframe`` (descriptors alone against a recent keyframe), ``relocalised``,
            ``initialised`` (placed when a later frame had started a map without depth), ``lost`` or ``unreadable``
            (there was no image).
        is_keyframe: whether the frame was kept.
        submap: which part of the map the pose belongs to, from 0; the motion between submaps is unknown.
        covariance: (6, 6) of ``T_world_cam`` with respect to the map around it: of ``xi = [rho, phi]``, metres (map
            units) and radians, in the axes of the camera, with the true pose ``T_world_cam @ se3_exp(xi)``. Drift of
            the map itself is not in it. Zeros for the frame that a submap starts with, None without a pose;
            :func:`semkey.geometry.pose_covariance.ros_covariance` turns it to the world's axes.
        quality: of the landmarks that the map expected in view, the share that was seen where it should be, in [0, 1];
            1 for the first frame of a map, 0 without a pose.
        log10_nfa: logarithm of the number of false alarms of the pose: how often chance would give one so well
            supported; None where lost, and for the first frame of a submap.
        visible: landmarks that should be seen from the pose.
        found: of them, those that agree with it.
    """

    index: int
    timestamp: float
    T_world_cam: Array | None
    reference_keyframe: int | None = None
    T_keyframe_cam: Array | None = None
    matches: int = 0
    inliers: int = 0
    keypoints: int
    method: str
    is_keyframe: bool = False
    submap: int
    covariance: Array | None = None
    quality: float = 0.0
    log10_nfa: float | None = None
    visible: int = 0
    found: int = 0


@dataclass(frozen=True, kw_only=True)
class LoopRecord:
    """Two parts of the map were recognised to be the same place, and the map was corrected; plain numbers.

    Attributes:
        kind: ``loop`` inside a submap, ``merge`` of two submaps into one.
        frame_index: frame at which it was found.
        keyframe_id: the newer keyframe.
        matched_keyframe_id: the older keyframe that sees the same place.
        inliers: verified matches between them.
        correction_m: how far the newer keyframe moved, metres (map units without metric scale).
        correction_deg: how far it turned, degrees.
        scale: by how much the newer part was scaled; 1 with depth.
    """

    kind: Literal["loop", "merge"]
    frame_index: int
    keyframe_id: int
    matched_keyframe_id: int
    inliers: int
    correction_m: float = 0.0
    correction_deg: float = 0.0
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class TrackedFrame:
    """What :meth:`semkey.slam.system.Slam.track` found out about one frame.

    Attributes:
        record: what is kept of the frame, in plain numbers.
        status: whether the frame has a pose, and if not, why.
        landmark_ids: (N,) int64, the landmark of the map that each keypoint was tracked by, -1 for none; empty where
            there are no keypoints.
        loop: the loop that the frame closed, or the submaps that it joined; None for most frames.
        late: records of earlier frames, without a pose until then, that this frame has made it possible to place.

    Example:
        >>> import semkey
        >>> room = semkey.open_sequence("room")
        >>> with semkey.Slam(room.camera, "orb") as slam:
        ...     first = slam.track(room[0].image, room[0].depth, timestamp=0.0)
        >>> first.status, first.T_world_cam.shape, first.is_keyframe
        ('tracking', (4, 4), True)
    """

    record: FrameRecord
    status: FrameStatus
    landmark_ids: NDArray[np.int64]
    loop: LoopRecord | None = None
    late: tuple[FrameRecord, ...] = ()

    def __repr__(self) -> str:
        return f"TrackedFrame({self.index} at {self.timestamp:.3f} s: {self.status}, {self.inliers} inliers)"

    @property
    def T_world_cam(self) -> Array | None:
        """Pose (4, 4) as it is known now, camera to world, metres (map units for ``mono``); None where there is none.

        The world is the camera of the first tracked frame, or that of the map that was loaded.
        """
        return self.record.T_world_cam

    @property
    def index(self) -> int:
        """Number of the frame, from 0."""
        return self.record.index

    @property
    def timestamp(self) -> float:
        """Seconds, as given."""
        return self.record.timestamp

    @property
    def covariance(self) -> Array | None:
        """Covariance (6, 6) of the pose in the axes of the camera, see :class:`FrameRecord`; None without a pose."""
        return self.record.covariance

    @property
    def quality(self) -> float:
        """Share of the landmarks expected in view that were seen where they should be, in [0, 1]."""
        return self.record.quality

    @property
    def inliers(self) -> int:
        """Landmarks and lines that agree with the pose; 0 where there is none."""
        return self.record.inliers

    @property
    def is_keyframe(self) -> bool:
        """Whether the frame was kept in the map."""
        return self.record.is_keyframe


@dataclass(frozen=True, kw_only=True, eq=False)
class KeyframePose:
    """A frame that was kept, and where the map says now that it was taken.

    Attributes:
        id: number of the keyframe; they increase with time.
        index: number of the frame.
        timestamp: seconds.
        T_world_cam: (4, 4) pose after all corrections of the map.
        landmarks: how many landmarks it sees.
        submap: keyframes of one submap share one world frame; the pose between submaps is not known.
    """

    id: int
    index: int
    timestamp: float
    T_world_cam: Array
    landmarks: int
    submap: int


def evidence_of(records: Sequence[FrameRecord]) -> NDArray[np.float64]:
    """The logarithm of the number of false alarms (N,) of each frame's pose; NaN where there is none."""
    return np.array([np.nan if record.log10_nfa is None else record.log10_nfa for record in records], dtype=np.float64)
