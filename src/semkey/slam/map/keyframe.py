"""A frame that is kept, its pose, and what its keypoints see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semkey.slam.frames.frame import ObservedFrame


@dataclass(kw_only=True, eq=False)
class Keyframe:
    """A frame that is kept, its pose, and which of its keypoints observe which landmark.

    Attributes:
        id: number of the keyframe; they increase with time and are never given twice.
        frame: what was observed.
        T_world_cam: (4, 4) pose.
        landmark_ids: (N,) landmark of every keypoint, -1 for none. Changed by
            :class:`semkey.slam.map.slam_map.SlamMap` only, which knows the reverse as well.
        submap: keyframes of one submap share one world frame; the pose between submaps is not known.
        parent: the keyframe that shared most landmarks when this one was made, in the spanning tree of the submap;
            None for its root.
        scale: length of a map unit of when the keyframe was made, in present ones; 1 unless the scale of a monocular
            map was corrected.
        median_depth: of what it sees, metres.
    """

    id: int
    frame: ObservedFrame
    T_world_cam: NDArray[np.float64]
    landmark_ids: NDArray[np.int64]
    submap: int
    parent: int | None = None
    scale: float = 1.0
    median_depth: float = 1.0

    @property
    def observed(self) -> NDArray[np.int64]:
        """Indices of the keypoints that observe a landmark."""
        return np.flatnonzero(self.landmark_ids >= 0)
