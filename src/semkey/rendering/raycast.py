"""Exact ray casting of textured rectangles on the CPU.

For a rectangle ``P = o + s u + t v`` in camera coordinates and a pixel ``p = (x, y, 1)``,
``(s, t, 1) / z = [u v o]^-1 K^-1 p``: s/z, t/z and the inverse depth 1/z are affine in the pixel. A rectangle is thus
three sums of a row and a column over its screen bounds, and the nearest surface is the largest inverse depth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse
from semkey.rendering.scene import SHELL_FACES, Scene

# Rotated-grid sample positions for pixels on an edge.
_SUBPIXELS = np.array([(-0.375, -0.125), (0.125, -0.375), (0.375, 0.125), (-0.125, 0.375)], np.float32)
_NEAR = 1e-3  # metres
_SHARPNESS = 0.35  # mip levels taken off: bilinear lookup already blurs


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """What one camera sees.

    Attributes:
        image: (H, W, 3) uint8 RGB, edges anti-aliased.
        depth: (H, W) float32, z in metres through each pixel's centre.
        faces: (H, W) int32, index of the scene's rectangle seen at each pixel's centre.
    """

    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    faces: NDArray[np.int32]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Hits:
    """Per pixel: the face, and s/z, t/z, 1/z on it."""

    faces: NDArray[np.int32]
    s_over_z: NDArray[np.float32]
    t_over_z: NDArray[np.float32]
    inverse_depth: NDArray[np.float32]


def cast(scene: Scene, camera: PinholeCamera, T_world_cam: NDArray[np.float64]) -> View:
    """Render the scene.

    Args:
        scene: the room.
        camera: pinhole camera, pixel centres at integers.
        T_world_cam: (4, 4) float64 pose; camera x right, y down, z forward.

    Raises:
        InputError: the camera is outside the room.
    """
    position = T_world_cam[:3, 3]
    if (position <= _NEAR).any() or (position >= np.asarray(scene.size) - _NEAR).any():
        raise InputError(f"camera at {np.round(position, 3).tolist()} m is outside the room of size {scene.size} m")
    frames, bounds = _visible_faces(scene, camera, T_world_cam)
    pixel_maps = np.zeros((len(scene), 3, 3))
    usable = bounds[:, 0] < bounds[:, 2]
    pixel_maps[usable] = np.linalg.inv(frames[usable]) @ np.linalg.inv(camera.matrix)
    hits = _cast_pixel_centres(camera, pixel_maps, bounds)
    bias = _detail_bias(scene, camera, pixel_maps)
    image = _shade(scene, hits, bias)
    _smooth_edges(scene, hits, pixel_maps, bias, image)
    return View(image=image, depth=1.0 / hits.inverse_depth, faces=hits.faces)


def _visible_faces(
    scene: Scene, camera: PinholeCamera, T_world_cam: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Per face the matrix [u v o] (F, 3, 3) in camera coordinates, and screen bounds (F, 4) x0 y0 x1 y1, exclusive.

    Bounds are empty (zeros) for faces turned away or off the screen.
    """
    T_cam_world = inverse(T_world_cam)
    rotation = T_cam_world[:3, :3]
    origins = scene.origins @ rotation.T + T_cam_world[:3, 3]
    rights, downs = scene.rights @ rotation.T, scene.downs @ rotation.T
    frames = np.stack([rights, downs, origins], axis=2)
    corners = np.stack([origins, origins + rights, origins + rights + downs, origins + downs], axis=1)
    z = corners[:, :, 2]
    ahead = z > _NEAR
    safe = np.maximum(z, _NEAR)
    x = camera.fx * corners[:, :, 0] / safe + camera.cx
    y = camera.fy * corners[:, :, 1] / safe + camera.cy
    # A pixel of margin makes the bounds independent of rounding; the inside test decides.
    low_x, high_x = np.floor(x.min(axis=1)) - 1, np.ceil(x.max(axis=1)) + 2
    low_y, high_y = np.floor(y.min(axis=1)) - 1, np.ceil(y.max(axis=1)) + 2
    partly = ~ahead.all(axis=1)
    bounds = np.stack([low_x, low_y, high_x, high_y], axis=1)
    bounds[partly] = (0, 0, camera.width, camera.height)
    limits = (camera.width, camera.height, camera.width, camera.height)
    bounds = np.clip(bounds, 0, limits).astype(np.int64)
    facing = np.linalg.det(frames) > 1e-9
    drawn = facing & ahead.any(axis=1) & (bounds[:, 2] > bounds[:, 0]) & (bounds[:, 3] > bounds[:, 1])
    bounds[~drawn] = 0
    return frames, bounds


def _cast_pixel_centres(camera: PinholeCamera, pixel_maps: NDArray[np.float64], bounds: NDArray[np.int64]) -> _Hits:
    shape = (camera.height, camera.width)
    faces = np.zeros(shape, np.int32)
    s_over_z, t_over_z = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    inverse_depth = np.zeros(shape, np.float32)
    columns, rows = np.arange(camera.width, dtype=np.float64), np.arange(camera.height, dtype=np.float64)
    for face in np.flatnonzero(bounds[:, 2] > 0):
        x0, y0, x1, y1 = bounds[face]
        window = (slice(y0, y1), slice(x0, x1))
        across = (pixel_maps[face][:, 0, None] * columns[x0:x1]).astype(np.float32)
        along = (pixel_maps[face][:, 1, None] * rows[y0:y1] + pixel_maps[face][:, 2, None]).astype(np.float32)
        w = across[2] + along[2][:, None]
        visible = w > inverse_depth[window]
        if not visible.any():
            continue
        s, t = across[0] + along[0][:, None], across[1] + along[1][:, None]
        # The shell is convex and seen from inside: the plane a ray leaves through is the nearest one, so it needs no
        # inside test, and walls meet without cracks.
        if face >= SHELL_FACES:
            visible &= s >= 0
            visible &= s <= w
            visible &= t >= 0
            visible &= t <= w
        np.copyto(inverse_depth[window], w, where=visible)
        np.copyto(s_over_z[window], s, where=visible)
        np.copyto(t_over_z[window], t, where=visible)
        np.copyto(faces[window], np.int32(face), where=visible)
    return _Hits(faces=faces, s_over_z=s_over_z, t_over_z=t_over_z, inverse_depth=inverse_depth)


