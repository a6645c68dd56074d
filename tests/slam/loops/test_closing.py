"""Loops, look-alikes, kidnapped cameras and submaps, in worlds whose truth is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from semkey.datasets import Frame, FrameSequence
from semkey.errors import ConfigError
from semkey.extractors import Extractor, create_extractor
from semkey.geometry.transforms import compose, inverse, make_transform, rotation_angle_deg, se3_exp, so3_exp
from semkey.metrics.trajectory import absolute_trajectory_error
from semkey.rendering import RoomConfig, render_room, room_camera
from semkey.slam import SlamConfig, SlamResult, run_slam
from semkey.slam.config import LoopConfig, MapConfig
from semkey.slam.loops.closing import LoopCloser
from semkey.slam.loops.essential_graph import essential_edges, path_between
from semkey.slam.loops.place_recognition import PlaceRecognition
from semkey.slam.loops.verification import count_supporters, match_place
from semkey.slam.map.duplicates import fuse_duplicates
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.places import place_landmarks
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.records import LoopRecord
from semkey.slam.solvers.pose_graph import PoseEdge
from synthetic_world import FrameList, PointExtractor, PointWorld

Array = NDArray[np.float64]
EAGER = LoopConfig(consistency=1, min_gap_seconds=0.5)
# Neighbours that support a loop are placed by odometry, which drifts faster in the bent maps here than in any real one.
BENT = replace(EAGER, min_supporters=1)
# A map as it would be had the camera come back to it too far from where it believes to be: tracking alone, which looks
# for nothing but what it has seen last.
TRACKED_ONLY = MapConfig(nearby_keyframes=0, adjustment="none", final_keyframes=0)
WITHOUT_LOOPS = SlamConfig(loops=LoopConfig(enabled=False), map=TRACKED_ONLY)


ROOM = RoomConfig(seed=3, motion="loop", frames=64, width=320, height=240, fps=10.0, blur=False)
ROOM_CAMERA = room_camera(ROOM)


def compact() -> Extractor:
    return create_extractor("compact", max_keypoints=512, device="cpu")


def turn(count: int, degrees: float, centre: Sequence[float] = (0, 0, 0), start: float = 0.0) -> list[Array]:
    """A camera on a small circle, which looks outwards and turns about the vertical."""
    poses = []
    for angle in np.radians(start + degrees * np.arange(count)):
        rotation = so3_exp([0.0, float(angle), 0.0])
        poses.append(make_transform(rotation, np.asarray(centre) + rotation @ np.array([0.0, 0.0, 0.3])))
    return poses


def unlooped(**changes) -> SlamConfig:
    return SlamConfig(map=TRACKED_ONLY, loops=replace(EAGER, enabled=False, **changes))


def run(world: PointWorld, config: SlamConfig | None = None, **options) -> SlamResult:
    return run_slam(world, PointExtractor(world), config, **options)


class Loops:
    """Recognises places and corrects the map there."""

    def __init__(self, slam_map: SlamMap, config: LoopConfig, *, with_scale: bool = False) -> None:
        self.places = PlaceRecognition(slam_map, config, with_scale=with_scale)
        self._closer = LoopCloser(slam_map, config, with_scale=with_scale)

    @property
    def loops(self) -> list[PoseEdge]:
        return self._closer.loops

    def close(self, keyframe: Keyframe) -> LoopRecord | None:
        match = self.places.find_loop(keyframe)
        return None if match is None else self._closer.correct(match)


def the_map(result: SlamResult) -> SlamMap:
    assert result.slam_map is not None
    return result.slam_map


def keyframe_errors(slam_map: SlamMap, world: FrameSequence) -> Array:
    """Distance of every keyframe from the truth, metres, with the first one laid on it."""
    keyframes = list(slam_map.keyframes.values())
    truth = [true_pose(world, keyframe) for keyframe in keyframes]
    to_world = keyframes[0].T_world_cam @ inverse(truth[0])
    pairs = zip(keyframes, truth, strict=True)
    return np.array([np.linalg.norm((to_world @ pose)[:3, 3] - k.T_world_cam[:3, 3]) for k, pose in pairs])


def true_pose(world: FrameSequence, keyframe: Keyframe) -> Array:
    pose = world.ground_truth[keyframe.frame.index]
    assert pose is not None
    return pose


def drift(slam_map: SlamMap, step: Sequence[float], *, shrink: float = 1.0) -> None:
    """Bend a map as odometry would: every motion between keyframes has this error, and is shorter than the last."""
    keyframes = list(slam_map.keyframes.values())
    poses, scales = {keyframes[0].id: keyframes[0].T_world_cam}, {keyframes[0].id: 1.0}
    for before, after in pairwise(keyframes):
        motion = inverse(before.T_world_cam) @ after.T_world_cam
        motion[:3, 3] *= scales[before.id]
        poses[after.id] = compose(poses[before.id], motion, se3_exp(step))
        scales[after.id] = shrink * scales[before.id]
    slam_map.set_poses(poses, scales)


@pytest.fixture(scope="module")
def round_trip() -> tuple[PointWorld, SlamResult]:
    """A full turn and a little more, mapped without looking for loops."""
    world = PointWorld(turn(40, 10.0), pixel_noise=0.2, depth_noise=0.5)
    return world, run(world, WITHOUT_LOOPS)


def fresh_round_trip() -> tuple[PointWorld, SlamMap]:
    world = PointWorld(turn(40, 10.0), pixel_noise=0.2, depth_noise=0.5)
    return world, the_map(run(world, WITHOUT_LOOPS))


@pytest.fixture(scope="module")
def rendered_round() -> list[Frame]:
    """A camera's round through a room, back to where it began."""
    return list(render_room(ROOM))


