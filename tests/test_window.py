"""Window refinement: keyframes and shared landmarks of a known world, disturbed and put right again."""

from __future__ import annotations

import numpy as np
import pytest

from semkey.geometry.transforms import compose, inverse, se3_exp, transform_points
from semkey.slam.keyframe import Keyframe, observe_frame
from semkey.slam.landmarks import LandmarkMap
from semkey.slam.window import refine_window
from synthetic_world import CAMERA, PointExtractor, PointWorld, walk

COUNT = 5


def keyframes_and_map() -> tuple[list[Keyframe], LandmarkMap, np.ndarray]:
    """Five keyframes with true poses whose landmarks, matched by their exact descriptors, have true positions."""
    world = PointWorld(walk(COUNT, step=(0.1, 0.02, 0.05, 0.01, 0.05, 0.0)))
    extractor = PointExtractor(world)
    landmarks = LandmarkMap(64)
    known: dict[bytes, int] = {}
    keyframes = []
    for number in range(COUNT):
        taken = world[number]
        assert taken.depth is not None
        assert taken.T_world_cam is not None
        frame = observe_frame(
            number, taken.timestamp, extractor.extract(taken.image), taken.depth, min_depth=0.1, max_depth=9.0
        )
        keys = [descriptor.tobytes() for descriptor in frame.descriptors]
        ids = np.array([known.get(key, -1) for key in keys], dtype=np.int64)
        fresh = np.flatnonzero((ids < 0) & (frame.depth > 0))
        ids[fresh] = landmarks.add(
            transform_points(taken.T_world_cam, frame.points_cam(fresh, CAMERA)),
            np.tile(np.eye(3), (len(fresh), 1, 1)),
            frame.descriptors[fresh],
            taken.T_world_cam[:3, 3],
            number,
        )
        known |= {keys[k]: int(ids[k]) for k in fresh}
        keyframes.append(
            Keyframe(number=number, frame=frame, T_world_cam=taken.T_world_cam, landmark_ids=ids, segment=0)
        )
    return keyframes, landmarks, landmarks.positions.copy()


def disturb(keyframes: list[Keyframe], landmarks: LandmarkMap, rng: np.random.Generator) -> None:
    for keyframe in keyframes:
        keyframe.T_world_cam = compose(keyframe.T_world_cam, se3_exp(rng.normal(0, 0.02, 6)))
    landmarks._positions[: len(landmarks)] += rng.normal(0, 0.02, (len(landmarks), 3))


def worst(keyframes: list[Keyframe]) -> float:
    truth = walk(COUNT, step=(0.1, 0.02, 0.05, 0.01, 0.05, 0.0))
    return max(
        float(np.abs(inverse(true) @ keyframe.T_world_cam - np.eye(4)).max())
        for true, keyframe in zip(truth, keyframes, strict=True)
    )


def test_disturbed_keyframes_and_landmarks_return(rng: np.random.Generator) -> None:
    keyframes, landmarks, positions = keyframes_and_map()
    disturb(keyframes[2:], landmarks, rng)
    before = worst(keyframes)
    for _ in range(4):
        refine_window(keyframes[2:], keyframes[:2], landmarks, CAMERA, pixel_sigma=1.0)
    assert before > 0.01
    assert worst(keyframes) < 1e-3
    counts = np.bincount(np.concatenate([k.landmark_ids[k.observed] for k in keyframes]), minlength=len(landmarks))
    free_ids = np.unique(np.concatenate([k.landmark_ids[k.observed] for k in keyframes[2:]]))
    shared = free_ids[counts[free_ids] >= 2]
    assert len(shared) > 50
    assert np.abs(landmarks.positions[shared] - positions[shared]).max() < 5e-3


def test_fixed_keyframes_do_not_move_and_the_first_holds_the_world(rng: np.random.Generator) -> None:
    keyframes, landmarks, _ = keyframes_and_map()
    disturb(keyframes[1:], landmarks, rng)
    held = [keyframe.T_world_cam.copy() for keyframe in keyframes[:2]]
    refine_window(keyframes[2:], keyframes[:2], landmarks, CAMERA, pixel_sigma=1.0)
    for keyframe, pose in zip(keyframes, held, strict=False):
        np.testing.assert_array_equal(keyframe.T_world_cam, pose)
    for _ in range(4):
        refine_window(keyframes, [], landmarks, CAMERA, pixel_sigma=1.0)
    np.testing.assert_array_equal(keyframes[0].T_world_cam, held[0])
    assert worst(keyframes) < 1e-3


def test_landmarks_of_one_keyframe_move_along_with_it(rng: np.random.Generator) -> None:
    keyframes, landmarks, _ = keyframes_and_map()
    last = keyframes[-1]
    counts = np.bincount(np.concatenate([k.landmark_ids[k.observed] for k in keyframes]), minlength=len(landmarks))
    ids = last.landmark_ids[last.observed]
    own = ids[counts[ids] == 1]
    assert len(own) > 0
    last.T_world_cam = compose(last.T_world_cam, se3_exp([0.02, 0, 0.01, 0, 0.01, 0]))
    in_camera = transform_points(inverse(last.T_world_cam), landmarks.positions[own])
    refine_window([last], keyframes[:-1], landmarks, CAMERA, pixel_sigma=1.0)
    after = transform_points(inverse(last.T_world_cam), landmarks.positions[own])
    np.testing.assert_allclose(after, in_camera, atol=1e-9)


def test_a_single_keyframe_or_nothing_shared_changes_nothing() -> None:
    keyframes, landmarks, positions = keyframes_and_map()
    before = keyframes[0].T_world_cam.copy()
    refine_window(keyframes[:1], [], landmarks, CAMERA, pixel_sigma=1.0)
    np.testing.assert_array_equal(keyframes[0].T_world_cam, before)
    for keyframe in keyframes:
        keyframe.landmark_ids[:] = -1
    refine_window(keyframes[1:], keyframes[:1], landmarks, CAMERA, pixel_sigma=1.0)
    np.testing.assert_array_equal(landmarks.positions, positions)


def test_landmarks_that_are_never_found_again_are_dropped() -> None:
    landmarks = LandmarkMap(4)
    points = np.array([[0.0, 0, 2], [0.1, 0, 2], [0.2, 0, 2]])
    ids = landmarks.add(points, np.tile(np.eye(3), (3, 1, 1)), np.zeros((3, 4), np.float32), np.zeros(3), 0)
    for _ in range(10):
        landmarks.count_views(ids, ids[:2])
    assert landmarks.alive.tolist() == [True, True, False]
    landmarks.describe(ids[:1], np.ones((1, 4), np.float32), np.zeros(3))
    landmarks.end_probation(2)
    assert landmarks.alive.tolist() == [True, True, False]
    landmarks.end_probation(3)
    assert landmarks.alive.tolist() == [True, False, False]
    visible, pixels = landmarks.visible_from(ids, np.eye(4), CAMERA)
    assert visible.tolist() == [0]
    assert pixels[0] == pytest.approx([CAMERA.cx, CAMERA.cy])
    from_behind = compose(np.diag([1.0, 1, 1, 1]), se3_exp([0, 0, 4, 0, np.pi, 0]))
    assert len(landmarks.visible_from(ids, from_behind, CAMERA)[0]) == 0
