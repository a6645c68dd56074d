"""Predicting the next pose from the last two: constant velocity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.transforms import compose, inverse, se3_exp, se3_log
from semkey.slam.solvers.pose import PosePrior

Array = NDArray[np.float64]

# Frame time in seconds where two stamps are equal.
_DEFAULT_INTERVAL = 1 / 30
# Over a gap longer than this many frame times the velocity of a hand-held camera says nothing about where it is.
_MAX_EXTRAPOLATION = 3.0
# How much the velocity of a hand-held camera changes from one frame to the next (standard deviation along each axis).
# Twice what 7-Scenes and TUM sequences show, at 0.1 to 0.7 s between frames.
_VELOCITY_CHANGE = 0.12  # m/s
_ANGULAR_VELOCITY_CHANGE = 0.2  # rad/s
# Faster than this no hand moves a camera, nor turns it; and so far it may have come in any case.
_LARGEST_SPEED = 3.0  # m/s
_LARGEST_TURN = 2 * np.pi  # rad/s
_FREE_METRES = 0.3
_FREE_TURN = 0.35  # rad


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """A predicted pose and its standard deviations.

    Attributes:
        T_world_cam: (4, 4) predicted pose.
        translation_sigma: metres, along each axis.
        rotation_sigma: radians, about each axis.
    """

    T_world_cam: Array
    translation_sigma: float
    rotation_sigma: float

    def as_prior(self) -> PosePrior:
        """The prediction as a prior of pose refinement."""
        variances = [self.translation_sigma**2] * 3 + [self.rotation_sigma**2] * 3
        return PosePrior(T_cam_world=inverse(self.T_world_cam), information=np.diag(1.0 / np.array(variances)))


@dataclass(frozen=True, kw_only=True, eq=False)
class Reach:
    """Where a camera can have come since its last pose, if nobody jumped.

    Attributes:
        T_world_cam: (4, 4) the last pose.
        metres: farthest, infinite where nothing is known of its speed.
        radians: most that it turned.
    """

    T_world_cam: Array
    metres: float
    radians: float

    def contains(self, T_world_cam: Array) -> bool:
        """Whether a pose (4, 4) is within reach."""
        step = inverse(self.T_world_cam) @ T_world_cam
        turn = float(np.linalg.norm(se3_log(step)[3:]))
        return bool(np.linalg.norm(step[:3, 3]) <= self.metres and turn <= self.radians)


class ConstantVelocity:
    """The last pose and how the camera moved before it."""

    def __init__(self) -> None:
        self._timestamp: float | None = None
        self._pose: Array | None = None
        self._velocity: Array | None = None
        self._interval = 0.0
        self._last_seen: float | None = None

    @property
    def last_pose(self) -> Array | None:
        """T_world_cam (4, 4) of the last known pose, None before the first."""
        return self._pose

    def predict(self, timestamp: float, *, velocity_change: float = _VELOCITY_CHANGE) -> Prediction | None:
        """The pose expected at ``timestamp`` (seconds); None unless the last two frames both had a pose.

        Args:
            timestamp: of the frame to come.
            velocity_change: standard deviation of the change of velocity along each axis, map units per second; the
                default is that of a hand-held camera in metres.
        """
        if self._pose is None or self._velocity is None or self._timestamp is None:
            return None
        # A clock that stands still or runs backwards says nothing about the motion: assume one frame time.
        elapsed = timestamp - self._timestamp
        interval = self._interval if self._interval > 0 else max(elapsed, _DEFAULT_INTERVAL)
        if elapsed <= 0:
            elapsed = interval
        steps = min(elapsed / interval, _MAX_EXTRAPOLATION)
        return Prediction(
            T_world_cam=compose(self._pose, se3_exp(steps * self._velocity)),
            translation_sigma=velocity_change * elapsed,
            rotation_sigma=_ANGULAR_VELOCITY_CHANGE * elapsed,
        )

    def reach(self, timestamp: float, *, has_range: bool) -> Reach | None:
        """Where the camera can be by ``timestamp`` (seconds), which a loss does not change; None before the first pose.

        Args:
            timestamp: of the frame to come.
            has_range: the camera is moved by hand, in metres; others drive at any speed.
        """
        if self._pose is None or self._last_seen is None:
            return None
        elapsed = timestamp - self._last_seen
        elapsed = elapsed if elapsed > 0 else max(self._interval, _DEFAULT_INTERVAL)
        metres = _FREE_METRES + _LARGEST_SPEED * elapsed if has_range else np.inf
        return Reach(T_world_cam=self._pose, metres=metres, radians=_FREE_TURN + _LARGEST_TURN * elapsed)

    def update(self, timestamp: float, T_world_cam: Array) -> None:
        """Take in the pose of a tracked frame."""
        if self._pose is not None and self._timestamp is not None:
            self._velocity = se3_log(compose(inverse(self._pose), T_world_cam))
            self._interval = timestamp - self._timestamp
        self._timestamp, self._pose = timestamp, T_world_cam
        self._last_seen = timestamp

    def move(self, T_world_cam: Array, scale: float = 1.0) -> None:
        """Put the last pose where a correction of the map has put it; the velocity, seen from the camera, stays.

        Args:
            T_world_cam: (4, 4) where the camera of the last frame is now.
            scale: by how much the map grew there, and with it the velocity.
        """
        self._pose = T_world_cam
        if self._velocity is not None and scale != 1.0:
            self._velocity = np.concatenate([scale * self._velocity[:3], self._velocity[3:]])

    def lose(self) -> None:
        """Forget the velocity, and keep the pose, after a frame without one."""
        self._velocity = None
        self._timestamp = None
