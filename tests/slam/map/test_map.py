"""The map: who sees what, what belongs together, and how it moves, shrinks and grows."""

from __future__ import annotations

import numpy as np
import pytest

from grid_map import COUNT, POINTS, check_consistent, empty_map, grow, ids, observe
from semkey.errors import ConfigError, InputError
from semkey.geometry.transforms import compose, inverse, se3_exp, transform_points
from semkey.slam.config import MapConfig, SlamConfig
from semkey.slam.map.sightings import ObservationTable
from semkey.slam.mapping.culling import covered_share, cull_keyframes
from synthetic_world import CAMERA

# -- who sees what -------------------------------------------------------------------------------------------------


def test_the_table_against_a_plain_dictionary() -> None:
    rng = np.random.default_rng(0)
    table, plain = ObservationTable(), {row: [] for row in range(30)}
    table.reserve(30)
    for keyframe in range(40):
        landmarks = rng.permutation(30)[: rng.integers(1, 25)]
        table.add(keyframe, landmarks, 100 * keyframe + landmarks)
        for row in landmarks.tolist():
            plain[row].append((keyframe, 100 * keyframe + row))
        if keyframe % 3 == 2:
            gone = int(rng.integers(keyframe))
            rows = np.array([row for row in plain if any(k == gone for k, _ in plain[row])], dtype=np.int64)
            table.remove(gone, rows)
            plain = {row: [pair for pair in pairs if pair[0] != gone] for row, pairs in plain.items()}
        if keyframe % 10 == 9:
            table.clear(ids(3, 4))
            plain |= {3: [], 4: []}
    for row, pairs in plain.items():
        _, keyframes, keypoints = table.lookup(ids(row))
        assert list(zip(keyframes.tolist(), keypoints.tolist(), strict=True)) == pairs
        assert table.counts[row] == len(pairs)
        assert table.first_observers(ids(row))[0] == (pairs[0][0] if pairs else -1)
    some = ids(1, 2, 3, 5, 8)
    votes = dict(zip(*(array.tolist() for array in table.votes(some)), strict=True))
    expected: dict[int, int] = {}
    for row in some.tolist():
        for keyframe, _ in plain[row]:
            expected[keyframe] = expected.get(keyframe, 0) + 1
    assert votes == expected


def test_covisible_keyframes_most_shared_first() -> None:
    slam_map = empty_map()
    first = grow(slam_map, np.eye(4))
    half = grow(slam_map, se3_exp([0.1, 0, 0, 0, 0, 0]), range(15))
    most = grow(slam_map, se3_exp([0.2, 0, 0, 0, 0, 0]), range(25))
    assert slam_map.covisibility.neighbours(first) == [(most, 25), (half, 15)]
    assert slam_map.covisibility.neighbours(first, min_shared=16) == [(most, 25)]
    assert slam_map.covisibility.neighbours(half) == [(most, 15), (first, 15)], "the newer of equals first"
    assert [slam_map.keyframes[k].parent for k in (first, half, most)] == [None, first, first]
    assert slam_map.covisibility.observers(ids(20))[0] == (most, 1)
    check_consistent(slam_map)


def test_observations_by_keyframe_and_by_landmark() -> None:
    slam_map = empty_map()
    first, second = grow(slam_map, np.eye(4)), grow(slam_map, se3_exp([0.1, 0, 0, 0, 0, 0]), range(5, 25))
    everything = slam_map.covisibility.observations()
    assert len(everything) == COUNT + 20
    by_second = slam_map.covisibility.observations(keyframe_ids=[second])
    assert set(by_second.keyframe_ids.tolist()) == {second}
    np.testing.assert_array_equal(by_second.landmark_ids, np.arange(5, 25))
    np.testing.assert_array_equal(by_second.keypoints, slam_map.keyframes[second].frame.keypoints)
    of_two = slam_map.covisibility.observations(landmark_ids=ids(3, 7))
    found = zip(of_two.keyframe_ids.tolist(), of_two.landmark_ids.tolist(), strict=True)
    assert sorted(found) == [(first, 3), (first, 7), (second, 7)]
    both = slam_map.covisibility.observations(keyframe_ids=[second], landmark_ids=ids(3, 7))
    assert both.landmark_ids.tolist() == [7]
    np.testing.assert_allclose(both.depth, transform_points(inverse(se3_exp([0.1, 0, 0, 0, 0, 0])), POINTS[7:8])[:, 2])


