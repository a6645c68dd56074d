"""Constant velocity when the map is corrected: where the camera is, and how far it moves in a frame."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.transforms import compose, se3_exp
from semkey.slam.tracking.motion import ConstantVelocity

STEP = se3_exp([0.1, 0.02, 0.0, 0.0, 0.1, 0.05])


def predicted(motion: ConstantVelocity, timestamp: float) -> NDArray[np.float64]:
    prediction = motion.predict(timestamp)
    assert prediction is not None
    return prediction.T_world_cam


def two_frames() -> ConstantVelocity:
    motion = ConstantVelocity()
    motion.update(0.0, np.eye(4))
    motion.update(0.1, STEP)
    return motion


def test_a_correction_of_the_map_moves_the_camera_and_not_its_velocity() -> None:
    motion = two_frames()
    corrected = compose(se3_exp([1.0, -2.0, 0.5, 0.3, 0.2, 0.1]), STEP)
    motion.move(corrected)
    np.testing.assert_allclose(predicted(motion, 0.2), corrected @ STEP, atol=1e-9)


def test_the_camera_moves_twice_as_far_in_a_map_that_has_grown_to_twice_its_size() -> None:
    motion = two_frames()
    motion.move(STEP, 2.0)
    grown = STEP.copy()
    grown[:3, 3] *= 2.0
    np.testing.assert_allclose(predicted(motion, 0.2), STEP @ grown, atol=1e-9)


def test_a_gap_of_many_frames_is_bridged_by_three_steps_at_most() -> None:
    motion = two_frames()
    three = compose(STEP, STEP, STEP, STEP)
    np.testing.assert_allclose(predicted(motion, 0.4), three, atol=1e-9)
    np.testing.assert_allclose(predicted(motion, 9.0), three, atol=1e-9)


def test_a_pose_is_within_reach_of_a_hand() -> None:
    motion = two_frames()
    reach = motion.reach(0.2, has_range=True)
    assert reach is not None
    assert reach.contains(STEP)
    assert reach.contains(compose(STEP, se3_exp([0.5, 0.0, 0.0, 0.0, 0.0, 0.9])))
    far, turned = (compose(STEP, se3_exp(step)) for step in ([0.7, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1.2]))
    assert not reach.contains(far)
    assert not reach.contains(turned), "upside down takes half a second"
    later = motion.reach(1.0, has_range=True)
    assert later is not None
    assert later.contains(far)
    assert later.contains(turned)
    driven = motion.reach(0.2, has_range=False)
    assert driven is not None
    assert driven.contains(far)
    assert not driven.contains(turned)
    motion.lose()
    after = motion.reach(0.2, has_range=True)
    assert after is not None
    assert not after.contains(turned), "a loss moves nothing"
    assert ConstantVelocity().reach(0.2, has_range=True) is None
