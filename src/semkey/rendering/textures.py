"""Procedural surfaces: painters return (height, width, 3) float32 RGB albedo in [0, 1], fixed by their generator.

One texel is ``texel`` metres wide, so that bricks, planks and threads have the same size on every surface.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]
Color = tuple[float, float, float]


def value_noise(
    rng: np.random.Generator, height: int, width: int, cell: float | tuple[float, float], octaves: int = 3
) -> Image:
    """Smooth (height, width) noise, about zero mean and unit range; ``cell`` is the coarsest cell (y, x) in texels."""
    cell_y, cell_x = (cell, cell) if isinstance(cell, int | float) else cell
    total = np.zeros((height, width), np.float32)
    for octave in range(octaves):
        rows = max(2, int(np.ceil(height * 2**octave / max(cell_y, 1.0))) + 1)
        columns = max(2, int(np.ceil(width * 2**octave / max(cell_x, 1.0))) + 1)
        grid = rng.random((min(rows, height + 1), min(columns, width + 1)), np.float32) - 0.5
        total += cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC) * 0.5**octave
    return total


def _flat(height: int, width: int, color: Color) -> Image:
    return np.broadcast_to(np.asarray(color, np.float32), (height, width, 3)).copy()


def _grain(rng: np.random.Generator, height: int, width: int, strength: float) -> Image:
    return rng.standard_normal((height, width), np.float32) * np.float32(strength)


def _vary(color: Color, rng: np.random.Generator, spread: float) -> Color:
    factor = 1.0 + spread * (rng.random() - 0.5)
    shifts = spread * 0.12 * (rng.random(3) - 0.5)
    red, green, blue = (min(max(c * factor + float(s), 0.02), 0.98) for c, s in zip(color, shifts, strict=True))
    return red, green, blue


def _gain(image: Image, gain: Image) -> Image:
    image *= gain[:, :, None]
    return image


def painted(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """Plain paint with roller marks, faint stains and a few hairline scratches."""
    gain = 1.0 + 0.05 * value_noise(rng, height, width, 1.5 / texel, 2) + 0.03 * value_noise(rng, height, width, 12, 2)
    image = _gain(_flat(height, width, color), gain.astype(np.float32))
    stains = np.zeros((height, width), np.float32)
    area = height * width * texel * texel
    for _ in range(int(rng.poisson(1.5 * area))):
        center = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.uniform(0.02, 0.12) / texel) + 1, int(rng.uniform(0.01, 0.06) / texel) + 1)
        cv2.ellipse(stains, center, axes, float(rng.uniform(0, 180)), 0, 360, float(rng.uniform(0.02, 0.07)), -1)
    stains = cv2.GaussianBlur(stains, (0, 0), max(1.0, 0.012 / texel))
    for _ in range(int(rng.poisson(1.0 * area))):
        start = rng.uniform(0, 1, 2) * (width, height)
        end = start + rng.normal(0, 0.08 / texel, 2)
        cv2.line(stains, _point(start), _point(end), float(rng.uniform(0.05, 0.14)), 1, cv2.LINE_AA)
    return _gain(image, 1.0 - stains)


def plain(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """Even paint or plastic: almost no contrast."""
    return _gain(_flat(height, width, color), 1.0 + 0.02 * value_noise(rng, height, width, 0.5 / texel, 2))


def plaster(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """Rough plaster: bumps of a few centimetres lit from the side."""
    bumps = value_noise(rng, height, width, 0.12 / texel, 4)
    relief = bumps - cv2.warpAffine(
        bumps, np.array([[1.0, 0.0, 2.0], [0.0, 1.0, 3.0]]), (width, height), borderMode=cv2.BORDER_REFLECT
    )
    return _gain(_flat(height, width, color), 1.0 + 0.9 * relief + 0.08 * bumps)


def concrete(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """Blotched concrete with pores."""
    gain = 1.0 + 0.28 * value_noise(rng, height, width, 0.8 / texel, 5)
    pores = (rng.random((height, width), np.float32) > 0.9985).astype(np.float32)
    pores = cv2.dilate(pores, np.ones((2, 2), np.uint8))
    return _gain(_flat(height, width, color), (gain * (1.0 - 0.4 * pores) + _grain(rng, height, width, 0.02)))


def brick(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """Running bond of 24 x 7 cm bricks, each of its own shade, pale joints."""
    length, course, joint = 0.24 / texel, 0.075 / texel, max(1.0, 0.01 / texel)
    image = _flat(height, width, (0.62, 0.6, 0.56))
    for row in range(int(height / course) + 1):
        top = row * course
        for column in range(-1, int(width / length) + 1):
            left = (column + 0.5 * (row % 2)) * length
            y0, y1 = round(top + joint / 2), round(top + course - joint / 2)
            x0, x1 = round(left + joint / 2), round(left + length - joint / 2)
            x0, y0 = max(x0, 0), max(y0, 0)
            if x1 > x0 and y1 > y0:
                image[y0:y1, x0:x1] = _vary(color, rng, 0.5)
    gain = 1.0 + 0.25 * value_noise(rng, height, width, 0.05 / texel, 3) + _grain(rng, height, width, 0.04)
    return _gain(image, gain)


def tiles(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """Square stone tiles of 30 to 45 cm, marbled, each slightly different."""
    edge, joint = rng.uniform(0.3, 0.45) / texel, max(1, round(0.006 / texel))
    veins = np.abs(value_noise(rng, height, width, 0.5 / texel, 4))
    image = _gain(_flat(height, width, color), 0.86 + 0.22 * np.minimum(veins * 2.5, 1.0))
    for row in range(int(height / edge) + 1):
        for column in range(int(width / edge) + 1):
            y0, x0 = round(row * edge), round(column * edge)
            tile = image[y0 : round((row + 1) * edge), x0 : round((column + 1) * edge)]
            tile *= np.float32(1.0 + 0.18 * (rng.random() - 0.5))
            tile[:joint] = 0.38
            tile[:, :joint] = 0.38
    return _gain(image, 1.0 + _grain(rng, height, width, 0.015))


def wood(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """Grain along the longer edge: stretched rings, fibres and a few knots."""
    along_x = width >= height
    rows, columns = (height, width) if along_x else (width, height)
    warp = value_noise(rng, rows, columns, (0.25 / texel, 1.2 / texel), 3)
    y = np.arange(rows, dtype=np.float32)[:, None] * np.float32(texel)
    for _ in range(int(rng.poisson(0.8 * rows * columns * texel * texel))):
        row, column, size = rng.uniform(0, rows), rng.uniform(0, columns), rng.uniform(0.015, 0.04) / texel
        dy = (np.arange(rows, dtype=np.float32)[:, None] - row) / size
        dx = (np.arange(columns, dtype=np.float32)[None] - column) / (2.5 * size)
        warp += np.float32(rng.choice((-1.2, 1.2))) * np.exp(-dy * dy) * np.exp(-dx * dx)
    rings = np.sin((y * 60.0 + warp * 7.0).astype(np.float32) * 2.0)
    fibres = value_noise(rng, rows, columns, (2.0, 0.12 / texel), 2)
    gain = (1.0 + 0.07 * rings + 0.22 * fibres + 0.12 * warp).astype(np.float32)
    return _gain(_flat(height, width, color), gain if along_x else np.ascontiguousarray(gain.T))


def planks(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """Floor boards 10 to 16 cm wide along x, each cut from another piece of wood."""
    board, joint = max(2, round(rng.uniform(0.1, 0.16) / texel)), max(1, round(0.003 / texel))
    source = wood(rng, board * 6, max(width, board * 12), texel, color)
    image = np.empty((height, width, 3), np.float32)
    for top in range(0, height, board):
        rows = min(board, height - top)
        left = 0
        while left < width:
            columns = min(int(rng.uniform(0.7, 1.8) / texel) + 2, width - left)
            y0, x0 = int(rng.integers(source.shape[0] - board + 1)), int(rng.integers(source.shape[1] - columns + 1))
            piece = source[y0 : y0 + rows, x0 : x0 + columns] * np.asarray(_vary((1, 1, 1), rng, 0.35), np.float32)
            piece[:, :joint] *= 0.45
            image[top : top + rows, left : left + columns] = piece
            left += columns
        image[top : top + joint] *= 0.45
    return image


def carpet(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """Looped pile: speckle on several scales."""
    gain = 1.0 + 0.25 * value_noise(rng, height, width, 0.6 / texel, 3) + 0.45 * value_noise(rng, height, width, 4, 2)
    return _gain(_flat(height, width, color), gain + _grain(rng, height, width, 0.06))


def fabric(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """Woven upholstery with folds and a random check or stripe."""
    y, x = np.arange(height, dtype=np.float32)[:, None] * texel, np.arange(width, dtype=np.float32)[None] * texel
    period = rng.uniform(0.05, 0.14)
    stripes = (np.sin(2 * np.pi * x / period) > 0.3).astype(np.float32)
    checks = (np.sin(2 * np.pi * y / period) > 0.3).astype(np.float32) * float(rng.random() < 0.5)
    pattern = np.float32(rng.uniform(0.0, 0.22)) * (stripes + checks)
    gain = 0.95 - pattern + 0.14 * value_noise(rng, height, width, 0.3 / texel, 3)
    return _gain(_flat(height, width, color), gain.astype(np.float32) + _grain(rng, height, width, 0.035))


def rug(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """Bordered rug with a mirrored medallion pattern."""
    image = carpet(rng, height, width, texel, color)
    half_h, half_w = (height + 1) // 2, (width + 1) // 2
    quarter = np.ones((half_h, half_w, 3), np.float32)
    for _ in range(34):
        tone = tuple(float(v) for v in rng.uniform(0.35, 1.7, 3))
        center, radius = rng.uniform(0, 1, 2) * (half_w, half_h), rng.uniform(0.03, 0.16) / texel
        corners = center + radius * _regular_polygon(int(rng.integers(3, 9)), rng.uniform(0, 3))
        cv2.fillPoly(quarter, [corners.astype(np.int32)], tone)
    for inset, tone in ((0.03, 0.5), (0.06, 1.5), (0.08, 0.6), (0.16, 1.3)):
        k = round(inset / texel)
        cv2.rectangle(quarter, (k, k), (half_w * 2, half_h * 2), (tone, tone * 0.9, tone * 0.8), max(1, k // 4))
    top = np.concatenate([quarter, quarter[:, ::-1]], axis=1)
    image *= np.concatenate([top, top[::-1]], axis=0)[:height, :width]
    return image


def wallpaper(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """Repeated ornament on paper; ink strength varies so that no two repeats are the same pixels."""
    size = max(8, round(rng.uniform(0.2, 0.5) / texel))
    motif = np.zeros((size, size), np.float32)
    for _ in range(int(rng.integers(3, 7))):
        center, radius = rng.uniform(0.2, 0.8, 2) * size, rng.uniform(0.06, 0.24) * size
        angle = float(rng.uniform(0, 360))
        if rng.random() < 0.5:
            axes = (max(1, int(radius)), max(1, int(radius * rng.uniform(0.2, 0.8))))
            cv2.ellipse(motif, _point(center), axes, angle, 0, 360, float(rng.uniform(-1, 1)), -1, cv2.LINE_AA)
        else:
            corners = center + radius * _regular_polygon(int(rng.integers(3, 7)), angle)
            cv2.fillPoly(motif, [corners.astype(np.int32)], float(rng.uniform(-1, 1)), cv2.LINE_AA)
    motif = np.maximum(motif, motif[:, ::-1]) if rng.random() < 0.6 else motif
    if rng.random() < 0.4:
        motif[:, : max(1, size // 12)] = 0.8
    rows, columns = height // size + 2, width // size + 2
    pattern = np.tile(motif, (rows, columns))[:height, :width]
    ink = 0.16 * (1.0 + 1.2 * value_noise(rng, height, width, 0.7 / texel, 3))
    return _gain(painted(rng, height, width, texel, color), (1.0 - pattern * ink).astype(np.float32))


def foliage(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """Dense leaves over a dark ground."""
    image = _flat(height, width, (0.05, 0.08, 0.04))
    for _ in range(int(min(900, 60 + 900 * height * width * texel * texel))):
        center = _point(rng.uniform(0, 1, 2) * (width, height))
        length = rng.uniform(0.02, 0.06) / texel
        axes = (max(1, int(length)), max(1, int(length * rng.uniform(0.25, 0.5))))
        cv2.ellipse(image, center, axes, float(rng.uniform(0, 180)), 0, 360, _vary(color, rng, 0.9), -1)
    return image


def glow(rng: np.random.Generator, height: int, width: int, texel: float, color: Color) -> Image:
    """A lamp shade, brightest in the middle."""
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)[None]
    return _gain(_flat(height, width, color), (1.0 - 0.18 * (x * x + y * y)).astype(np.float32))


def _point(position: NDArray[np.float64]) -> tuple[int, int]:
    return int(position[0]), int(position[1])


def _regular_polygon(corners: int, phase: float) -> NDArray[np.float64]:
    angles = phase + np.arange(corners) * 2 * np.pi / corners
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


Painter = Callable[[np.random.Generator, int, int, float, Color], Image]

SURFACES: dict[str, Painter] = {
    painter.__name__: painter
    for painter in (
        painted,
        plain,
        plaster,
        concrete,
        brick,
        tiles,
        wood,
        planks,
        carpet,
        fabric,
        rug,
        wallpaper,
        foliage,
        glow,
    )
}
