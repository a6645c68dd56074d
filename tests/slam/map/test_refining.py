"""The last step of placing a frame: what its pixels and depths weigh, whatever the size of its image."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from grid_map import COUNT, empty_map, grow, observe
from semkey.geometry.transforms import compose, se3_exp
from semkey.slam.frames.frame import observe_keypoints
from semkey.slam.map.association import Associations
from semkey.slam.map.placing import refine_placement
from synthetic_world import CAMERA

POSE = se3_exp([0.05, -0.03, 0.02, 0.01, 0.02, -0.01])
AWAY = compose(POSE, se3_exp([0.01, 0.0, -0.01, 0.0, 0.01, 0.0]))
ALL_PAIRS = Associations(landmark_ids=np.arange(COUNT), keypoint_indices=np.arange(COUNT), similarity=np.ones(COUNT))


@pytest.mark.parametrize("size", [0.5, 2.0])
def test_an_image_of_another_size_tells_as_much_of_the_pose(size: float) -> None:
    """Twice the pixels, each known half as well: pixel noise is that of the detector in the image's own pixels."""
    slam_map = empty_map()
    grow(slam_map, np.eye(4))
    frame = observe(POSE)
    camera = CAMERA.resized(round(size * CAMERA.width), round(size * CAMERA.height))
    keypoints = (frame.keypoints + 0.5) * size - 0.5
    resized = observe_keypoints(
        0,
        0.0,
        replace(
            frame.features,
            keypoints=torch.from_numpy(keypoints).float(),
            image_size=(camera.width, camera.height),
        ),
        frame.depth,
        frame.depth_sigma,
    )
    same = refine_placement(slam_map, frame, ALL_PAIRS, AWAY)
    other = refine_placement(slam_map, resized, ALL_PAIRS, AWAY, camera=camera)
    for placement in (same, other):
        np.testing.assert_allclose(placement.T_world_cam, POSE, atol=1e-4)
        assert placement.inliers.all()
    scale = np.sqrt(np.outer(np.diag(same.information), np.diag(same.information)))
    np.testing.assert_allclose(other.information / scale, same.information / scale, atol=0.01)


def test_depths_of_another_unit_do_not_count_where_they_are_not_to() -> None:
    slam_map = empty_map()
    grow(slam_map, np.eye(4))
    frame = observe(POSE)
    frame.depth[:] *= 1.15
    by_pixels = refine_placement(slam_map, frame, ALL_PAIRS, AWAY, uses_depth=False)
    np.testing.assert_allclose(by_pixels.T_world_cam, POSE, atol=1e-4)
    assert by_pixels.inliers.all()
    by_both = refine_placement(slam_map, frame, ALL_PAIRS, AWAY)
    assert not by_both.inliers.all()
