"""Placing one frame among the landmarks of a map whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from semkey.geometry.transforms import compose, inverse, rotation_angle_deg, se3_exp, transform_points
from semkey.matching.keypoint_noise import isotropic_covariances
from semkey.slam.config import MapConfig, TrackingConfig, image_scale
from semkey.slam.frames.frame import ObservedFrame, observe_frame
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.placing.placement import Placement
from semkey.slam.timing import StageTimer
from semkey.slam.tracking import locating
from semkey.slam.tracking.locating import FrameLocator
from semkey.slam.tracking.motion import Prediction
from synthetic_world import CAMERA, PointExtractor, PointWorld

Array = NDArray[np.float64]
START, MOVED = np.eye(4), se3_exp([0.06, -0.02, 0.04, 0.01, 0.03, -0.02])
AWAY = compose(MOVED, se3_exp([0.02, 0.01, -0.01, 0.005, -0.01, 0.01]))
CONFIG = TrackingConfig()


def frame_of(world: PointWorld, index: int, *, keep: slice = slice(None)) -> ObservedFrame:
    """A frame with some of its keypoints."""
    taken = world[index]
    assert taken.depth is not None
    features = PointExtractor(world).extract(taken.image)
    features = features.select(torch.arange(len(features))[keep])
    covariances = isotropic_covariances(len(features), 1.0)
    return observe_frame(index, 0.1 * index, features, taken.depth, covariances, min_depth=0.3, max_depth=8.0)


def mapped(world: PointWorld) -> SlamMap:
    """The map of the first frame alone."""
    slam_map = SlamMap(CAMERA, MapConfig(), pixel_sigma=CONFIG.pixel_sigma * image_scale(CAMERA))
    slam_map.add_keyframe(frame_of(world, 0), START, None, 0)
    return slam_map


def locator(slam_map: SlamMap, config: TrackingConfig = CONFIG) -> FrameLocator:
    return FrameLocator(slam_map, config, pixel=image_scale(CAMERA), seed=0, lines=None, timer=StageTimer())


def by_prediction(
    slam_map: SlamMap,
    frame: ObservedFrame,
    expected: Array,
    *,
    metres: float = 0.03,
    radians: float = 0.02,
    config: TrackingConfig = CONFIG,
) -> Placement | None:
    """Located from where the camera is expected, with these standard deviations."""
    prediction = Prediction(T_world_cam=expected, translation_sigma=metres, rotation_sigma=radians)
    last_seen = slam_map.tree.newest.landmark_ids[slam_map.tree.newest.observed]
    return locator(slam_map, config).by_prediction(frame, prediction, last_seen)


def by_keyframe(slam_map: SlamMap, frame: ObservedFrame, min_inliers: int = CONFIG.min_inliers) -> Placement | None:
    return locator(slam_map).by_keyframes(frame, [slam_map.tree.newest], min_inliers)


def error(estimate: Placement | None, truth: Array = MOVED) -> tuple[float, float]:
    """Metres and degrees."""
    assert estimate is not None
    difference = compose(inverse(truth), estimate.T_world_cam)
    return float(np.linalg.norm(difference[:3, 3])), rotation_angle_deg(difference)


def share_right(slam_map: SlamMap, frame: ObservedFrame, estimate: Placement) -> float:
    """Share of the inliers that pair a landmark with a keypoint of the same point."""
    found = estimate.inlier_associations
    theirs = slam_map.landmarks.descriptors[found.landmark_ids]
    return float(((theirs * frame.descriptors[found.keypoint_indices]).sum(axis=1) > 0.99).mean())


def test_a_predicted_frame_is_placed_where_it_was_taken() -> None:
    world = PointWorld([START, MOVED])
    slam_map, frame = mapped(world), frame_of(world, 1)
    estimate = by_prediction(slam_map, frame, AWAY)
    metres, degrees = error(estimate)
    assert metres < 1e-3, "from 0.024"
    assert degrees < 0.02, "from 0.9"
    assert estimate is not None
    assert estimate.inlier_count > 0.8 * len(frame)
    assert share_right(slam_map, frame, estimate) == 1.0


def test_wrong_pairs_and_noise_are_outvoted() -> None:
    """Three keypoints in ten look like another point; the rest is half a pixel and the sensor's own noise off."""
    world = PointWorld([START, MOVED], outlier_share=0.3, pixel_noise=0.5, depth_noise=1.0)
    slam_map = mapped(PointWorld([START, MOVED]))
    frame = frame_of(world, 1)
    for estimate in (by_prediction(slam_map, frame, AWAY), by_keyframe(slam_map, frame)):
        metres, degrees = error(estimate)
        assert metres < 0.01
        assert degrees < 0.3
        assert estimate is not None
        assert estimate.inlier_count > 0.5 * len(frame)


def test_descriptors_alone_place_a_frame_that_nothing_predicts() -> None:
    far = se3_exp([0.3, 0.1, -0.2, 0.05, 0.2, 0.3])
    world = PointWorld([START, far])
    estimate = by_keyframe(mapped(world), frame_of(world, 1))
    metres, degrees = error(estimate, far)
    assert metres < 1e-3
    assert degrees < 0.02


