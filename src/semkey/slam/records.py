"""What became of each frame, and which loops were closed: plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class FrameRecord:
    """What became of one frame.

    Attributes:
        index: position in the sequence.
        timestamp: seconds.
        T_world_cam: (4, 4) pose as it was known when the frame was done, None where tracking was lost.
        reference_keyframe: id of the keyframe that the frame moves with when the map is corrected, None where lost.
        T_keyframe_cam: (4, 4) pose as seen from that keyframe, for
            :meth:`semkey.slam.map.slam_map.SlamMap.absolute_pose`.
        matches: associations that the pose was estimated from.
        inliers: landmarks and lines within the 95 % bound of the refined pose; 0 where lost.
        keypoints: extracted keypoints.
        method: ``start``, ``guided``, ``keyframe`` (descriptors alone against a recent keyframe), ``relocalised``,
            ``initialised`` (placed when a later frame had started a map without depth), ``lost`` or ``unreadable``
            (there was no image).
        is_keyframe: whether the frame was kept.
        submap: which part of the map the pose belongs to, from 0; the motion between submaps is unknown.
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