def test_nearby_keyframes_join_the_local_map() -> None:
    slam_map = empty_map(local_keyframes=1)
    old = grow(slam_map, np.eye(4), range(15))
    behind = slam_map.add_keyframe(observe(np.eye(4)), se3_exp([0, 0, 0, 0, np.pi, 0]), None, 0).id
    new = grow(slam_map, se3_exp([0.1, 0, 0, 0, 0, 0]), range(15, 30))
    last_seen = slam_map.keyframes[new].landmark_ids
    assert slam_map.covisibility.nearby_keyframes(np.eye(4), 0, 5) == [old, new]
    assert slam_map.covisibility.nearby_keyframes(np.eye(4), 0, 5, without=[old]) == [new]
    assert slam_map.covisibility.nearby_keyframes(np.eye(4), 1, 5) == []
    assert slam_map.covisibility.local_landmarks(last_seen).tolist() == sorted(last_seen.tolist())
    assert len(slam_map.covisibility.local_landmarks(last_seen, np.eye(4))) == 30
    assert behind not in slam_map.covisibility.nearby_keyframes(np.eye(4), 0, 5)


# -- moving --------------------------------------------------------------------------------------------------------


def test_landmarks_move_with_their_reference_keyframe() -> None:
    slam_map = empty_map()
    first = grow(slam_map, np.eye(4), range(20))
    second = grow(slam_map, se3_exp([0.2, 0, 0, 0, 0.1, 0]), range(10, 30))
    before = slam_map.landmarks.positions.copy()
    correction = se3_exp([0.5, -0.2, 0.1, 0.1, 0.3, -0.2])
    slam_map.set_poses({second: correction @ slam_map.keyframes[second].T_world_cam})
    np.testing.assert_allclose(slam_map.landmarks.positions[:20], before[:20])
    np.testing.assert_allclose(slam_map.landmarks.positions[20:], transform_points(correction, before[20:]))
    np.testing.assert_array_equal(slam_map.keyframes[first].T_world_cam, np.eye(4))
    # What is seen from where moves along.
    visible, _ = slam_map.landmarks.visible_from(np.arange(20, 30), slam_map.keyframes[second].T_world_cam, CAMERA)
    assert len(visible) == 10


def test_a_scaled_keyframe_sees_its_landmarks_where_it_saw_them() -> None:
    slam_map = empty_map()
    pose = se3_exp([0.2, 0.1, 0, 0, 0.1, 0])
    first = grow(slam_map, pose)
    T_keyframe_cam = slam_map.tree.relative_pose(first, pose @ se3_exp([0.1, 0, 0, 0, 0, 0]))
    moved = se3_exp([1, 2, 3, 0.1, 0.2, 0.3])
    information = slam_map.landmarks.information.copy()
    slam_map.set_poses({first: moved}, {first: 2.0})
    seen = transform_points(inverse(moved), slam_map.landmarks.positions)
    np.testing.assert_allclose(seen, 2 * transform_points(inverse(pose), POINTS), atol=1e-9)
    traces = np.trace(information, axis1=1, axis2=2)
    np.testing.assert_allclose(np.trace(slam_map.landmarks.information, axis1=1, axis2=2), traces / 4)
    step = inverse(moved) @ slam_map.tree.absolute_pose(first, T_keyframe_cam)
    np.testing.assert_allclose(step[:3, 3], [0.2, 0, 0], atol=1e-12)
    # A pose that is taken now is in present units already.
    now = moved @ se3_exp([0.2, 0, 0, 0, 0, 0])
    again = slam_map.tree.absolute_pose(first, slam_map.tree.relative_pose(first, now))
    np.testing.assert_allclose(again, now, atol=1e-12)


def test_a_landmark_is_recognised_from_where_its_keyframe_has_gone() -> None:
    """Turned by a right angle: from the old direction it would be out of sight."""
    slam_map = empty_map()
    first = grow(slam_map, np.eye(4))
    turned = se3_exp([0.0, 0.0, 0.0, 0.0, np.pi / 2, 0.0])
    slam_map.set_poses({first: turned})
    visible, pixels = slam_map.landmarks.visible_from(np.arange(COUNT), turned, CAMERA)
    assert len(visible) == COUNT
    np.testing.assert_allclose(pixels, CAMERA.project(POINTS), atol=1e-3)


