"""A thing that comes into view before the map begins no landmarks; what stands there for good does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from semkey.matching.keypoint_noise import isotropic_covariances
from semkey.slam.config import MapConfig
from semkey.slam.frames.frame import ObservedFrame, observe_frame
from semkey.slam.map.association import Associations
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.placing.placement import Placement
from semkey.slam.tracking.newcomers import counted_views, hides_map
from synthetic_world import CAMERA, PointExtractor, PointWorld

BORDER = 0.4 * CAMERA.width


def seen(world: PointWorld) -> ObservedFrame:
    taken = world[0]
    assert taken.depth is not None
    features = PointExtractor(world).extract(taken.image)
    covariances = isotropic_covariances(len(features), 1.0)
    return observe_frame(0, 0.0, features, taken.depth, covariances, min_depth=0.3, max_depth=8.0)


def mapped(frame: ObservedFrame, found: int) -> tuple[SlamMap, Placement]:
    """A map of what a frame sees, each landmark found so many times more, and the frame's place in it."""
    slam_map = SlamMap(CAMERA, MapConfig(), pixel_sigma=1.0)
    keyframe = slam_map.add_keyframe(frame, np.eye(4), None, 0)
    ids = keyframe.landmark_ids[keyframe.observed]
    for _ in range(found):
        slam_map.count_views(ids, ids)
    nothing = np.zeros(0, dtype=np.int64)
    placement = Placement(
        T_world_cam=np.eye(4),
        associations=Associations(landmark_ids=nothing, keypoint_indices=nothing, similarity=np.zeros(0)),
        inliers=np.zeros(0, dtype=bool),
        visible=ids,
    )
    return slam_map, placement


@pytest.mark.parametrize(("found", "nearer"), [(6, 0.5), (6, 0.95), (0, 0.5)], ids=["new", "at its place", "unsure"])
def test_what_hides_the_long_established_is_new(found: int, nearer: float) -> None:
    """The left of the view is at half of its depth; or where it was, or the map is too young to tell."""
    frame = seen(PointWorld([np.eye(4)], points=12000))
    slam_map, placement = mapped(frame, found)
    left = (frame.keypoints[:, 0] < BORDER) & (frame.depth > 0)
    view = replace(frame, depth=np.where(left, nearer * frame.depth, frame.depth))
    hides = hides_map(view, slam_map.landmarks, placement, CAMERA, pixel=CAMERA.width / 640)
    if found and nearer < 0.8:
        inner = left & (frame.keypoints[:, 0] < BORDER - 40)
        assert hides[inner].mean() > 0.5
        assert not hides[frame.keypoints[:, 0] > BORDER].any()
        assert not view.without_depth_at(hides).depth[hides].any()
    else:
        assert not hides.any()


def test_a_thing_goes_on_where_the_map_has_nothing() -> None:
    """The left of the view is one surface before the map; of what it hides the map knows the inner half only."""
    frame = seen(PointWorld([np.eye(4)], points=24000))
    slam_map, placement = mapped(frame, 6)
    left = (frame.keypoints[:, 0] < BORDER) & (frame.depth > 0)
    known = CAMERA.project(slam_map.landmarks.positions[placement.visible])[:, 0] > 0.5 * BORDER
    placement = replace(placement, visible=placement.visible[known])
    hidden = [np.zeros(len(frame), dtype=bool)] * 2
    for row, depth in enumerate((0.4, np.linspace(0.4, 0.9, len(frame)))):  # a surface; points at any depth
        view = replace(frame, depth=np.where(left, depth, frame.depth))
        hidden[row] = hides_map(view, slam_map.landmarks, placement, CAMERA, pixel=CAMERA.width / 640)
    outer = left & (frame.keypoints[:, 0] < 0.5 * BORDER - 45)
    assert np.count_nonzero(outer) > 20
    assert hidden[0][outer].mean() > 0.8
    assert hidden[1][outer].mean() < 0.3


def test_what_something_nearer_hides_is_missed_in_every_eighth_frame_only() -> None:
    frame = seen(PointWorld([np.eye(4)], points=12000))
    slam_map, placement = mapped(frame, 6)
    left = (frame.keypoints[:, 0] < BORDER) & (frame.depth > 0)
    view = replace(frame, index=3, depth=np.where(left, 0.5 * frame.depth, frame.depth))

    def counted(seen_as: ObservedFrame) -> np.ndarray:
        return counted_views(seen_as, slam_map.landmarks, placement, CAMERA, pixel=CAMERA.width / 640)

    hidden = np.setdiff1d(placement.visible, counted(view))
    where = CAMERA.project(slam_map.landmarks.positions[hidden])
    assert len(hidden) > 0.5 * np.count_nonzero(left)
    assert (where[:, 0] < BORDER + 5).all()
    assert len(counted(replace(view, index=8))) == len(placement.visible)
    assert len(counted(replace(frame, index=3))) == len(placement.visible), "at its own place nothing is hidden"
    assert len(counted(view.without_depth())) == len(placement.visible)
