"""Keyframes that add nothing: what they see, enough others see as well."""

from __future__ import annotations

import numpy as np

from semkey.slam.map.slam_map import SlamMap

# A keyframe sees a landmark as finely as another one if it is at most this much farther away: features are matched
# over about such changes of scale without loss.
_SAME_SCALE = 1.3


def cull_keyframes(slam_map: SlamMap, keyframe_id: int, *, share: float, observers: int, recent: int) -> list[int]:
    """Remove the redundant keyframes among those covisible with one, oldest first; returns their ids.

    A keyframe is redundant when at least ``share`` of its landmarks are seen by at least ``observers`` others from no
    farther away, after Mur-Artal, Montiel and Tardos, *ORB-SLAM* (IEEE T-RO 2015), section VI.E. The roots of
    submaps and the newest keyframes stay.

    Args:
        slam_map: the map.
        keyframe_id: a new keyframe.
        share: share of landmarks that others must see, in (0, 1].
        observers: how many others must see each.
        recent: so many newest keyframes stay: the next frames are tracked by them.
    """
    spared = set(list(slam_map.keyframes)[-recent:]) if recent else set()
    candidates = sorted(k for k, _ in slam_map.covisibility.neighbours(keyframe_id) if k not in spared)
    removed = []
    for candidate in candidates:
        if slam_map.keyframes[candidate].parent is None:
            continue
        if covered_share(slam_map, candidate, observers) >= share:
            slam_map.remove_keyframe(candidate)
            removed.append(candidate)
    return removed


def covered_share(slam_map: SlamMap, keyframe_id: int, observers: int) -> float:
    """Share of a keyframe's landmarks that at least so many others see from no farther away; 1 if it sees none."""
    keyframe = slam_map.keyframes[keyframe_id]
    ids = keyframe.landmark_ids[keyframe.observed]
    if not len(ids):
        return 1.0
    rows, seen_by, _ = slam_map.landmarks.observations.lookup(ids)
    keys, key_rows = np.unique(seen_by, return_inverse=True)
    centres = np.stack([slam_map.keyframes[k].T_world_cam[:3, 3] for k in keys.tolist()])
    points = slam_map.landmarks.positions[ids]
    theirs = np.linalg.norm(points[rows] - centres[key_rows], axis=1)
    own = np.linalg.norm(points - keyframe.T_world_cam[:3, 3], axis=1)
    counts = np.bincount(rows[(seen_by != keyframe_id) & (theirs <= _SAME_SCALE * own[rows])], minlength=len(ids))
    return float(np.mean(counts >= observers))
