"""What of the map takes part in an adjustment, when its result is taken over, and what moves along with it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest

from semkey.geometry.transforms import compose, inverse, se3_exp, transform_points
from semkey.matching.keypoint_noise import isotropic_covariances
from semkey.slam import MapConfig
from semkey.slam.frames.frame import observe_frame
from semkey.slam.map.association import Associations
from semkey.slam.map.covisibility import Observations
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.mapping import local_mapping
from semkey.slam.mapping.adjustment import apply_bundle, bundle_problem, covering_landmarks
from semkey.slam.mapping.local_mapping import LocalMapping
from semkey.slam.solvers.bundle import BundleProblem, BundleResult, solve_bundle
from synthetic_world import CAMERA, PointExtractor, PointWorld

NO_IDS = np.zeros(0, dtype=np.int64)
SHIFT = se3_exp([0.2, -0.1, 0.3, 0.02, -0.03, 0.01])


def sightings(rows: Sequence[tuple[int, int, float, float]]) -> Observations:
    """Of (keyframe, landmark, x, y)."""
    table = np.array(rows, dtype=np.float64)
    count = len(table)
    return Observations(
        keyframe_ids=table[:, 0].astype(np.int64),
        keypoint_indices=np.arange(count),
        landmark_ids=table[:, 1].astype(np.int64),
        keypoints=table[:, 2:],
        covariances=isotropic_covariances(count, 1.0),
        depth=np.ones(count),
        depth_sigma=np.ones(count),
        weights=np.ones(count),
    )


def grown_map(count: int) -> SlamMap:
    """Keyframes of one camera that moves a little, each of which sees what the first one sees."""
    poses = [se3_exp([0.03 * k, 0, 0, 0, 0, 0]) for k in range(count)]
    world = PointWorld([np.eye(4)] * count, points=1200)
    slam_map = SlamMap(CAMERA, MapConfig(), pixel_sigma=1.0)
    for index, pose in enumerate(poses):
        taken = world[index]
        assert taken.depth is not None
        features = PointExtractor(world).extract(taken.image)
        frame = observe_frame(
            index,
            0.1 * index,
            features,
            taken.depth,
            isotropic_covariances(len(features), 1.0),
            min_depth=0.3,
            max_depth=8.0,
        )
        found = None
        if index:
            ids = slam_map.keyframes[0].landmark_ids
            rows = np.flatnonzero(ids >= 0)
            found = Associations(landmark_ids=ids[rows], keypoint_indices=rows, similarity=np.ones(len(rows)))
        slam_map.add_keyframe(frame, pose, found, 0)
    return slam_map


def result_for(
    slam_map: SlamMap, poses: dict[int, np.ndarray], *, newest: int, scales: Sequence[float] | None = None
) -> BundleResult:
    return BundleResult(
        keyframe_ids=np.array(sorted(poses)),
        poses=np.stack([poses[k] for k in sorted(poses)]),
        landmark_ids=NO_IDS,
        landmark_serials=NO_IDS,
        positions=np.zeros((0, 3)),
        outlier_keyframe_ids=NO_IDS,
        outlier_landmark_ids=NO_IDS,
        line_serials=NO_IDS,
        line_points=np.zeros((0, 2, 3)),
        cost_before=1.0,
        cost=0.5,
        newest_keyframe_id=newest,
        scales=np.ones(len(poses)) if scales is None else np.array(scales),
        distortion=np.zeros(2),
    )


# -- which landmarks -----------------------------------------------------------------------------------------------


def test_every_corner_of_every_image_keeps_a_landmark() -> None:
    """Landmarks 0 to 5 crowd in one cell and are seen three times; 6 and 7 alone are in others, seen twice."""
    crowd = [(k, landmark, 5.0 + landmark, 5.0) for k in range(3) for landmark in range(6)]
    lonely = [(0, 6, 300.0, 200.0), (1, 6, 300.0, 200.0), (1, 7, 300.0, 10.0), (2, 7, 300.0, 10.0)]
    observations = sightings(crowd + lonely)
    assert covering_landmarks(observations, CAMERA, 3).tolist() == [0, 6, 7]
    assert covering_landmarks(observations, CAMERA, 4).tolist() == [0, 1, 6, 7], "then the second of the crowd"
    assert covering_landmarks(observations, CAMERA, 8).tolist() == list(range(8))
    assert covering_landmarks(observations, CAMERA, 100).tolist() == list(range(8))


def test_the_landmark_that_most_keyframes_see_comes_first() -> None:
    rows = [(k, landmark, 50.0, 50.0) for landmark, times in ((3, 2), (4, 5), (5, 3)) for k in range(times)]
    assert covering_landmarks(sightings(rows), CAMERA, 1).tolist() == [4]
    assert covering_landmarks(sightings(rows), CAMERA, 2).tolist() == [4, 5]


def test_the_order_of_sightings_does_not_matter(rng: np.random.Generator) -> None:
    rows = [
        (k, landmark, *rng.uniform([0, 0], [CAMERA.width, CAMERA.height]))
        for landmark in range(60)
        for k in rng.permutation(6)[: rng.integers(2, 6)].tolist()
    ]
    shuffled = [rows[k] for k in rng.permutation(len(rows))]
    first, second = (covering_landmarks(sightings(some), CAMERA, 25) for some in (rows, shuffled))
    assert first.tolist() == second.tolist()
    assert len(first) == 25


def test_a_problem_has_so_many_landmarks_for_each_keyframe() -> None:
    slam_map = grown_map(4)
    whole = bundle_problem(slam_map, [1, 2], [0, 3])
    thinned = bundle_problem(slam_map, [1, 2], [0, 3], landmarks_each=5)
    assert whole is not None
    assert thinned is not None
    assert len(thinned.landmark_ids) == 20 < len(whole.landmark_ids)
    assert len(thinned) == 80, "all four see every landmark"
    np.testing.assert_array_equal(thinned.positions, slam_map.landmarks.positions[thinned.landmark_ids])
    np.testing.assert_array_equal(thinned.landmark_ids[thinned.landmark_rows[:20]], thinned.landmark_ids)


# -- what moves ----------------------------------------------------------------------------------------------------


def test_keyframes_made_meanwhile_follow_their_parents() -> None:
    slam_map = grown_map(5)
    slam_map.keyframes[3].parent, slam_map.keyframes[4].parent = 2, 3
    before = {k: keyframe.T_world_cam.copy() for k, keyframe in slam_map.keyframes.items()}
    slam_map.landmarks.refer(slam_map.landmarks.ids[:3], np.array([4, 4, 4]))
    points = slam_map.landmarks.positions[:3].copy()
    apply_bundle(slam_map, result_for(slam_map, {2: compose(SHIFT, before[2])}, newest=2))
    for moved in (2, 3, 4):
        np.testing.assert_allclose(slam_map.keyframes[moved].T_world_cam, SHIFT @ before[moved], atol=1e-12)
    for stayed in (0, 1):
        np.testing.assert_array_equal(slam_map.keyframes[stayed].T_world_cam, before[stayed])
    np.testing.assert_allclose(slam_map.landmarks.positions[:3], transform_points(SHIFT, points), atol=1e-12)


def test_what_follows_a_keyframe_grows_with_it() -> None:
    slam_map = grown_map(3)
    slam_map.keyframes[2].parent = 1
    before = {k: keyframe.T_world_cam.copy() for k, keyframe in slam_map.keyframes.items()}
    slam_map.landmarks.refer(slam_map.landmarks.ids[:3], np.array([2, 2, 2]))
    points = slam_map.landmarks.positions[:3].copy()
    apply_bundle(slam_map, result_for(slam_map, {1: before[1]}, newest=1, scales=[2.0]))
    center = before[1][:3, 3]
    np.testing.assert_array_equal(slam_map.keyframes[1].T_world_cam, before[1])
    np.testing.assert_allclose(slam_map.keyframes[2].T_world_cam[:3, 3] - center, 2 * (before[2][:3, 3] - center))
    assert slam_map.keyframes[2].scale == 2.0
    np.testing.assert_allclose(slam_map.landmarks.positions[:3] - center, 2 * (points - center), atol=1e-12)


def test_keyframes_that_took_part_or_hang_elsewhere_do_not_follow() -> None:
    slam_map = grown_map(5)
    slam_map.keyframes[3].parent, slam_map.keyframes[4].parent = 2, 1
    before = {k: keyframe.T_world_cam.copy() for k, keyframe in slam_map.keyframes.items()}
    # 3 was in the problem and held fixed; 4 is newer, but its parent was not moved.
    apply_bundle(slam_map, result_for(slam_map, {2: compose(SHIFT, before[2])}, newest=3))
    for stayed in (0, 1, 3, 4):
        np.testing.assert_array_equal(slam_map.keyframes[stayed].T_world_cam, before[stayed])
    assert not np.allclose(slam_map.keyframes[2].T_world_cam, before[2])


def test_outliers_of_a_keyframe_removed_meanwhile_are_left_out() -> None:
    slam_map = grown_map(4)
    for k in (1, 2, 3):
        slam_map.keyframes[k].parent = k - 1
    ids = slam_map.landmarks.ids[:2].copy()
    problem = bundle_problem(slam_map, [1, 2], [0, 3])
    assert problem is not None
    result = replace(
        solve_bundle(problem),
        outlier_keyframe_ids=np.array([2, 3]),
        outlier_landmark_ids=ids,
    )
    slam_map.remove_keyframe(2)
    apply_bundle(slam_map, result)
    assert not np.isin(ids[1], slam_map.keyframes[3].landmark_ids)
    assert np.isin(ids[0], slam_map.keyframes[3].landmark_ids)


def test_a_landmark_in_the_row_of_one_removed_meanwhile_stays_where_it_is() -> None:
    """Rows are used again: what an adjustment found out about the old landmark says nothing about the new one."""
    slam_map = grown_map(3)
    first = slam_map.landmarks.ids[:2].copy()
    result = replace(
        result_for(slam_map, {1: slam_map.keyframes[1].T_world_cam}, newest=2),
        landmark_ids=first,
        landmark_serials=slam_map.landmarks.serials[first].copy(),
        positions=np.array([[7.0, 7.0, 7.0], [9.0, 9.0, 9.0]]),
        outlier_keyframe_ids=np.array([0]),
        outlier_landmark_ids=first[:1],
    )
    slam_map.remove_landmarks(first[:1])
    keyframe = slam_map.keyframes[0]
    free = np.flatnonzero(keyframe.landmark_ids < 0)
    reused = slam_map.add_landmarks(0, free, np.array([[1.0, 2.0, 3.0]]), 1e4 * np.eye(3)[None])
    np.testing.assert_array_equal(reused, first[:1])
    apply_bundle(slam_map, result)
    np.testing.assert_array_equal(slam_map.landmarks.positions[first], [[1.0, 2.0, 3.0], [9.0, 9.0, 9.0]])
    assert np.isin(reused, keyframe.landmark_ids), "the outlier was a sighting of the old one"


# -- when ----------------------------------------------------------------------------------------------------------


class FakeProcess:
    """Takes problems and leaves the answers to the test."""

    def __init__(self, *_: object) -> None:
        self.futures: list[Future[BundleResult]] = []

    def submit(self, _: object, problem: BundleProblem) -> Future[BundleResult]:
        self.futures.append(Future())
        return self.futures[-1]

    def close(self) -> None:
        pass


@pytest.mark.parametrize("lag", [1, 2, 4])
def test_a_result_is_taken_over_at_the_first_keyframe_so_many_frames_later(
    lag: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Keyframe after keyframe: the process gets every lag-th one, and is asked for its answer only then."""
    monkeypatch.setattr(local_mapping, "BackgroundProcess", FakeProcess)
    slam_map = grown_map(4)
    mapping = LocalMapping(slam_map, MapConfig(adjustment_lag=lag))
    process = mapping._process
    assert isinstance(process, FakeProcess)
    pose = compose(SHIFT, slam_map.keyframes[3].T_world_cam)
    mapping.after_keyframe(3)
    for frame in range(1, 3 * lag + 1):
        started = len(process.futures)
        if frame % lag == 0:  # asked any earlier, the mapping would wait for ever
            process.futures[-1].set_result(result_for(slam_map, {3: pose}, newest=3))
        mapping.before_frame()
        mapping.before_keyframe()
        assert np.allclose(slam_map.keyframes[3].T_world_cam, pose) == (frame >= lag)
        mapping.after_keyframe(3)
        assert len(process.futures) == started + (frame % lag == 0)


