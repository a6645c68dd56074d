"""The tracker alone, in a world whose truth is known: which way a frame is located, and what is remembered of it."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from semkey.geometry.transforms import compose, inverse, se3_exp
from semkey.slam.config import SlamConfig, image_scale
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.frames.sensing import make_sensor
from semkey.slam.loops.place_recognition import PlaceRecognition
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.records import FrameRecord
from semkey.slam.tracking.tracker import Location, Tracker
from synthetic_world import CAMERA, PointWorld, observed_frame, walk

Array = NDArray[np.float64]
STEADY = walk(8, unsteadiness=0.0)
CONFIG = SlamConfig()


def tracker_of(slam_map: SlamMap) -> Tracker:
    return Tracker(slam_map, PlaceRecognition(slam_map, CONFIG.loops), CONFIG, make_sensor("rgbd", CAMERA, CONFIG))


def started(world: PointWorld) -> tuple[SlamMap, Tracker]:
    """The first frame is the map."""
    slam_map = SlamMap(CAMERA, CONFIG.map, pixel_sigma=CONFIG.tracking.pixel_sigma * image_scale(CAMERA))
    tracker = tracker_of(slam_map)
    tracker.start([slam_map.add_keyframe(observed_frame(world, 0), np.eye(4), None, 0)])
    return slam_map, tracker


def step(tracker: Tracker, frame: ObservedFrame) -> Location | None:
    """Locate the next frame and go on from it, without ever keeping one."""
    location = tracker.locate(frame, tracker.predict(frame.timestamp))
    if location is None:
        tracker.lose(frame.timestamp)
    else:
        tracker.advance(frame, location, None)
    return location


def pose_of(slam_map: SlamMap, location: Location) -> Array:
    return slam_map.tree.absolute_pose(location.reference, location.T_reference_cam)


def record(index: int, location: Location | None, pose: Array | None) -> FrameRecord:
    """Of the first frame, of a located one, or of a lost one."""
    reference = None if pose is None else 0 if location is None else location.reference
    return FrameRecord(
        index=index,
        timestamp=0.1 * index,
        T_world_cam=pose,
        reference_keyframe=reference,
        T_keyframe_cam=np.eye(4) if location is None else location.T_reference_cam,
        inliers=200,
        keypoints=300,
        method="lost" if pose is None else "guided",
        submap=0,
    )


def assert_near(pose: Array, truth: Array, metres: float = 2e-3) -> None:
    assert np.linalg.norm((inverse(truth) @ pose)[:3, 3]) < metres


def methods(tracker: Tracker, world: PointWorld, last: int) -> list[str]:
    """How frames 1 to ``last`` are located; every pose is checked."""
    found = []
    for index in range(1, last + 1):
        location = step(tracker, observed_frame(world, index))
        if location is not None:
            truth = world.ground_truth[index]
            assert truth is not None
            assert_near(tracker.last_pose, truth)
        found.append("lost" if location is None else location.method)
    return found


def test_a_steady_camera_is_predicted_as_soon_as_two_frames_are_placed() -> None:
    world = PointWorld(STEADY)
    _, tracker = started(world)
    assert methods(tracker, world, 3) == ["keyframe", "guided", "guided"]
    prediction = tracker.predict(0.4)
    assert prediction is not None
    assert_near(prediction.T_world_cam, STEADY[4])


def test_descriptors_alone_find_a_camera_that_has_jumped_and_the_frame_is_wanted() -> None:
    jumped = [*STEADY[:3], compose(STEADY[2], se3_exp([0.25, 0.1, -0.2, 0.1, 0.25, 0.1]))]
    world = PointWorld(jumped)
    slam_map, tracker = started(world)
    assert methods(tracker, world, 2) == ["keyframe", "guided"]
    frame = observed_frame(world, 3)
    location = tracker.locate(frame, tracker.predict(frame.timestamp))
    assert location is not None
    assert location.method == "keyframe"
    assert_near(pose_of(slam_map, location), jumped[3])
    assert tracker.wants_keyframe(frame, location), "the next frame may see too little of what was seen before"


def test_a_guided_frame_near_its_keyframe_is_not_wanted() -> None:
    world = PointWorld(STEADY)
    _, tracker = started(world)
    methods(tracker, world, 1)
    frame = observed_frame(world, 2)
    location = tracker.locate(frame, tracker.predict(frame.timestamp))
    assert location is not None
    assert location.method == "guided"
    assert not tracker.wants_keyframe(frame, location)


def test_a_frame_that_nothing_predicted_is_wanted_however_near_it_is() -> None:
    world = PointWorld([STEADY[0], STEADY[0]])
    _, tracker = started(world)
    frame = observed_frame(world, 1)
    assert tracker.predict(frame.timestamp) is None
    location = tracker.locate(frame, None)
    assert location is not None
    assert location.method == "keyframe"
    assert tracker.wants_keyframe(frame, location)


def test_after_a_loss_nothing_is_predicted_until_two_frames_are_placed_again() -> None:
    world = PointWorld(STEADY, blank=[3, 4])
    _, tracker = started(world)
    assert methods(tracker, world, 4) == ["keyframe", "guided", "lost", "lost"]
    assert tracker.predict(0.5) is None
    assert_near(tracker.last_pose, STEADY[2])
    assert step(tracker, observed_frame(world, 5)) is not None
    assert tracker.predict(0.6) is None, "one pose has no velocity"
    assert step(tracker, observed_frame(world, 6)) is not None
    prediction = tracker.predict(0.7)
    assert prediction is not None
    assert_near(prediction.T_world_cam, STEADY[7])


def test_a_lost_camera_is_recognised_by_place_and_takes_on_its_submap() -> None:
    world = PointWorld([*STEADY[:3], STEADY[0]], blank=[2])
    slam_map, tracker = started(world)
    assert methods(tracker, world, 2) == ["keyframe", "lost"]
    slam_map.keyframes[0].submap = 4
    location = step(tracker, observed_frame(world, 3))
    assert location is not None
    assert (location.method, location.submap, tracker.submap) == ("relocalised", 4, 4)


def test_the_camera_follows_its_keyframe_when_the_map_is_corrected() -> None:
    world = PointWorld(STEADY)
    slam_map, tracker = started(world)
    methods(tracker, world, 2)
    correction = se3_exp([0.5, -0.3, 0.2, 0.1, 0.3, 0.0])
    slam_map.set_poses({0: correction})
    tracker.follow_map()
    assert_near(tracker.last_pose, correction @ STEADY[2])
    location = step(tracker, observed_frame(world, 3))
    assert location is not None
    assert location.method == "guided"
    assert_near(tracker.last_pose, correction @ STEADY[3])


def test_a_frame_is_placed_again_where_the_map_has_gone_between() -> None:
    world = PointWorld(STEADY)
    slam_map, tracker = started(world)
    methods(tracker, world, 2)
    frame = observed_frame(world, 3)
    location = tracker.locate(frame, tracker.predict(frame.timestamp))
    assert location is not None
    correction = se3_exp([0.1, -0.2, 0.0, 0.05, 0.0, 0.1])
    slam_map.set_poses({0: correction})
    assert_near(tracker.place_again(frame, location), correction @ STEADY[3])
    # Landmarks alone have moved, and the keyframe has not: the pose follows what the frame sees.
    slam_map.set_poses({0: np.eye(4)})
    slam_map.landmarks.positions[:] += [0.01, 0.0, 0.0]
    expected = STEADY[3].copy()
    expected[0, 3] += 0.01
    assert_near(tracker.place_again(frame, location), expected)


def test_what_hung_on_a_removed_keyframe_hangs_on_its_parent() -> None:
    world = PointWorld(STEADY)
    slam_map, tracker = started(world)
    methods(tracker, world, 2)
    frame = observed_frame(world, 3)
    location = tracker.locate(frame, tracker.predict(frame.timestamp))
    assert location is not None
    keyframe = slam_map.add_keyframe(frame, pose_of(slam_map, location), location.found, 0)
    tracker.take_keyframe(keyframe, location)
    tracker.advance(frame, location, keyframe)
    assert tracker.last_reference == keyframe.id
    slam_map.remove_keyframe(keyframe.id)
    assert tracker.last_reference == 0
    tracker.follow_map()
    assert_near(tracker.last_pose, STEADY[3])


def test_a_resumed_tracker_goes_on_as_if_nothing_had_happened() -> None:
    world = PointWorld(STEADY, pixel_noise=0.3)
    slam_map, tracker = started(world)
    records = [record(0, None, np.eye(4))]
    for index in range(1, 4):
        location = step(tracker, observed_frame(world, index))
        assert location is not None
        records.append(record(index, location, pose_of(slam_map, location)))
    again = tracker_of(slam_map)
    again.resume(records)
    one, other = tracker.predict(0.4), again.predict(0.4)
    assert one is not None
    assert other is not None
    np.testing.assert_allclose(other.T_world_cam, one.T_world_cam, atol=1e-9)
    assert other.translation_sigma == pytest.approx(one.translation_sigma)
    lost = tracker_of(slam_map)
    lost.resume([*records, record(4, None, None)])
    assert lost.predict(0.5) is None
    found = step(lost, observed_frame(world, 5))
    assert found is not None
    assert found.method == "relocalised", "a run that ended lost is to be found again"
