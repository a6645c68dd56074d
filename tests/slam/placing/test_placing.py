"""Placing a frame among landmarks: what the rules change, and what is believed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.transforms import compose, inverse, se3_exp
from semkey.slam.config import MapConfig, TrackingConfig, image_scale
from semkey.slam.map.association import match_keyframe
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.placing.acceptance import accept
from semkey.slam.placing.placement import Placement, PlacingRules
from semkey.slam.placing.placing import place_frame, refine_placement
from semkey.slam.solvers.image_cells import cells_of, coverage
from synthetic_world import CAMERA, HEIGHT, WIDTH, PointWorld, observed_frame

MOVED = se3_exp([0.06, -0.02, 0.04, 0.01, 0.03, -0.02])
RULES = PlacingRules(min_matches=12, min_sample_inliers=12, ransac_error_px=2.0, search_radii_px=(4.0, 3.0))


def mapped(world: PointWorld) -> SlamMap:
    slam_map = SlamMap(CAMERA, MapConfig(), pixel_sigma=TrackingConfig().pixel_sigma * image_scale(CAMERA))
    slam_map.add_keyframe(observed_frame(world, 0), np.eye(4), None, 0)
    return slam_map


def placed(world: PointWorld, rules: PlacingRules = RULES, *, few: bool = False) -> Placement | None:
    slam_map, frame = mapped(world), observed_frame(world, 1)
    matches = match_keyframe(frame, slam_map.tree.newest, slam_map.landmarks)
    if few:
        matches = matches.select(np.arange(len(matches)) < 12)
    return place_frame(slam_map, frame, matches, lambda _: slam_map.landmarks.ids, rules)


def distance(placement: Placement | None) -> float:
    assert placement is not None
    return float(np.linalg.norm(compose(inverse(MOVED), placement.T_world_cam)[:3, 3]))


def test_a_search_near_projections_completes_what_descriptors_found() -> None:
    world = PointWorld([np.eye(4), MOVED], pixel_noise=0.3)
    whole, few = placed(world), placed(world, few=True)
    sample_only = placed(world, replace(RULES, search_radii_px=()), few=True)
    assert whole is not None
    assert few is not None
    assert sample_only is not None
    assert sample_only.inlier_count <= 12 < 0.9 * whole.inlier_count < few.inlier_count
    assert distance(few) < 0.003
    assert np.linalg.eigvalsh(few.information).min() > 3 * np.linalg.eigvalsh(sample_only.information).min() > 0
    assert (len(sample_only.visible), sample_only.radius_px) == (0, 0.0)
    assert few.radius_px == 3.0
    assert len(few.visible) >= few.inlier_count
    assert few.sample_similarity > 0.99


def test_a_round_that_moves_nothing_any_more_is_the_last() -> None:
    world = PointWorld([np.eye(4), MOVED])
    settled = placed(world, replace(RULES, search_radii_px=(4.0, 3.0, 2.0), settled_px=0.5))
    assert settled is not None
    assert settled.radius_px == 4.0


def test_too_few_matches_give_no_pose() -> None:
    world = PointWorld([np.eye(4), MOVED])
    assert placed(world, few=True) is not None
    assert placed(world, replace(RULES, min_matches=13), few=True) is None
    assert placed(world, replace(RULES, min_matches=12, min_sample_inliers=13), few=True) is None


def test_depths_count_unless_the_units_may_differ() -> None:
    """Depths of another unit, as between two maps of a single camera, draw the pose away."""
    world = PointWorld([np.eye(4), MOVED])
    slam_map, frame = mapped(world), observed_frame(world, 1)
    frame = replace(frame, depth=1.01 * frame.depth)
    found = match_keyframe(frame, slam_map.tree.newest, slam_map.landmarks)
    with_depth, without = (
        refine_placement(slam_map, frame, found, MOVED, uses_depth=uses_depth) for uses_depth in (True, False)
    )
    assert distance(without) < 1e-3
    assert distance(with_depth) > 4e-3


def test_the_covariance_counts_what_errors_of_landmarks_have_in_common() -> None:
    placement = placed(PointWorld([np.eye(4), MOVED]))
    assert placement is not None
    exact = replace(placement, scatter=0.5)  # residuals smaller than claimed make nothing surer
    np.testing.assert_allclose(exact.covariance @ exact.information, 1.5 * np.eye(6), atol=1e-6)
    scattered = replace(placement, scatter=2.0)
    np.testing.assert_allclose(scattered.covariance, 4 * exact.covariance, rtol=1e-9)


def test_a_match_of_no_similarity_still_has_a_weight() -> None:
    world = PointWorld([np.eye(4), MOVED])
    slam_map, frame = mapped(world), observed_frame(world, 1)
    found = match_keyframe(frame, slam_map.tree.newest, slam_map.landmarks)
    unlike = replace(found, similarity=np.zeros(len(found)))
    start = compose(MOVED, se3_exp([0.01, 0, 0, 0, 0, 0]))
    assert distance(refine_placement(slam_map, frame, unlike, start)) < 1e-3


def test_a_placement_is_accepted_by_how_many_agree_and_how_they_are_spread() -> None:
    world = PointWorld([np.eye(4), MOVED])
    frame, placement = observed_frame(world, 1), placed(world)
    assert placement is not None
    count = placement.inlier_count
    assert accept(placement, frame, CAMERA, min_inliers=count)
    assert not accept(placement, frame, CAMERA, min_inliers=count + 1)
    expected = placement.pixels
    assert accept(placement, frame, CAMERA, min_inliers=12, expected=expected, min_coverage=0.95)
    left = frame.keypoints[placement.associations.keypoint_indices, 0] < WIDTH / 2
    half = replace(placement, inliers=placement.inliers & left)
    assert not accept(half, frame, CAMERA, min_inliers=12, expected=expected, min_coverage=0.7)
    assert accept(half, frame, CAMERA, min_inliers=12, expected=expected, min_coverage=0.3)
    # Without what is expected, by what was looked for.
    assert accept(placement, frame, CAMERA, min_inliers=12, min_coverage=0.95)
    assert not accept(half, frame, CAMERA, min_inliers=12, min_coverage=0.7)
    # Where nothing backs the pose, each landmark has to bring its share of the evidence.
    assert placement.evidence is not None
    weak = replace(placement, evidence=replace(placement.evidence, log10_nfa=-20.0))
    assert accept(weak, frame, CAMERA, min_inliers=12)
    assert not accept(weak, frame, CAMERA, min_inliers=12, is_expected=False)


def grid(columns: int, rows: int) -> NDArray[np.float64]:
    """Two points in each of the first cells of the image."""
    x, y = np.meshgrid(np.arange(columns) * WIDTH / 8 + 10, np.arange(rows) * HEIGHT / 6 + 10)
    points = np.stack([x.ravel(), y.ravel()], axis=1)
    return np.concatenate([points, points + 5.0])


def test_coverage_counts_cells_where_both_sides_have_something() -> None:
    everywhere, half = grid(8, 6), grid(4, 6)
    assert coverage(everywhere, everywhere, everywhere, CAMERA) == 1.0
    assert coverage(everywhere, everywhere, half, CAMERA) == 0.5
    assert coverage(everywhere, half, half, CAMERA) == 1.0, "nothing is expected in the other half"
    assert coverage(half, everywhere, half, CAMERA) == 1.0, "nothing is to be seen in the other half"
    one_each = everywhere[: len(everywhere) // 2]
    assert coverage(everywhere, one_each, half, CAMERA) == 0.0, "a single landmark makes no cell count"
    assert coverage(everywhere, np.zeros((0, 2)), half, CAMERA) == 0.0
    assert len(set(cells_of(everywhere, (CAMERA.width, CAMERA.height)).tolist())) == 48
    assert cells_of(np.array([[-5.0, -5.0], [1e4, 1e4]]), (CAMERA.width, CAMERA.height)).tolist() == [0, 47]
