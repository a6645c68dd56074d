"""New landmarks without depth: triangulated from what a new keyframe and its neighbours both see."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from semkey.geometry.transforms import inverse, transform_points
from semkey.matching import match
from semkey.matching.background import background_similarity, first_of_each
from semkey.slam.config import MonoConfig
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.solvers.triangulation import triangulate

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# Keyframes that share fewer landmarks hardly see the same things.
_MIN_SHARED = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class _Pairs:
    """Points from M pairs of a keypoint of the new keyframe and one of a neighbour."""

    neighbours: Indices
    neighbour_keypoints: Indices
    keypoints: Indices
    points_world: Array
    information: Array
    relative_sigma: Array


def triangulate_new_landmarks(slam_map: SlamMap, keyframe_id: int, config: MonoConfig, *, image_scale: float) -> int:
    """Make landmarks of keypoints without one that a keyframe and its covisible keyframes share.

    A pair has to be mutually most similar, clearly more similar than unrelated descriptors, and its rays have to meet
    before both cameras, at a large enough angle, near both keypoints. Of the pairs of a keypoint the one that
    determines the distance best makes the landmark; other neighbours that see the same point are added as observations.

    The epipolar geometry judges the pairs and does not choose them: the most similar keypoint near an epipolar line
    agrees with the two poses also where these are wrong, and what is built on it makes them worse.

    Args:
        slam_map: grows here.
        keyframe_id: the new keyframe.
        config: settings.
        image_scale: scale factor of the pixel values of the settings.

    Returns:
        Number of new landmarks.
    """
    keyframe = slam_map.keyframes[keyframe_id]
    parts = []
    for neighbour_id, _ in slam_map.covisibility.neighbours(keyframe_id, _MIN_SHARED)[: config.neighbours]:
        neighbour = slam_map.keyframes[neighbour_id]
        if _baseline_ratio(slam_map, keyframe, neighbour) >= config.min_baseline_ratio:
            parts.append(_triangulate_pair(slam_map, keyframe, neighbour, config, image_scale))
    if not parts:
        return 0
    pairs = _Pairs(**{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])})
    # The best determined pair of every keypoint, and of every keypoint of a neighbour.
    order = np.argsort(pairs.relative_sigma, kind="stable")
    order = order[first_of_each(pairs.keypoints[order])]
    neighbour_keypoint = pairs.neighbours * (1 << 32) + pairs.neighbour_keypoints
    order = order[first_of_each(neighbour_keypoint[order])]
    made = 0
    for neighbour_id in np.unique(pairs.neighbours[order]).tolist():
        chosen = order[pairs.neighbours[order] == neighbour_id]
        ids = slam_map.add_landmarks(
            neighbour_id, pairs.neighbour_keypoints[chosen], pairs.points_world[chosen], pairs.information[chosen]
        )
        slam_map.add_sightings(keyframe_id, ids, pairs.keypoints[chosen])
        made += len(ids)
    _observe_from_others(slam_map, keyframe, pairs, config.max_error_px * image_scale)
    return made


def _baseline_ratio(slam_map: SlamMap, keyframe: Keyframe, neighbour: Keyframe) -> float:
    """Distance of two keyframes as a share of the median depth of what the neighbour sees."""
    ids = neighbour.landmark_ids[neighbour.observed]
    if not len(ids):
        return 0.0
    depth = transform_points(inverse(neighbour.T_world_cam), slam_map.landmarks.positions[ids])[:, 2]
    distance = float(np.linalg.norm(keyframe.T_world_cam[:3, 3] - neighbour.T_world_cam[:3, 3]))
    return distance / max(float(np.median(depth)), 1e-9)


def _triangulate_pair(
    slam_map: SlamMap, keyframe: Keyframe, neighbour: Keyframe, config: MonoConfig, image_scale: float
) -> _Pairs:
    free0 = np.flatnonzero((neighbour.landmark_ids < 0) & (neighbour.frame.depth <= 0))
    free1 = np.flatnonzero((keyframe.landmark_ids < 0) & (keyframe.frame.depth <= 0))
    pairs = _match_by_look(neighbour.frame, free0, keyframe.frame, free1)
    found = triangulate(
        neighbour.frame.keypoints[pairs[:, 0]],
        keyframe.frame.keypoints[pairs[:, 1]],
        neighbour.T_world_cam,
        keyframe.T_world_cam,
        slam_map.camera,
        covariances=(neighbour.frame.covariances[pairs[:, 0]], keyframe.frame.covariances[pairs[:, 1]]),
    )
    good = found.believable(min_parallax_deg=config.min_parallax_deg, max_error=config.max_error_px * image_scale)
    points = found.points_world[good]
    covariance = np.linalg.inv(found.information[good]) if good.any() else np.zeros((0, 3, 3))
    rays = points - keyframe.T_world_cam[:3, 3]
    distance = np.maximum(np.linalg.norm(rays, axis=1), 1e-12)
    rays = rays / distance[:, None]
    along = np.sqrt(np.maximum(np.einsum("mi,mij,mj->m", rays, covariance, rays), 0.0))
    return _Pairs(
        neighbours=np.full(len(points), neighbour.id, dtype=np.int64),
        neighbour_keypoints=pairs[good, 0],
        keypoints=pairs[good, 1],
        points_world=points,
        information=found.information[good],
        relative_sigma=along / distance,
    )


def _match_by_look(frame0: ObservedFrame, rows0: Indices, frame1: ObservedFrame, rows1: Indices) -> Indices:
    """Pairs (M, 2) of keypoints, of ``rows0`` (N0,) and ``rows1`` (N1,), that are each other's most similar one.

    Left out are those no more similar than unrelated ones.
    """
    matches = match(frame0.features.select(torch.from_numpy(rows0)), frame1.features.select(torch.from_numpy(rows1)))
    background = background_similarity(frame0.descriptors[rows0], frame1.descriptors[rows1])
    indices = matches.indices.numpy()[matches.scores.numpy() > background]
    return np.stack([rows0[indices[:, 0]], rows1[indices[:, 1]]], axis=1)


def _observe_from_others(slam_map: SlamMap, keyframe: Keyframe, pairs: _Pairs, max_error_px: float) -> None:
    """New landmarks are seen by all neighbours whose own pair for the keypoint agrees with the landmark."""
    ids = keyframe.landmark_ids[pairs.keypoints]
    for neighbour_id in np.unique(pairs.neighbours).tolist():
        neighbour = slam_map.keyframes[neighbour_id]
        here = np.flatnonzero((pairs.neighbours == neighbour_id) & (ids >= 0))
        here = here[~np.isin(ids[here], neighbour.landmark_ids)]
        here = here[neighbour.landmark_ids[pairs.neighbour_keypoints[here]] < 0]
        points = transform_points(inverse(neighbour.T_world_cam), slam_map.landmarks.positions[ids[here]])
        seen = neighbour.frame.keypoints[pairs.neighbour_keypoints[here]]
        errors = np.linalg.norm(slam_map.camera.project(points) - seen, axis=1)
        agree = here[errors <= max_error_px]
        slam_map.add_sightings(neighbour_id, ids[agree], pairs.neighbour_keypoints[agree])
