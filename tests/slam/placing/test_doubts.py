"""Poses that are well supported and wrong: what stands still in the image, and what is there twice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree

from semkey.geometry.transforms import compose, inverse, se3_exp
from semkey.slam.config import LoopConfig, MapConfig, TrackingConfig, image_scale
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.loops.place_recognition import PlaceRecognition
from semkey.slam.map.association import Associations, pixels_moved
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.placing import placing
from semkey.slam.placing.doubts import Doubts
from semkey.slam.placing.placement import Placement
from semkey.slam.solvers.evidence import Evidence
from semkey.slam.timing import StageTimer
from semkey.slam.tracking import locating
from semkey.slam.tracking.locating import FrameLocator
from semkey.slam.tracking.motion import Prediction, Reach
from synthetic_world import CAMERA, PointWorld, observed_frame

Array = NDArray[np.float64]
CONFIG = TrackingConfig()
START = np.eye(4)
TENSORS = ("keypoints", "scores", "reliability", "descriptors")
# Two degrees and two centimetres: a step of a hand-held camera at 15 Hz.
STEP = se3_exp([0.02, 0.0, 0.01, 0.0, 0.035, 0.0])


def select(frame: ObservedFrame, keep: NDArray[np.bool_]) -> ObservedFrame:
    return replace(
        frame,
        features=frame.features.select(torch.from_numpy(np.flatnonzero(keep))),
        keypoints=frame.keypoints[keep],
        covariances=frame.covariances[keep],
        descriptors=frame.descriptors[keep],
        weights=frame.weights[keep],
        depth=frame.depth[keep],
        depth_sigma=frame.depth_sigma[keep],
        tree=KDTree(frame.keypoints[keep]),
    )


def joined(left: ObservedFrame, right: ObservedFrame) -> ObservedFrame:
    """A frame with the keypoints of two."""
    names = ("keypoints", "covariances", "descriptors", "weights", "depth", "depth_sigma")
    arrays = {name: np.concatenate([getattr(left, name), getattr(right, name)]) for name in names}
    both = (left.features, right.features)
    tensors = {name: torch.cat([getattr(part, name) for part in both]) for name in TENSORS}
    features = replace(right.features, **tensors)
    return replace(right, features=features, tree=KDTree(arrays["keypoints"]), **arrays)


def locator(slam_map: SlamMap, *, has_depth: bool = True) -> FrameLocator:
    return FrameLocator(
        slam_map,
        CONFIG,
        pixel=image_scale(CAMERA),
        seed=0,
        lines=None,
        timer=StageTimer(),
        established_first=has_depth,
        has_depth=has_depth,
    )


def mapped(frame: ObservedFrame, pose: Array = START) -> SlamMap:
    slam_map = SlamMap(CAMERA, MapConfig(), pixel_sigma=CONFIG.pixel_sigma * image_scale(CAMERA))
    slam_map.add_keyframe(frame, pose, None, 0)
    return slam_map


def tracked(slam_map: SlamMap, frame: ObservedFrame, *, has_depth: bool = True) -> Placement | None:
    prediction = Prediction(T_world_cam=START, translation_sigma=0.03, rotation_sigma=0.04)
    frame = frame if has_depth else frame.without_depth()
    return locator(slam_map, has_depth=has_depth).by_prediction(frame, prediction, slam_map.tree.newest.landmark_ids)


@pytest.mark.parametrize("has_depth", [True, False])
@pytest.mark.parametrize("covered", [0.0, 0.65, 1.0])
def test_a_picture_before_the_lens_does_not_hold_the_camera(covered: float, has_depth: bool) -> None:
    """It covers the left of the view, with the depth of the world behind it, and is seen where it was."""
    world = PointWorld([START, STEP], points=12000)
    first, second = observed_frame(world, 0), observed_frame(world, 1)
    border = covered * CAMERA.width
    mixed = joined(select(first, first.keypoints[:, 0] < border), select(second, second.keypoints[:, 0] >= border))
    placement = tracked(mapped(first), mixed, has_depth=has_depth)
    if covered == 0.65:
        assert placement is None
        return
    # Alone, either is what the camera sees: the world, or a camera that stands.
    assert placement is not None
    truth = STEP if covered == 0.0 else START
    assert np.linalg.norm((inverse(truth) @ placement.T_world_cam)[:3, 3]) < 2e-3


@pytest.mark.parametrize(("every", "covered"), [(1, 0.5), (12, 0.5), (6, 0.72)])
def test_few_corners_beside_a_rich_picture_tell_that_the_camera_moves(every: int, covered: float) -> None:
    """The picture covers half of the view or more and has many times as many keypoints as the world beside it."""
    world = PointWorld([START, STEP], points=24000)
    first, second = observed_frame(world, 0), observed_frame(world, 1)
    border = covered * CAMERA.width
    moving = np.flatnonzero(second.keypoints[:, 0] >= border)[::every]
    keep = np.zeros(len(second), dtype=bool)
    keep[moving] = True
    mixed = joined(select(first, first.keypoints[:, 0] < border), select(second, keep))
    assert (np.count_nonzero(keep) > 0.15 * np.count_nonzero(first.keypoints[:, 0] < border)) == (every == 1)
    assert tracked(mapped(first), mixed) is None


def test_a_camera_that_stands_is_not_lost_by_mismatches() -> None:
    """A third of the keypoints carry descriptors of others, and agree on nothing."""
    world = PointWorld([START, START], points=12000, outlier_share=0.33)
    placement = tracked(mapped(observed_frame(world, 0)), observed_frame(world, 1))
    assert placement is not None
    assert np.linalg.norm(placement.T_world_cam[:3, 3]) < 2e-3


@pytest.mark.parametrize("covered", [0.6, 1.0])
def test_after_a_loss_a_picture_before_the_lens_is_no_place(covered: float) -> None:
    """The rest of the view is another place by now; a camera that stands sees what the keyframe saw all over."""
    world = PointWorld([START], points=12000)
    slam_map, first = mapped(observed_frame(world, 0)), observed_frame(world, 0)
    other = observed_frame(PointWorld([START], points=12000, seed=9), 0)
    border = covered * CAMERA.width
    mixed = joined(select(first, first.keypoints[:, 0] < border), select(other, other.keypoints[:, 0] >= border))
    found = locator(slam_map).by_keyframes(mixed, [slam_map.tree.newest], CONFIG.min_relocalisation_inliers)
    assert (found is None) == (covered < 1.0)


@pytest.mark.parametrize("share", [0.35, 0.8])
def test_without_a_prediction_a_pose_has_to_explain_most_of_the_view(share: float) -> None:
    """Part of the view is the place, seen from elsewhere; the rest is another one, as on two sides of a cabinet."""
    world = PointWorld([START, STEP], points=12000)
    slam_map, second = mapped(observed_frame(world, 0)), observed_frame(world, 1)
    other = observed_frame(PointWorld([STEP], points=12000, seed=9), 0)
    border = share * CAMERA.width
    mixed = joined(select(second, second.keypoints[:, 0] < border), select(other, other.keypoints[:, 0] >= border))
    found = locator(slam_map).by_keyframes(mixed, [slam_map.tree.newest], CONFIG.min_inliers)
    assert (found is not None) == (share > 0.5)
    if found is not None:
        assert np.linalg.norm((inverse(STEP) @ found.T_world_cam)[:3, 3]) < 5e-3


def test_depth_that_contradicts_the_map_refutes_a_pose_that_no_prediction_backs() -> None:
    world = PointWorld([START, STEP], points=12000)
    slam_map, second = mapped(observed_frame(world, 0)), observed_frame(world, 1)
    doubled = replace(second, depth=2 * second.depth)
    assert locator(slam_map).by_keyframes(second, [slam_map.tree.newest], CONFIG.min_inliers) is not None
    assert locator(slam_map).by_keyframes(doubled, [slam_map.tree.newest], CONFIG.min_inliers) is None
    predicted = tracked(slam_map, doubled)  # a prediction says that the unit has changed
    assert predicted is not None
    assert predicted.depth_factor == pytest.approx(2.0, rel=0.05)


@pytest.mark.parametrize("copies", [(0.0,), (0.0, 0.7)])
def test_after_a_loss_a_world_that_is_there_twice_is_not_found(copies: tuple[float, ...]) -> None:
    """The keyframe has seen both copies, and a frame sees one: which one, nothing tells."""
    slam_map = mapped(observed_frame(PointWorld([START], copies=copies), 0))
    frame = observed_frame(PointWorld([STEP]), 0)
    found = locator(slam_map).by_keyframes(frame, [slam_map.tree.newest], CONFIG.min_relocalisation_inliers)
    assert (found is None) == (len(copies) > 1)


@pytest.mark.parametrize(("share", "is_lost"), [(0.3, False), (0.42, True)])
def test_after_a_loss_another_pose_with_two_fifths_of_the_decades_is_enough_to_doubt(
    share: float, is_lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On wallpaper, after a second of black, a pose one period off had 1438 decades and the true one 609."""
    monkeypatch.setattr(Doubts, "has_rival", lambda *args: False)

    def weaker(self: Doubts, frame: ObservedFrame, matches: Any, placement: Placement, rules: Any, **_: Any) -> Any:
        assert placement.evidence is not None
        evidence = replace(placement.evidence, log10_nfa=share * placement.log10_nfa)
        return replace(placement, evidence=evidence, lines=None)

    monkeypatch.setattr(Doubts, "_other_pose", weaker)
    slam_map = mapped(observed_frame(PointWorld([START], copies=(0.0, 0.7)), 0))
    frame = observed_frame(PointWorld([STEP]), 0)
    found = locator(slam_map).by_keyframes(frame, [slam_map.tree.newest], CONFIG.min_relocalisation_inliers)
    assert (found is None) == is_lost


