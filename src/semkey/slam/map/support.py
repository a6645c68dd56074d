"""What a frame says for a pose among the landmarks of a map, as :mod:`semkey.slam.solvers.evidence` judges it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, transform_points
from semkey.matching.background import unrelated_similarities
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.association import Associations
from semkey.slam.map.landmarks import LandmarkMap
from semkey.slam.solvers.evidence import Evidence, depth_agreement, log10_nfa, similarity_tail

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# Depths of a landmark and of a keypoint beside it that differ by more than this share are not those of one surface.
_OTHER_SURFACE = 1.1


def evidence_of_pose(
    frame: ObservedFrame,
    landmarks: LandmarkMap,
    visible: Indices,
    found: Associations,
    T_world_cam: Array,
    camera: PinholeCamera,
    *,
    radius_px: float,
    log10_tests: float,
) -> Evidence:
    """The evidence for a pose.

    Args:
        frame: the frame.
        landmarks: the map.
        visible: (V,) distinct landmarks that should be seen from the pose.
        found: matches of some of them that agree with the pose.
        T_world_cam: (4, 4) the pose.
        camera: of the frame.
        radius_px: how far from their projections landmarks were looked for in the end.
        log10_tests: logarithm of the number of poses that were tried.
    """
    points = transform_points(inverse(T_world_cam), landmarks.positions[visible])
    pixels = camera.project(points)
    order = np.argsort(visible, kind="stable")
    places = np.searchsorted(visible, found.landmark_ids, sorter=order)
    places = order[np.minimum(places, max(len(visible) - 1, 0))] if len(visible) else places
    known = visible[places] == found.landmark_ids if len(visible) else np.zeros(len(found), dtype=bool)
    rows, keypoints = places[known], found.keypoint_indices[known]
    area_share, tail = np.full(len(visible), np.inf), np.ones(len(visible))
    offsets = np.linalg.norm(frame.keypoints[keypoints] - pixels[rows], axis=1)
    area_share[rows] = (offsets / radius_px) ** 2
    unrelated = unrelated_similarities(landmarks.descriptors[visible], frame.descriptors)
    tail[rows] = similarity_tail(unrelated.astype(np.float64), found.similarity[known])
    inside = camera.contains(pixels)
    candidates = np.zeros(len(visible))
    if len(frame) and inside.any():
        candidates[inside] = frame.tree.query_ball_point(pixels[inside], radius_px, return_length=True)
    score = log10_nfa(
        area_share[inside],
        tail[inside],
        candidates[inside],
        pixels[inside],
        image_size=(camera.width, camera.height),
        log10_tests=log10_tests,
    )
    measured = frame.depth[keypoints]
    checked = measured > 0
    agree = depth_agreement(measured[checked], points[rows[checked], 2], frame.depth_sigma[keypoints[checked]])
    return Evidence(
        log10_nfa=score,
        visible=int(np.count_nonzero(inside)),
        found=len(rows),
        depth_checked=int(np.count_nonzero(checked)),
        depth_agree=int(np.count_nonzero(agree)),
    )


def contradicted_share(
    frame: ObservedFrame,
    landmarks: LandmarkMap,
    visible: Indices,
    T_world_cam: Array,
    camera: PinholeCamera,
    *,
    radius_px: float,
) -> float:
    """Of the landmarks beside which a depth was measured, the share that should be nearer or farther than that.

    Args:
        frame: the frame.
        landmarks: the map.
        visible: (V,) landmarks that should be seen from the pose.
        T_world_cam: (4, 4) the pose.
        camera: of the frame.
        radius_px: how far beside a landmark a keypoint is asked.

    Returns:
        0 where there is nothing to compare.
    """
    measured = np.flatnonzero(frame.depth > 0)
    points = transform_points(inverse(T_world_cam), landmarks.positions[visible])
    pixels = camera.project(points)
    seen = camera.contains(pixels)
    if not len(measured) or not seen.any():
        return 0.0
    distances, nearest = KDTree(frame.keypoints[measured]).query(pixels[seen], distance_upper_bound=radius_px)
    known = np.isfinite(distances)
    if not known.any():
        return 0.0
    ratios = frame.depth[measured[nearest[known]]] / points[seen][known, 2]
    return float(np.mean((ratios > _OTHER_SURFACE) | (ratios < 1 / _OTHER_SURFACE)))
