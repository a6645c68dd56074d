"""Predicting the next pose from the last two: constant velocity."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.transforms import compose, inverse, se3_exp, se3_log

Array = NDArray[np.float64]

# Over a longer gap than this many frame times the velocity of a hand-held camera is anyone's guess.
_MAX_EXTRAPOLATION = 3.0


class ConstantVelocity:
    """The last pose and how the camera moved before it."""

    def __init__(self) -> None:
        self._timestamp: float | None = None
        self._pose: Array | None = None
        self._velocity: Array | None = None
        self._interval = 0.0

    @property
    def last_pose(self) -> Array | None:
        """T_world_cam (4, 4) of the last known pose, None before the first."""
        return self._pose

    @property
    def knows_velocity(self) -> bool:
        """Whether the last two frames both had a pose."""
        return self._velocity is not None

    def predict(self, timestamp: float) -> Array | None:
        """T_world_cam (4, 4) expected at ``timestamp`` (seconds); the last pose where no velocity is known."""
        if self._pose is None or self._velocity is None or self._timestamp is None:
            return self._pose
        # A clock that stands still or runs backwards says nothing about the motion: assume one frame time.
        elapsed = timestamp - self._timestamp
        steps = elapsed / self._interval if elapsed > 0 and self._interval > 0 else 1.0
        return compose(self._pose, se3_exp(min(steps, _MAX_EXTRAPOLATION) * self._velocity))

    def update(self, timestamp: float, T_world_cam: Array) -> None:
        """Take in the pose of a tracked frame."""
        if self._pose is not None and self._timestamp is not None:
            self._velocity = se3_log(compose(inverse(self._pose), T_world_cam))
            self._interval = timestamp - self._timestamp
        self._timestamp, self._pose = timestamp, T_world_cam

    def lose(self) -> None:
        """Forget the velocity, and keep the pose, after a frame without one."""
        self._velocity = None
        self._timestamp = None