def test_how_far_a_keyframe_sees_grows_with_it() -> None:
    slam_map = empty_map()
    first, second = grow(slam_map, np.eye(4)), grow(slam_map, se3_exp([0.1, 0, 0, 0, 0, 0]))
    other = grow(slam_map, np.eye(4), submap=1)
    depth = float(np.median(POINTS[:, 2]))
    assert slam_map.keyframes[first].median_depth == pytest.approx(depth)
    slam_map.set_poses({first: np.eye(4), second: np.eye(4)}, {second: 1.5})
    assert slam_map.keyframes[first].median_depth == pytest.approx(depth)
    assert slam_map.keyframes[second].median_depth == pytest.approx(1.5 * depth)
    slam_map.join_submaps(0, 1, np.eye(4), 0.5)
    assert slam_map.keyframes[other].median_depth == pytest.approx(0.5 * depth)
    assert slam_map.keyframes[other].scale == 0.5


def test_joined_submaps_share_one_world() -> None:
    slam_map = empty_map()
    T_into_gone = se3_exp([0.5, 0, -0.3, 0, 0.4, 0])
    first = grow(slam_map, np.eye(4), range(20), submap=0)
    second = grow(slam_map, se3_exp([0.1, 0, 0, 0, 0, 0]), range(20), submap=0)
    other = compose(inverse(T_into_gone), se3_exp([0.1, 0, 0, 0, 0, 0]))
    third = slam_map.add_keyframe(observe(se3_exp([0.1, 0, 0, 0, 0, 0])), other, None, 1).id
    fourth = slam_map.add_keyframe(observe(np.eye(4)), inverse(T_into_gone), None, 1).id
    slam_map.keyframes[fourth].parent = third
    assert slam_map.tree.submaps == [0, 1]
    slam_map.join_submaps(0, 1, T_into_gone, bridge=(second, fourth))
    assert slam_map.tree.submaps == [0]
    np.testing.assert_allclose(slam_map.keyframes[fourth].T_world_cam, np.eye(4), atol=1e-12)
    created = slam_map.keyframes[third].landmark_ids
    np.testing.assert_allclose(slam_map.landmarks.positions[created], POINTS, atol=1e-6)
    parents = {k: keyframe.parent for k, keyframe in slam_map.keyframes.items()}
    assert parents == {first: None, second: first, fourth: second, third: fourth}
    assert slam_map.next_submap == 2, "a number is not given twice"


# -- shrinking -----------------------------------------------------------------------------------------------------


def test_merged_landmarks_are_seen_by_whoever_saw_either() -> None:
    slam_map = empty_map()
    first = grow(slam_map, np.eye(4), range(10), submap=0)
    second = grow(slam_map, se3_exp([0.1, 0, 0, 0, 0, 0]), range(10), submap=1)
    keep = slam_map.keyframes[first].landmark_ids[:6].copy()
    gone = slam_map.keyframes[second].landmark_ids[:6].copy()
    # One keyframe that sees both of a pair keeps the sighting of the kept one.
    slam_map.keyframes[second].landmark_ids[9] = -1
    slam_map.landmarks.observations.remove(second, slam_map.keyframes[second].landmark_ids[9:9])
    slam_map.remove_observations(second, slam_map.keyframes[second].landmark_ids[8:9])
    slam_map.add_sightings(second, keep[5:6], ids(8))
    slam_map.landmarks.remove(np.setdiff1d(slam_map.landmarks.ids, slam_map.covisibility.observations().landmark_ids))
    slam_map.merge_landmarks(keep, gone)
    assert not slam_map.landmarks.alive[gone].any()
    np.testing.assert_array_equal(slam_map.keyframes[second].landmark_ids[:5], keep[:5])
    assert slam_map.keyframes[second].landmark_ids[5] == -1
    assert slam_map.keyframes[second].landmark_ids[8] == keep[5]
    assert slam_map.covisibility.neighbours(first, 1) == [(second, 6)]
    slam_map.merge_landmarks(keep[:1], gone[:1])  # a pair that is no more is left alone
    assert slam_map.covisibility.neighbours(first, 1) == [(second, 6)]


