"""From the map to a bundle adjustment and back: which part of it takes part, and what its result moves."""

from __future__ import annotations

import logging
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import compose, inverse
from semkey.slam.map.covisibility import Observations
from semkey.slam.map.keyframe_tree import scaled_transform
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.solvers.bundle import BundleProblem, BundleResult
from semkey.slam.solvers.image_cells import cells_of

logger = logging.getLogger(__name__)

Indices = NDArray[np.int64]


def bundle_problem(
    slam_map: SlamMap,
    free: Iterable[int],
    fixed: Iterable[int],
    *,
    landmarks_each: int | None = None,
    max_iterations: int = 8,
) -> BundleProblem | None:
    """The problem of moving keyframes ``free`` and what they see, while keyframes ``fixed`` hold it in place.

    Takes the landmarks that at least one free keyframe and two keyframes altogether see. The root of a submap is its
    world and always fixed; the oldest keyframe is fixed where none is. None if no free keyframe or no such landmark is
    left.

    Args:
        slam_map: the map.
        free: ids of keyframes that move.
        fixed: ids of keyframes that stay.
        landmarks_each: so many landmarks take part for every keyframe, chosen by :func:`covering_landmarks`; None for
            all.
        max_iterations: steps of the solver at most.
    """
    roots = {k for k in free if slam_map.keyframes[k].parent is None}
    free_ids = sorted(set(free) - roots)
    fixed_ids = sorted((set(fixed) | roots) - set(free_ids))
    if not fixed_ids:
        fixed_ids, free_ids = free_ids[:1], free_ids[1:]
    if not free_ids:
        return None
    seen = np.unique(slam_map.covisibility.observations(keyframe_ids=free_ids).landmark_ids)
    observations = slam_map.covisibility.observations(keyframe_ids=[*free_ids, *fixed_ids], landmark_ids=seen)
    times = np.bincount(observations.landmark_ids, minlength=1)
    used = times[observations.landmark_ids] >= 2
    if not used.any():
        return None
    if landmarks_each is not None:
        count = landmarks_each * (len(free_ids) + len(fixed_ids))
        chosen = covering_landmarks(observations.select(used), slam_map.camera, count)
        used &= np.isin(observations.landmark_ids, chosen)
    landmark_ids, landmark_rows = np.unique(observations.landmark_ids[used], return_inverse=True)
    keyframe_ids = np.array(sorted([*free_ids, *fixed_ids]), dtype=np.int64)
    lines = None if slam_map.lines is None else slam_map.lines.bundle(keyframe_ids)
    spread = 1.0 / np.sqrt(observations.weights[used])
    return BundleProblem(
        camera=slam_map.camera,
        keyframe_ids=keyframe_ids,
        poses=np.stack([slam_map.keyframes[k].T_world_cam for k in keyframe_ids.tolist()]),
        fixed=np.isin(keyframe_ids, fixed_ids),
        landmark_ids=landmark_ids,
        landmark_serials=slam_map.landmarks.serials[landmark_ids],
        positions=slam_map.landmarks.positions[landmark_ids],
        keyframe_rows=np.searchsorted(keyframe_ids, observations.keyframe_ids[used]),
        landmark_rows=landmark_rows,
        keypoints=observations.keypoints[used],
        covariances=observations.covariances[used] * np.square(spread)[:, None, None],
        depth=observations.depth[used],
        # A keypoint that may be mistaken makes its depth doubtful as well: with the sensor's own deviation the error on
        # fr3_cabinet is 6 % larger.
        depth_sigma=observations.depth_sigma[used] * spread,
        lines=lines,
        max_iterations=max_iterations,
    )


