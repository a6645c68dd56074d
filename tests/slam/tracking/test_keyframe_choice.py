"""When a tracked frame is kept: each reason alone, just short of its threshold and just beyond."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from grid_map import COUNT, POINTS, empty_map, grow, observe
from semkey.geometry.transforms import se3_exp
from semkey.slam.config import TrackingConfig
from semkey.slam.map.association import Associations
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.placing.placement import Placement
from semkey.slam.tracking.keyframe_choice import needs_keyframe, uncovered_share
from synthetic_world import CAMERA

DEPTH = float(np.median(POINTS[:, 2]))
STILL = np.eye(4)
# Every reason but the one in question is out of reach.
NEVER = TrackingConfig(
    keyframe_tracked_share=0.01,
    keyframe_uncovered_share=1.0,
    keyframe_parallax=9.0,
    keyframe_rotation_deg=170.0,
    keyframe_seconds=99.0,
)


def one_keyframe(scale: float = 1.0) -> SlamMap:
    slam_map = empty_map()
    grow(slam_map, np.eye(4))
    slam_map.set_poses({0: np.eye(4)}, {0: scale})
    return slam_map


def kept(
    config: TrackingConfig,
    pose: NDArray[np.float64] = STILL,
    *,
    slam_map: SlamMap | None = None,
    tracked: slice = slice(None),
    outliers: int = 0,
    peak: int = 0,
    seconds: float = 0.1,
) -> bool:
    """Whether a frame that tracks some of the grid's points is kept."""
    slam_map = one_keyframe() if slam_map is None else slam_map
    frame = replace(observe(pose), timestamp=seconds)
    rows = np.arange(COUNT)[tracked]
    landmark_ids = slam_map.keyframes[0].landmark_ids[rows]
    inliers = np.arange(len(rows)) >= outliers
    associations = Associations(landmark_ids=landmark_ids, keypoint_indices=rows, similarity=np.ones(len(rows)))
    estimate = Placement(T_world_cam=pose, associations=associations, inliers=inliers)
    return needs_keyframe(slam_map, config, frame, estimate, reference=0, peak_inliers=peak)


def test_a_camera_that_sees_the_same_from_the_same_place_keeps_nothing() -> None:
    assert not kept(TrackingConfig())
    assert not kept(TrackingConfig(), seconds=60.0), "however long it rests"
    assert not kept(NEVER, se3_exp([0.3, 0.1, 0.0, 0.0, 0.0, 0.2]), tracked=slice(0, 20), peak=COUNT)


@pytest.mark.parametrize(("outliers", "expected"), [(11, False), (13, True)])
def test_too_few_of_what_was_tracked_before(outliers: int, expected: bool) -> None:
    """60 % of the 30 inliers of the best frame since the last keyframe are 18; outliers are not tracked."""
    config = replace(NEVER, keyframe_tracked_share=0.6)
    assert kept(config, outliers=outliers, peak=30) == expected
    assert not kept(config, outliers=outliers, peak=0), "nothing to compare with yet"


@pytest.mark.parametrize(("along", "expected"), [(0.115, False), (0.125, True)])
@pytest.mark.parametrize("scale", [1.0, 10.0])
def test_parallax_is_a_share_of_how_far_things_are(along: float, expected: bool, scale: float) -> None:
    config = replace(NEVER, keyframe_parallax=0.12)
    pose = se3_exp([scale * along * DEPTH, 0.0, 0.0, 0.0, 0.0, 0.0])
    assert kept(config, pose, slam_map=one_keyframe(scale)) == expected


@pytest.mark.parametrize(("degrees", "expected"), [(14.5, False), (15.5, True), (-15.5, True)])
def test_a_rotation(degrees: float, expected: bool) -> None:
    config = replace(NEVER, keyframe_rotation_deg=15.0)
    assert kept(config, se3_exp([0.0, 0.0, 0.0, 0.0, 0.0, np.radians(degrees)])) == expected


@pytest.mark.parametrize(
    ("pose", "expected"),
    [
        (STILL, False),
        (se3_exp([0.015 * DEPTH, 0, 0, 0, 0, 0]), False),
        (se3_exp([0.03 * DEPTH, 0, 0, 0, 0, 0]), True),
        (se3_exp([0, 0, 0, 0, 0, np.radians(2.0)]), False),
        (se3_exp([0, 0, 0, 0, 0, np.radians(4.0)]), True),
    ],
)
def test_time_counts_where_the_camera_has_moved_a_fifth_of_the_way(pose: NDArray[np.float64], expected: bool) -> None:
    config = TrackingConfig(keyframe_uncovered_share=1.0)
    assert not kept(config, pose, seconds=1.9)
    assert kept(config, pose, seconds=2.1) == expected


def test_time_is_counted_from_the_newest_keyframe_and_motion_from_the_reference() -> None:
    slam_map = one_keyframe()
    grow(slam_map, se3_exp([0.03 * DEPTH, 0, 0, 0, 0, 0]))  # at 0.1 s
    config = TrackingConfig(keyframe_uncovered_share=1.0)
    moved = se3_exp([0.03 * DEPTH, 0, 0, 0, 0, 0])
    assert not kept(config, moved, slam_map=slam_map, seconds=2.05)
    assert kept(config, moved, slam_map=slam_map, seconds=2.15)


@pytest.mark.parametrize(("columns", "share", "expected"), [(5, 0.2, False), (4, 0.4, True)])
def test_a_part_of_the_image_in_which_nothing_is_tracked(columns: int, share: float, expected: bool) -> None:
    """Six columns of points lie in five columns of cells; a quarter of all cells with depth may have no landmark."""
    x = POINTS[:, 0]
    left = np.argsort(x, kind="stable")[: 5 * columns]
    slam_map = one_keyframe()
    frame = observe(STILL)
    associations = Associations(
        landmark_ids=slam_map.keyframes[0].landmark_ids[left], keypoint_indices=left, similarity=np.ones(len(left))
    )
    estimate = Placement(T_world_cam=STILL, associations=associations, inliers=np.ones(len(left), dtype=bool))
    config = replace(NEVER, keyframe_uncovered_share=0.25)
    assert needs_keyframe(slam_map, config, frame, estimate, reference=0, peak_inliers=0) == expected
    assert uncovered_share(frame, left, CAMERA) == pytest.approx(share)
    frame.depth[np.setdiff1d(np.arange(COUNT), left)] = 0.0  # there is nothing to track by
    assert uncovered_share(frame, left, CAMERA) == 0.0
    assert uncovered_share(frame, left[:0], CAMERA) == 1.0
