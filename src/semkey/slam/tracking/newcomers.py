"""What has come into view in front of the map: a thing that moves, or was put there, hides what was seen before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, transform_points
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.landmarks import LandmarkMap
from semkey.slam.placing.placement import Placement

# A keypoint hides the map where so many established landmarks should be seen around it, all of them farther away than
# it by more than this share, and none at about its own distance.
_AROUND = 3
_AROUND_PX = 32.0
_FARTHER = 1.2


def hides_map(
    frame: ObservedFrame, landmarks: LandmarkMap, placement: Placement, camera: PinholeCamera, *, pixel: float
) -> NDArray[np.bool_]:
    """Which keypoints (N,) of a frame lie before what long established landmarks say is there.

    The room was seen where they are now, so nothing stood there: they belong to what moves, or was put there since.
    Nothing of what stands before the map for good is meant: its own landmarks are around it. Landmarks that are hidden
    for as long as they were seen are no longer established, and hold nothing off then.

    Args:
        frame: the frame.
        landmarks: the map.
        placement: of the frame.
        camera: of the frame.
        pixel: scale factor of pixel values.
    """
    hides = np.zeros(len(frame), dtype=bool)
    measured = np.flatnonzero(frame.depth > 0)
    points = transform_points(inverse(placement.T_world_cam), landmarks.positions[placement.visible])
    pixels = camera.project(points)
    seen = camera.contains(pixels)
    old = landmarks.established(placement.visible[seen])
    if not len(measured) or np.count_nonzero(old) < _AROUND:
        return hides
    depth, tree = points[seen, 2], KDTree(pixels[seen])
    around = tree.query_ball_point(frame.keypoints[measured], _AROUND_PX * pixel)
    for keypoint, near in zip(measured.tolist(), around, strict=True):
        if len(near) >= _AROUND:
            farther = depth[near] > _FARTHER * frame.depth[keypoint]
            hides[keypoint] = farther.all() and np.count_nonzero(old[near]) >= _AROUND
    return hides
