"""Pieces of furniture as boxes, each built in its own frame.

The frame of a piece: x along the wall from 0 to the piece's width, y from the wall (0) into the room, z up from the
floor, all in metres. Fronts look towards +y.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from semkey.rendering.textures import Color


@dataclass(frozen=True, kw_only=True)
class Material:
    """A painter's name in :data:`.textures.SURFACES` or :data:`.pictures.PICTURES`, and its main colour."""

    kind: str
    color: Color
    emissive: bool = False


@dataclass(frozen=True, kw_only=True)
class Box:
    """A cuboid: centre and size in metres, turned by ``yaw`` radians about z; ``front`` covers the local +y face."""

    center: tuple[float, float, float]
    size: tuple[float, float, float]
    body: Material
    front: Material | None = None
    yaw: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Boxes that belong together and the space they take along the wall, into the room and upwards (metres)."""

    width: float
    depth: float
    height: float
    boxes: tuple[Box, ...]


WOODS: tuple[Color, ...] = (
    (0.62, 0.43, 0.26),
    (0.45, 0.28, 0.17),
    (0.76, 0.6, 0.42),
    (0.3, 0.2, 0.14),
    (0.7, 0.52, 0.3),
)
PAINTS: tuple[Color, ...] = ((0.86, 0.85, 0.82), (0.75, 0.8, 0.82), (0.36, 0.45, 0.5), (0.55, 0.62, 0.52))
CLOTHS: tuple[Color, ...] = (
    (0.5, 0.16, 0.17),
    (0.22, 0.33, 0.48),
    (0.45, 0.47, 0.36),
    (0.66, 0.56, 0.42),
    (0.35, 0.33, 0.36),
)
LEAVES: Color = (0.27, 0.42, 0.2)
BLACK: Color = (0.09, 0.09, 0.1)


def pick(rng: np.random.Generator, colors: tuple[Color, ...]) -> Color:
    """One of ``colors``, slightly changed."""
    color = colors[int(rng.integers(len(colors)))]
    factor = rng.uniform(0.85, 1.12)
    red, green, blue = (float(min(channel * factor, 0.97)) for channel in color)
    return red, green, blue


def _timber(rng: np.random.Generator) -> Material:
    if rng.random() < 0.7:
        return Material(kind="wood", color=pick(rng, WOODS))
    return Material(kind="plain", color=pick(rng, PAINTS))


def block(
    corner: tuple[float, float, float],
    size: tuple[float, float, float],
    body: Material,
    front: Material | None = None,
    yaw: float = 0.0,
) -> Box:
    """A box given by its corner of smallest x, y, z (before the turn about its own axis)."""
    x, y, z = (c + 0.5 * s for c, s in zip(corner, size, strict=True))
    return Box(center=(x, y, z), size=size, body=body, front=front, yaw=yaw)


def clutter(rng: np.random.Generator, x0: float, x1: float, depth: float, z: float, tallest: float = 0.35) -> list[Box]:
    """Small things standing at height ``z`` between x0 and x1: cartons, tins, book piles, vases, framed photos."""
    boxes: list[Box] = []
    x = x0 + rng.uniform(0.02, 0.1)
    while x < x1 - 0.12:
        kind, yaw = rng.choice(("carton", "pile", "vase", "photo")), float(rng.uniform(-0.5, 0.5))
        w = float(rng.uniform(0.07, 0.2))
        y = float(rng.uniform(0.25, 0.6)) * max(depth - w, 0.02)
        material = Material(kind="label", color=pick(rng, CLOTHS + PAINTS))
        if kind == "carton":
            height = float(rng.uniform(0.08, tallest))
            boxes.append(block((x, y, z), (w, 0.7 * w, height), material, yaw=yaw))
        elif kind == "pile":
            top = z
            for _ in range(int(rng.integers(2, 5))):
                height = float(rng.uniform(0.015, 0.04))
                cover = Material(kind="label", color=pick(rng, CLOTHS + PAINTS))
                turn = yaw + float(rng.normal(0, 0.15))
                boxes.append(block((x, y, top), (w + 0.06, 0.75 * w + 0.04, height), cover, yaw=turn))
                top += height
            w += 0.06
        elif kind == "vase":
            body, w = Material(kind="tiles", color=pick(rng, PAINTS)), 0.09
            height = float(rng.uniform(0.1, 0.6 * tallest))
            boxes.append(block((x, y, z), (w, w, height), body, yaw=yaw))
            leaves = Material(kind="foliage", color=LEAVES)
            size = (0.16, 0.13, min(0.17, tallest - 0.6 * height))
            boxes.append(block((x - 0.03, y - 0.02, z + height), size, leaves, yaw=2 * yaw))
            w = 0.14
        else:
            height = float(rng.uniform(0.12, min(0.26, tallest)))
            picture = Material(kind="poster", color=pick(rng, WOODS))
            frame = Material(kind="plain", color=BLACK)
            boxes.append(block((x, y, z), (w, 0.025, height), frame, front=picture, yaw=0.6 * yaw))
        x += w + float(rng.uniform(0.04, 0.25))
    return boxes


def bookcase(rng: np.random.Generator) -> Piece:
    """Full of books, between side boards that stand out."""
    w, d, h = float(rng.uniform(0.8, 1.3)), float(rng.uniform(0.26, 0.34)), float(rng.uniform(1.6, 2.1))
    timber = _timber(rng)
    front = Material(kind="books", color=timber.color)
    boxes = [
        block((0.02, 0, 0), (w - 0.04, d - 0.03, h), timber, front),
        block((0, 0, 0), (0.02, d, h + 0.01), timber),
        block((w - 0.02, 0, 0), (0.02, d, h + 0.01), timber),
        block((0, 0, h + 0.01), (w, d, 0.025), timber),
    ]
    boxes += clutter(rng, 0.05, w - 0.1, d, h + 0.035, 0.25)
    return Piece(width=w, depth=d, height=h + 0.3, boxes=tuple(boxes))


def open_shelf(rng: np.random.Generator) -> Piece:
    """Boards with things standing between them, so that near and far parts move against each other."""
    w, d, h = float(rng.uniform(0.8, 1.1)), 0.34, float(rng.uniform(1.3, 1.9))
    timber = _timber(rng)
    boxes = [block((0, 0, 0), (0.025, d, h), timber), block((w - 0.025, 0, 0), (0.025, d, h), timber)]
    levels = 4
    for level in range(levels + 1):
        z = level * (h - 0.025) / levels
        boxes.append(block((0.025, 0, z), (w - 0.05, d, 0.025), timber))
        if level < levels:
            boxes += clutter(rng, 0.04, w - 0.12, d, z + 0.025, (h / levels) - 0.08)
    return Piece(width=w, depth=d, height=h, boxes=tuple(boxes))


def wardrobe(rng: np.random.Generator) -> Piece:
    """Tall cupboard with doors."""
    w, d, h = float(rng.uniform(1.0, 1.6)), float(rng.uniform(0.5, 0.6)), float(rng.uniform(1.85, 2.15))
    timber = _timber(rng)
    boxes = [
        block((0, 0, 0.08), (w, d, h - 0.08), timber, Material(kind="drawers", color=timber.color)),
        block((0.03, 0, 0), (w - 0.06, d - 0.05, 0.08), Material(kind="plain", color=BLACK)),
    ]
    return Piece(width=w, depth=d, height=h, boxes=tuple(boxes))


def dresser(rng: np.random.Generator) -> Piece:
    """Chest of drawers with things on top."""
    w, d, h = float(rng.uniform(0.9, 1.6)), float(rng.uniform(0.4, 0.5)), float(rng.uniform(0.7, 0.92))
    timber = _timber(rng)
    boxes = [
        block((0, 0, 0.06), (w, d - 0.02, h - 0.09), timber, Material(kind="drawers", color=timber.color)),
        block((0.03, 0, 0), (w - 0.06, d - 0.06, 0.06), Material(kind="plain", color=BLACK)),
        block((-0.015, 0, h - 0.03), (w + 0.03, d, 0.03), timber),
    ]
    boxes += clutter(rng, 0.02, w - 0.1, d, h)
    return Piece(width=w, depth=d, height=h, boxes=tuple(boxes))


def _table(w: float, d: float, h: float, timber: Material) -> list[Box]:
    leg = 0.05
    boxes = [block((0, 0, h - 0.035), (w, d, 0.035), timber)]
    for x in (0.03, w - 0.03 - leg):
        boxes += [block((x, y, 0), (leg, leg, h - 0.035), timber) for y in (0.03, d - 0.03 - leg)]
    return boxes


def desk(rng: np.random.Generator) -> Piece:
    """Table with monitor, keyboard and papers, a chair before it."""
    w, d, h = float(rng.uniform(1.2, 1.6)), float(rng.uniform(0.6, 0.75)), 0.74
    boxes = _table(w, d, h, _timber(rng))
    black = Material(kind="plain", color=BLACK)
    x = float(rng.uniform(0.15, w - 0.75))
    boxes += [
        block((x + 0.22, 0.14, h), (0.14, 0.12, 0.12), black),
        block((x, 0.2, h + 0.1), (0.58, 0.03, 0.36), black, Material(kind="screen", color=BLACK, emissive=True)),
        block((x + 0.06, 0.38, h), (0.44, 0.15, 0.02), Material(kind="label", color=BLACK)),
    ]
    free = (0.02, x - 0.08) if x > w - x - 0.6 else (x + 0.66, w)
    boxes += clutter(rng, free[0], free[1], d, h)
    cloth = Material(kind="fabric", color=pick(rng, CLOTHS))
    turn, cx, cy = float(rng.uniform(-0.4, 0.4)), x + 0.05, d + 0.02
    boxes.append(block((cx, cy, 0.42), (0.44, 0.42, 0.06), cloth, yaw=turn))
    back = (cx + 0.22 - 0.21 * np.sin(turn), cy + 0.21 + 0.21 * np.cos(turn), 0.72)
    boxes.append(Box(center=(float(back[0]), float(back[1]), back[2]), size=(0.42, 0.04, 0.5), body=cloth, yaw=turn))
    for dx in (-0.18, 0.18):
        for dy in (-0.17, 0.17):
            lx = cx + 0.22 + dx * np.cos(turn) - dy * np.sin(turn)
            ly = cy + 0.21 + dx * np.sin(turn) + dy * np.cos(turn)
            boxes.append(Box(center=(float(lx), float(ly), 0.21), size=(0.035, 0.035, 0.42), body=black, yaw=turn))
    return Piece(width=w, depth=d + 0.48, height=1.25, boxes=tuple(boxes))


def sofa(rng: np.random.Generator) -> Piece:
    """Seat, back, arms and cushions."""
    w, d = float(rng.uniform(1.6, 2.1)), 0.85
    cloth = Material(kind="fabric", color=pick(rng, CLOTHS))
    boxes = [
        block((0, 0.05, 0.05), (w, d - 0.05, 0.37), cloth),
        block((0, 0, 0.05), (w, 0.24, 0.76), cloth),
        block((0, 0.05, 0.05), (0.18, d - 0.05, 0.55), cloth),
        block((w - 0.18, 0.05, 0.05), (0.18, d - 0.05, 0.55), cloth),
    ]
    for x in rng.uniform(0.25, w - 0.65, int(rng.integers(2, 4))):
        cover = Material(kind=str(rng.choice(("wallpaper", "fabric", "rug"))), color=pick(rng, CLOTHS + PAINTS))
        turn = float(rng.uniform(-0.35, 0.35))
        boxes.append(block((float(x), 0.27, 0.43), (0.4, 0.12, 0.38), cover, yaw=turn))
    return Piece(width=w, depth=d, height=0.85, boxes=tuple(boxes))


def plant(rng: np.random.Generator) -> Piece:
    """A pot with a bush of turned leafy boxes."""
    w = 0.5
    pot = Material(kind="label", color=pick(rng, CLOTHS))
    leaves = Material(kind="foliage", color=LEAVES)
    boxes = [block((0.1, 0.1, 0), (0.3, 0.3, 0.32), pot, yaw=float(rng.uniform(0, 1.5)))]
    z = 0.34
    for _ in range(3):
        size = float(rng.uniform(0.28, 0.46))
        center = (0.25 + float(rng.normal(0, 0.03)), 0.25 + float(rng.normal(0, 0.03)), z + 0.17)
        boxes.append(Box(center=center, size=(size, size, 0.34), body=leaves, yaw=float(rng.uniform(0, 1.5))))
        z += 0.3
    return Piece(width=w, depth=0.5, height=z, boxes=tuple(boxes))


def floor_lamp(rng: np.random.Generator) -> Piece:
    """A pole with a lit shade."""
    metal = Material(kind="plain", color=(0.25, 0.24, 0.23))
    shade = Material(kind="glow", color=(0.98, 0.9, 0.72), emissive=True)
    boxes = (
        block((0.08, 0.08, 0), (0.24, 0.24, 0.025), metal),
        block((0.185, 0.185, 0.025), (0.03, 0.03, 1.4), metal),
        block((0.05, 0.05, 1.4), (0.3, 0.3, 0.28), shade),
    )
    return Piece(width=0.4, depth=0.4, height=1.7, boxes=boxes)


def coffee_table(rng: np.random.Generator) -> Piece:
    """Low table with a few things on it, for the middle of the room."""
    w, d, h = float(rng.uniform(0.8, 1.1)), float(rng.uniform(0.5, 0.6)), float(rng.uniform(0.38, 0.48))
    boxes = _table(w, d, h, _timber(rng)) + clutter(rng, 0.05, w - 0.1, d, h, 0.25)
    return Piece(width=w, depth=d, height=h + 0.25, boxes=tuple(boxes))


LOW_PIECES: tuple[Callable[[np.random.Generator], Piece], ...] = (dresser, desk, sofa)
TALL_PIECES: tuple[Callable[[np.random.Generator], Piece], ...] = (bookcase, open_shelf, wardrobe, plant, floor_lamp)


def place(piece: Piece, origin: tuple[float, float], yaw: float) -> list[Box]:
    """The boxes of a piece turned by ``yaw`` about its frame's origin, which is put at ``origin`` on the floor."""
    cos, sin = float(np.cos(yaw)), float(np.sin(yaw))
    placed = []
    for box in piece.boxes:
        x, y, z = box.center
        center = (origin[0] + cos * x - sin * y, origin[1] + sin * x + cos * y, z)
        placed.append(replace(box, center=center, yaw=box.yaw + yaw))
    return placed