def test_a_vague_prediction_is_not_searched_around() -> None:
    """At 640 px the search may reach 60 px, here 30: 0.2 rad are 52 px, and 0.5 m at 2 to 3 m are as much."""
    world = PointWorld([START, MOVED])
    slam_map, frame = mapped(world), frame_of(world, 1)
    assert by_prediction(slam_map, frame, MOVED, radians=0.2) is None
    assert by_prediction(slam_map, frame, MOVED, metres=0.5) is None
    assert by_prediction(slam_map, frame, MOVED, radians=0.2, config=TrackingConfig(max_search_radius_px=400.0))


def test_a_prediction_that_sees_nothing_or_another_world_gives_no_pose() -> None:
    world = PointWorld([START, MOVED, MOVED, MOVED], elsewhere=[2], blank=[3])
    slam_map = mapped(world)
    behind = se3_exp([0.0, 0.0, 0.0, 0.0, np.pi, 0.0])
    assert by_prediction(slam_map, frame_of(world, 1), behind) is None
    for index in (2, 3):
        assert by_prediction(slam_map, frame_of(world, index), MOVED) is None
        assert by_keyframe(slam_map, frame_of(world, index)) is None


@pytest.mark.parametrize("sure", [True, False])
def test_the_prediction_counts_by_its_certainty(sure: bool) -> None:
    """5 mm off and certain to a hundredth of that, the frame is where it should be; certain to 10 cm, where it is."""
    world = PointWorld([START, MOVED], pixel_noise=0.3)
    slam_map = mapped(PointWorld([START, MOVED]))
    expected = compose(MOVED, se3_exp([0.005, 0, 0, 0, 0, 0]))
    metres, radians = (5e-5, 5e-5) if sure else (0.1, 0.05)
    estimate = by_prediction(slam_map, frame_of(world, 1), expected, metres=metres, radians=radians)
    distance, _ = error(estimate)
    if sure:
        assert distance == pytest.approx(0.005, abs=0.001)
    else:
        assert distance < 0.002


def test_a_pose_that_too_few_agree_with_is_none() -> None:
    world = PointWorld([START, MOVED])
    slam_map, frame = mapped(world), frame_of(world, 1)
    whole = by_keyframe(slam_map, frame)
    assert whole is not None
    assert by_keyframe(slam_map, frame, whole.inlier_count + 1) is None
    assert by_keyframe(slam_map, frame_of(world, 1, keep=slice(0, 11))) is None
    assert by_keyframe(slam_map, frame_of(world, 1, keep=slice(0, 14))) is not None


def test_pixels_that_agree_and_depths_that_do_not_are_no_inliers() -> None:
    """RANSAC, which asks pixels only, has enough of them: two depths in three are wrong, and one in three is left."""
    world = PointWorld([START, MOVED])
    slam_map, frame = mapped(world), frame_of(world, 1)
    rows = np.arange(len(frame))
    frame.depth[rows % 3 == 0] *= 1.15  # a scatter of more than a quarter would be no measurement at all
    frame.depth[rows % 3 == 1] *= 0.87
    found = by_keyframe(slam_map, frame)
    assert found is not None
    assert 0.2 < found.inlier_count / len(found.associations) < 0.5
    assert by_keyframe(slam_map, frame, round(0.6 * len(found.associations))) is None


def test_views_are_counted_of_landmarks_in_view_and_only_where_there_is_a_pose() -> None:
    """Half of the keypoints are missing: their landmarks were in view and not found."""
    world = PointWorld([START, MOVED, MOVED], elsewhere=[2])
    slam_map = mapped(world)
    before = slam_map.landmarks.to_arrays()
    assert by_prediction(slam_map, frame_of(world, 2), MOVED) is None
    for name, values in slam_map.landmarks.to_arrays().items():
        np.testing.assert_array_equal(values, before[name], err_msg=name)
    frame = frame_of(world, 1, keep=slice(None, None, 2))
    estimate = by_prediction(slam_map, frame, MOVED)
    assert estimate is not None
    after = slam_map.landmarks.to_arrays()
    pixels = CAMERA.project(transform_points(inverse(MOVED), slam_map.landmarks.positions))
    in_view = CAMERA.contains(pixels, margin=1.0)
    assert (after["visible"] - before["visible"])[in_view].min() == 1
    found = np.flatnonzero(after["found"] - before["found"])
    assert sorted(found.tolist()) == sorted(estimate.inlier_associations.landmark_ids.tolist())
    assert len(found) < 0.6 * np.count_nonzero(in_view)


def test_a_pose_that_most_of_the_established_agree_with_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of the established landmarks have moved since: their pose of their own would be no other."""
    world = PointWorld([START, MOVED])
    slam_map, frame = mapped(world), frame_of(world, 1)
    landmarks = slam_map.landmarks
    old = landmarks.ids[: len(landmarks.ids) // 2]
    for _ in range(5):
        landmarks.count_views(old, old)
    landmarks.positions[old[::3]] += 0.04
    made = []
    place_frame = locating.place_frame
    monkeypatch.setattr(locating, "place_frame", lambda *a, **k: made.append(1) or place_frame(*a, **k))
    estimate = by_prediction(slam_map, frame, AWAY)
    assert estimate is not None
    agreeing = landmarks.established(estimate.inlier_associations.landmark_ids).sum()
    assert 0.5 * len(old) < agreeing < 0.9 * len(old)
    assert len(made) == 1
