"""Which loops a single camera may close: it must have come back, not just still see what was far ahead."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from semkey.geometry.similarity import ScaledTransform
from semkey.geometry.transforms import so3_exp
from semkey.matching.keypoint_noise import isotropic_covariances
from semkey.slam.config import LoopConfig, MapConfig
from semkey.slam.frames.frame import observe_keypoints
from semkey.slam.loops.essential_graph import path_between, way_between
from semkey.slam.loops.plausibility import is_plausible
from semkey.slam.loops.verification import PlaceMatch
from semkey.slam.map.association import Associations
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.placing.placement import Placement
from synthetic_world import CAMERA, PointExtractor, PointWorld

COUNT = 10


def straight_map(step: float) -> SlamMap:
    """Keyframes ``step`` units apart on a straight way, each the parent of the next."""
    poses = [np.eye(4) for _ in range(COUNT)]
    for k, pose in enumerate(poses):
        pose[2, 3] = step * k
    world = PointWorld([np.eye(4)])
    slam_map = SlamMap(CAMERA, MapConfig(), pixel_sigma=1.0)
    features = PointExtractor(world).extract(world[0].image)
    nothing = np.zeros(len(features))
    for k, pose in enumerate(poses):
        keyframe = slam_map.add_keyframe(
            observe_keypoints(k, 1.0 * k, features, nothing, nothing, isotropic_covariances(len(features), 1.0)),
            pose,
            None,
            0,
        )
        keyframe.parent = None if k == 0 else k - 1
        keyframe.median_depth = 2.0
    return slam_map


def match_at(z: float, scale: float = 1.0) -> PlaceMatch:
    """The last keyframe seen at ``z`` before the first one's place."""
    pose = np.eye(4)
    pose[2, 3] = z
    none = np.zeros(0, dtype=np.int64)
    nothing = Associations(landmark_ids=none, keypoint_indices=none, similarity=np.zeros(0))
    return PlaceMatch(
        query=COUNT - 1,
        matched=0,
        S_place_query=ScaledTransform(T=pose, scale=scale),
        placement=Placement(T_world_cam=pose, associations=nothing, inliers=np.zeros(0, dtype=bool)),
        coverage=1.0,
        log_scale_sigma=0.1,
    )


def plausible(slam_map: SlamMap, match: PlaceMatch) -> bool:
    return is_plausible(slam_map, match, LoopConfig(), with_scale=True)


def turned(match: PlaceMatch, degrees: float) -> PlaceMatch:
    pose = match.S_place_query.T.copy()
    pose[:3, :3] = so3_exp([0.0, np.radians(degrees), 0.0])
    return replace(match, S_place_query=ScaledTransform(T=pose, scale=match.S_place_query.scale))


def test_a_camera_that_went_straight_on_has_not_come_back() -> None:
    slam_map = straight_map(1.0)
    assert way_between(slam_map, 0, COUNT - 1) == list(range(COUNT))
    assert path_between(slam_map, 0, COUNT - 1) == (COUNT - 1.0, 0.0)
    # Nine units on: shrunk to a quarter along the way (4.9 units), that much a share more, and the floor of 0.3 depths.
    assert plausible(slam_map, match_at(8.9))
    assert plausible(slam_map, match_at(4.0))
    assert not plausible(slam_map, match_at(3.0))
    # Nor does a large correction of scale bring it back.
    assert not plausible(slam_map, match_at(0.3, 3.0))


def test_a_way_that_bends_back_may_do_so_completely() -> None:
    slam_map = straight_map(1.0)
    # Four units on and, with sizes half as large, five back.
    for k in range(5, COUNT):
        slam_map.keyframes[k].T_world_cam[2, 3] = 4.0 - 0.5 * (k - 4)
    assert plausible(slam_map, match_at(-0.5))
    # Without drift of scale it would have to stand within 1.3 units of where it is, at 1.5.
    assert not is_plausible(slam_map, match_at(-0.5), LoopConfig(), with_scale=False)
    assert not plausible(slam_map, match_at(-9.0))


def test_turns_do_not_depend_on_scale() -> None:
    slam_map = straight_map(1.0)
    assert plausible(slam_map, turned(match_at(8.9), 9.0))
    assert not plausible(slam_map, turned(match_at(8.9), 11.0))


def test_a_way_whose_scale_has_shrunk_does_not_hide_that_the_camera_is_back() -> None:
    slam_map = straight_map(0.001)
    # The place is 2 units deep, the camera 0.5 units away from where it was.
    assert plausible(slam_map, match_at(0.5))
    assert not plausible(slam_map, match_at(1.5))


def test_submaps_meet_wherever_they_like() -> None:
    slam_map = straight_map(1.0)
    slam_map.tree.newest.submap = 1
    assert plausible(slam_map, match_at(-8.0))
    assert not plausible(slam_map, replace(match_at(-8.0), query=1))