@pytest.mark.parametrize("copies", [(0.0,), (0.0, 0.4, 0.8, 1.2)])
def test_where_descriptors_match_elsewhere_what_a_pose_finds_the_pattern_repeats(
    copies: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While tracking, too: among matches with all copies RANSAC may miss the other poses, by chance of its seed."""
    monkeypatch.setattr(Doubts, "has_rival", lambda *args: False)
    slam_map = mapped(observed_frame(PointWorld([START], copies=copies), 0))
    frame = observed_frame(PointWorld([STEP]), 0)
    found = locator(slam_map).by_keyframes(frame, [slam_map.tree.newest], CONFIG.min_inliers)
    assert (found is None) == (len(copies) > 1)


def test_keyframes_just_seen_back_no_pose_that_no_hand_reaches(monkeypatch: pytest.MonkeyPatch) -> None:
    """A room upside down was placed 1 m and 30 degrees from the frame before, 67 ms later."""
    world = PointWorld([START, STEP], points=12000)
    slam_map, second = mapped(observed_frame(world, 0)), observed_frame(world, 1)
    asked: list[bool] = []
    believe = locating.accept

    def accept(*args: Any, is_within_reach: bool, **options: Any) -> bool:
        asked.append(is_within_reach)
        return believe(*args, is_within_reach=is_within_reach, **options)

    monkeypatch.setattr(locating, "accept", accept)
    for metres in (1.0, 0.001):
        reach = Reach(T_world_cam=START, metres=metres, radians=1.0)
        locator(slam_map).by_keyframes(second, [slam_map.tree.newest], CONFIG.min_inliers, reach=reach)
    assert asked == [True, False]


@pytest.mark.parametrize(("log10_nfa", "found"), [(-12.0, 56), (-60.0, 149), (-70.0, 56)])
def test_without_depth_every_landmark_has_to_speak_for_a_pose_that_no_prediction_backs(
    log10_nfa: float, found: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A room upside down agreed with 56 of 936 landmarks at -12, from where the camera had just been, or 149 at -60."""
    world = PointWorld([START, STEP], points=12000)
    slam_map, second = mapped(observed_frame(world, 0)), observed_frame(world, 1)
    weak = Evidence(log10_nfa=log10_nfa, visible=500, found=found)
    monkeypatch.setattr(placing, "evidence_of_pose", lambda *args, **options: weak)
    monkeypatch.setattr(placing, "log10_sample_nfa", lambda *args: 0.0)
    for has_depth in (True, False):
        frame = second if has_depth else second.without_depth()
        by_keyframe = locator(slam_map, has_depth=has_depth).by_keyframes(
            frame, [slam_map.tree.newest], CONFIG.min_inliers
        )
        assert (by_keyframe is not None) == (has_depth or log10_nfa < -60)
        assert tracked(slam_map, frame, has_depth=has_depth) is not None, "a prediction needs no more than before"


@pytest.mark.parametrize("copies", [(0.0,), (0.0, 0.7)])
def test_two_maps_are_not_joined_where_the_world_is_there_twice(copies: tuple[float, ...]) -> None:
    slam_map = mapped(observed_frame(PointWorld([START], copies=copies), 0))
    query = slam_map.add_keyframe(observed_frame(PointWorld([STEP]), 0), START, None, 1)
    config = LoopConfig(consistency=1, min_supporters=0)
    match = PlaceRecognition(slam_map, config).find_loop(query)
    assert (match is None) == (len(copies) > 1)


def test_pixels_moved_are_those_of_landmarks_that_the_keyframe_saw() -> None:
    world = PointWorld([START, STEP])
    slam_map, frame = mapped(observed_frame(world, 0)), observed_frame(world, 1)
    keyframe = slam_map.tree.newest
    seen = np.flatnonzero(keyframe.landmark_ids >= 0)[:3]
    ids = np.concatenate([keyframe.landmark_ids[seen], [keyframe.landmark_ids.max() + 5]])
    found = Associations(landmark_ids=ids, keypoint_indices=np.array([4, 5, 6, 7]), similarity=np.ones(4))
    expected = np.linalg.norm(frame.keypoints[[4, 5, 6]] - keyframe.frame.keypoints[seen], axis=1)
    np.testing.assert_allclose(pixels_moved(frame, found, keyframe), expected)


def contested_map() -> tuple[SlamMap, FrameLocator, PointWorld]:
    """The room is established; then a thing that covers most of the view begins to move with its own landmarks."""
    world = PointWorld([START, STEP, compose(STEP, STEP)], points=12000)
    slam_map = mapped(observed_frame(world, 0))
    return slam_map, locator(slam_map), world


def test_what_was_held_off_does_not_win_when_the_established_are_out_of_view() -> None:
    slam_map, placer, world = contested_map()
    landmarks = slam_map.landmarks
    keyframe = slam_map.tree.newest
    right = keyframe.frame.keypoints[:, 0] >= 0.7 * CAMERA.width
    room = keyframe.landmark_ids[right & (keyframe.landmark_ids >= 0)]
    for _ in range(6):
        landmarks.count_views(room, room)
    first, second = observed_frame(world, 0), observed_frame(world, 1)
    # The thing stands where it stood in the image, 0.3 m nearer than it was: it has moved with the camera.
    thing = select(first, first.keypoints[:, 0] < 0.7 * CAMERA.width)
    view = joined(thing, select(second, second.keypoints[:, 0] >= 0.7 * CAMERA.width))
    prediction = Prediction(T_world_cam=START, translation_sigma=0.03, rotation_sigma=0.04)
    held = placer.by_prediction(view, prediction, keyframe.landmark_ids)
    assert held is not None
    assert held.is_contested
    assert np.linalg.norm((inverse(STEP) @ held.T_world_cam)[:3, 3]) < 5e-3
    assert placer.by_prediction(thing, prediction, keyframe.landmark_ids) is None
    placer.begin()
    assert placer.by_prediction(thing, prediction, keyframe.landmark_ids) is not None


def test_landmarks_begin_only_near_what_agrees() -> None:
    frame = observed_frame(PointWorld([START]), 0)
    near = frame.with_depth_near(np.array([0, 3]), 25.0)
    apart = np.linalg.norm(frame.keypoints[:, None] - frame.keypoints[[0, 3]], axis=2).min(axis=1)
    np.testing.assert_array_equal(near.depth, np.where(apart <= 25.0, frame.depth, 0.0))
    assert 2 <= np.count_nonzero(near.depth) < len(frame)
    assert not frame.with_depth_near(np.zeros(0, dtype=np.int64), 25.0).depth.any()
