"""What one run of SLAM says of its map: how long landmarks were tracked, and which loops joined different places."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from semkey.evaluation.running.results import Row
from semkey.geometry.transforms import inverse, so3_log
from semkey.slam.map.landmarks import LandmarkMap
from semkey.slam.records import LoopRecord
from semkey.slam.result import SlamResult

FALSE_LOOP_M, FALSE_LOOP_DEG = 0.5, 20.0
"""A loop that errs by more than this about how its keyframes lie to each other joined different places."""

Poses = Mapping[int, NDArray[np.float64]]


def measure_map(result: SlamResult) -> Row:
    """Track lengths and false loops of a run.

    Returns:
        ``track_frames`` and ``track_keyframes``, see :func:`track_lengths`, and ``false_loops``: of ``loops`` and
        ``merges``, how many joined different places (:func:`is_false_loop`); absent without ground truth, or where the
        poses have no metric scale.
    """
    if result.slam_map is None:
        return {}
    row: Row = dict(track_lengths(result.slam_map.landmarks))
    if result.sensor == "mono" or not any(pose is not None for pose in result.ground_truth.values()):
        return row
    estimates: dict[int, NDArray[np.float64]] = {}
    truth: dict[int, NDArray[np.float64]] = {}
    for record in result.frames:
        pose, true = result.pose(record), result.ground_truth.get(record.index)
        if record.is_keyframe and record.reference_keyframe is not None and pose is not None and true is not None:
            estimates[record.reference_keyframe], truth[record.reference_keyframe] = pose, true
    row["false_loops"] = sum(is_false_loop(loop, estimates, truth) for loop in result.loops)
    return row


def track_lengths(landmarks: LandmarkMap) -> dict[str, float]:
    """Medians over the landmarks of a map that at least two keyframes see; NaN where there are none.

    Returns:
        ``track_frames``, the number of frames in which one was found, keyframes or not, and ``track_keyframes``, the
        number of keyframes that see it.
    """
    ids = landmarks.ids
    found, keyframes = landmarks.found[ids], landmarks.observations.counts[ids]
    kept = keyframes >= 2
    if not kept.any():
        return {"track_frames": float("nan"), "track_keyframes": float("nan")}
    return {"track_frames": float(np.median(found[kept])), "track_keyframes": float(np.median(keyframes[kept]))}


def is_false_loop(loop: LoopRecord, estimates: Poses, truth: Poses) -> bool:
    """Whether a loop joined keyframes that are not where the map now says they are, relative to each other.

    A map that a wrong loop has bent says of its two keyframes that they are near, the truth that they are not. A loop
    whose keyframes have no true pose counts as right.

    Args:
        loop: found by a run.
        estimates: T_world_cam (4, 4) of keyframes by their id, as known at the end, metres.
        truth: the true ones.
    """
    pair = (loop.keyframe_id, loop.matched_keyframe_id)
    if not all(key in poses for key in pair for poses in (estimates, truth)):
        return False
    found, true = (inverse(poses[pair[1]]) @ poses[pair[0]] for poses in (estimates, truth))
    error = inverse(true) @ found
    turned = float(np.rad2deg(np.linalg.norm(so3_log(error[:3, :3]))))
    return float(np.linalg.norm(error[:3, 3])) > FALSE_LOOP_M or turned > FALSE_LOOP_DEG
