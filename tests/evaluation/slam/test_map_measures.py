"""Track lengths and false loops of a run: known maps and known loops."""

from __future__ import annotations

import math

import numpy as np
import pytest

from semkey.evaluation.slam.map_measures import is_false_loop, measure_map, track_lengths
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import make_transform, so3_exp
from semkey.slam.config import SlamConfig
from semkey.slam.map.landmarks import LandmarkMap
from semkey.slam.records import LoopRecord
from semkey.slam.result import SlamResult


def landmarks_of(found: list[int], keyframes: list[int]) -> LandmarkMap:
    landmarks = LandmarkMap()
    count = len(found)
    ids = landmarks.add(
        np.ones((count, 3)), np.tile(np.eye(3), (count, 1, 1)), np.ones((count, 4), np.float32), np.zeros(3), 0
    )
    for number in range(max(keyframes)):
        seen = ids[np.array(keyframes) > number]
        landmarks.observations.add(number, seen, np.arange(len(seen)))
    for number in range(max(found) - 1):
        landmarks.count_views(ids, ids[np.array(found) - 1 > number])
    return landmarks


def test_track_lengths_are_of_landmarks_that_two_keyframes_see() -> None:
    lengths = track_lengths(landmarks_of(found=[9, 5, 7, 40], keyframes=[2, 3, 4, 1]))
    assert lengths == {"track_frames": 7.0, "track_keyframes": 3.0}


def test_removed_landmarks_do_not_count() -> None:
    landmarks = landmarks_of(found=[9, 5, 7], keyframes=[2, 3, 4])
    landmarks.remove(np.array([2]))
    assert track_lengths(landmarks) == {"track_frames": 7.0, "track_keyframes": 2.5}


def test_a_map_without_tracks_has_no_length() -> None:
    assert all(math.isnan(value) for value in track_lengths(landmarks_of(found=[1], keyframes=[1])).values())


CAMERA = PinholeCamera(fx=100.0, fy=100.0, cx=49.5, cy=49.5, width=100, height=100)
LOOP = LoopRecord(kind="loop", frame_index=9, keyframe_id=4, matched_keyframe_id=0, inliers=80)


@pytest.mark.parametrize(
    ("moved", "turned_deg", "is_false"),
    [(0.0, 0.0, False), (0.4, 0.0, False), (0.6, 0.0, True), (0.0, 15.0, False), (0.0, 25.0, True)],
)
def test_a_loop_is_false_where_its_keyframes_lie_otherwise(moved: float, turned_deg: float, is_false: bool) -> None:
    # in another world frame, as a run has it: only how the two keyframes lie to each other counts
    world = make_transform(so3_exp(np.array([0.0, 1.0, 0.0])), np.array([5.0, 0.0, 2.0]))
    truth = {0: make_transform(np.eye(3), np.zeros(3)), 4: make_transform(np.eye(3), np.array([0.3, 0.0, 0.0]))}
    error = make_transform(so3_exp(np.array([0.0, 0.0, np.deg2rad(turned_deg)])), np.array([moved, 0.0, 0.0]))
    estimates = {0: world @ truth[0], 4: world @ truth[4] @ error}
    assert is_false_loop(LOOP, estimates, truth) is is_false


def test_a_loop_without_true_poses_counts_as_right() -> None:
    assert not is_false_loop(LOOP, {0: np.eye(4), 4: np.eye(4)}, {0: np.eye(4)})


def test_nothing_is_said_of_a_run_without_a_map() -> None:
    result = SlamResult(
        sequence_name="x", sequence_format="tum", features="orb", camera=CAMERA, config=SlamConfig(), sensor="rgbd"
    )
    assert measure_map(result) == {}
