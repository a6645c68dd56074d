"""The segments of one frame and where they lie in space."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.slam.frames.segments import Segments
from semkey.slam.frames.segments_in_space import SpatialSegments, lift_segments


@dataclass(frozen=True, kw_only=True, eq=False)
class ObservedLines:
    """The segments of one frame and where they lie in space.

    Attributes:
        segments: in the image.
        spatial: in camera coordinates, by the depth along them; none is valid where there is no depth.
    """

    segments: Segments
    spatial: SpatialSegments

    def __len__(self) -> int:
        return len(self.segments)


def observe_lines(
    segments: Segments,
    depth: NDArray[np.float32] | None,
    camera: PinholeCamera,
    *,
    min_depth: float,
    max_depth: float,
) -> ObservedLines:
    """Look up where segments lie in space, by a depth image (H, W) in metres where there is one."""
    if depth is None:
        count = len(segments)
        nowhere = SpatialSegments(
            valid=np.zeros(count, dtype=bool), points=np.zeros((count, 2, 3)), sigma=np.zeros((count, 2))
        )
        return ObservedLines(segments=segments, spatial=nowhere)
    spatial = lift_segments(segments.endpoints, depth, camera, min_depth=min_depth, max_depth=max_depth)
    return ObservedLines(segments=segments, spatial=spatial)
