"""Baked light: ceiling lamps and a window with soft shadows, and ambient light with occlusion, on a coarse grid."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semkey.rendering.layout import RoomPlan

Array = NDArray[np.float32]

_OCCLUSION_DISTANCE = 0.9  # metres; a surface further away than this does not darken a point
_OCCLUSION_RAYS = 20
_LAMP_COLOR = (1.0, 0.9, 0.76)
_WINDOW_COLOR = (0.86, 0.95, 1.0)
_AMBIENT_COLOR = (1.0, 0.98, 0.95)
_TARGET = 0.58  # linear irradiance that the mean wall gets; the rest of the range is left to bright spots
_GAMMA = 2.2


def nearest_box_hit(origins: Array, directions: Array, boxes: Array, limit: float) -> Array:
    """Distance along each ray to the nearest box, at most ``limit``.

    Args:
        origins: (N, 3) float32, metres.
        directions: (N, 3) float32; distances are in units of their length.
        boxes: (B, 7) float32 rows of centre, size and yaw (radians).
        limit: distance returned where nothing is hit.

    Returns:
        (N,) float32. A ray that starts inside a box hits it at 0.
    """
    nearest = np.full(len(origins), limit, np.float32)
    # Columns rather than rows of three: each step below runs over one contiguous array.
    position, slope = np.ascontiguousarray(origins.T), np.ascontiguousarray(directions.T)
    reach = np.float32(limit) * np.sqrt(slope[0] ** 2 + slope[1] ** 2 + slope[2] ** 2)
    for cx, cy, cz, sx, sy, sz, yaw in boxes:
        dx, dy, dz = position[0] - cx, position[1] - cy, position[2] - cz
        radius = np.float32(0.5) * np.sqrt(sx * sx + sy * sy + sz * sz)
        close = np.flatnonzero(dx * dx + dy * dy + dz * dz < (reach + radius) ** 2)
        if len(close) == 0:
            continue
        dx, dy, dz = dx[close], dy[close], dz[close]
        vx, vy, vz = slope[0, close], slope[1, close], slope[2, close]
        cos, sin = np.cos(yaw), np.sin(yaw)
        entry, leave = np.zeros(len(close), np.float32), nearest[close]
        for place, speed, half in (
            (cos * dx + sin * dy, cos * vx + sin * vy, np.float32(0.5) * sx),
            (cos * dy - sin * dx, cos * vy - sin * vx, np.float32(0.5) * sy),
            (dz, vz, np.float32(0.5) * sz),
        ):
            inverse = 1.0 / np.where(np.abs(speed) < 1e-9, np.float32(1e-9), speed)
            first, second = (-half - place) * inverse, (half - place) * inverse
            np.maximum(entry, np.minimum(first, second), out=entry)
            np.minimum(leave, np.maximum(first, second), out=leave)
        hit = entry < leave
        nearest[close[hit]] = entry[hit]
    return nearest


def bake_light(points: Array, normals: Array, shell_points: int, plan: RoomPlan, seed: int) -> Array:
    """Light that falls on surface points, as a factor on display (gamma-encoded) colours.

    Args:
        points: (N, 3) float32, metres, on the surfaces.
        normals: (N, 3) float32 unit outward normals.
        shell_points: the first this many points lie on walls, floor and ceiling; exposure is set by them.
        plan: the room with its boxes, lamps and window.
        seed: fixes the strength of the lights.

    Returns:
        (N, 3) float32, about 0.2 in dark corners to 1.25 under the lamp.
    """
    rng = np.random.default_rng([seed, 2])
    boxes = np.array([(*box.center, *box.size, box.yaw) for box in plan.boxes], np.float32).reshape(-1, 7)
    # A lamp or window lets its own light out: only boxes that stand in the room throw shadows.
    solid = boxes[[not (box.body.emissive or (box.front is not None and box.front.emissive)) for box in plan.boxes]]
    starts = points + np.float32(0.004) * normals
    ambient = _ambient(starts, normals, solid, plan.size)
    lamp = np.zeros(len(points), np.float32)
    for center in plan.lamps:
        offsets = np.array([(-0.2, -0.2, 0), (0.2, -0.2, 0), (-0.2, 0.2, 0), (0.2, 0.2, 0), (0, 0, 0)], np.float32)
        lamp += _direct(starts, normals, solid, np.asarray(center, np.float32) + offsets, (0.0, 0.0, -1.0))
    middle, inward = plan.window
    along = np.array([-inward[1], inward[0], 0.0])
    panes = [
        np.asarray(middle) + 0.06 * np.asarray(inward) + a * along + (0.0, 0.0, b)
        for a in (-0.5, 0.0, 0.5)
        for b in (-0.35, 0.35)
    ]
    window = _direct(starts, normals, solid, np.array(panes, np.float32), inward)
    light = np.zeros((len(points), 3), np.float32)
    weights = rng.uniform(0.8, 1.2, 3) * (0.62, 0.3, 0.22)
    for part, weight, color in zip(
        (ambient, lamp, window), weights, (_AMBIENT_COLOR, _LAMP_COLOR, _WINDOW_COLOR), strict=True
    ):
        # The inverse-square peak next to a light would burn out: compress what is far above the mean.
        level = part / max(float(part[:shell_points].mean()), 1e-6)
        level = np.minimum(level, 1.0 + np.log1p(np.maximum(level - 1.0, 0.0)))
        light += (weight * level)[:, None].astype(np.float32) * np.asarray(color, np.float32)
    light *= _TARGET / max(float(light[:shell_points].mean()), 1e-6)
    return np.clip(light, 0.02, 1.6) ** np.float32(1.0 / _GAMMA)


def _ambient(starts: Array, normals: Array, boxes: Array, size: tuple[float, float, float]) -> Array:
    """Share of the hemisphere (cosine-weighted) that is open, nearby surfaces counting most."""
    index = np.arange(_OCCLUSION_RAYS)
    radius = np.sqrt((index + 0.5) / _OCCLUSION_RAYS)
    angle = index * np.pi * (3.0 - np.sqrt(5.0))
    local = np.stack([radius * np.cos(angle), radius * np.sin(angle), np.sqrt(1.0 - radius**2)], axis=1)
    helper = np.where(
        np.abs(normals[:, 2:]) > 0.9, np.array([[1, 0, 0]], np.float32), np.array([[0, 0, 1]], np.float32)
    )
    tangent = np.cross(helper, normals)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    frame = np.stack([tangent, np.cross(normals, tangent), normals], axis=1)
    directions = (local.astype(np.float32) @ frame).reshape(-1, 3)
    origins = np.repeat(starts, _OCCLUSION_RAYS, axis=0)
    distance = nearest_box_hit(origins, directions, boxes, _OCCLUSION_DISTANCE)
    safe = np.where(np.abs(directions) < 1e-6, np.float32(1e-6), directions)
    walls = np.where(safe > 0, np.asarray(size, np.float32) - origins, -origins) / np.abs(safe) * np.sign(safe)
    distance = np.minimum(distance, np.abs(walls).min(axis=1))
    openness = np.sqrt(np.clip(distance / _OCCLUSION_DISTANCE, 0.0, 1.0))
    return openness.reshape(-1, _OCCLUSION_RAYS).mean(axis=1)


def _direct(starts: Array, normals: Array, boxes: Array, samples: Array, facing: tuple[float, float, float]) -> Array:
    """Light from an area emitter given by sample points, one shadow ray each."""
    total = np.zeros(len(starts), np.float32)
    direction = np.asarray(facing, np.float32)
    for sample in samples:
        ray = sample - starts
        square = np.maximum(np.einsum("ij,ij->i", ray, ray), np.float32(0.05))
        receive = np.einsum("ij,ij->i", ray, normals)
        # A lamp's shade and the sky beside the window also send light sideways, hence the constant.
        emit = np.maximum(-(ray @ direction), 0.0) / np.sqrt(square) * 0.8 + 0.2
        lit = receive > 0
        visible = np.zeros(len(starts), bool)
        visible[lit] = nearest_box_hit(starts[lit], ray[lit], boxes, 1.0) >= 1.0
        total += np.where(visible, np.maximum(receive, 0.0) / np.sqrt(square) / square * emit, 0.0)
    return (total / len(samples)).astype(np.float32)
