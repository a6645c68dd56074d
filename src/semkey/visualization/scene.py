"""What depth images show together, seen from behind and above the camera, with its path through it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.geometry.camera import PinholeCamera
from semkey.visualization.draw import SUBPIXEL_BITS
from semkey.visualization.palette import ESTIMATE, rgb

DepthShot = tuple[NDArray[np.uint8], NDArray[np.floating], NDArray[np.float64]]
"""An image (H, W, 3) uint8 RGB, its depth (H, W) in metres (0 or NaN: unknown), and T_world_cam (4, 4)."""

_BACKGROUND = 250
_EDGE = (255, 255, 255)
_OVERSAMPLED = 2
_DOT = (-1, 0, 1, 2)
_ELEVATION_DEG, _AZIMUTH_DEG = 30.0, 12.0
# Of the points, this share on each side may lie outside the picture.
_OUTSIDE_SHARE = 0.03
_FIELD_OF_VIEW = 0.9
"""Focal length in heights of the picture: 58 degrees."""
_FITTED, _TRIES = 20_000, 60
"""So many points decide how far away the viewer stands, in steps of a tenth."""
_FRUSTUM_SHARE, _MARGIN = 0.024, 1.3
_MOST_FRUSTA = 6


def draw_scene(
    shots: Iterable[DepthShot], camera: PinholeCamera, poses: Sequence[NDArray[np.float64]], size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Draw coloured surfaces that were seen with depth, and the camera's path, in perspective.

    Surfaces that show their back to the viewer are left out: the walls and the ceiling between the viewer and the room.

    Args:
        shots: images with depth and poses, all in one world.
        camera: of the shots.
        poses: T_world_cam (4, 4) of the whole path, in order; some are drawn as pyramids.
        size: width and height of the picture, pixels.

    Returns:
        (height, width, 3) uint8 RGB.

    Raises:
        InputError: no pose, or no pixel with a known depth.
    """
    clouds = [_surface(*shot, camera) for shot in shots]
    if len(poses) == 0 or sum(len(points) for points, _, _ in clouds) == 0:
        raise InputError("there is nothing to draw: no depth, or no pose")
    points, normals, colors = (np.concatenate(parts) for parts in zip(*clouds, strict=True))
    path = np.stack(poses)
    size = (size[0] * _OVERSAMPLED, size[1] * _OVERSAMPLED)
    view = _View(points, path, size)
    facing = ((points - view.eye) * normals).sum(axis=1) < 0
    canvas = view.splat(points[facing], colors[facing])
    corners = np.array([[0, 0, 0], [-0.8, -0.6, 1], [0.8, -0.6, 1], [0.8, 0.6, 1], [-0.8, 0.6, 1]])
    for index in np.unique(np.linspace(0, len(path) - 1, _MOST_FRUSTA).round().astype(int)).tolist():
        tip, *rim = view.pixels(corners * view.frustum @ path[index, :3, :3].T + path[index, :3, 3])
        lines = [np.stack([tip, one]) for one in rim] + [np.stack([*rim, rim[0]])]
        for color, width in ((_EDGE, 5), (rgb(ESTIMATE), 2)):
            cv2.polylines(canvas, lines, False, color, width, cv2.LINE_AA, SUBPIXEL_BITS)
    places = view.pixels(path[:, :3, 3])
    for color, width in ((_EDGE, 10), (rgb(ESTIMATE), 6)):
        cv2.polylines(canvas, [places], False, color, width, cv2.LINE_AA, SUBPIXEL_BITS)
    small = (size[0] // _OVERSAMPLED, size[1] // _OVERSAMPLED)
    return np.asarray(cv2.resize(canvas, small, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _surface(
    image: NDArray[np.uint8], depth: NDArray[np.floating], T_world_cam: NDArray[np.float64], camera: PinholeCamera
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.uint8]]:
    """Points, unit normals towards the camera, and colours of every second pixel in both directions."""
    v, u = np.mgrid[0 : depth.shape[0] : 2, 0 : depth.shape[1] : 2]
    known = np.nan_to_num(depth[::2, ::2].astype(np.float64))
    rays = np.stack([(u - camera.cx) / camera.fx, (v - camera.cy) / camera.fy, np.ones(u.shape)], axis=2)
    points = rays * known[..., None]
    normals = np.cross(np.gradient(points, axis=1), np.gradient(points, axis=0))
    normals /= np.maximum(np.linalg.norm(normals, axis=2, keepdims=True), 1e-12)
    normals *= -np.sign((normals * rays).sum(axis=2, keepdims=True))
    seen = known > 0
    rotation, position = T_world_cam[:3, :3], T_world_cam[:3, 3]
    return points[seen] @ rotation.T + position, normals[seen] @ rotation.T, image[::2, ::2][seen]


class _View:
    """Behind and above the camera of a path, as near as shows the bulk of the points and all of the path."""

    def __init__(self, points: NDArray[np.float64], path: NDArray[np.float64], size: tuple[int, int]) -> None:
        self.size = size
        self.focal = _FIELD_OF_VIEW * size[1]
        up = -path[:, :3, 1].mean(axis=0)
        ahead = path[:, :3, 2].mean(axis=0)
        up /= max(float(np.linalg.norm(up)), 1e-12)
        ahead -= up * (ahead @ up)
        ahead /= max(float(np.linalg.norm(ahead)), 1e-12)
        side = np.cross(ahead, up)
        azimuth, elevation = np.radians(_AZIMUTH_DEG), np.radians(_ELEVATION_DEG)
        level = ahead * np.cos(azimuth) - side * np.sin(azimuth)
        forward = level * np.cos(elevation) - up * np.sin(elevation)
        right = np.cross(forward, up)
        right /= np.linalg.norm(right)
        self.rotation = np.stack([right, np.cross(forward, right), forward])
        self.eye, self.shift = np.zeros(3), np.zeros(2)
        few = points[:: max(1, len(points) // _FITTED)]
        extent = np.ptp(np.quantile(np.concatenate([few, path[:, :3, 3]]), [0.05, 0.95], axis=0), axis=0)
        self.frustum = _FRUSTUM_SHARE * float(np.linalg.norm(extent))
        middle, away = np.median(few, axis=0), 0.3 * float(np.linalg.norm(extent)) + 1e-6
        for _ in range(_TRIES):
            self.eye, self.shift = middle - away * forward, np.zeros(2)
            places, depth = self.project(few)
            own, own_depth = self.project(path[:, :3, 3])
            bulk = np.quantile(places[depth > 0], [_OUTSIDE_SHARE, 1 - _OUTSIDE_SHARE], axis=0)
            margin = _MARGIN * self.focal * self.frustum / max(float(own_depth.min()), 1e-6)
            low, high = np.minimum(bulk[0], own.min(axis=0) - margin), np.maximum(bulk[1], own.max(axis=0) + margin)
            self.shift = np.array(size) / 2 - (low + high) / 2
            if own_depth.min() > self.frustum and (high - low <= np.array(size)).all():
                return
            away *= 1.1

    def project(self, points: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pixels (N, 2) and depths (N,), at least a millimetre."""
        seen = (points - self.eye) @ self.rotation.T
        depth = np.maximum(seen[:, 2], 1e-3)
        return seen[:, :2] / depth[:, None] * self.focal + np.array(self.size) / 2 + self.shift, seen[:, 2]

    def pixels(self, points: NDArray[np.float64]) -> NDArray[np.int32]:
        """Pixels (N, 2) as OpenCV draws them, with bits for parts of a pixel."""
        return np.round(self.project(points)[0] * 2**SUBPIXEL_BITS).astype(np.int32)

    def splat(self, points: NDArray[np.float64], colors: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Points as dots, the nearest on top."""
        width, height = self.size
        canvas = np.full((height, width, 3), _BACKGROUND, dtype=np.uint8)
        places, depth = self.project(points)
        order = np.argsort(-depth)
        order = order[depth[order] > 1e-3]
        x, y = np.round(np.clip(places[order], -9, max(width, height) + 9)).astype(int).T
        for dy in _DOT:
            for dx in _DOT:
                inside = (x + dx >= 0) & (y + dy >= 0) & (x + dx < width) & (y + dy < height)
                canvas[y[inside] + dy, x[inside] + dx] = colors[order][inside]
        return canvas


def draw_overview(matches: NDArray[np.uint8], scene: NDArray[np.uint8], height: int = 640) -> NDArray[np.uint8]:
    """A picture of matches and one of a scene side by side, both as high as ``height`` pixels.

    Args:
        matches: (H, W, 3) uint8 RGB.
        scene: (H, W, 3) uint8 RGB.
        height: of the result, pixels.
    """

    def fitted(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        width = round(image.shape[1] * height / image.shape[0])
        return np.asarray(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA), dtype=np.uint8)

    gap = np.full((height, 8, 3), _BACKGROUND, dtype=np.uint8)
    return np.concatenate([fitted(matches), gap, fitted(scene)], axis=1)
