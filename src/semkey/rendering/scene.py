"""Rectangles with textures: what the ray caster sees of a planned room."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.rendering.atlas import TextureAtlas, pack_textures
from semkey.rendering.furniture import Box, Material
from semkey.rendering.layout import RoomPlan
from semkey.rendering.lighting import bake_light
from semkey.rendering.pictures import PICTURES
from semkey.rendering.textures import SURFACES

SHELL_FACES = 6
_LIGHT_CELL = 0.08  # metres between baked light values
_HIDDEN_COARSENING = 8.0
_PHOTO_SHARE = 0.5
_LARGEST_TEXTURE = 6000

# Rows of (outward normal, right, down) as seen from outside a box, local axes; +y is the front.
_BOX_FRAMES = np.array(
    [
        [(1, 0, 0), (0, 1, 0), (0, 0, -1)],
        [(-1, 0, 0), (0, -1, 0), (0, 0, -1)],
        [(0, 1, 0), (-1, 0, 0), (0, 0, -1)],
        [(0, -1, 0), (1, 0, 0), (0, 0, -1)],
        [(0, 0, 1), (-1, 0, 0), (0, 1, 0)],
        [(0, 0, -1), (-1, 0, 0), (0, -1, 0)],
    ],
    float,
)
_FRONT = 2


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Textured rectangles; the first six are the room's shell, which encloses every camera.

    A face's points are ``origins + s * rights + t * downs`` with s, t in [0, 1]; seen from its visible side the texture
    is upright, and ``cross(rights, downs)`` points away from the viewer.

    Attributes:
        origins: (F, 3) float64, metres, world frame (z up).
        rights: (F, 3) float64, full edge across the texture.
        downs: (F, 3) float64, full edge down the texture.
        atlas: the faces' textures, lit.
        size: (x, y, z) of the room, metres.
    """

    origins: NDArray[np.float64]
    rights: NDArray[np.float64]
    downs: NDArray[np.float64]
    atlas: TextureAtlas
    size: tuple[float, float, float]

    def __len__(self) -> int:
        return len(self.origins)


def shell_rectangles(size: tuple[float, float, float]) -> tuple[NDArray[np.float64], ...]:
    """Origins, rights and downs, (6, 3) each, of the walls y = 0, y = max, x = 0, x = max, floor and ceiling."""
    x, y, z = size
    rows = [
        # Seen from inside: wall y = 0 has its right hand towards -x.
        ((x, 0, z), (-x, 0, 0), (0, 0, -z)),
        ((0, y, z), (x, 0, 0), (0, 0, -z)),
        ((0, 0, z), (0, y, 0), (0, 0, -z)),
        ((x, y, z), (0, -y, 0), (0, 0, -z)),
        ((0, y, 0), (x, 0, 0), (0, -y, 0)),
        ((0, 0, z), (x, 0, 0), (0, y, 0)),
    ]
    table = np.array(rows, float)
    return table[:, 0], table[:, 1], table[:, 2]


def box_rectangles(boxes: Sequence[Box]) -> tuple[NDArray[np.float64], ...]:
    """Origins, rights and downs, (6 B, 3) each, of the boxes' faces +x, -x, +y (front), -y, +z, -z."""
    origins, rights, downs = [], [], []
    for box in boxes:
        cos, sin = np.cos(box.yaw), np.sin(box.yaw)
        rotation = np.array([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]])
        size = np.asarray(box.size)
        normal, right, down = (_BOX_FRAMES[:, k] * size @ rotation.T for k in range(3))
        origins.append(np.asarray(box.center) + 0.5 * (normal - right - down))
        rights.append(right)
        downs.append(down)
    if not boxes:
        return (np.zeros((0, 3)),) * 3
    return np.concatenate(origins), np.concatenate(rights), np.concatenate(downs)


def build_scene(plan: RoomPlan, *, seed: int, texel_size: float, photos: Sequence[NDArray[np.uint8]] = ()) -> Scene:
    """Paint, light and pack a planned room.

    Args:
        plan: the room.
        seed: of the textures.
        texel_size: metres.
        photos: (h, w, 3) uint8 RGB; where given, they cover all pictures on the walls and half of the other surfaces.
    """
    tables = zip(shell_rectangles(plan.size), box_rectangles(plan.boxes), strict=True)
    origins, rights, downs = (np.concatenate(pair) for pair in tables)
    materials = list(plan.shell)
    for box in plan.boxes:
        materials += [box.front if face == _FRONT and box.front else box.body for face in range(SHELL_FACES)]
    texels = _texel_sizes(origins, rights, downs, plan.size, texel_size)
    light = _light_maps(origins, rights, downs, plan, seed)
    textures = [
        _paint(material, right, down, texel, light_map, np.random.default_rng([seed, 3, face]), photos)
        for face, (material, right, down, texel, light_map) in enumerate(
            zip(materials, _lengths(rights), _lengths(downs), texels, light, strict=True)
        )
    ]
    atlas = pack_textures(textures)
    return Scene(origins=origins, rights=rights, downs=downs, atlas=atlas, size=plan.size)