def ate(result: SlamResult) -> float:
    return absolute_trajectory_error(result.trajectory(), result.ground_truth_trajectory()).statistics.rmse


# -- loops ---------------------------------------------------------------------------------------------------------


def test_a_loop_takes_the_drift_out_of_all_keyframes() -> None:
    world, slam_map = fresh_round_trip()
    drift(slam_map, [0.015, 0.005, 0.01, 0.004, 0.012, 0.0])
    before, landmarks_before = keyframe_errors(slam_map, world), len(slam_map.landmarks.ids)
    newest = slam_map.tree.newest
    closer = Loops(slam_map, BENT)
    record = closer.close(newest)
    assert record is not None
    after = keyframe_errors(slam_map, world)
    assert before[-1] > 0.15
    assert after[-1] < 0.02
    assert after.max() < 0.7 * before.max()
    assert record.kind == "loop"
    assert record.keyframe_id == newest.id
    assert slam_map.keyframes[record.matched_keyframe_id].frame.index < 6
    assert record.correction_m == pytest.approx(before[-1], abs=0.03)
    assert record.scale == 1.0
    np.testing.assert_array_equal(slam_map.keyframes[0].T_world_cam, np.eye(4))
    assert len(slam_map.landmarks.ids) < landmarks_before - 30, "points that were mapped twice are one landmark"
    assert record.matched_keyframe_id in [key for key, _ in slam_map.covisibility.neighbours(newest.id)]
    assert closer.close(newest) is None, "what is connected is no loop any more"


def test_landmarks_move_with_their_keyframes() -> None:
    _, slam_map = fresh_round_trip()
    drift(slam_map, [0.015, 0.005, 0.01, 0.004, 0.012, 0.0])

    def depth_errors() -> Array:
        seen = slam_map.covisibility.observations()
        ids, keyframes = seen.landmark_ids, seen.keyframe_ids
        poses = np.stack([inverse(slam_map.keyframes[int(k)].T_world_cam) for k in keyframes])
        points = np.einsum("nij,nj->ni", poses[:, :3, :3], slam_map.landmarks.positions[ids]) + poses[:, :3, 3]
        return np.abs(points[:, 2] - seen.depth)

    assert Loops(slam_map, BENT).close(slam_map.tree.newest) is not None
    errors = depth_errors()
    assert np.median(errors) < 0.02
    assert np.quantile(errors, 0.95) < 0.12


