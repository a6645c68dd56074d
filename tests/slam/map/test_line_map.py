"""Lines in the map and in tracking, in a world of wires whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.geometry.transforms import compose, inverse, rotation_angle_deg, se3_exp, transform_points
from semkey.matching.keypoint_noise import isotropic_covariances
from semkey.matching.robust import estimate_absolute_pose_with_lines
from semkey.model.features import Features
from semkey.model.preprocess import ImageLike
from semkey.slam import SlamConfig, run_slam
from semkey.slam.config import MapConfig
from semkey.slam.frames.frame import observe_frame
from semkey.slam.frames.observed_lines import ObservedLines, observe_lines
from semkey.slam.frames.segments import Segments
from semkey.slam.frames.segments_in_space import SpatialSegments
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.line_association import LineAssociations, line_observations, match_lines
from semkey.slam.map.lines import LineMap
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.mapping.adjustment import apply_bundle
from semkey.slam.solvers.bundle import BundleProblem, solve_bundle
from semkey.slam.solvers.bundle_lines import LineSightings, bundle_lines
from semkey.slam.solvers.pose_lines import line_residuals_and_jacobian
from semkey.slam.tracking.lines import LineTracker
from synthetic_world import CAMERA, HEIGHT, WIDTH, PointExtractor, PointWorld, walk
from wire_world import LINES, WireExtractor, WireWorld

PIXEL = WIDTH / 640


class WithoutSegments:
    """The same points, and no lines."""

    name = "points"

    def __init__(self, extractor: WireExtractor) -> None:
        self._extractor = extractor

    def extract(self, image: ImageLike) -> Features:
        features = self._extractor.extract(image)
        return Features(**{name: getattr(features, name) for name in Features.__dataclass_fields__})


def observed_lines(world: WireWorld, index: int) -> ObservedLines:
    segments, _ = world.segments(index)
    return observe_lines(segments, world[index].depth, CAMERA, min_depth=0.3, max_depth=8.0)


def keyframe_of(world: PointWorld, slam_map: SlamMap, index: int, pose: NDArray[np.float64] | None = None) -> Keyframe:
    frame = world[index]
    assert frame.depth is not None
    features = PointExtractor(world).extract(frame.image)
    covariances = isotropic_covariances(len(features), 1.0)
    observed = observe_frame(index, 0.1 * index, features, frame.depth, covariances, min_depth=0.3, max_depth=8.0)
    truth = world.ground_truth[index] if pose is None else pose
    assert truth is not None
    return slam_map.add_keyframe(observed, truth, None, 0)


def new_map(world: WireWorld) -> tuple[SlamMap, LineMap]:
    slam_map = SlamMap(CAMERA, MapConfig(), pixel_sigma=1.0)
    lines = LineMap(slam_map.tree, slam_map.camera, LINES, pixel_sigma=0.5, pixel=PIXEL)
    add(world, slam_map, lines, 0)
    return slam_map, lines


def add(world: WireWorld, slam_map: SlamMap, lines: LineMap, index: int) -> int:
    keyframe = keyframe_of(world, slam_map, index)
    observed = observed_lines(world, index)
    visible = lines.visible_from(keyframe.T_world_cam, np.array(list(slam_map.keyframes)[:-1], dtype=np.int64))
    found = match_lines(observed, visible, LINES, radius_px=4.0)
    lines.count_views(visible.rows, visible.rows[found.lines])
    lines.add_keyframe(keyframe.id, observed, visible, found)
    return keyframe.id


def distances_from_wires(world: WireWorld, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance (L,) of 3D segments from the nearest wire's straight line, the worse end."""
    step = world.wires[:, 1] - world.wires[:, 0]
    step /= np.linalg.norm(step, axis=1, keepdims=True)
    offsets = points[:, None] - world.wires[None, :, :1]
    along = np.einsum("lwek,wk->lwe", offsets, step)
    return np.linalg.norm(offsets - along[..., None] * step[None, :, None], axis=3).max(axis=2).min(axis=1)


# -- matching -----------------------------------------------------------------------------------------------------