def _detail_bias(scene: Scene, camera: PinholeCamera, pixel_maps: NDArray[np.float64]) -> NDArray[np.float32]:
    """Per face the constant part of the mip level.

    The area of a pixel in texels is ``w h |det G| z^3`` for the pixel map G; the level between the area's and the
    longer side's keeps slanted floors from both shimmering and blurring.
    """
    texels = scene.atlas.widths[:, 0].astype(np.float64) * scene.atlas.heights[:, 0]
    extent = np.linalg.norm(scene.rights, axis=1) * np.linalg.norm(scene.downs, axis=1)
    area = np.maximum(np.abs(np.linalg.det(pixel_maps)) * texels, 1e-30)
    texel_size = np.sqrt(extent / texels)
    return (0.75 * np.log2(area) + 0.5 * np.log2(camera.fx * texel_size) - _SHARPNESS).astype(np.float32)


def _shade(scene: Scene, hits: _Hits, bias: NDArray[np.float32]) -> NDArray[np.uint8]:
    depth = 1.0 / hits.inverse_depth
    detail = np.log2(depth)
    detail *= np.float32(1.75)
    detail += bias.take(hits.faces)
    return scene.atlas.sample(hits.faces, hits.s_over_z * depth, hits.t_over_z * depth, detail)


def _smooth_edges(
    scene: Scene,
    hits: _Hits,
    pixel_maps: NDArray[np.float64],
    bias: NDArray[np.float32],
    image: NDArray[np.uint8],
) -> None:
    """Replace pixels next to another face by the mean of four samples, cast against the faces seen around them."""
    faces = hits.faces
    edge = np.zeros(faces.shape, bool)
    across, down = faces[:, 1:] != faces[:, :-1], faces[1:] != faces[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    rows, columns = np.nonzero(edge)
    if len(rows) == 0:
        return
    height, width = faces.shape
    neighbours = [
        faces[np.clip(rows + dy, 0, height - 1), np.clip(columns + dx, 0, width - 1)]
        for dx, dy in ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
    ]
    x = columns.astype(np.float32) + _SUBPIXELS[:, :1]
    y = rows.astype(np.float32) + _SUBPIXELS[:, 1:]
    maps = pixel_maps.astype(np.float32).reshape(-1, 9)
    best = _Hits(
        faces=np.broadcast_to(neighbours[0], x.shape).astype(np.int32),
        s_over_z=np.zeros(x.shape, np.float32),
        t_over_z=np.zeros(x.shape, np.float32),
        inverse_depth=np.zeros(x.shape, np.float32),
    )
    for index, candidate in enumerate(neighbours):
        g = maps[candidate].T[:, None, :]
        s, t, w = (g[3 * k] * x + g[3 * k + 1] * y + g[3 * k + 2] for k in range(3))
        inside = (s >= 0) & (s <= w) & (t >= 0) & (t <= w)
        visible = (w > best.inverse_depth) & (inside | (candidate < SHELL_FACES))
        if index == 0:
            # A sample that misses every candidate keeps the pixel's own face, its texture clamped.
            best.inverse_depth[:] = np.where(visible, w, 1e-6)
            best.s_over_z[:], best.t_over_z[:] = np.where(visible, s, s / np.maximum(w, 1e-6) * 1e-6), t
            best.t_over_z[:] = np.where(visible, t, t / np.maximum(w, 1e-6) * 1e-6)
            continue
        for target, value in ((best.inverse_depth, w), (best.s_over_z, s), (best.t_over_z, t)):
            np.copyto(target, value, where=visible)
        np.copyto(best.faces, np.broadcast_to(candidate, x.shape), where=visible)
    image[rows, columns] = _shade_samples(scene, best, bias)


def _shade_samples(scene: Scene, hits: _Hits, bias: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Mean colour (K, 3) of (4, K) samples; lookups want pictures less than 32768 wide, so samples are folded."""
    count = hits.faces.shape[1]
    width = 4096
    padded = -(-count // width) * width

    def fold(values: NDArray[np.float32]) -> NDArray[np.float32]:
        return np.pad(values, ((0, 0), (0, padded - count)), mode="edge").reshape(-1, width)

    folded = _Hits(
        faces=np.pad(hits.faces, ((0, 0), (0, padded - count)), mode="edge").reshape(-1, width),
        s_over_z=fold(hits.s_over_z),
        t_over_z=fold(hits.t_over_z),
        inverse_depth=fold(hits.inverse_depth),
    )
    colors = _shade(scene, folded, bias).reshape(len(_SUBPIXELS), padded, 3)[:, :count]
    return (colors.astype(np.uint16).sum(axis=0) + 2 >> 2).astype(np.uint8)