def test_frames_in_between_count_so_that_slow_motion_gets_every_keyframe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_mapping, "BackgroundProcess", FakeProcess)
    slam_map = grown_map(4)
    mapping = LocalMapping(slam_map, MapConfig(adjustment_lag=2))
    process = mapping._process
    assert isinstance(process, FakeProcess)
    mapping.after_keyframe(3)
    for count in range(2, 5):
        mapping.before_frame()
        mapping.before_frame()
        process.futures[-1].set_result(result_for(slam_map, {3: np.eye(4)}, newest=3))
        mapping.before_keyframe()
        mapping.after_keyframe(3)
        assert len(process.futures) == count


def test_realtime_takes_what_is_there_and_never_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_mapping, "BackgroundProcess", FakeProcess)
    slam_map = grown_map(4)
    mapping = LocalMapping(slam_map, MapConfig(adjustment_lag=2), realtime=True)
    process = mapping._process
    assert isinstance(process, FakeProcess)
    mapping.after_keyframe(3)
    for _ in range(5):
        mapping.before_frame()
        mapping.before_keyframe()
        mapping.after_keyframe(3)
    assert len(process.futures) == 1
    pose = compose(slam_map.keyframes[3].T_world_cam, inverse(SHIFT))
    process.futures[0].set_result(result_for(slam_map, {3: pose}, newest=3))
    mapping.before_frame()
    np.testing.assert_allclose(slam_map.keyframes[3].T_world_cam, pose)