def test_segments_find_their_lines_from_a_pose_nearby_and_say_where_the_camera_is() -> None:
    world = WireWorld(walk(4))
    slam_map, lines = new_map(world)
    assert len(lines) > 10
    observed, wires = observed_lines(world, 2), world.segments(2)[1]
    truth = world.ground_truth[2]
    assert truth is not None
    visible = lines.visible_from(compose(truth, se3_exp([0.01, 0, 0.01, 0.01, 0, 0.01])), np.array([0]))
    found = match_lines(observed, visible, LINES, radius_px=15.0)
    assert len(found) > 8
    right = (visible.descriptors[found.lines] @ world.wire_descriptors.T).argmax(axis=1) == wires[found.segments]
    assert right.all()
    # At the true pose the pairs have next to no residual.
    visible = lines.visible_from(truth, np.array([0]))
    found = match_lines(observed, visible, LINES, radius_px=4.0)
    observations = line_observations(observed, visible, found, truth, CAMERA, pixel_sigma=0.5)
    residuals, _ = line_residuals_and_jacobian(inverse(truth), observations, CAMERA)
    assert np.median(np.abs(residuals)) < 0.5
    assert (observations.pixel_sigma >= 0.5).all()
    assert slam_map.tree.newest.id == 0


def test_a_segment_that_points_the_other_way_or_lies_elsewhere_is_another_line() -> None:
    world = WireWorld(walk(2))
    _, lines = new_map(world)
    pose = world.ground_truth[0]
    assert pose is not None
    visible = lines.visible_from(pose, np.array([0]))
    observed = observed_lines(world, 0)
    assert len(match_lines(observed, visible, LINES, radius_px=4.0)) == len(visible)
    turned = Segments(endpoints=observed.segments.endpoints[:, ::-1], descriptors=observed.segments.descriptors)
    assert not len(match_lines(ObservedLines(segments=turned, spatial=observed.spatial), visible, LINES, radius_px=4.0))
    shifted = Segments(endpoints=observed.segments.endpoints + 500.0, descriptors=observed.segments.descriptors)
    assert not len(
        match_lines(ObservedLines(segments=shifted, spatial=observed.spatial), visible, LINES, radius_px=4.0)
    )
    nothing = observe_lines(
        Segments(endpoints=np.zeros((0, 2, 2)), descriptors=np.zeros((0, 64), np.float32)),
        None,
        CAMERA,
        min_depth=0.3,
        max_depth=8.0,
    )
    assert not len(match_lines(nothing, visible, LINES, radius_px=4.0))


# -- the map ------------------------------------------------------------------------------------------------------


def test_lines_of_the_map_lie_on_the_wires_and_are_not_added_twice() -> None:
    world = WireWorld(walk(6))
    slam_map, lines = new_map(world)
    assert np.median(distances_from_wires(world, lines.points_world())) < 0.01
    before = len(lines)
    add(world, slam_map, lines, 0)
    assert len(lines) == before, "the same view again"


def test_more_views_make_lines_more_certain(rng: np.random.Generator) -> None:
    """Noise of half a pixel and of 5 cm, all independent: eight views leave about a third of one's error."""
    truth = np.array([[[-0.5, 0.1 * k - 0.5, 2.0], [0.5, 0.1 * k - 0.4, 2.5]] for k in range(12)])
    world = PointWorld(walk(8, [0.02, 0.01, 0.01, 0.0, 0.0, 0.0]))
    slam_map = SlamMap(CAMERA, MapConfig(), pixel_sigma=1.0)
    lines = LineMap(slam_map.tree, slam_map.camera, LINES, pixel_sigma=0.5, pixel=PIXEL)
    descriptors = np.eye(12, 64, dtype=np.float32)

    def errors() -> NDArray[np.float64]:
        middle = lines.points_world().mean(axis=1) - truth[:, 0]
        step = truth[:, 1] - truth[:, 0]
        step = step / np.linalg.norm(step, axis=1, keepdims=True)
        return np.linalg.norm(middle - (middle * step).sum(axis=1, keepdims=True) * step, axis=1)

    for index in range(8):
        pose = world.ground_truth[index]
        assert pose is not None
        cam = transform_points(inverse(pose), truth.reshape(-1, 3))
        pixels = CAMERA.project(cam) + rng.normal(0, 0.5, (24, 2))
        z = cam[:, 2] + rng.normal(0, 0.05, 24)
        spatial = SpatialSegments(
            valid=np.ones(12, dtype=bool),
            points=CAMERA.backproject(pixels, z).reshape(12, 2, 3),
            sigma=np.full((12, 2), 0.05),
        )
        segments = Segments(endpoints=pixels.reshape(12, 2, 2), descriptors=descriptors)
        observed = ObservedLines(segments=segments, spatial=spatial)
        keyframe = keyframe_of(world, slam_map, index)
        visible = lines.visible_from(pose, np.array(list(slam_map.keyframes)[:-1], dtype=np.int64))
        same = np.arange(len(visible))
        found = LineAssociations(lines=same, segments=visible.rows, similarity=np.ones(len(visible)))
        lines.add_keyframe(keyframe.id, observed, visible, found)
        if index == 0:
            first = errors()
    assert len(lines) == 12
    assert np.median(errors()) < 0.6 * np.median(first)


