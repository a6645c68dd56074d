"""Plan of a furnished room: its size, what covers the walls and which boxes stand where, all from one seed.

World frame: x and y along the walls, z up, origin in a floor corner, metres.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from semkey.rendering.furniture import (
    LOW_PIECES,
    PAINTS,
    TALL_PIECES,
    WOODS,
    Box,
    Material,
    Piece,
    block,
    coffee_table,
    dresser,
    pick,
    place,
    wardrobe,
)
from semkey.rendering.textures import Color

WALL_PAINTS: tuple[Color, ...] = (
    (0.85, 0.82, 0.74),
    (0.74, 0.8, 0.78),
    (0.82, 0.74, 0.66),
    (0.72, 0.75, 0.82),
    (0.88, 0.87, 0.84),
)
BRICKS: tuple[Color, ...] = ((0.6, 0.32, 0.24), (0.68, 0.45, 0.33), (0.5, 0.33, 0.28))
CARPETS: tuple[Color, ...] = ((0.48, 0.45, 0.42), (0.35, 0.4, 0.46), (0.52, 0.38, 0.32))
PLAIN_KINDS = {"wood": "plain", "fabric": "plain", "wallpaper": "plain", "label": "plain", "rug": "plain"}

_Builder = Callable[[np.random.Generator], Piece]


@dataclass(frozen=True, kw_only=True)
class RoomPlan:
    """A room before any pixel is painted.

    Attributes:
        size: (x, y, z) extent in metres.
        shell: materials of the walls at y = 0, y = max, x = 0, x = max, then floor and ceiling.
        boxes: everything that stands in the room or hangs on its walls.
        lamps: centres of the ceiling lamps, metres.
        window: centre of the window on the wall, metres, and its inward normal.
    """

    size: tuple[float, float, float]
    shell: tuple[Material, ...]
    boxes: tuple[Box, ...]
    lamps: tuple[tuple[float, float, float], ...]
    window: tuple[tuple[float, float, float], tuple[float, float, float]]


@dataclass(frozen=True, kw_only=True)
class _Wall:
    origin: tuple[float, float]
    yaw: float
    length: float
    margin: float


def _walls(x: float, y: float) -> list[_Wall]:
    """Walls at y = 0, y = max, x = 0, x = max; the latter two leave the corners to the former."""
    return [
        _Wall(origin=(0.0, 0.0), yaw=0.0, length=x, margin=0.04),
        _Wall(origin=(x, y), yaw=np.pi, length=x, margin=0.04),
        _Wall(origin=(0.0, y), yaw=-np.pi / 2, length=y, margin=0.65),
        _Wall(origin=(x, 0.0), yaw=np.pi / 2, length=y, margin=0.65),
    ]


def plan_room(seed: int, texture: str) -> RoomPlan:
    """Draw a room; ``texture`` is ``normal`` or ``low`` (see :class:`.config.RoomConfig`)."""
    rng = np.random.default_rng([seed, 1])
    low = texture == "low"
    size = (float(rng.uniform(4.8, 6.2)), float(rng.uniform(4.2, 5.2)), float(rng.uniform(2.45, 2.75)))
    walls = _walls(size[0], size[1])
    window_wall, door_wall = (int(v) for v in rng.permutation(4)[:2])
    boxes: list[Box] = []
    stock: dict[str, list[_Builder]] = {}
    window = None
    for index, wall in enumerate(walls):
        taken: list[tuple[float, float, float, float]] = []
        x = wall.margin + float(rng.uniform(0.05, 0.3))
        if index == door_wall:
            door = _hanging(rng, 0.9, 2.05, 0.04, "door")
            boxes += place(_shift(door, x, 0.0), wall.origin, wall.yaw)
            taken.append((x, x + 0.9, 0.0, 2.1))
            x += 1.1
        if index == window_wall:
            w = float(rng.uniform(1.2, 1.8))
            left, bottom = 0.5 * (wall.length - w) + float(rng.uniform(-0.4, 0.4)), 0.95
            pane = _hanging(rng, w, 1.15, 0.03, "window")
            boxes += place(_shift(pane, left, bottom), wall.origin, wall.yaw)
            sill = Piece(width=w, depth=0.14, height=0.0, boxes=(_sill(w),))
            boxes += place(_shift(sill, left, bottom - 0.03), wall.origin, wall.yaw)
            taken.append((left - 0.1, left + w + 0.1, bottom, 2.2))
            window = _on_wall(wall, left + 0.5 * w, bottom + 0.6)
        chance = 0.4 if low else 1.0
        while x < wall.length - wall.margin - 0.45:
            piece = _next_piece(rng, stock, low, index == window_wall)
            if x + piece.width > wall.length - wall.margin:
                break
            if rng.random() < chance:
                boxes += place(_shift(piece, x, 0.0, 0.01), wall.origin, wall.yaw)
                taken.append((x, x + piece.width, 0.0, piece.height))
            x += piece.width + float(rng.uniform(0.06, 0.45))
        for _ in range(1 if low else 26):
            _try_picture(rng, wall, size[2], taken, boxes)
        skirting = Material(kind="plain", color=(0.8, 0.79, 0.76))
        strip = Piece(
            width=wall.length, depth=0.0, height=0.0, boxes=(block((0, 0, 0), (wall.length, 0.015, 0.08), skirting),)
        )
        boxes += place(strip, wall.origin, wall.yaw)
    if not low:
        boxes += _middle(rng, size)
    lamps = ((0.5 * size[0], 0.5 * size[1], size[2] - 0.12),)
    shade = Material(kind="glow", color=(0.99, 0.96, 0.88), emissive=True)
    for center in lamps:
        boxes.append(Box(center=(center[0], center[1], size[2] - 0.06), size=(0.5, 0.5, 0.1), body=shade))
    if low:
        boxes = [_without_texture(box) for box in boxes]
    assert window is not None
    return RoomPlan(size=size, shell=_shell(rng, low), boxes=tuple(boxes), lamps=lamps, window=window)


def _shell(rng: np.random.Generator, low: bool) -> tuple[Material, ...]:
    base = pick(rng, WALL_PAINTS)
    if low:
        walls = [Material(kind="plain", color=base)] * 4
        return (
            *walls,
            Material(kind="painted", color=pick(rng, CARPETS)),
            Material(kind="plain", color=(0.9, 0.9, 0.9)),
        )
    kinds = ["wallpaper", "painted", str(rng.choice(("plaster", "painted"))), str(rng.choice(("brick", "concrete")))]
    walls = []
    for kind in rng.permutation(kinds):
        color = pick(rng, BRICKS) if kind == "brick" else (0.62, 0.61, 0.59) if kind == "concrete" else base
        walls.append(Material(kind=str(kind), color=color))
    floor = str(rng.choice(("planks", "tiles", "carpet"), p=(0.5, 0.25, 0.25)))
    color = {"planks": pick(rng, WOODS), "tiles": (0.66, 0.62, 0.55), "carpet": pick(rng, CARPETS)}[floor]
    return (*walls, Material(kind=floor, color=color), Material(kind="painted", color=(0.9, 0.9, 0.88)))


def _next_piece(rng: np.random.Generator, stock: dict[str, list[_Builder]], low: bool, below_window: bool) -> Piece:
    """A piece that fits below the window or not, no kind again before all of its list have been used."""
    if low:
        name, choices = ("low", (dresser,)) if below_window else ("any", (dresser, wardrobe))
    else:
        name, choices = ("low", LOW_PIECES) if below_window else ("any", LOW_PIECES + TALL_PIECES)
    left = stock.setdefault(name, [])
    if not left:
        left.extend(choices)
    return left.pop(int(rng.integers(len(left))))(rng)


def _hanging(rng: np.random.Generator, w: float, h: float, depth: float, kind: str) -> Piece:
    """A thin box with a picture of ``kind`` on its front."""
    choices = {"window": PAINTS[:1], "door": PAINTS[:2] + WOODS}
    frame = pick(rng, choices.get(kind, WOODS))
    front = Material(kind=kind, color=frame, emissive=kind == "window")
    body = Material(kind="plain", color=frame)
    return Piece(width=w, depth=depth, height=h, boxes=(block((0, 0, 0), (w, depth, h), body, front),))


def _sill(w: float) -> Box:
    return block((-0.04, 0, 0), (w + 0.08, 0.14, 0.03), Material(kind="plain", color=(0.85, 0.84, 0.82)))


def _try_picture(
    rng: np.random.Generator,
    wall: _Wall,
    ceiling: float,
    taken: list[tuple[float, float, float, float]],
    boxes: list[Box],
) -> None:
    """Hang a picture, clock or small shelf where the wall is free; give up silently where it is not."""
    kind = str(rng.choice(("poster", "clock", "shelf"), p=(0.76, 0.08, 0.16)))
    w = float(rng.uniform(0.3, 0.3) if kind == "clock" else rng.uniform(0.3, 0.95))
    h = w if kind == "clock" else float(rng.uniform(0.3, 0.9))
    left = float(rng.uniform(0.1, max(wall.length - w - 0.1, 0.11)))
    bottom = float(rng.uniform(0.9, max(ceiling - h - 0.15, 0.95)))
    gap = 0.07
    rect = (left - gap, left + w + gap, bottom - gap, bottom + h + gap)
    if rect[3] > ceiling - 0.05:
        return
    if any(rect[0] < x1 and rect[1] > x0 and rect[2] < z1 and rect[3] > z0 for x0, x1, z0, z1 in taken):
        return
    taken.append(rect)
    if kind == "shelf":
        timber = Material(kind="wood", color=pick(rng, WOODS))
        books = Material(kind="books", color=timber.color)
        board = block((0, 0, 0), (w, 0.22, 0.025), timber)
        row = block((0.03, 0, 0.025), (0.8 * w, 0.16, 0.27), Material(kind="label", color=timber.color), books)
        piece = Piece(width=w, depth=0.22, height=0.3, boxes=(board, row))
    else:
        piece = _hanging(rng, w, h, 0.025, kind)
    boxes += place(_shift(piece, left, bottom), wall.origin, wall.yaw)


def _middle(rng: np.random.Generator, size: tuple[float, float, float]) -> list[Box]:
    """A rug with a turned table on it."""
    yaw = float(rng.uniform(-0.5, 0.5))
    center = (0.5 * size[0] + float(rng.uniform(-0.3, 0.3)), 0.5 * size[1] + float(rng.uniform(-0.3, 0.3)))
    rug = Material(kind="rug", color=pick(rng, CARPETS + BRICKS))
    table = coffee_table(rng)
    cos, sin = np.cos(yaw), np.sin(yaw)
    dx, dy = -0.5 * table.width, -0.5 * table.depth
    origin = (center[0] + float(cos * dx - sin * dy), center[1] + float(sin * dx + cos * dy))
    carpet = Box(center=(center[0], center[1], 0.006), size=(2.0, 1.4, 0.012), body=rug, yaw=yaw)
    return [carpet, *place(table, origin, yaw)]


def _shift(piece: Piece, x: float, z: float, y: float = 0.0) -> Piece:
    moved = (replace(box, center=(box.center[0] + x, box.center[1] + y, box.center[2] + z)) for box in piece.boxes)
    return replace(piece, boxes=tuple(moved))


def _on_wall(wall: _Wall, x: float, z: float) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    cos, sin = float(np.cos(wall.yaw)), float(np.sin(wall.yaw))
    point = (wall.origin[0] + cos * x, wall.origin[1] + sin * x, z)
    return point, (-sin, cos, 0.0)


def _without_texture(box: Box) -> Box:
    def plainer(material: Material | None) -> Material | None:
        return material and replace(material, kind=PLAIN_KINDS.get(material.kind, material.kind))

    body = plainer(box.body)
    assert body is not None
    return replace(box, body=body, front=plainer(box.front))
