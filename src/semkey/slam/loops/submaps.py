"""Submaps: how two of them become one."""

from __future__ import annotations

from semkey.geometry.similarity import ScaledTransform
from semkey.geometry.transforms import inverse
from semkey.slam.loops.verification import PlaceMatch
from semkey.slam.map.slam_map import SlamMap


def join_at(slam_map: SlamMap, match: PlaceMatch) -> dict[int, float]:
    """Make one submap of the two that a keyframe was found in; the one with the lower number keeps its world.

    Args:
        slam_map: the map.
        match: a keyframe of one submap among the landmarks of another.

    Returns:
        By how much the surroundings of each keyframe that moved grew; all 1 where the scale is known.
    """
    query, place = slam_map.keyframes[match.query], slam_map.keyframes[match.matched]
    S_place_other = match.S_place_query @ ScaledTransform(T=inverse(query.T_world_cam))
    if place.submap < query.submap:
        into, gone, transform, bridge = place.submap, query.submap, S_place_other, (place.id, query.id)
    else:
        into, gone, transform, bridge = query.submap, place.submap, S_place_other.inverse(), (query.id, place.id)
    moving = [key for key, keyframe in slam_map.keyframes.items() if keyframe.submap == gone]
    slam_map.join_submaps(into, gone, transform.T, transform.scale, bridge=bridge)
    return dict.fromkeys(moving, transform.scale)
