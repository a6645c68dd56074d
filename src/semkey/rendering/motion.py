"""Camera trajectories through a room: a smooth walk, a closed round, quick turns, a jump, with a hand's tremor."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline

from semkey.geometry.transforms import make_transform, so3_exp
from semkey.rendering.config import RoomConfig

Array = NDArray[np.float64]
PoseAt = Callable[[float], Array]

# Furniture reaches 0.9 m into a room and, where it stands higher than a camera is held, 0.6 m.
_WALL_DISTANCE = 1.35
_LOWEST, _HIGHEST = 1.3, 1.65
_KNOT_INTERVAL = 1.2  # seconds between the points a walk passes through
_STEP = 0.3  # metres between these points, standard deviation per axis
_TREMOR_FREQUENCIES = (1.3, 2.9, 5.7, 8.3)  # hertz
_TREMOR_POSITION = 0.0025  # metres, standard deviation at the lowest frequency
_TREMOR_ANGLE = 0.0035  # radians


def look_pose(position: Array, yaw: float, pitch: float, roll: float) -> Array:
    """T_world_cam (4, 4) of a camera at ``position`` (3,) metres that looks along ``yaw`` (about z, from x).

    Angles in radians; ``pitch`` > 0 looks up, ``roll`` > 0 turns the camera clockwise about its optical axis.
    """
    forward = np.array([np.cos(yaw) * np.cos(pitch), np.sin(yaw) * np.cos(pitch), np.sin(pitch)])
    right = np.array([np.sin(yaw), -np.cos(yaw), 0.0])
    rotation = np.stack([right, np.cross(forward, right), forward], axis=1)
    return make_transform(rotation @ so3_exp([0.0, 0.0, roll]), position)


def trajectory(config: RoomConfig, size: tuple[float, float, float]) -> PoseAt:
    """The pose T_world_cam (4, 4) as a function of time in seconds, smooth, inside a room of ``size`` metres.

    ``kidnapped`` motion is smooth but for one jump, half an interval before frame ``frames // 2``.
    """
    rng = np.random.default_rng([config.seed, 4])
    duration = config.frames / config.fps
    if config.motion == "loop":
        return _with_tremor(rng, _round(rng, duration, size), period=duration)
    if config.motion == "kidnapped":
        before, after = (_with_tremor(rng, _walk(rng, duration, size, 1.0), None) for _ in range(2))
        jump = (config.frames // 2 - 0.5) / config.fps
        return lambda time: before(time) if time < jump else after(time)
    turning = 3.2 if config.motion == "fast" else 1.0
    return _with_tremor(rng, _walk(rng, duration, size, turning), None)


def _walk(rng: np.random.Generator, duration: float, size: tuple[float, float, float], turning: float) -> PoseAt:
    """Wander about the middle of the room, looking across it; yaw changes by about 20 degrees per knot x turning."""
    knots = max(4, int(np.ceil(duration / _KNOT_INTERVAL)) + 3)
    times = (np.arange(knots) - 1.0) * _KNOT_INTERVAL
    yaw = rng.uniform(0, 2 * np.pi) + _wander(rng, knots, np.radians(22.0) * turning)
    pitch = np.clip(np.radians(-11.0) + rng.normal(0, np.radians(6.0), knots), -0.45, 0.15)
    roll = rng.normal(0, np.radians(2.5), knots)
    height = np.clip(1.48 + _wander(rng, knots, 0.05), _LOWEST + 0.05, _HIGHEST - 0.05)
    # Standing back from what it looks at shows more of the room.
    back = 0.45 * np.stack([np.cos(yaw), np.sin(yaw)], axis=1) / max(1.0, turning)
    offset = np.stack([_wander(rng, knots, _STEP), _wander(rng, knots, _STEP)], axis=1) + rng.normal(0, 0.2, 2)
    position = np.column_stack([0.5 * np.asarray(size[:2]) + offset - back, height])
    spline = CubicSpline(times, np.column_stack([position, yaw, pitch, roll]))
    return lambda time: _pose(spline(time), size)


def _round(rng: np.random.Generator, duration: float, size: tuple[float, float, float]) -> PoseAt:
    """One round about the middle of the room, looking outwards across it, back to the start at ``duration``."""
    knots = 13
    phase = np.linspace(0.0, 1.0, knots)
    wobble = rng.normal(0, 1.0, (knots, 6)) * (0.08, 0.08, 0.03, 0.1, 0.06, 0.03)
    wobble[-1] = wobble[0]
    turn = rng.uniform(0, 2 * np.pi) + rng.choice((-1.0, 1.0)) * 2 * np.pi * phase
    middle = np.asarray(size[:2]) / 2
    radii = np.minimum(middle - _WALL_DISTANCE - 0.1, 0.8)
    center = middle - np.stack([np.cos(turn), np.sin(turn)], axis=1) * radii
    values = np.column_stack([center, np.full(knots, 1.48), np.zeros(knots), np.full(knots, -0.2), np.zeros(knots)])
    spline = CubicSpline(phase * duration, values + wobble, bc_type="periodic")
    rate = (turn[-1] - turn[0]) / duration

    def pose(time: float) -> Array:
        values = spline(time % duration)
        values[3] += turn[0] + rate * time
        return _pose(values, size)

    return pose


def _wander(rng: np.random.Generator, count: int, step: float) -> Array:
    """A random walk that is drawn back to zero, so that it stays within a few steps."""
    values = np.zeros(count)
    for index in range(1, count):
        values[index] = 0.85 * values[index - 1] + rng.normal(0, step)
    return values


def _pose(values: Array, size: tuple[float, float, float]) -> Array:
    low = np.array([_WALL_DISTANCE, _WALL_DISTANCE, _LOWEST])
    high = np.array([size[0] - _WALL_DISTANCE, size[1] - _WALL_DISTANCE, _HIGHEST])
    middle, half = (low + high) / 2, (high - low) / 2
    # Squashed rather than clipped at the edge of the free space: the path has no kinks.
    position = middle + half * np.tanh((values[:3] - middle) / half)
    return look_pose(position, float(values[3]), float(values[4]), float(values[5]))


def _with_tremor(rng: np.random.Generator, pose_at: PoseAt, period: float | None) -> PoseAt:
    """Add a sum of sines to position and rotation; their frequencies fit ``period`` where the path is closed."""
    frequencies = np.asarray(_TREMOR_FREQUENCIES)
    if period is not None:
        frequencies = np.maximum(np.round(frequencies * period), 1.0) / period
    fall_off = frequencies[0] / frequencies
    amplitudes = rng.normal(0, 1.0, (len(frequencies), 6)) * fall_off[:, None]
    amplitudes *= [_TREMOR_POSITION] * 3 + [_TREMOR_ANGLE] * 3
    phases = rng.uniform(0, 2 * np.pi, amplitudes.shape)

    def pose(time: float) -> Array:
        shift = (amplitudes * np.sin(2 * np.pi * frequencies[:, None] * time + phases)).sum(axis=0)
        return pose_at(time) @ make_transform(so3_exp(shift[3:]), shift[:3])

    return pose
