"""A stereo pair whose disparities are all wrong by the same amount: noticed on the way, and taken out of the map."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semkey.datasets import open_sequence
from semkey.geometry.transforms import inverse
from semkey.matching.keypoint_noise import isotropic_covariances
from semkey.metrics.trajectory import absolute_trajectory_error
from semkey.slam import Slam, SlamConfig, run_slam
from semkey.slam.config import LoopConfig, MapConfig, StereoConfig, TrackingConfig
from semkey.slam.frames.frame import ObservedFrame, observe_frame
from semkey.slam.mapping.disparity import DisparityWatch
from synthetic_world import CAMERA, PointExtractor, PointWorld, walk

BASELINE = 0.1
FOCAL_BASELINE = CAMERA.fx * BASELINE
CONFIG = SlamConfig(
    tracking=TrackingConfig(keyframe_parallax=0.05),
    map=MapConfig(adjustment="foreground"),
    loops=LoopConfig(enabled=False),
)


def frames(world: PointWorld, offset: float) -> list[ObservedFrame]:
    """What a pair sees whose disparities have to be raised by ``offset``."""
    seen = []
    for index in range(len(world)):
        taken = world[index]
        assert taken.depth is not None
        features = PointExtractor(world).extract(taken.image)
        covariances = isotropic_covariances(len(features), 0.3)
        frame = observe_frame(index, 0.1 * index, features, taken.depth, covariances, min_depth=0.3, max_depth=30.0)
        disparity = FOCAL_BASELINE / np.where(frame.depth > 0, frame.depth, 1.0)
        frame = replace(frame, depth_sigma=0.1 * frame.depth / disparity)
        seen.append(frame.with_disparity_offset(-offset, FOCAL_BASELINE))
    return seen


def track(offset: float, config: SlamConfig = CONFIG, count: int = 50) -> tuple[Slam, PointWorld]:
    step = (0.01, 0.0, 0.03, 0.0, 0.004, 0.0)
    world = PointWorld(walk(count, step, unsteadiness=0.1), pixel_noise=0.2)
    with Slam(CAMERA, PointExtractor(world), "stereo", baseline=BASELINE, config=config) as slam:
        for frame in frames(world, offset):
            slam.track_observed(frame)
        slam.finish()
    return slam, world


def length_ratio(slam: Slam, world: PointWorld) -> float:
    poses = [pose for pose in slam.result.poses if pose is not None]
    assert len(poses) == len(world)
    true = [pose for pose in world.ground_truth if pose is not None]

    def length(path: Any) -> float:
        return float(np.linalg.norm(np.diff([pose[:3, 3] for pose in path], axis=0), axis=1).sum())

    return length(poses) / length(true)


def test_an_offset_is_found_said_and_taken_out_of_the_map() -> None:
    trusting = replace(CONFIG, stereo=StereoConfig(offset_sigma=0.0))
    assert length_ratio(*track(0.8, trusting)) > 1.05
    slam, world = track(0.8)
    assert slam.result.config.stereo.disparity_offset == pytest.approx(0.8, abs=0.15)
    assert any("disparities are 0." in problem and "too small" in problem for problem in slam.result.problems)
    assert length_ratio(slam, world) == pytest.approx(1.0, abs=0.015)
    # Frames from before it was known have moved along, and landmarks lie where the points are.
    first = [record for record in slam.result.frames if record.index < 10]
    for record in first:
        pose, true = slam.result.pose(record), world.ground_truth[record.index]
        assert pose is not None
        assert true is not None
        assert np.linalg.norm((inverse(true) @ pose)[:3, 3]) < 0.03


def test_disparities_that_are_too_large_are_found_too() -> None:
    slam, world = track(-0.8)
    assert slam.result.config.stereo.disparity_offset == pytest.approx(-0.8, abs=0.15)
    assert any("too large" in problem for problem in slam.result.problems)
    assert length_ratio(slam, world) == pytest.approx(1.0, abs=0.015)


def test_what_keyframes_say_does_not_depend_on_the_landmarks_that_they_share() -> None:
    """Landmarks have agreed with poses that go with the disparities as they are."""
    slam, _ = track(0.8, replace(CONFIG, stereo=StereoConfig(offset_sigma=0.0)), count=30)
    slam_map = slam.result.slam_map
    assert slam_map is not None
    watch = DisparityWatch(slam_map, BASELINE, StereoConfig())
    for keyframe in slam_map.keyframes.values():
        keyframe.landmark_ids[:] = -1
    changes = [watch.find_change(keyframe) for keyframe in slam_map.keyframes.values()]
    known = [change for change in changes if change is not None]
    assert known
    np.testing.assert_allclose(known, 0.8, atol=0.15)


def test_what_the_last_keyframes_have_said_is_used_at_the_end() -> None:
    """While tracking, changes of less than a tenth of a pixel are not worth moving the map for."""
    step = (0.01, 0.0, 0.03, 0.0, 0.004, 0.0)
    world = PointWorld(walk(30, step, unsteadiness=0.1), pixel_noise=0.2)
    with Slam(CAMERA, PointExtractor(world), "stereo", baseline=BASELINE, config=CONFIG) as slam:
        for frame in frames(world, 0.8):
            slam.track_observed(frame)
        live = slam.result.config.stereo.disparity_offset
        problems = len(slam.result.problems)
        assert problems
        slam.finish()
        assert slam.result.config.stereo.disparity_offset != live
        assert len(slam.result.problems) > problems
        offset = slam.result.config.stereo.disparity_offset
        slam.finish()  # nothing is left to be changed
        assert slam.result.config.stereo.disparity_offset == offset


def test_a_right_calibration_stays_as_it_is() -> None:
    slam, world = track(0.0)
    assert slam.result.config.stereo.disparity_offset == 0.0
    assert not slam.result.problems
    assert length_ratio(slam, world) == pytest.approx(1.0, abs=0.01)


def test_what_is_known_is_used_from_the_first_frame_on() -> None:
    known = replace(CONFIG, stereo=StereoConfig(disparity_offset=0.8, offset_sigma=0.0))
    slam, world = track(0.8, known, count=12)
    assert length_ratio(slam, world) == pytest.approx(1.0, abs=0.02)
    assert not slam.result.problems


def test_offsets_of_depths_are_those_of_disparities() -> None:
    frame = frames(PointWorld(walk(1)), 0.0)[0]
    moved = frame.with_disparity_offset(0.5, FOCAL_BASELINE)
    known = frame.depth > 0
    np.testing.assert_allclose(FOCAL_BASELINE / moved.depth[known], FOCAL_BASELINE / frame.depth[known] + 0.5)
    # The disparities are as exact as they were.
    sigma = frame.depth_sigma * FOCAL_BASELINE / np.where(known, frame.depth, 1.0) ** 2
    np.testing.assert_allclose(
        (moved.depth_sigma * FOCAL_BASELINE / np.where(known, moved.depth, 1.0) ** 2)[known], sigma[known]
    )
    assert (moved.depth[~known] == 0).all()
    assert (frame.with_disparity_offset(-1e6, FOCAL_BASELINE).depth == 0).all()
    assert frame.with_disparity_offset(0.0, FOCAL_BASELINE) is frame


@pytest.mark.slow
def test_a_motorway_is_as_long_as_it_is(shared: Path) -> None:
    """KITTI 01: few near points, and disparities that are all half a pixel too small; 10 % too long without."""
    sequence = open_sequence(shared / "data" / "kitti" / "sequences" / "01")
    result = run_slam(sequence, "nano")
    assert result.tracked == len(sequence) == 31
    assert 0.3 < result.config.stereo.disparity_offset < 1.0
    estimated, truth = result.trajectory(), result.ground_truth_trajectory()
    lengths = [np.linalg.norm(np.diff(path.positions, axis=0), axis=1).sum() for path in (estimated, truth)]
    assert lengths[0] / lengths[1] == pytest.approx(1.0, abs=0.05)
    assert absolute_trajectory_error(estimated, truth, alignment="se3").statistics.rmse < 0.5