def covering_landmarks(observations: Observations, camera: PinholeCamera, count: int) -> Indices:
    """The ids of ``count`` landmarks, or all if there are fewer, that say most about the keyframes that see them.

    In every cell of every keyframe's image landmarks are ranked by how many keyframes see them; those come first whose
    best rank is best. So each keyframe keeps landmarks all over its image, and the most connected ones.

    Args:
        observations: who sees what.
        camera: of all keyframes.
        count: how many, positive.
    """
    ids, rows, times = np.unique(observations.landmark_ids, return_inverse=True, return_counts=True)
    if len(ids) <= count:
        return ids
    cells = cells_of(observations.keypoints, (camera.width, camera.height))
    order = np.lexsort((rows, -times[rows], cells, observations.keyframe_ids))
    groups = np.stack([observations.keyframe_ids, cells])[:, order]
    starts = np.flatnonzero(np.concatenate([[True], (groups[:, 1:] != groups[:, :-1]).any(axis=0)]))
    ranks = np.empty(len(order), dtype=np.int64)
    ranks[order] = np.arange(len(order)) - np.repeat(starts, np.diff([*starts, len(order)]))
    best = np.full(len(ids), len(order))
    np.minimum.at(best, rows, ranks)
    return np.sort(ids[np.lexsort((ids, -times, best))[:count]])


def local_problem(
    slam_map: SlamMap,
    keyframe_id: int,
    *,
    keyframes: int,
    fixed_keyframes: int,
    landmarks_each: int | None = None,
    max_iterations: int,
) -> BundleProblem | None:
    """The problem around one keyframe: it and those covisible with it move, the others that see the same are fixed.

    Args:
        slam_map: the map.
        keyframe_id: in the middle.
        keyframes: how many move at most.
        fixed_keyframes: how many are fixed at most, those that see most of the same.
        landmarks_each: how many landmarks take part for every keyframe; None for all.
        max_iterations: steps of the solver at most.
    """
    covisible = [k for k, _ in slam_map.covisibility.neighbours(keyframe_id)][: keyframes - 1]
    free = [keyframe_id, *covisible]
    seen = np.unique(slam_map.covisibility.observations(keyframe_ids=free).landmark_ids)
    others = [k for k, _ in slam_map.covisibility.observers(seen) if k not in set(free)]
    return bundle_problem(
        slam_map, free, others[:fixed_keyframes], landmarks_each=landmarks_each, max_iterations=max_iterations
    )


def apply_bundle(slam_map: SlamMap, result: BundleResult) -> None:
    """Move the map to where an adjustment has put it.

    What was removed from the map meanwhile is left out. Landmarks that took no part move with their reference
    keyframe, and keyframes made since the adjustment began with their parent. Observations that did not fit are taken
    out of the map, and landmarks that nobody sees any more as well.
    """
    moved = zip(result.keyframe_ids.tolist(), result.poses, result.scales.tolist(), strict=True)
    poses, scales = {}, {}
    for keyframe_id, pose, scale in moved:
        if keyframe_id in slam_map.keyframes:
            poses[keyframe_id], scales[keyframe_id] = pose, scale
    for keyframe in slam_map.keyframes.values():  # older ones, and with them parents, first
        parent = keyframe.parent
        if keyframe.id > result.newest_keyframe_id and parent is not None and parent in poses:
            seen_from_parent = compose(inverse(slam_map.keyframes[parent].T_world_cam), keyframe.T_world_cam)
            scales[keyframe.id] = scales[parent]
            poses[keyframe.id] = compose(poses[parent], scaled_transform(seen_from_parent, scales[parent]))
    slam_map.set_poses(poses, scales)
    if result.distortion.any():
        k1, k2 = result.distortion
        logger.info("the images have radial distortion beyond their calibration: k1 %.4f, k2 %.4f", k1, k2)
    if slam_map.lines is not None:
        slam_map.lines.adjust(result.line_serials, result.line_points)
    landmarks = slam_map.landmarks
    same = landmarks.alive[result.landmark_ids]
    same &= landmarks.serials[result.landmark_ids] == result.landmark_serials
    landmarks.positions[result.landmark_ids[same]] = result.positions[same]
    there = np.isin(result.outlier_landmark_ids, result.landmark_ids[same])
    there &= np.isin(result.outlier_keyframe_ids, list(slam_map.keyframes))
    for keyframe_id in np.unique(result.outlier_keyframe_ids[there]).tolist():
        wrong = there & (result.outlier_keyframe_ids == keyframe_id)
        slam_map.remove_observations(keyframe_id, result.outlier_landmark_ids[wrong])
