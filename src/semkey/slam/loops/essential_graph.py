"""The pose graph of a map: what holds its keyframes together, and how firmly.

Spanning tree, strong covisibility and loops, as in Mur-Artal and Tardos, *ORB-SLAM* (2015), section III.D: few edges,
all of them needed, so that a loop is closed in milliseconds and with nearly the accuracy of a bundle adjustment.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from semkey.geometry.similarity import ScaledTransform
from semkey.geometry.transforms import inverse, rotation_angle_deg
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.solvers.pose_graph import PoseEdge

# Odometry between two keyframes that share a hundred landmarks: standard deviations as a floor and as a share of the
# motion. What counts is their relation to each other and to those of a loop.
_FULL_SHARED = 100
_TRANSLATION_FLOOR = 0.003
_TRANSLATION_SHARE = 0.02
_ROTATION_FLOOR = 0.002
_ROTATION_SHARE = 0.01
_LOG_SCALE_FLOOR = 0.005
_LOG_SCALE_SHARE = 0.02
# Fewer shared landmarks than this do not make an edge weaker still.
_FEWEST_SHARED = 10


def essential_edges(
    slam_map: SlamMap, submap: int, *, strong_covisibility: int, loops: Sequence[PoseEdge] = ()
) -> list[PoseEdge]:
    """Edges of a submap's pose graph: its spanning tree, pairs with many shared landmarks, and earlier loops.

    Args:
        slam_map: the map.
        submap: number of the submap.
        strong_covisibility: shared landmarks from which on two keyframes are joined.
        loops: edges of loops; those that name keyframes outside the submap, or removed ones, are left out.
    """
    members = {key for key, keyframe in slam_map.keyframes.items() if keyframe.submap == submap}
    edges: list[PoseEdge] = []
    joined: set[tuple[int, int]] = set()
    for loop in loops:
        if loop.first in members and loop.second in members:
            edges.append(loop)
            joined.add((min(loop.first, loop.second), max(loop.first, loop.second)))
    for key in sorted(members):
        shared = dict(slam_map.covisibility.neighbours(key, min_shared=1))
        parent = slam_map.keyframes[key].parent
        if parent in members and (min(key, parent), max(key, parent)) not in joined:
            edges.append(_odometry_edge(slam_map, parent, key, shared.get(parent, 0), "tree"))
            joined.add((min(key, parent), max(key, parent)))
        for other, count in shared.items():
            if count >= strong_covisibility and other < key and other in members and (other, key) not in joined:
                edges.append(_odometry_edge(slam_map, other, key, count, "covisible"))
                joined.add((other, key))
    return edges


def way_between(slam_map: SlamMap, first: int, second: int) -> list[int] | None:
    """The keyframes from one to another along the spanning tree, both included; None if there is no way."""
    above_first, above_second = _ancestors(slam_map, first), _ancestors(slam_map, second)
    common = next((key for key in above_first if key in set(above_second)), None)
    if common is None:
        return None
    down = above_second[: above_second.index(common)]
    return [*above_first[: above_first.index(common) + 1], *reversed(down)]


def path_between(slam_map: SlamMap, first: int, second: int) -> tuple[float, float] | None:
    """Length of the way between two keyframes along the spanning tree: metres and degrees; None if there is none."""
    way = way_between(slam_map, first, second)
    if way is None:
        return None
    metres = degrees = 0.0
    for one, other in pairwise(way):
        relative = inverse(slam_map.keyframes[one].T_world_cam) @ slam_map.keyframes[other].T_world_cam
        metres += float(np.linalg.norm(relative[:3, 3]))
        degrees += rotation_angle_deg(relative)
    return metres, degrees


def _ancestors(slam_map: SlamMap, key: int) -> list[int]:
    chain = [key]
    while (parent := slam_map.keyframes[chain[-1]].parent) is not None:
        chain.append(parent)
    return chain


def _odometry_edge(slam_map: SlamMap, first: int, second: int, shared: int, kind: str) -> PoseEdge:
    """An edge that wants two keyframes to stay as they are to each other."""
    relative = inverse(slam_map.keyframes[first].T_world_cam) @ slam_map.keyframes[second].T_world_cam
    return weighted_edge(first, second, ScaledTransform(T=relative), shared=shared, kind=kind)


def weighted_edge(first: int, second: int, S_first_second: ScaledTransform, *, shared: int, kind: str) -> PoseEdge:
    """An edge that is the firmer the more landmarks both keyframes see, and the less lies between them.

    Loops and odometry are weighed alike: both are poses from so many landmarks seen over such a distance.

    Args:
        first: id of a keyframe.
        second: id of another.
        S_first_second: measured.
        shared: landmarks that both see.
        kind: see :class:`PoseEdge`.
    """
    looseness = float(np.sqrt(_FULL_SHARED / max(shared, _FEWEST_SHARED)))
    distance = float(np.linalg.norm(S_first_second.T[:3, 3]))
    turned = float(np.radians(rotation_angle_deg(S_first_second.T)))
    return PoseEdge(
        first=first,
        second=second,
        S_first_second=S_first_second,
        rotation_sigma=looseness * (_ROTATION_FLOOR + _ROTATION_SHARE * turned),
        translation_sigma=looseness * (_TRANSLATION_FLOOR + _TRANSLATION_SHARE * distance),
        log_scale_sigma=looseness * (_LOG_SCALE_FLOOR + _LOG_SCALE_SHARE * distance),
        kind=kind,
    )