def test_lines_follow_their_keyframe_when_the_map_is_corrected_and_when_it_is_removed() -> None:
    world = WireWorld(walk(3, [0.05, 0.0, 0.0, 0.0, 0.2, 0.0]))
    slam_map, lines = new_map(world)
    before = lines.points_world()
    moved = se3_exp([0.5, -0.2, 0.1, 0.1, 0.2, 0.0])
    first = slam_map.keyframes[0].T_world_cam
    slam_map.set_poses({0: compose(moved, first)})
    after = lines.points_world()
    np.testing.assert_allclose(after.reshape(-1, 3), transform_points(moved, before.reshape(-1, 3)), atol=1e-9)
    slam_map.set_poses({0: first}, {0: 2.0})
    centre = first[:3, 3]
    np.testing.assert_allclose(lines.points_world(), centre + 2.0 * (before - centre), atol=1e-9)
    slam_map.set_poses({0: first}, {0: 0.5})

    for index in (1, 2):
        add(world, slam_map, lines, index)
    slam_map.keyframes[1].parent, slam_map.keyframes[2].parent = 0, 1
    before = lines.points_world()
    assert (lines._references == 1).any()
    slam_map.remove_keyframe(1)
    np.testing.assert_allclose(lines.points_world(), before, atol=1e-9)
    held = lines.points_world()[lines._references == 1]
    lines._follow_removals()
    assert not (lines._references == 1).any()
    assert not (lines._last_seen == 1).any()
    np.testing.assert_allclose(lines.points_world(), before, atol=1e-9)
    assert len(held)


def test_lines_without_depth_come_from_two_views() -> None:
    world = WireWorld(walk(5, [0.08, 0.06, 0.0, 0.0, 0.0, 0.0]), noise=0.2)
    slam_map = SlamMap(CAMERA, MapConfig(), pixel_sigma=1.0)
    tracker = LineTracker(slam_map, LINES, pixel=PIXEL)
    lines = tracker.lines
    for index in range(5):
        segments, _ = world.segments(index)
        keyframe = keyframe_of(world, slam_map, index)
        blind = observe_lines(segments, None, CAMERA, min_depth=0.3, max_depth=8.0)
        keyframe.frame = replace(keyframe.frame, lines=blind)
        ids = keyframe.landmark_ids[keyframe.observed]
        seen = tracker.find(keyframe.frame, keyframe.T_world_cam, ids, radius_px=4.0)
        if seen is not None:
            seen = seen.with_inliers(np.ones(len(seen.associations), dtype=bool))
        tracker.add_keyframe(keyframe, seen)
        assert not blind.spatial.valid.any(), "the frame's own record stays as it was"
        if index == 0:
            assert len(lines) == 0, "one view places nothing"
    assert len(lines) > 5
    assert np.median(distances_from_wires(world, lines.points_world())) < 0.03


def test_lines_that_are_not_seen_again_are_forgotten() -> None:
    world = WireWorld(walk(2))
    slam_map, lines = new_map(world)
    count = len(lines)
    empty = ObservedLines(
        segments=Segments(endpoints=np.zeros((0, 2, 2)), descriptors=np.zeros((0, 64), np.float32)),
        spatial=observed_lines(world, 0).spatial,
    )
    nothing = np.zeros(0, dtype=np.int64)
    none = LineAssociations(lines=nothing, segments=nothing, similarity=np.zeros(0))
    empty = observe_lines(empty.segments, None, CAMERA, min_depth=0.3, max_depth=8.0)
    for _ in range(3):
        keyframe = keyframe_of(world, slam_map, 1)
        visible = lines.visible_from(keyframe.T_world_cam, np.array([0]))
        lines.add_keyframe(keyframe.id, empty, visible, none)
    assert count > 0
    assert len(lines) == 0


