"""Whether a pose is believed."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from semkey.slam.config import MapConfig, TrackingConfig, image_scale
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.placing.acceptance import accept
from semkey.slam.placing.placement import Placement
from semkey.slam.timing import StageTimer
from semkey.slam.tracking.locating import FrameLocator
from semkey.slam.tracking.motion import Prediction
from synthetic_world import CAMERA, PointWorld, observed_frame

START = np.eye(4)
FRAME = observed_frame(PointWorld([START], points=12000), 0)


@pytest.fixture(scope="module")
def placed() -> Placement:
    """The frame in the map of itself."""
    config = TrackingConfig()
    slam_map = SlamMap(CAMERA, MapConfig(), pixel_sigma=config.pixel_sigma * image_scale(CAMERA))
    slam_map.add_keyframe(FRAME, START, None, 0)
    locator = FrameLocator(slam_map, config, pixel=image_scale(CAMERA), seed=0, lines=None, timer=StageTimer())
    prediction = Prediction(T_world_cam=START, translation_sigma=0.03, rotation_sigma=0.04)
    placement = locator.by_prediction(FRAME, prediction, slam_map.tree.newest.landmark_ids)
    assert placement is not None
    return placement


def is_believed(placement: Placement, **evidence: float) -> bool:
    """With other evidence."""
    assert placement.evidence is not None
    return accept(replace(placement, evidence=replace(placement.evidence, **evidence)), FRAME, CAMERA, min_inliers=20)


def test_what_agrees_all_over_the_view_needs_less_evidence_than_what_does_in_a_part(placed: Placement) -> None:
    """A tenth of what should be seen, with 0.3 decades each."""
    weak = {"found": 60, "visible": 600, "log10_nfa": -18.0}
    assert is_believed(placed, **weak)
    seen = FRAME.keypoints[placed.inlier_associations.keypoint_indices]
    inliers = placed.inliers.copy()
    inliers[np.flatnonzero(inliers)[seen[:, 0] > 0.6 * CAMERA.width]] = False
    half = replace(placed, inliers=inliers)
    assert not is_believed(half, **weak)
    assert is_believed(half, **(weak | {"log10_nfa": -40.0}))
    assert is_believed(half, **(weak | {"found": 160}))


def test_depths_that_say_otherwise_refute_a_pose(placed: Placement) -> None:
    """On the other side of fr3_cabinet 5 of 141 depths agreed with a pose 2.3 m off."""
    assert not is_believed(placed, depth_checked=141, depth_agree=46)
    assert is_believed(placed, depth_checked=141, depth_agree=48)
    # Too few to tell, and a unit that has changed, which is said elsewhere.
    assert is_believed(placed, depth_checked=19, depth_agree=0)
    assert is_believed(replace(placed, depth_factor=2.0), depth_checked=141, depth_agree=0)