def test_a_merged_landmark_has_been_seen_and_found_as_often_as_both() -> None:
    slam_map = empty_map()
    first, second = grow(slam_map, np.eye(4), submap=0), grow(slam_map, se3_exp([0.1, 0, 0, 0, 0, 0]), submap=1)
    keep, gone = (slam_map.keyframes[k].landmark_ids[:3].copy() for k in (first, second))
    slam_map.count_views(keep, keep)
    slam_map.count_views(np.concatenate([keep, gone]), gone)
    slam_map.merge_landmarks(keep, gone)
    counts = slam_map.landmarks.to_arrays()
    # Once each by their keyframes; then twice and once in view, once and once found.
    assert counts["visible"][keep].tolist() == [3 + 2] * 3
    assert counts["found"][keep].tolist() == [2 + 2] * 3
    assert counts["keyframe_count"][keep].tolist() == [2] * 3


def test_rows_of_removed_landmarks_are_used_again() -> None:
    slam_map = empty_map()
    first = grow(slam_map, np.eye(4))
    slam_map.remove_landmarks(ids(2, 5, 7))
    assert len(slam_map.landmarks.ids) == COUNT - 3
    assert (slam_map.keyframes[first].landmark_ids[[2, 5, 7]] == -1).all()
    assert slam_map.covisibility.local_landmarks(ids(2, 5)).tolist() == []
    serials = slam_map.landmarks.serials[[2, 5, 7]].copy()
    second = grow(slam_map, se3_exp([0.1, 0, 0, 0, 0, 0]))
    assert len(slam_map.landmarks) == COUNT, "no new row"
    assert sorted(slam_map.keyframes[second].landmark_ids.tolist()) == list(range(COUNT))
    assert (slam_map.landmarks.serials[[2, 5, 7]] > serials.max()).all()
    np.testing.assert_allclose(slam_map.landmarks.positions[[2, 5, 7]], POINTS[[2, 5, 7]], atol=1e-6)
    check_consistent(slam_map)


def test_frames_of_a_removed_keyframe_follow_its_parent() -> None:
    slam_map = empty_map()
    poses = [se3_exp([0.1 * k, 0, 0, 0, 0.02 * k, 0]) for k in range(4)]
    first, second, third, fourth = [grow(slam_map, pose) for pose in poses]
    slam_map.keyframes[third].parent, slam_map.keyframes[fourth].parent = second, third
    frame = poses[2] @ se3_exp([0, 0.1, 0, 0, 0, 0])
    T_third_frame = slam_map.tree.relative_pose(third, frame)
    slam_map.remove_keyframe(third)
    assert slam_map.keyframes[fourth].parent == second
    slam_map.remove_keyframe(second)
    assert slam_map.keyframes[fourth].parent == first
    check_consistent(slam_map)
    np.testing.assert_allclose(slam_map.tree.absolute_pose(third, T_third_frame), frame, atol=1e-12)
    correction = se3_exp([1, 0, 0, 0, 0, 0.5])
    slam_map.set_poses({first: correction}, {first: 3.0})
    moved = slam_map.tree.absolute_pose(third, T_third_frame)
    np.testing.assert_allclose(moved[:3, :3], (correction @ frame)[:3, :3], atol=1e-12)
    np.testing.assert_allclose(moved[:3, 3], correction[:3, 3] + correction[:3, :3] @ (3 * frame[:3, 3]), atol=1e-12)


def test_a_removed_keyframe_that_had_grown_leaves_its_frames_where_they_were() -> None:
    """Two keyframes of other sizes than their parent's are removed, one after the other."""
    slam_map = empty_map()
    first, second, third = (grow(slam_map, se3_exp([0.1 * k, 0, 0, 0, 0.02 * k, 0])) for k in range(3))
    slam_map.keyframes[third].parent = second
    frame = compose(slam_map.keyframes[third].T_world_cam, se3_exp([0.0, 0.1, 0.0, 0.1, 0.0, 0.0]))
    T_third_frame = slam_map.tree.relative_pose(third, frame)
    poses = {k: slam_map.keyframes[k].T_world_cam for k in (first, second, third)}
    slam_map.set_poses(poses, {first: 1.5, second: 2.0, third: 3.0})
    before = slam_map.tree.absolute_pose(third, T_third_frame)
    assert np.linalg.norm(before[:3, 3] - poses[third][:3, 3]) == pytest.approx(0.3, rel=0.01)
    for gone in (third, second):
        slam_map.remove_keyframe(gone)
        np.testing.assert_allclose(slam_map.tree.absolute_pose(third, T_third_frame), before, atol=1e-12)