def test_lines_that_are_in_view_and_hardly_ever_found_are_forgotten() -> None:
    """All are seen by a second keyframe; then half of them are missed in eight frames in which they should be seen."""
    world = WireWorld(walk(3))
    slam_map, lines = new_map(world)
    add(world, slam_map, lines, 1)
    seen_twice = np.flatnonzero(lines._keyframe_counts >= 2)
    missed, found = lines._serials[seen_twice[::2]], lines._serials[seen_twice[1::2]]
    assert len(missed) > 3
    for _ in range(16):
        lines.count_views(seen_twice, seen_twice[1::2])
    add(world, slam_map, lines, 2)
    assert not np.isin(missed, lines._serials).any()
    assert np.isin(found, lines._serials).all()


# -- the pose -----------------------------------------------------------------------------------------------------


def test_ransac_over_points_and_lines(rng: np.random.Generator) -> None:
    pose = se3_exp([0.1, -0.2, 0.3, 0.05, -0.1, 0.2])
    ends = rng.uniform([0, 0], [WIDTH, HEIGHT], (12, 2, 2))
    z = rng.uniform(1, 4, (12, 2))
    world = transform_points(inverse(pose), CAMERA.backproject(ends.reshape(-1, 2), z.ravel())).reshape(-1, 2, 3)
    pixels = rng.uniform([0, 0], [WIDTH, HEIGHT], (3, 2))
    points = transform_points(inverse(pose), CAMERA.backproject(pixels, np.array([1.0, 2.0, 3.0])))
    ends[:3] += 25.0
    for count in (3, 0):
        estimate, lines = estimate_absolute_pose_with_lines(points[:count], pixels[:count], world, ends, CAMERA)
        assert estimate.model is not None
        np.testing.assert_allclose(estimate.model, pose, atol=1e-6)
        assert estimate.inliers.all()
        assert lines.tolist() == [False] * 3 + [True] * 9
    world[5] = np.nan
    estimate, lines = estimate_absolute_pose_with_lines(points, pixels, world, ends, CAMERA)
    assert estimate.model is not None
    assert not lines[5]
    few, none = estimate_absolute_pose_with_lines(points[:0], pixels[:0], world[:3], ends[:3], CAMERA)
    assert few.model is None
    assert none.tolist() == [False] * 3
    with pytest.raises(InputError, match="lines"):
        estimate_absolute_pose_with_lines(points, pixels, world, ends[:2], CAMERA)


def test_bundle_adjustment_by_lines_alone_finds_the_poses() -> None:
    """Two keyframes stay, two are a little off; only wires hold them together."""
    world = WireWorld(walk(4, [0.06, 0.03, 0.02, 0.02, 0.03, 0.0]), noise=0.1)
    slam_map = SlamMap(CAMERA, MapConfig(), pixel_sigma=1.0)
    lines = LineMap(slam_map.tree, slam_map.camera, LINES, pixel_sigma=0.5, pixel=PIXEL)
    slam_map.lines = lines
    for index in range(4):
        keyframe = keyframe_of(world, slam_map, index)
        observed = observed_lines(world, index)
        keyframe.frame = replace(keyframe.frame, lines=observed)
        visible = lines.visible_from(keyframe.T_world_cam, np.array(list(slam_map.keyframes)[:-1], dtype=np.int64))
        lines.add_keyframe(keyframe.id, observed, visible, match_lines(observed, visible, LINES, radius_px=4.0))
    truth = {k: keyframe.T_world_cam for k, keyframe in slam_map.keyframes.items()}
    for k in (2, 3):
        slam_map.keyframes[k].T_world_cam = compose(truth[k], se3_exp([0.02, -0.01, 0.01, 0.01, 0.0, -0.01]))
    problem = lines.bundle(np.arange(4))
    assert problem is not None
    assert len(problem) > 8
    nothing, no_ids = np.zeros(0), np.zeros(0, dtype=np.int64)
    result = solve_bundle(
        BundleProblem(
            camera=CAMERA,
            keyframe_ids=np.arange(4),
            poses=np.stack([keyframe.T_world_cam for keyframe in slam_map.keyframes.values()]),
            fixed=np.array([True, True, False, False]),
            landmark_ids=no_ids,
            landmark_serials=no_ids,
            positions=np.zeros((0, 3)),
            keyframe_rows=no_ids,
            landmark_rows=no_ids,
            keypoints=np.zeros((0, 2)),
            covariances=np.zeros((0, 2, 2)),
            depth=nothing,
            depth_sigma=nothing,
            lines=problem,
            max_iterations=30,
        )
    )
    assert result.cost < 0.5 * result.cost_before
    for k, pose in zip((2, 3), result.poses, strict=True):
        error = compose(inverse(truth[k]), pose)
        assert np.linalg.norm(error[:3, 3]) < 0.012, "from 0.024"
        assert rotation_angle_deg(error) < 0.4, "from 0.8"
    apply_bundle(slam_map, result)
    rows = np.isin(lines._serials, result.line_serials)
    np.testing.assert_allclose(lines.points_world()[rows], result.line_points, atol=1e-9)
    lines.adjust(np.array([10_000]), np.zeros((1, 2, 3)))
    np.testing.assert_allclose(lines.points_world()[rows], result.line_points, atol=1e-9)


