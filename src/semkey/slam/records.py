"""What became of each frame."""

from __future__ import annotations

from dataclasses import dataclass

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
        T_keyframe_cam: (4, 4) pose as seen from that keyframe, for :meth:`semkey.slam.map.SlamMap.absolute_pose`.
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
