"""Mono and stereo through the whole system: synthetic points, rendered rooms, and KITTI's first frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from semkey.datasets import Frame, FrameSequence, open_sequence
from semkey.errors import ConfigError, DatasetError
from semkey.extractors import create_extractor
from semkey.geometry.transforms import (
    compose,
    inverse,
    make_transform,
    rotation_angle_deg,
    se3_exp,
    so3_exp,
    transform_points,
)
from semkey.matching.keypoint_noise import isotropic_covariances
from semkey.metrics.trajectory import absolute_trajectory_error
from semkey.rendering import raycast
from semkey.rendering.config import RoomConfig
from semkey.rendering.dataset import room_camera
from semkey.rendering.layout import plan_room
from semkey.rendering.motion import trajectory
from semkey.rendering.scene import build_scene
from semkey.slam import SlamConfig, SlamResult, run_slam
from semkey.slam.config import MapConfig, MonoConfig
from semkey.slam.frames.frame import ObservedFrame, observe_keypoints
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.mapping.new_landmarks import triangulate_new_landmarks
from semkey.slam.tracking.mono_start import MonoStarter, begin_submap
from synthetic_world import CAMERA, PointExtractor, PointWorld, walk

FOREGROUND = SlamConfig(map=MapConfig(adjustment="foreground"))
SIDEWAYS = (0.06, 0.01, 0.02, 0.004, 0.015, 0.003)
SLOWLY = (0.03, 0.005, 0.01, 0.002, 0.0075, 0.0015)


def _mono(world: PointWorld) -> PointWorld:
    world.has_depth = False
    return world


def _observed(world: PointWorld, index: int) -> ObservedFrame:
    features = PointExtractor(world).extract(np.full((4, 4, 3), (index, 0, 0), dtype=np.uint8))
    nothing = np.zeros(len(features))
    return observe_keypoints(index, 0.1 * index, features, nothing, nothing, isotropic_covariances(len(features), 1.0))


def _starter(config: MonoConfig | None = None) -> MonoStarter:
    return MonoStarter(CAMERA, config or MonoConfig(), image_scale=0.5, seed=0)


def _relative_error(result: SlamResult) -> float:
    """ATE after alignment as a share of the way."""
    truth = result.ground_truth_trajectory()
    error = absolute_trajectory_error(result.trajectory(), truth, alignment=result.alignment)
    return error.statistics.rmse / float(np.linalg.norm(np.diff(truth.positions, axis=0), axis=1).sum())


def test_a_map_starts_from_two_views_in_units_of_the_median_depth() -> None:
    world = PointWorld(walk(12, SIDEWAYS), pixel_noise=0.2)
    starter = _starter()
    starts = [starter.offer(_observed(world, index)) for index in range(12)]
    index = next(k for k, start in enumerate(starts) if start is not None)
    start = starts[index]
    assert start is not None
    assert np.median(start.points_reference[:, 2]) == pytest.approx(1.0, rel=0.01)
    poses = [world.ground_truth[k] for k in (0, index)]
    assert poses[0] is not None
    assert poses[1] is not None
    motion = compose(inverse(poses[1]), poses[0])
    assert rotation_angle_deg(motion @ inverse(start.T_frame_reference)) < 0.5
    assert [frame.index for frame in start.between] == list(range(1, index))

    slam_map = SlamMap(CAMERA, MapConfig(), pixel_sigma=1.0)
    world_pose = se3_exp(np.array([5.0, -2.0, 1.0, 0.4, 0.2, -0.9]))
    first, second = begin_submap(slam_map, start, world_pose, 0)
    assert second.parent == first.id
    ids = second.landmark_ids[second.observed]
    assert set(ids) == set(first.landmark_ids[first.observed])
    # Both keyframes see the landmarks where their keypoints are.
    for keyframe in (first, second):
        points = transform_points(inverse(keyframe.T_world_cam), slam_map.landmarks.positions)
        where = CAMERA.project(points[keyframe.landmark_ids[keyframe.observed]])
        assert np.abs(where - keyframe.frame.keypoints[keyframe.observed]).max() < 2.0


def test_a_reference_that_is_no_longer_recognised_is_replaced() -> None:
    world = PointWorld(walk(20, SIDEWAYS), pixel_noise=0.2, elsewhere=[0])
    starter = _starter()
    starts = [starter.offer(_observed(world, index)) for index in range(20)]
    found = next(start for start in starts if start is not None)
    assert 1 <= found.reference.index <= 5


def test_a_standing_camera_waits_and_gets_a_fresh_reference() -> None:
    world = PointWorld([np.eye(4)] * 8, pixel_noise=0.3)
    starter = _starter(MonoConfig(max_initial_frames=3))
    assert all(starter.offer(_observed(world, index)) is None for index in range(8))
    blank = PointWorld([np.eye(4)] * 2, blank=[0, 1])
    assert all(_starter().offer(_observed(blank, index)) is None for index in range(2))


def _two_keyframes(world: PointWorld, indices: tuple[int, ...]) -> SlamMap:
    """A map with true poses in which some of the shared points are landmarks already."""
    slam_map = SlamMap(CAMERA, MapConfig(), pixel_sigma=1.0)
    for index in indices:
        pose = world.ground_truth[index]
        assert pose is not None
        slam_map.add_keyframe(_observed(world, index), pose, None, 0)
    first, *others = slam_map.keyframes.values()
    known = first.frame.descriptors[::4]
    points = np.zeros((len(known), 3))
    ids = slam_map.add_landmarks(
        first.id, np.arange(0, len(first.frame), 4), points, np.tile(np.eye(3), (len(known), 1, 1))
    )
    for other in others:
        similarity = known @ other.frame.descriptors.T
        best = similarity.argmax(axis=1)
        same = similarity.max(axis=1) > 0.99
        slam_map.add_sightings(other.id, ids[same], best[same])
    # Some position in front of the keyframes; only the new ones are looked at.
    slam_map.landmarks.positions[ids] = first.T_world_cam[:3, 3] + 2.0 * first.T_world_cam[:3, 2]
    return slam_map


def test_new_landmarks_lie_where_the_points_are_and_all_neighbours_see_them() -> None:
    world = PointWorld(walk(9, SIDEWAYS))
    slam_map = _two_keyframes(world, (0, 4, 8))
    before = set(slam_map.landmarks.ids.tolist())
    newest = slam_map.tree.newest
    made = triangulate_new_landmarks(slam_map, newest.id, MonoConfig(), image_scale=0.5)
    assert made > 80
    ids = np.array(sorted(set(slam_map.landmarks.ids.tolist()) - before))
    assert len(ids) == made
    true_points = world._worlds[0][0]
    positions = slam_map.landmarks.positions[ids]
    nearest = np.linalg.norm(positions[:, None] - true_points[None], axis=2).min(axis=1)
    assert np.quantile(nearest, 0.95) < 0.02
    sightings = slam_map.covisibility.observations(landmark_ids=ids)
    times = np.array([np.count_nonzero(sightings.landmark_ids == k) for k in ids])
    assert times.min() >= 2
    assert (times == 3).mean() > 0.4
    # Asked again, there is nothing left to make.
    assert triangulate_new_landmarks(slam_map, newest.id, MonoConfig(), image_scale=0.5) < 0.1 * made


def test_geometry_judges_what_looks_the_same() -> None:
    world = PointWorld(walk(9, SIDEWAYS))
    slam_map = _two_keyframes(world, (0, 4, 8))
    newest = slam_map.tree.newest
    # Looking two degrees up, nine pixels: no true pair fits this pose, and another keypoint near the line is no pair.
    newest.T_world_cam[:3, :3] = newest.T_world_cam[:3, :3] @ so3_exp([np.radians(2.0), 0.0, 0.0])
    assert triangulate_new_landmarks(slam_map, newest.id, MonoConfig(), image_scale=0.5) < 10


def test_keyframes_in_one_place_make_no_landmarks() -> None:
    world = PointWorld([np.eye(4)] * 2, pixel_noise=0.5)
    slam_map = _two_keyframes(world, (0, 1))
    assert triangulate_new_landmarks(slam_map, slam_map.tree.newest.id, MonoConfig(), image_scale=0.5) == 0


def test_mono_tracks_every_frame_up_to_scale() -> None:
    world = _mono(PointWorld(walk(30, SLOWLY), pixel_noise=0.3, outlier_share=0.1))
    result = run_slam(world, PointExtractor(world), FOREGROUND)
    assert result.sensor == "mono"
    assert result.alignment == "sim3"
    # The frames before the map began are placed afterwards.
    assert result.tracked == 30
    assert [record.index for record in result.frames] == list(range(30))
    assert {"start", "initialised", "guided"} <= {record.method for record in result.frames}
    assert _relative_error(result) < 0.01


def test_mono_in_the_background_repeats_exactly() -> None:
    def run() -> NDArray[np.float64]:
        world = _mono(PointWorld(walk(12, SIDEWAYS), pixel_noise=0.3))
        return run_slam(world, PointExtractor(world), SlamConfig()).trajectory().poses

    np.testing.assert_array_equal(run(), run())


def test_mono_starts_a_new_submap_after_it_was_carried_elsewhere() -> None:
    elsewhere = list(range(12, 45))
    world = _mono(PointWorld(walk(45, SLOWLY), pixel_noise=0.2, elsewhere=elsewhere))
    result = run_slam(world, PointExtractor(world), FOREGROUND)
    assert {record.submap for record in result.frames if record.T_world_cam is not None} == {0, 1}
    late = [record for record in result.frames if record.index >= 32]
    assert all(record.submap == 1 and record.T_world_cam is not None for record in late)


def test_a_sensor_that_the_input_has_not_is_refused() -> None:
    world = _mono(PointWorld(walk(3)))
    for sensor, message in (("rgbd", "no depth"), ("stereo", "no right images")):
        with pytest.raises(DatasetError, match=message):
            run_slam(world, PointExtractor(world), sensor=cast(Any, sensor))
    with pytest.raises(ConfigError, match="unknown sensor"):
        run_slam(world, PointExtractor(world), sensor=cast(Any, "radar"))


class _Room(FrameSequence):
    """A rendered room seen by a stereo pair, rendered frame by frame."""

    def __init__(self, config: RoomConfig, baseline: float | None) -> None:
        plan = plan_room(config.seed, config.texture)
        self._scene = build_scene(plan, seed=config.seed, texel_size=config.texel_size)
        pose_at = trajectory(config, plan.size)
        stamps = np.arange(config.frames) / config.fps
        super().__init__(
            name="room",
            format="tum",
            camera=room_camera(config),
            has_depth=False,
            timestamps=stamps,
            ground_truth=[pose_at(time) for time in stamps],
            baseline=baseline,
        )

    def _load(self, index: int) -> Frame:
        pose = self.ground_truth[index]
        assert self.camera is not None
        assert pose is not None
        right = None
        if self.baseline is not None:
            beside = compose(pose, make_transform(np.eye(3), [self.baseline, 0.0, 0.0]))
            right = raycast.cast(self._scene, self.camera, beside).image
        image = raycast.cast(self._scene, self.camera, pose).image
        return Frame(index=index, timestamp=float(self.timestamps[index]), image=image, right=right, T_world_cam=pose)


@pytest.mark.slow
@pytest.mark.parametrize(("baseline", "largest"), [(0.1, 0.02), (None, 0.05)])
def test_rendered_room(baseline: float | None, largest: float) -> None:
    """Stereo is metric; mono has to be right up to scale."""
    config = RoomConfig(seed=3, frames=40, width=320, height=240, fps=10.0, blur=False, noise=False)
    room = _Room(config, baseline)
    result = run_slam(room, create_extractor("sift", max_keypoints=600), FOREGROUND)
    assert result.sensor == ("mono" if baseline is None else "stereo")
    assert result.tracked >= 38
    error = absolute_trajectory_error(result.trajectory(), result.ground_truth_trajectory(), alignment=result.alignment)
    assert error.statistics.rmse < largest


@pytest.mark.slow
@pytest.mark.parametrize("features", ["orb", "nano"])
def test_start_of_kitti_07_drifts_less_than_two_percent(features: str, shared: Path) -> None:
    sequence = open_sequence(shared / "data/kitti/sequences/07")
    assert sequence.sensor == "mono"
    torch.manual_seed(0)
    result = run_slam(sequence, create_extractor(features, max_keypoints=1024), SlamConfig())
    assert result.tracked == len(sequence) == 120
    # Behind the street corner it looks as before, but the car is elsewhere.
    assert not result.loops
    assert _relative_error(result) < 0.02
