"""A map of a small grid of points, seen whole by every camera, whose pixels and depths are exact."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from semkey.geometry.transforms import inverse, transform_points
from semkey.matching.keypoint_noise import isotropic_covariances
from semkey.model.features import Features
from semkey.slam.config import MapConfig
from semkey.slam.frames.frame import ObservedFrame, observe_frame
from semkey.slam.map.association import Associations
from semkey.slam.map.slam_map import SlamMap
from synthetic_world import CAMERA, HEIGHT, WIDTH

# A grid of points that every camera in these tests sees whole.
POINTS = np.stack(np.meshgrid(np.linspace(-0.6, 0.6, 6), np.linspace(-0.4, 0.4, 5)), axis=-1).reshape(-1, 2)
POINTS = np.concatenate([POINTS, 2.0 + 0.3 * np.sin(7 * POINTS[:, :1])], axis=1)
COUNT = len(POINTS)


def ids(*values: int) -> np.ndarray:
    return np.array(values, dtype=np.int64)


def observe(pose: np.ndarray, points: Sequence[int] = range(COUNT), *, index: int = 0) -> ObservedFrame:
    """The frame of a camera that sees some of the points, with exact pixels and depths."""
    seen = transform_points(inverse(pose), POINTS[list(points)])
    count = len(seen)
    features = Features(
        keypoints=torch.from_numpy(CAMERA.project(seen)).float(),
        scores=torch.ones(count),
        reliability=torch.ones(count),
        descriptors=torch.eye(COUNT)[list(points)],
        global_descriptor=torch.zeros(0),
        image_size=(WIDTH, HEIGHT),
    )
    covariances = isotropic_covariances(len(features), 1.0)
    frame = observe_frame(
        index, 0.1 * index, features, np.ones((HEIGHT, WIDTH), np.float32), covariances, min_depth=0, max_depth=9
    )
    frame.keypoints[:] = CAMERA.project(seen)
    frame.depth[:] = seen[:, 2]
    return frame


def grow(slam_map: SlamMap, pose: np.ndarray, points: Sequence[int] = range(COUNT), submap: int = 0) -> int:
    """Add a keyframe that recognises every point that a keyframe of its submap has seen before."""
    frame = observe(pose, points, index=len(slam_map.keyframes))
    known: dict[int, int] = {}
    for keyframe in slam_map.keyframes.values():
        if keyframe.submap == submap:
            names = keyframe.frame.descriptors[keyframe.observed].argmax(axis=1)
            known |= dict(zip(names.tolist(), keyframe.landmark_ids[keyframe.observed].tolist(), strict=True))
    pairs = [(known[name], row) for row, name in enumerate(points) if name in known]
    found = None
    if pairs:
        landmark_ids, rows = np.array(pairs, dtype=np.int64).T
        found = Associations(landmark_ids=landmark_ids, keypoint_indices=rows, similarity=np.ones(len(rows)))
    return slam_map.add_keyframe(frame, pose, found, submap).id


def empty_map(**settings) -> SlamMap:
    return SlamMap(CAMERA, MapConfig(**settings), pixel_sigma=1.0)


def check_consistent(slam_map: SlamMap) -> None:
    """Keyframes and the observation table say the same, and only of landmarks that are alive."""
    landmarks = slam_map.landmarks
    seen = {
        (keyframe.id, int(landmark), int(row))
        for keyframe in slam_map.keyframes.values()
        for row, landmark in enumerate(keyframe.landmark_ids)
        if landmark >= 0
    }
    rows, keyframes, keypoints = landmarks.observations.lookup(np.arange(len(landmarks)))
    assert {(int(k), int(r), int(p)) for k, r, p in zip(keyframes, rows, keypoints, strict=True)} == seen
    assert landmarks.alive[[landmark for _, landmark, _ in seen]].all()
    np.testing.assert_array_equal(landmarks.observations.counts[: len(landmarks)] > 0, landmarks.alive)
    for landmark in landmarks.ids.tolist():
        assert landmarks.references[landmark] in slam_map.keyframes
    for keyframe in slam_map.keyframes.values():
        assert keyframe.parent is None or keyframe.parent in slam_map.keyframes
