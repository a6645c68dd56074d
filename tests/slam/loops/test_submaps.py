"""Two submaps become one where a keyframe of the one was found in the other, whichever has the lower number."""

from __future__ import annotations

import numpy as np
import pytest

from grid_map import POINTS, check_consistent, empty_map, ids, observe
from semkey.geometry.similarity import ScaledTransform
from semkey.geometry.transforms import compose, inverse, se3_exp
from semkey.slam.loops.submaps import join_at
from semkey.slam.loops.verification import PlaceMatch
from semkey.slam.map.association import Associations
from semkey.slam.map.keyframe_tree import scaled_transform
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.placing.placement import Placement

# Where the cameras are in the world of submap 0.
TRUTH = {0: np.eye(4), 1: se3_exp([0.2, 0, 0, 0, 0.05, 0]), 2: se3_exp([0.1, 0.1, 0, 0.02, 0, 0])}
# Submap 1 has another origin, and its units are smaller: what is 1 m long there is 0.4 m in submap 0.
T_0_1, SIZE_OF_1 = se3_exp([0.5, -0.3, 0.2, 0.1, 0.3, -0.2]), 0.4


def two_submaps(size: float) -> SlamMap:
    """Keyframe 0 in submap 0; 1 and 2, which hangs on 1, in submap 1, ``size`` times as large as it should be."""
    slam_map = empty_map()
    slam_map.add_keyframe(observe(TRUTH[0]), TRUTH[0], None, 0)
    for k in (1, 2):
        slam_map.add_keyframe(observe(TRUTH[k], index=k), TRUTH[k], None, 1)
    slam_map.keyframes[2].parent = 1
    in_1 = {k: scaled_transform(compose(inverse(T_0_1), TRUTH[k]), 1 / size) for k in (1, 2)}
    slam_map.set_poses(in_1, dict.fromkeys(in_1, 1 / size))
    for k in (1, 2):
        slam_map.keyframes[k].scale = 1.0
    return slam_map


def match(query: int, matched: int, S_place_query: ScaledTransform) -> PlaceMatch:
    nothing = Associations(landmark_ids=ids(), keypoint_indices=ids(), similarity=np.zeros(0))
    return PlaceMatch(
        query=query,
        matched=matched,
        S_place_query=S_place_query,
        placement=Placement(T_world_cam=S_place_query.T, associations=nothing, inliers=np.zeros(0, dtype=bool)),
        coverage=1.0,
        log_scale_sigma=0.01,
    )


@pytest.mark.parametrize("size", [1.0, SIZE_OF_1])
def test_a_newer_submap_is_carried_into_the_older_one(size: float) -> None:
    slam_map = two_submaps(size)
    scales = join_at(slam_map, match(2, 0, ScaledTransform(T=TRUTH[2], scale=size)))
    assert slam_map.tree.submaps == [0]
    for k, pose in TRUTH.items():
        np.testing.assert_allclose(slam_map.keyframes[k].T_world_cam, pose, atol=1e-9)
        seen = slam_map.keyframes[k].landmark_ids
        np.testing.assert_allclose(slam_map.landmarks.positions[seen], POINTS, atol=1e-6)
    assert scales == pytest.approx({1: size, 2: size})
    assert slam_map.keyframes[1].scale == pytest.approx(size)
    parents = {k: keyframe.parent for k, keyframe in slam_map.keyframes.items()}
    assert parents == {0: None, 2: 0, 1: 2}, "the tree is joined where they met, and turned round above it"
    check_consistent(slam_map)


@pytest.mark.parametrize("size", [1.0, SIZE_OF_1])
def test_the_older_world_stays_where_its_keyframe_is_found_in_the_newer_one(size: float) -> None:
    """The camera went on in submap 0, and sees a place of submap 1 again: the place moves, not the camera."""
    slam_map = two_submaps(size)
    in_place = scaled_transform(compose(inverse(T_0_1), TRUTH[0]), 1 / size)
    scales = join_at(slam_map, match(0, 1, ScaledTransform(T=in_place, scale=1 / size)))
    assert slam_map.tree.submaps == [0]
    for k, pose in TRUTH.items():
        np.testing.assert_allclose(slam_map.keyframes[k].T_world_cam, pose, atol=1e-9)
        seen = slam_map.keyframes[k].landmark_ids
        np.testing.assert_allclose(slam_map.landmarks.positions[seen], POINTS, atol=1e-6)
    assert scales == pytest.approx({1: size, 2: size})
    parents = {k: keyframe.parent for k, keyframe in slam_map.keyframes.items()}
    assert parents == {0: None, 1: 0, 2: 1}