def test_an_end_is_judged_only_by_segments_that_lie_beside_it() -> None:
    line = np.array([[[-0.5, 0.0, 2.0], [0.5, 0.0, 2.0]]])
    whole = CAMERA.project(line[0])
    half = np.stack([whole[0], whole.mean(axis=0)])
    planes = np.array([[0.0, 0.0, 1.0, -2.0]] * 2)
    sightings = LineSightings(
        keyframe_rows=np.array([0, 1]),
        line_rows=np.array([0, 0]),
        segments=np.stack([whole, half]),
        range_planes=planes,
        range_sigma=np.array([[0.02, 0.02], [0.0, 0.0]]),
    )
    poses = np.stack([np.eye(4), np.eye(4)])
    lines = bundle_lines(np.array([7]), line, poses, sightings, CAMERA, pixel_sigma=0.5)
    assert lines.serials.tolist() == [7]
    assert list(zip(lines.keyframe_rows.tolist(), lines.end_rows.tolist(), strict=True)) == [(0, 0), (0, 1), (1, 0)]
    np.testing.assert_allclose(lines.feet, whole[[0, 1, 0]])
    np.testing.assert_allclose(lines.depth, [2.0, 2.0, 0.0])
    np.testing.assert_allclose(lines.depth_sigma[:2], 0.02)
    np.testing.assert_allclose(np.abs(lines.normals), [[0.0, 1.0]] * 3)


def worst_error(world: WireWorld, result) -> tuple[float, float]:
    first = world.ground_truth[0]
    assert first is not None
    errors = []
    for record in result.frames:
        truth = world.ground_truth[record.index]
        if record.T_world_cam is not None and truth is not None:
            errors.append(compose(inverse(compose(inverse(first), truth)), record.T_world_cam))
    return max(float(np.linalg.norm(e[:3, 3])) for e in errors), max(rotation_angle_deg(e) for e in errors)


def test_tracking_goes_on_by_lines_where_there_are_no_points() -> None:
    world = WireWorld(walk(24), noise=0.3, pixel_noise=0.3)
    blank = range(8, 20)
    with_lines = run_slam(world, WireExtractor(world, blank), SlamConfig(lines=LINES))
    assert with_lines.tracked == 24
    assert with_lines.lost_events == []
    metres, degrees = worst_error(world, with_lines)
    assert metres < 0.03
    assert degrees < 0.6
    assert with_lines.slam_map is not None
    assert with_lines.slam_map.lines is not None
    assert len(with_lines.slam_map.lines) > 10
    without = run_slam(world, WithoutSegments(WireExtractor(world, blank)))
    assert without.tracked <= 12
    assert without.slam_map is not None
    assert without.slam_map.lines is None, "lines are off unless asked for"


def test_lines_do_no_harm_where_points_are_many_and_runs_repeat() -> None:
    world = WireWorld(walk(12), noise=0.5, pixel_noise=0.5, depth_noise=1.0, outlier_share=0.2)
    runs = [run_slam(world, WireExtractor(world), SlamConfig(lines=LINES)) for _ in range(2)]
    assert runs[0].tracked == 12
    for first, second in zip(runs[0].frames, runs[1].frames, strict=True):
        np.testing.assert_array_equal(first.T_world_cam, second.T_world_cam)
    plain = run_slam(world, WithoutSegments(WireExtractor(world)))
    assert worst_error(world, runs[0])[0] < max(1.5 * worst_error(world, plain)[0], 0.01)