def test_a_removed_keyframe_leaves_its_landmarks_to_who_else_sees_them() -> None:
    slam_map = empty_map()
    first = grow(slam_map, np.eye(4), range(10))
    second = grow(slam_map, se3_exp([0.1, 0, 0, 0, 0, 0]), range(5, 25))
    third = grow(slam_map, se3_exp([0.2, 0, 0, 0, 0, 0]), range(15, 30))
    with pytest.raises(InputError, match="root"):
        slam_map.remove_keyframe(first)
    slam_map.remove_keyframe(second)
    check_consistent(slam_map)
    landmarks = slam_map.landmarks
    assert not landmarks.alive[10:15].any(), "nobody else saw these"
    assert set(landmarks.references[15:25].tolist()) == {third}
    assert slam_map.covisibility.neighbours(first, 1) == []


def test_a_wrong_sighting_is_taken_back() -> None:
    slam_map = empty_map()
    first = grow(slam_map, np.eye(4), range(10))
    second = grow(slam_map, se3_exp([0.1, 0, 0, 0, 0, 0]), range(5, 15))
    slam_map.remove_observations(second, ids(6, 7, 12))
    check_consistent(slam_map)
    assert slam_map.covisibility.neighbours(first, 1) == [(second, 3)]
    assert slam_map.landmarks.alive[[6, 7]].all()
    assert not slam_map.landmarks.alive[12]


# -- culling -------------------------------------------------------------------------------------------------------


def test_what_three_others_see_as_closely_is_redundant() -> None:
    slam_map = empty_map()
    step = [0.02, 0, 0, 0, 0, 0]
    keyframes = [grow(slam_map, se3_exp(np.multiply(step, k))) for k in range(6)]
    assert covered_share(slam_map, keyframes[2], 3) == 1.0
    assert covered_share(slam_map, keyframes[2], 6) == 0.0
    removed = cull_keyframes(slam_map, keyframes[-1], share=0.9, observers=3, recent=2)
    assert removed == keyframes[1:4], "the root and the two newest stay, and are just enough"
    assert list(slam_map.keyframes) == [keyframes[0], *keyframes[4:]]
    check_consistent(slam_map)


def test_a_closer_look_is_not_redundant() -> None:
    slam_map = empty_map()
    grow(slam_map, np.eye(4))
    close = grow(slam_map, se3_exp([0, 0, 1.0, 0, 0, 0]))
    for k in range(4):
        last = grow(slam_map, se3_exp([0.02 * k, 0, 0, 0, 0, 0]))
    assert covered_share(slam_map, close, 3) < 0.1
    assert close not in cull_keyframes(slam_map, last, share=0.9, observers=3, recent=1)


def test_a_keyframe_with_something_of_its_own_stays() -> None:
    slam_map = empty_map()
    grow(slam_map, np.eye(4), range(26))
    own = grow(slam_map, se3_exp([0.02, 0, 0, 0, 0, 0]), range(30))
    grow(slam_map, se3_exp([0.03, 0, 0, 0, 0, 0]), range(30))
    for k in range(4):
        last = grow(slam_map, se3_exp([0.02 * k, 0, 0, 0, 0, 0]), range(26))
    assert covered_share(slam_map, own, 3) == pytest.approx(26 / 30)
    removed = cull_keyframes(slam_map, last, share=0.9, observers=3, recent=1)
    assert own not in removed
    assert removed


# -- settings ------------------------------------------------------------------------------------------------------


def test_settings_by_subject_and_with_the_nearest_name_for_a_wrong_one() -> None:
    config = SlamConfig.from_mapping({"seed": 3, "map": {"adjustment": "none"}, "tracking": {"min_inliers": 20}})
    assert (config.seed, config.map.adjustment, config.tracking.min_inliers) == (3, "none", 20)
    assert SlamConfig.from_mapping(config.to_mapping()) == config
    with pytest.raises(ConfigError, match=r"map\.local_keyframe.*local_keyframes"):
        SlamConfig.from_mapping({"map": {"local_keyframe": 3}})
    for bad in ({"redundant_share": 0}, {"local_keyframes": 0}, {"adjustment": "sometimes"}, {"fixed_keyframes": -1}):
        with pytest.raises(ConfigError, match=next(iter(bad))):
            MapConfig.from_mapping(bad)
