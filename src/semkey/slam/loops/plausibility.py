"""Can odometry have drifted by what a loop would correct? What looks the same need not be the same place."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.transforms import inverse, rotation_angle_deg
from semkey.slam.config import LoopConfig
from semkey.slam.loops.essential_graph import path_between, way_between
from semkey.slam.loops.verification import PlaceMatch
from semkey.slam.map.slam_map import SlamMap

Array = NDArray[np.float64]

logger = logging.getLogger(__name__)

# Without depth, sizes may have grown or shrunk at a constant rate along the way, to so many times altogether.
_MAX_GROWTH = 4.0
_GROWTHS = np.exp(np.linspace(-np.log(_MAX_GROWTH), np.log(_MAX_GROWTH), 33))


def is_plausible(slam_map: SlamMap, match: PlaceMatch, config: LoopConfig, *, with_scale: bool) -> bool:
    """Whether the way from the place to the keyframe, with the drift that odometry may have, ends where the loop says.

    Rotations and, in a map with metres, distances may be off by a share of the way and a floor. Where the unit of
    length may have drifted, the way is tried with every steady growth: a way that bends back may do so
    completely, whereas a straight one ends far from its beginning whatever the scale. A camera that just still sees
    what was far ahead has not come back.

    Args:
        slam_map: the map.
        match: of a keyframe with a place.
        config: ``max_drift`` and the floors.
        with_scale: the unit of length may have drifted (monocular).

    Returns:
        True as well for keyframes that no way joins, or of different submaps: nothing is known of their relation.
    """
    query, matched = slam_map.keyframes[match.query], slam_map.keyframes[match.matched]
    path = path_between(slam_map, query.id, matched.id)
    if path is None or query.submap != matched.submap:
        return True
    metres, degrees = pose_difference(query.T_world_cam, match.S_place_query.T)
    allowed_m = config.drift_floor_m + config.max_drift * path[0]
    if with_scale:
        ends, lengths = _ways_with_growth(slam_map, matched.id, query.id)
        distances = np.linalg.norm(matched.T_world_cam[:3, 3] + ends - match.S_place_query.T[:3, 3], axis=1)
        allowed = config.drift_floor_depths * matched.median_depth + config.max_drift * lengths
        best = int(np.argmin(distances - allowed))
        metres, allowed_m = float(distances[best]), float(allowed[best])
    if metres <= allowed_m and degrees <= config.drift_floor_deg + config.max_drift * path[1]:
        return True
    logger.info(
        "loop from keyframe %d to %d refused: it would move the camera by %.2f %s and %.0f deg after %.1f",
        query.id,
        matched.id,
        metres,
        "units" if with_scale else "m",
        degrees,
        path[0],
    )
    return False


def pose_difference(T_before: Array, T_after: Array) -> tuple[float, float]:
    """How far two poses T_world_cam (4, 4) are from each other: units of the map, degrees."""
    return float(np.linalg.norm(T_after[:3, 3] - T_before[:3, 3])), rotation_angle_deg(inverse(T_before) @ T_after)


def _ways_with_growth(slam_map: SlamMap, first: int, last: int) -> tuple[Array, Array]:
    """Where ``last`` lies from ``first`` (G, 3), and the length of the way (G,), for every growth along it."""
    way = way_between(slam_map, first, last)
    assert way is not None
    steps = np.diff([slam_map.keyframes[key].T_world_cam[:3, 3] for key in way], axis=0)
    lengths = np.linalg.norm(steps, axis=1)
    gone = np.cumsum(lengths) - 0.5 * lengths
    share = gone / max(float(lengths.sum()), 1e-12)
    factors = _GROWTHS[:, None] ** share
    return factors @ steps, factors @ lengths
