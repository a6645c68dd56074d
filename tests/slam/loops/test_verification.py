"""A keyframe among the landmarks of a place: which of the matches near their projection prove anything."""

from __future__ import annotations

import numpy as np
import pytest

from grid_map import COUNT, empty_map, observe
from semkey.geometry.transforms import se3_exp
from semkey.slam.loops.verification import match_place

POSE = se3_exp([0.05, -0.03, 0.02, 0.01, 0.02, -0.01])


@pytest.mark.parametrize(("likeness", "proving"), [(1.0, COUNT), (0.6, COUNT), (0.4, 16)])
def test_what_lies_in_the_right_place_and_looks_half_alike_proves_nothing(likeness: float, proving: int) -> None:
    """Landmarks 16 and on look this much like what the keyframe sees; half of what the trusted ones have is needed."""
    slam_map = empty_map()
    place = slam_map.add_keyframe(observe(np.eye(4)), np.eye(4), None, 0)
    query = slam_map.add_keyframe(observe(POSE, index=1), np.eye(4), None, 1)
    described = np.eye(COUNT, dtype=np.float32)
    changed = described[16:]
    # The rest of each points away from everything that is seen: no other keypoint is more similar.
    mixed = likeness * changed - np.sqrt((1 - likeness**2) / 16) * described[:16].sum(axis=0)
    slam_map.landmarks.descriptors[place.landmark_ids[16:]] = mixed
    place.frame.descriptors[16:] = mixed
    match = match_place(slam_map, query, [place], ransac_error_px=4.0)
    assert match is not None
    np.testing.assert_allclose(match.S_place_query.T, POSE, atol=1e-4)
    assert sorted(match.associations.keypoint_indices.tolist()) == list(range(proving))
    assert match.inliers == proving
    assert match.S_place_query.scale == 1.0