def test_scale_drift_is_corrected_where_the_scale_is_free() -> None:
    world, slam_map = fresh_round_trip()
    drift(slam_map, [0.0] * 6, shrink=0.98)
    newest = slam_map.tree.newest
    size_before = float(np.median(newest.frame.depth[newest.observed]) * newest.scale)
    assert newest.scale < 0.75
    record = Loops(slam_map, EAGER, with_scale=True).close(newest)
    assert record is not None
    assert record.scale * size_before == pytest.approx(np.median(newest.frame.depth[newest.observed]), rel=0.07)
    assert newest.scale == pytest.approx(1.0, abs=0.07)
    assert keyframe_errors(slam_map, world)[-1] < 0.03
    middle = list(slam_map.keyframes.values())[len(slam_map.keyframes) // 2]
    assert 0.85 < middle.scale < 1.1


def test_a_loop_edge_is_kept_in_present_units() -> None:
    _, slam_map = fresh_round_trip()
    drift(slam_map, [0.0] * 6, shrink=0.98)
    closer = Loops(slam_map, EAGER, with_scale=True)
    record = closer.close(slam_map.tree.newest)
    assert record is not None
    [edge] = closer.loops
    assert edge.S_first_second.scale == pytest.approx(1.0, abs=0.02)
    first, second = slam_map.keyframes[edge.first], slam_map.keyframes[edge.second]
    now = inverse(first.T_world_cam) @ second.T_world_cam
    np.testing.assert_allclose(edge.S_first_second.T, now, atol=0.02)


def test_loops_can_be_switched_off_and_wait_for_consistency() -> None:
    _, slam_map = fresh_round_trip()
    newest = slam_map.tree.newest
    assert Loops(slam_map, LoopConfig(enabled=False)).close(newest) is None
    assert Loops(slam_map, replace(EAGER, min_gap_seconds=100.0)).close(newest) is None
    patient = Loops(slam_map, replace(EAGER, consistency=2))
    *_, last_but_one, last = slam_map.keyframes.values()
    assert patient.close(last_but_one) is None
    assert patient.close(last) is not None


def test_after_a_loop_consistency_is_waited_for_anew() -> None:
    """Two keyframes in a row must find a place: the second does, and the third is the first of a new row."""
    _, slam_map = fresh_round_trip()
    patient = PlaceRecognition(slam_map, replace(EAGER, consistency=2))
    found = [patient.find_loop(slam_map.tree.newest) is not None for _ in range(6)]
    assert found == [False, True] * 3


def test_a_loop_during_a_run_is_reported() -> None:
    world = PointWorld(turn(45, 10.0), pixel_noise=0.3, depth_noise=1.0)
    told = []

    class Listener:
        def on_start(self, result, slam_map) -> None: ...
        def on_keyframe(self, event) -> None: ...
        def on_frame(self, event) -> None: ...
        def on_end(self, result, slam_map) -> None: ...
        def on_loop(self, event) -> None:
            told.append(event.loop)

    result = run(world, SlamConfig(map=TRACKED_ONLY, loops=replace(EAGER, consistency=2)), listeners=[Listener()])
    assert result.tracked == 45
    assert result.loops
    assert told == result.loops
    assert keyframe_errors(the_map(result), world).max() < 0.03
    again = run(world, SlamConfig(map=TRACKED_ONLY, loops=replace(EAGER, consistency=2)))
    assert again.loops == result.loops
    for first, second in zip(result.poses, again.poses, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.slow
def test_a_round_through_a_rendered_room_is_closed(rendered_round: list[Frame]) -> None:
    sequence = FrameList(rendered_round, ROOM_CAMERA)
    result = run_slam(sequence, compact(), SlamConfig(loops=LoopConfig(min_gap_seconds=2.0)))
    assert result.tracked == len(rendered_round)
    assert result.loops
    for loop in result.loops:
        assert loop.kind == "loop"
        # The way between them is nearly a full turn: far apart along it, and near in truth.
        new, old = (the_map(result).keyframes[key] for key in (loop.keyframe_id, loop.matched_keyframe_id))
        assert new.frame.index - old.frame.index > 40
        measured = inverse(old.T_world_cam) @ new.T_world_cam
        true = inverse(true_pose(sequence, old)) @ true_pose(sequence, new)
        assert np.linalg.norm(measured[:3, 3] - true[:3, 3]) < 0.02
    assert ate(result) < 0.01


@pytest.mark.slow
def test_kidnapped_in_a_rendered_room_then_met_again(rendered_round: list[Frame]) -> None:
    """The camera is carried from one side of the room to the other, and walks back to where it began."""
    frames = [*rendered_round[:20], *rendered_round[34:]]
    sequence = FrameList(frames, ROOM_CAMERA)
    result = run_slam(sequence, compact(), SlamConfig(loops=LoopConfig(new_submap_seconds=0.3)))
    assert [record.method for record in result.frames[20:24]] == ["lost", "lost", "lost", "start"]
    assert result.tracked == len(frames) - 3
    assert the_map(result).tree.submaps == [0]
    assert [loop.kind for loop in result.loops].count("merge") == 1
    assert ate(result) < 0.03
    live = absolute_trajectory_error(result.live_trajectory(), result.ground_truth_trajectory())
    assert live.statistics.rmse > 0.2, "before they met, nothing was known of where the second submap lies"


# -- look-alikes ---------------------------------------------------------------------------------------------------


def test_the_same_poster_in_another_room_is_no_loop() -> None:
    world = PointWorld(turn(16, 5.0, start=-40.0) * 2, elsewhere=range(16, 32), pixel_noise=0.2, shared_poster=0.11)
    result = run(world, SlamConfig(map=TRACKED_ONLY, loops=replace(EAGER, min_supporters=0, new_submap_seconds=0.3)))
    slam_map = the_map(result)
    assert slam_map.tree.submaps == [0, 1]
    assert result.loops == []
    # It was not for want of trying: the poster alone gives a pose.
    old = [keyframe for keyframe in slam_map.keyframes.values() if keyframe.submap == 0]
    new = [keyframe for keyframe in slam_map.keyframes.values() if keyframe.submap == 1]
    pairs = [match_place(slam_map, keyframe, [other, *old]) for keyframe in new for other in old]
    matches = [match for match in pairs if match is not None]
    assert max(match.inliers for match in matches) >= LoopConfig().min_inliers
    assert max(match.coverage for match in matches) < LoopConfig().min_coverage


def test_a_room_like_another_is_no_loop_if_odometry_says_it_is_elsewhere() -> None:
    """The second room is a copy of the first, 6 m further on; nothing but the way between tells them apart."""
    way = [make_transform(np.eye(3), [x, 0, 0]) for x in np.arange(0, 6.01, 0.12)]
    world = PointWorld(way, pixel_noise=0.2, depth_noise=0.5, copies=(0.0, 6.0))
    result = run(world, SlamConfig(map=TRACKED_ONLY, loops=EAGER))
    assert result.tracked == len(way)
    assert result.loops == []
    slam_map = the_map(result)
    first, last = slam_map.keyframes[0], slam_map.tree.newest
    assert keyframe_errors(slam_map, world)[-1] < 0.2
    match = match_place(slam_map, last, [first])
    assert match is not None
    assert match.inliers >= LoopConfig().min_inliers, "by its looks it would have been a loop"
    assert match.coverage > 0.8
    path = path_between(slam_map, first.id, last.id)
    assert path is not None
    assert path[0] == pytest.approx(6.0, abs=0.3)


def test_two_places_that_have_nothing_in_common_do_not_match() -> None:
    world = PointWorld(turn(8, 4.0) + turn(8, 4.0), elsewhere=range(8, 16))
    slam_map = the_map(run(world, unlooped(new_submap_seconds=0.2)))
    assert slam_map.tree.submaps == [0, 1]
    old = [keyframe for keyframe in slam_map.keyframes.values() if keyframe.submap == 0]
    assert match_place(slam_map, slam_map.tree.newest, old) is None


# -- lost, and found again -----------------------------------------------------------------------------------------


def test_kidnapped_then_met_again_gives_one_map() -> None:
    """Carried to where nothing is known, the camera maps on, and walks back into what it knew."""
    poses = turn(12, 8.0) + turn(20, 8.0, centre=(0.3, 0.1, 0.2), start=180.0) + turn(14, 8.0, start=340.0)
    world = PointWorld(poses, pixel_noise=0.2, depth_noise=0.5)
    result = run(world, SlamConfig(map=TRACKED_ONLY, loops=replace(EAGER, consistency=2, new_submap_seconds=0.3)))
    slam_map = the_map(result)
    assert [event.recovered for event in result.lost_events][:1] == ["new submap"]
    assert slam_map.tree.submaps == [0]
    merges = [loop for loop in result.loops if loop.kind == "merge"]
    assert len(merges) == 1
    assert keyframe_errors(slam_map, world).max() < 0.05
    for record in result.frames:
        pose, truth = result.pose(record), world.ground_truth[record.index]
        if pose is not None and truth is not None:
            expected = inverse(poses[0]) @ truth
            assert np.linalg.norm(pose[:3, 3] - expected[:3, 3]) < 0.06
            assert rotation_angle_deg(inverse(expected) @ pose) < 1.5
    assert [key for key, keyframe in slam_map.keyframes.items() if keyframe.parent is None] == [0]


def test_every_lost_frame_is_tried_and_the_first_that_sees_a_known_place_is_placed() -> None:
    poses = turn(16, 8.0)
    world = PointWorld(poses[:16] + poses[4:8] + poses[2:10], pixel_noise=0.2, elsewhere=range(16, 20))
    result = run(world, SlamConfig(map=TRACKED_ONLY, loops=LoopConfig(new_submap_seconds=5.0)))
    assert [record.method for record in result.frames[16:21]] == ["lost"] * 4 + ["relocalised"]
    for index in range(20, 28):
        pose = result.frames[index].T_world_cam
        assert pose is not None
        np.testing.assert_allclose(pose, inverse(poses[0]) @ poses[index - 18], atol=5e-3)


def test_a_lost_frame_is_not_placed_by_a_poster() -> None:
    world = PointWorld(turn(16, 5.0, start=-40.0) * 2, elsewhere=range(16, 32), pixel_noise=0.2, shared_poster=0.11)
    result = run(world, SlamConfig(map=TRACKED_ONLY, loops=LoopConfig(new_submap_seconds=5.0)))
    assert all(record.T_world_cam is None for record in result.frames[18:])


# -- parts ---------------------------------------------------------------------------------------------------------


def test_a_place_is_measured_exactly_without_noise() -> None:
    poses = turn(10, 8.0) + turn(10, 8.0)
    world = PointWorld(poses, elsewhere=range(10, 20))
    slam_map = the_map(run(world, unlooped(new_submap_seconds=0.2)))
    # The same camera path through another world, and then a keyframe of the old one under a wrong pose.
    old = [keyframe for keyframe in slam_map.keyframes.values() if keyframe.submap == 0]
    wrong = slam_map.add_keyframe(old[1].frame, se3_exp([0.5, 0.2, -0.3, 0.1, 0.2, 0.1]), None, 5)
    match = match_place(slam_map, wrong, old)
    assert match is not None
    np.testing.assert_allclose(match.S_place_query.T, old[1].T_world_cam, atol=2e-3)
    assert match.coverage == 1.0
    assert match.matched in [keyframe.id for keyframe in old]
    assert count_supporters(slam_map, match, old, wanted=9, inliers=12) == 0, "it has no neighbours"
    assert Loops(slam_map, EAGER).places.find_loop(wrong) is None
    found = Loops(slam_map, replace(EAGER, min_supporters=0)).places.find_loop(wrong)
    assert found is not None
    np.testing.assert_allclose(found.S_place_query.T, old[1].T_world_cam, atol=2e-3)
    # All lies at the same pixels: a camera that stands where it stood, or, where part of the view disagrees, a picture
    # before the lens.
    places = Loops(slam_map, EAGER).places
    assert not places._is_fixed_to_image(match)
    assert places._is_fixed_to_image(replace(match, coverage=0.5))


def test_neighbours_support_a_place_only_from_where_they_should_be() -> None:
    _, slam_map = fresh_round_trip()
    *_, newest = slam_map.keyframes.values()
    place = [slam_map.keyframes[0], slam_map.keyframes[1]]
    match = match_place(slam_map, newest, place)
    assert match is not None
    assert count_supporters(slam_map, match, place, wanted=9, inliers=12) >= 2
    assert count_supporters(slam_map, match, place, wanted=1, inliers=12) == 1
    neighbours = [key for key, _ in slam_map.covisibility.neighbours(newest.id)[:5]]
    wrong = {key: slam_map.keyframes[key].T_world_cam @ se3_exp([0.5, 0, 0, 0, 0.3, 0]) for key in neighbours}
    slam_map.set_poses(wrong)
    match = match_place(slam_map, newest, place)
    assert match is not None
    assert count_supporters(slam_map, match, place, wanted=9, inliers=12) == 0


def test_the_essential_graph_holds_the_tree_and_strong_pairs(round_trip: tuple[PointWorld, SlamResult]) -> None:
    slam_map = the_map(round_trip[1])
    edges = essential_edges(slam_map, 0, strong_covisibility=100)
    pairs = [(edge.first, edge.second) for edge in edges]
    assert len(pairs) == len({frozenset(pair) for pair in pairs})
    tree = [edge for edge in edges if edge.kind == "tree"]
    assert len(tree) == len(slam_map.keyframes) - 1
    for edge in edges:
        now = inverse(slam_map.keyframes[edge.first].T_world_cam) @ slam_map.keyframes[edge.second].T_world_cam
        np.testing.assert_allclose(edge.S_first_second.T, now, atol=1e-9)
        shared = dict(slam_map.covisibility.neighbours(edge.first, min_shared=1)).get(edge.second, 0)
        assert edge.kind == "tree" or shared >= 100
    everything = essential_edges(slam_map, 0, strong_covisibility=1)
    assert len(everything) > len(edges)
    assert essential_edges(slam_map, 7, strong_covisibility=1) == []


def test_the_path_between_keyframes_follows_the_tree(round_trip: tuple[PointWorld, SlamResult]) -> None:
    slam_map = the_map(round_trip[1])
    path = path_between(slam_map, 0, slam_map.tree.newest.id)
    assert path is not None
    # 39 steps of 10 degrees on a circle with a radius of 0.3 m; chords between keyframes are a little shorter.
    assert 300 < path[1] <= 391
    assert 1.5 < path[0] <= 39 * 2 * 0.3 * np.sin(np.radians(5.0)) * 1.05
    assert path_between(slam_map, 3, 3) == (0.0, 0.0)


def test_duplicates_are_merged_and_only_they() -> None:
    _, slam_map = fresh_round_trip()
    newest = slam_map.tree.newest
    landmark_ids = place_landmarks(slam_map, [slam_map.keyframes[0], slam_map.keyframes[1]])
    before = len(slam_map.landmarks.ids)
    merged = fuse_duplicates(slam_map, [newest], landmark_ids, radius_px=3.0)
    assert merged > 20
    assert len(slam_map.landmarks.ids) == before - merged
    seen = newest.landmark_ids[newest.observed]
    assert len(np.unique(seen)) == len(seen)
    assert slam_map.landmarks.alive[seen].all()
    descriptors = newest.frame.descriptors[newest.observed]
    same = (descriptors * slam_map.landmarks.descriptors[seen]).sum(axis=1)
    assert (same > 0.99).all(), "in this world a point is known by its descriptor"
    assert fuse_duplicates(slam_map, [newest], landmark_ids, radius_px=3.0) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"min_inliers": 3}, "min_inliers"),
        ({"min_coverage": 1.5}, "min_coverage"),
        ({"candidates": 0}, "candidates"),
        ({"max_drift": -0.1}, "max_drift"),
        ({"fuse_radius_px": 0.0}, "fuse_radius_px"),
        ({"new_submap_seconds": float("nan")}, "new_submap_seconds"),
    ],
)
def test_settings_out_of_range_are_refused(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LoopConfig(**change)
    with pytest.raises(ConfigError, match="did you mean 'min_inliers'"):
        LoopConfig.from_mapping({"min_inlier": 5})
