"""Landmarks that stand for the same point, found after two parts of the map were brought together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.transforms import inverse, transform_points
from semkey.matching.background import background_similarity
from semkey.slam.map.association import Associations, match_by_projection
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.slam_map import SlamMap

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# Depths of the same point from two sides of a corrected map differ by less than this share.
_DEPTH_TOLERANCE = 0.06
# Between the similarity of unrelated descriptors (0) and equal ones (1): duplicates look at least this alike.
_SAME_SIMILARITY = 0.5


def fuse_duplicates(
    slam_map: SlamMap, keyframes: Sequence[Keyframe], landmark_ids: Indices, *, radius_px: float
) -> int:
    """Look for landmarks in keyframes that should see them, and merge each with the one found in its place.

    The given landmarks are kept and the keyframes' own ones go; a keypoint that had no landmark observes the given one.

    Args:
        slam_map: the map.
        keyframes: where to look.
        landmark_ids: (L,) landmarks to look for; dead ones are left out.
        radius_px: how near to its projection a landmark is looked for, pixels.

    Returns:
        How many landmarks were merged.
    """
    merged = 0
    for keyframe in keyframes:
        alive = landmark_ids[slam_map.landmarks.alive[landmark_ids]]
        unseen = alive[~np.isin(alive, keyframe.landmark_ids)]
        visible, pixels = slam_map.landmarks.visible_from(unseen, keyframe.T_world_cam, slam_map.camera)
        found = match_by_projection(keyframe.frame, slam_map.landmarks, visible, pixels, radius_px=radius_px)
        if not len(found):
            continue
        unrelated = background_similarity(slam_map.landmarks.descriptors[visible], keyframe.frame.descriptors)
        found = found.select(found.similarity >= unrelated + _SAME_SIMILARITY * (1.0 - unrelated))
        merged += adopt_landmarks(slam_map, keyframe, found)
    return merged


def adopt_landmarks(slam_map: SlamMap, keyframe: Keyframe, found: Associations) -> int:
    """Let a keyframe's keypoints see landmarks; landmarks that these keypoints saw before are merged with them.

    Pairs whose depths contradict each other, and landmarks that the keyframe sees already, are left out.

    Returns:
        How many landmarks were merged.
    """
    landmarks = slam_map.landmarks
    usable = landmarks.alive[found.landmark_ids] & ~np.isin(found.landmark_ids, keyframe.landmark_ids)
    found = found.select(usable)
    own = keyframe.landmark_ids[found.keypoint_indices]
    T_cam_world = inverse(keyframe.T_world_cam)
    depth = transform_points(T_cam_world, landmarks.positions[found.landmark_ids])[:, 2]
    # A keypoint's own landmark knows its depth best; without one the keypoint's measurement does, if there is any.
    own_depth = np.where(
        own >= 0,
        transform_points(T_cam_world, landmarks.positions[own])[:, 2],
        keyframe.frame.depth[found.keypoint_indices] * keyframe.scale,
    )
    agree = (own_depth <= 0) | (np.abs(depth - own_depth) <= _DEPTH_TOLERANCE * np.maximum(depth, own_depth))
    fresh, known = agree & (own < 0), agree & (own >= 0)
    slam_map.add_sightings(keyframe.id, found.landmark_ids[fresh], found.keypoint_indices[fresh])
    slam_map.merge_landmarks(found.landmark_ids[known], own[known])
    return int(np.count_nonzero(known))
