"""A keyframe's keypoints see landmarks of another part of the map: which are adopted, merged, and left alone."""

from __future__ import annotations

import numpy as np
import pytest

from grid_map import COUNT, POINTS, check_consistent, empty_map, grow, ids, observe
from semkey.geometry.transforms import se3_exp
from semkey.slam.map.association import Associations
from semkey.slam.map.duplicates import adopt_landmarks, fuse_duplicates
from semkey.slam.map.slam_map import SlamMap

POSE = se3_exp([0.1, 0.0, 0.0, 0.0, 0.02, 0.0])


def two_parts() -> tuple[SlamMap, int, int]:
    """All points mapped twice, as if nobody had noticed that they are the same; two keyframes, one of each part."""
    slam_map = empty_map()
    first = grow(slam_map, np.eye(4), submap=0)
    second = grow(slam_map, POSE, submap=1)
    slam_map.keyframes[second].submap = 0
    return slam_map, first, second


def pairs(landmark_ids: np.ndarray, keypoints: np.ndarray) -> Associations:
    return Associations(landmark_ids=landmark_ids, keypoint_indices=keypoints, similarity=np.ones(len(keypoints)))


def adopt(slam_map: SlamMap, keyframe_id: int, landmark_ids: np.ndarray, keypoints: np.ndarray) -> int:
    """How many landmarks were merged."""
    return adopt_landmarks(slam_map, slam_map.keyframes[keyframe_id], pairs(landmark_ids, keypoints))


def test_a_keypoint_without_a_landmark_adopts_one_and_a_known_one_is_merged() -> None:
    slam_map, first, second = two_parts()
    theirs = slam_map.keyframes[first].landmark_ids[:6].copy()
    own = slam_map.keyframes[second].landmark_ids[:6].copy()
    slam_map.remove_observations(second, own[:2])  # two of the keypoints see nothing so far
    merged = adopt(slam_map, second, theirs, np.arange(6))
    assert merged == 4
    np.testing.assert_array_equal(slam_map.keyframes[second].landmark_ids[:6], theirs)
    assert not slam_map.landmarks.alive[own].any()
    assert slam_map.landmarks.alive[theirs].all()
    assert slam_map.covisibility.neighbours(first, 1) == [(second, 6)]
    check_consistent(slam_map)


def test_landmarks_that_depth_contradicts_are_left_alone() -> None:
    """6 % of the depth are allowed: 5 % more is the same point, 8 % more is another one, whoever says how far."""
    slam_map, first, second = two_parts()
    keyframe = slam_map.keyframes[second]
    theirs = slam_map.keyframes[first].landmark_ids[:6].copy()
    own = keyframe.landmark_ids[:6].copy()
    slam_map.remove_observations(second, own[2:5])  # these have only their own measurement of depth
    centre = keyframe.T_world_cam[:3, 3]
    for row, factor in ((0, 1.05), (1, 1.08), (2, 1.05), (3, 1.08), (4, 1.3)):
        position = slam_map.landmarks.positions[theirs[row]]
        slam_map.landmarks.positions[theirs[row]] = centre + factor * (position - centre)
    keyframe.frame.depth[4] = 0.0  # and this one not even that
    merged = adopt(slam_map, second, theirs, np.arange(6))
    assert merged == 2, "0 and 5"
    expected = [theirs[0], own[1], theirs[2], -1, theirs[4], theirs[5]]
    np.testing.assert_array_equal(keyframe.landmark_ids[:6], expected)
    check_consistent(slam_map)


def test_a_measured_depth_is_compared_in_present_units() -> None:
    """The keyframe's surroundings have doubled since it measured."""
    slam_map = empty_map()
    first = grow(slam_map, np.eye(4))
    doubled = slam_map.add_keyframe(observe(np.eye(4)), np.eye(4), None, 1).id
    slam_map.remove_observations(doubled, slam_map.keyframes[doubled].landmark_ids[:3].copy())
    slam_map.set_poses({first: np.eye(4), doubled: np.eye(4)}, {first: 2.0, doubled: 2.0})
    slam_map.keyframes[doubled].submap = 0
    theirs = slam_map.keyframes[first].landmark_ids[:3].copy()
    assert adopt(slam_map, doubled, theirs, np.arange(3)) == 0
    np.testing.assert_array_equal(slam_map.keyframes[doubled].landmark_ids[:3], theirs)


def test_what_the_keyframe_sees_already_and_what_is_gone_is_left_out() -> None:
    slam_map, first, second = two_parts()
    keyframe = slam_map.keyframes[second]
    theirs = slam_map.keyframes[first].landmark_ids[:4].copy()
    own = keyframe.landmark_ids.copy()
    assert adopt(slam_map, second, theirs[:1], ids(0)) == 1
    slam_map.remove_landmarks(theirs[1:2])
    # The first is seen by keypoint 0 by now, the second is no more: keypoints 8 and 1 keep what they have.
    assert adopt(slam_map, second, theirs[:2], ids(8, 1)) == 0
    assert keyframe.landmark_ids[0] == theirs[0]
    assert keyframe.landmark_ids[8] == own[8]
    assert keyframe.landmark_ids[1] == own[1]
    check_consistent(slam_map)


@pytest.mark.parametrize("alike", [True, False])
def test_landmarks_in_the_same_place_are_duplicates_only_if_they_look_alike(alike: bool) -> None:
    slam_map, first, second = two_parts()
    theirs = slam_map.keyframes[first].landmark_ids.copy()
    if not alike:  # a third of what made them alike is left
        other = np.roll(np.eye(COUNT, dtype=np.float32), 1, axis=1)
        slam_map.landmarks.descriptors[theirs] = np.float32(0.33) * np.eye(COUNT, dtype=np.float32) + other
    merged = fuse_duplicates(slam_map, [slam_map.keyframes[second]], theirs, radius_px=2.0)
    assert merged == (COUNT if alike else 0)
    assert len(slam_map.landmarks.ids) == (COUNT if alike else 2 * COUNT)
    np.testing.assert_allclose(slam_map.landmarks.positions[theirs], POINTS, atol=1e-6)