def _photo(
    rng: np.random.Generator, photos: Sequence[NDArray[np.uint8]], rows: int, columns: int
) -> NDArray[np.float32]:
    """A random part of a random photo, (rows, columns, 3) in [0, 1]."""
    photo = photos[int(rng.integers(len(photos)))]
    height, width = photo.shape[:2]
    share = float(rng.uniform(0.5, 1.0))
    fit = share * min(width / columns, height / rows)
    w, h = max(2, min(width, round(fit * columns))), max(2, min(height, round(fit * rows)))
    x, y = int(rng.integers(width - w + 1)), int(rng.integers(height - h + 1))
    part = cv2.resize(photo[y : y + h, x : x + w], (columns, rows), interpolation=cv2.INTER_LINEAR)
    return np.asarray(part / np.float32(255.0), np.float32)


def _lengths(edges: NDArray[np.float64]) -> list[float]:
    return np.linalg.norm(edges, axis=1).tolist()


def _normals(rights: NDArray[np.float64], downs: NDArray[np.float64]) -> NDArray[np.float64]:
    normals = np.cross(downs, rights)
    return normals / np.linalg.norm(normals, axis=1, keepdims=True)


def _texel_sizes(
    origins: NDArray[np.float64],
    rights: NDArray[np.float64],
    downs: NDArray[np.float64],
    room: tuple[float, float, float],
    texel_size: float,
) -> list[float]:
    """Fine texels where a camera can look, coarse ones on backs against a wall and on undersides."""
    normals = _normals(rights, downs)
    ahead = origins + 0.5 * (rights + downs) + 0.06 * normals
    blocked = ((ahead < 0.0) | (ahead > np.asarray(room))).any(axis=1) | ((normals[:, 2] < -0.5) & (ahead[:, 2] < 1.2))
    blocked[:SHELL_FACES] = False
    texels = np.where(blocked, texel_size * _HIDDEN_COARSENING, texel_size)
    texels[SHELL_FACES - 1] *= 2.0  # the ceiling is far away and plain
    return texels.tolist()


def _light_maps(
    origins: NDArray[np.float64],
    rights: NDArray[np.float64],
    downs: NDArray[np.float64],
    plan: RoomPlan,
    seed: int,
) -> Iterable[NDArray[np.float32]]:
    normals = _normals(rights, downs)
    points, point_normals, shapes = [], [], []
    for origin, right, down, normal, width, height in zip(
        origins, rights, downs, normals, _lengths(rights), _lengths(downs), strict=True
    ):
        columns, rows = (int(np.clip(np.ceil(length / _LIGHT_CELL), 2, 200)) for length in (width, height))
        s, t = (np.arange(columns) + 0.5) / columns, (np.arange(rows) + 0.5) / rows
        grid = origin + s[None, :, None] * right + t[:, None, None] * down
        points.append(grid.reshape(-1, 3))
        point_normals.append(np.broadcast_to(normal, (rows * columns, 3)))
        shapes.append((rows, columns))
    shell = sum(rows * columns for rows, columns in shapes[:SHELL_FACES])
    light = bake_light(
        np.concatenate(points).astype(np.float32), np.concatenate(point_normals).astype(np.float32), shell, plan, seed
    )
    ends = np.cumsum([rows * columns for rows, columns in shapes])
    return [part.reshape(*shape, 3) for part, shape in zip(np.split(light, ends[:-1]), shapes, strict=True)]


def _paint(
    material: Material,
    width: float,
    height: float,
    texel: float,
    light: NDArray[np.float32],
    rng: np.random.Generator,
    photos: Sequence[NDArray[np.uint8]] = (),
) -> NDArray[np.uint8]:
    columns = int(np.clip(round(width / texel), 1, _LARGEST_TEXTURE))
    rows = int(np.clip(round(height / texel), 1, _LARGEST_TEXTURE))
    if photos and not material.emissive and (material.kind == "poster" or rng.random() < _PHOTO_SHARE):
        albedo = _photo(rng, photos, rows, columns)
    else:
        painter = SURFACES.get(material.kind) or PICTURES[material.kind]
        albedo = painter(rng, rows, columns, texel, material.color)
    if not material.emissive:
        albedo *= cv2.resize(light, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return cv2.convertScaleAbs(np.clip(albedo, 0.0, 1.0), alpha=255.0).astype(np.uint8, copy=False)
