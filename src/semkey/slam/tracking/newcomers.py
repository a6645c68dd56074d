"""What has come into view in front of the map: a thing that moves, or was put there, hides what was seen before."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, transform_points
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.landmarks import LandmarkMap
from semkey.slam.placing.placement import Placement

Array = NDArray[np.float64]

# A keypoint hides the map where so many established landmarks should be seen around it, all of them farther away than
# it by more than this share, and nothing nearby at about its own distance.
_AROUND = 3
_AROUND_PX = 80.0
_NEAR_PX = 32.0
_FARTHER = 1.2
_SAME_SURFACE = 0.05
# ... if so much of its surface hides something: walls go on into what was never seen.
_LEAST_HIDING = 0.4
# A landmark is hidden where a keypoint within so much of it is nearer by more than that share. It was in view and not
# found, but that says nothing against it; so it counts only every so many frames: what was put there for good becomes
# part of the map after so many times as long as what it hides was seen.
_BESIDE_PX = 10.0
_HIDDEN_COUNTS_EVERY = 8


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
    depth, pixels = points[seen, 2], pixels[seen]
    limit = _FARTHER * frame.depth[measured]
    # Landmarks are sparse in small images, so that the established ones are looked for farther away than any others.
    _, nearest = KDTree(pixels[old]).query(frame.keypoints[measured], _AROUND, distance_upper_bound=_AROUND_PX * pixel)
    old_depth = np.append(depth[old], 0.0)  # none within reach
    before_old = (old_depth[nearest] > limit[:, None]).all(axis=1)
    if not before_old.any():
        return hides
    near = KDTree(pixels).query_ball_point(frame.keypoints[measured], _NEAR_PX * pixel)
    before_all = np.array([(depth[rows] > top).all() for rows, top in zip(near, limit, strict=True)], dtype=bool)
    # A thing goes on where nothing of the map is behind it: what is as far away as it, beside it, belongs to it.
    free = measured[before_all]
    surface = _surfaces(frame.keypoints[free], frame.depth[free], _NEAR_PX * pixel)
    seeds, sizes = np.bincount(surface, before_old[before_all]), np.bincount(surface)
    is_thing = (seeds >= _AROUND) & (seeds >= _LEAST_HIDING * sizes)
    hides[free] = is_thing[surface] | before_old[before_all]
    return hides


def _surfaces(keypoints: Array, depth: Array, radius_px: float) -> NDArray[np.int64]:
    """The number of the surface (N,) that each keypoint (N, 2) lies on, by depths (N,) that go on from one to next."""
    pairs = KDTree(keypoints).query_pairs(radius_px, output_type="ndarray")
    ratio = depth[pairs[:, 0]] / depth[pairs[:, 1]]
    pairs = pairs[np.abs(np.log(ratio)) < _SAME_SURFACE]
    graph = coo_matrix((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(keypoints), len(keypoints)))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def counted_views(
    frame: ObservedFrame, landmarks: LandmarkMap, placement: Placement, camera: PinholeCamera, *, pixel: float
) -> NDArray[np.int64]:
    """The landmarks (V,) that should be in view, without established ones that something nearer hides.

    Those count only in every eighth frame. Arguments are those of :func:`hides_map`.
    """
    visible = placement.visible
    measured = np.flatnonzero(frame.depth > 0)
    if frame.index % _HIDDEN_COUNTS_EVERY == 0 or not len(measured) or not len(visible):
        return visible
    missed = landmarks.established(visible) & ~np.isin(visible, placement.inlier_associations.landmark_ids)
    rows = np.flatnonzero(missed)
    points = transform_points(inverse(placement.T_world_cam), landmarks.positions[visible[rows]])
    pixels = camera.project(points)
    seen = camera.contains(pixels)
    rows, points, pixels = rows[seen], points[seen], pixels[seen]
    if not len(rows):
        return visible
    distances, nearest = KDTree(frame.keypoints[measured]).query(pixels, distance_upper_bound=_BESIDE_PX * pixel)
    beside = np.append(frame.depth[measured], np.inf)[nearest]
    hidden = np.isfinite(distances) & (points[:, 2] > _FARTHER * beside)
    return np.delete(visible, rows[hidden])
