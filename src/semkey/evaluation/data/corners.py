"""Images of corners and blobs whose sub-pixel positions are known exactly.

Each pattern lies in the middle of a 64x64 tile of a grey image, at a random sub-pixel position. It has its full
contrast within 12 px and fades out smoothly until 26 px, so that its edges end without corners of their own; its mean
over all directions is the grey of the background, so that it is no blob at a large scale.

A pixel is the mean, over its area, of the scene blurred by a Gaussian (the optics), plus noise, in 8 bits. The scene is
sampled 8x8 times per pixel; blur and area mean are one linear map, exact but for that sampling.

What counts as the true position:

- ``l-corner``: the apex of the wedge before blur. Blur rounds the apex and moves the point of largest cornerness along
  the bisector; that drift is part of the error on purpose, since it differs between views.
- ``x-junction``: where the two edges cross. The pattern is symmetric about that point, blurred or not.
- ``y-junction``: where three edges meet that part three grey levels, as at the corner of a box, before blur.
- ``blob``: the centre of an elliptic Gaussian spot, brighter or darker than the background.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf

from semkey.errors import ConfigError
from semkey.settings import Settings

TILE_PX = 64
SAMPLES_PER_PIXEL = 8
FULL_CONTRAST_RADIUS_PX, FADED_RADIUS_PX = 12.0, 26.0
BACKGROUND = 0.5
"""Grey level in [0, 1] around the patterns."""
OPENING_DEG = (45.0, 135.0)
"""Of the wedge of an L-corner, and between the edges of an X-junction."""
Y_SECTOR_DEG = (70.0, 165.0)
"""Of each of the three sectors of a Y-junction."""
BLOB_SIGMA_PX = (1.5, 4.0)
BLOB_AXIS_RATIO = (0.6, 1.0)
_MAX_SHIFT_PX = 3.0

Plane = NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class RenderingConfig(Settings):
    """How the images are made; ranges are drawn from uniformly, per corner.

    Attributes:
        width: of an image, pixels, at least two tiles.
        height: of an image, pixels, at least two tiles.
        blur_px: range of the Gaussian blur's standard deviation, pixels, >= 0.
        contrast: range of the difference between a pattern's extreme grey levels, in (0, 0.55], of a range of 1.
        noise: standard deviation of Gaussian noise, of a grey range of 1.

    Raises:
        ConfigError: a value is out of range.
    """

    width: int = 640
    height: int = 480
    blur_px: tuple[float, float] = (0.4, 1.0)
    contrast: tuple[float, float] = (0.2, 0.5)
    noise: float = 0.01

    def __post_init__(self) -> None:
        # Two tiles each way, so that there is a flat place between four of them.
        if min(self.width, self.height) < 2 * TILE_PX:
            raise ConfigError(f"an image of corners has at least {2 * TILE_PX}x{2 * TILE_PX} pixels")
        if not 0 <= self.blur_px[0] <= self.blur_px[1] <= 3:
            raise ConfigError(f"blur_px is a range within [0, 3] pixels, got {self.blur_px}")
        # The wedge of an L-corner differs from the background by up to 7/8 of the contrast; it must not saturate.
        if not 0 < self.contrast[0] <= self.contrast[1] <= 0.55:
            raise ConfigError(f"contrast is a range within (0, 0.55], got {self.contrast}")
        if not 0 <= self.noise <= 0.2:
            raise ConfigError(f"noise lies in [0, 0.2], got {self.noise}")

    @property
    def tiles(self) -> tuple[int, int]:
        """Columns and rows of tiles in an image."""
        return self.width // TILE_PX, self.height // TILE_PX


@dataclass(frozen=True, kw_only=True, eq=False)
class CornerImage:
    """An image with one pattern per tile.

    Attributes:
        image: (H, W, 3) uint8 RGB, grey.
        positions: (N, 2) float64 true positions ``x y``, pixel centres at integers.
        axes: (N, 2) float64 unit vectors along the pattern's own axis: from an L-corner's apex into the wedge, from a
            Y-junction's centre along the bisector of its narrowest sector; NaN where a pattern has no such direction.
        groups: per pattern ``bright`` or ``dark`` (the wedge of an L-corner, the blob); empty where there are none.
        decoys: (M, 2) float64 places on the flat background, as far from the patterns as there are.
    """

    image: NDArray[np.uint8]
    positions: NDArray[np.float64]
    axes: NDArray[np.float64]
    groups: tuple[str, ...]
    decoys: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Scene:
    """A pattern around the origin: ``draw(x, y)`` gives its grey level relative to the background."""

    draw: Callable[[Plane, Plane], Plane]
    axis: tuple[float, float] = (np.nan, np.nan)
    group: str = ""


def corner_images(pattern: str, *, count: int, seed: int, config: RenderingConfig | None = None) -> list[CornerImage]:
    """Images that hold ``count`` corners of one pattern together.

    Corner ``i`` depends on the pattern, the seed and ``i`` only: a larger count adds corners and changes none.

    Args:
        pattern: one of :data:`PATTERNS`.
        count: corners, >= 1.
        seed: >= 0.
        config: how to render; default :class:`RenderingConfig`.

    Raises:
        ConfigError: an unknown pattern, or a count below 1.
    """
    if pattern not in PATTERNS:
        raise ConfigError(f"pattern '{pattern}' is unknown; choose one of {', '.join(PATTERNS)}")
    if count < 1:
        raise ConfigError(f"the number of corners must be at least 1, got {count}")
    config = config or RenderingConfig()
    columns, rows = config.tiles
    per_image = columns * rows
    return [
        _image(pattern, range(first, min(first + per_image, count)), seed, config)
        for first in range(0, count, per_image)
    ]


def _image(pattern: str, indices: range, seed: int, config: RenderingConfig) -> CornerImage:
    columns, rows = config.tiles
    left, top = (config.width - columns * TILE_PX) // 2, (config.height - rows * TILE_PX) // 2
    canvas = np.full((config.height, config.width), BACKGROUND, dtype=np.float32)
    positions, axes, groups = [], [], []
    key = zlib.crc32(pattern.encode())
    for tile, index in enumerate(indices):
        rng = np.random.default_rng([seed, key, index])
        x0, y0 = left + TILE_PX * (tile % columns), top + TILE_PX * (tile // columns)
        place = (TILE_PX - 1) / 2 + rng.uniform(-_MAX_SHIFT_PX, _MAX_SHIFT_PX, 2)
        scene = PATTERNS[pattern](rng, float(rng.uniform(*config.contrast)))
        canvas[y0 : y0 + TILE_PX, x0 : x0 + TILE_PX] += _render(scene.draw, place, float(rng.uniform(*config.blur_px)))
        positions.append(place + np.array([x0, y0]))
        axes.append(scene.axis)
        groups.append(scene.group)
    # A stream of its own: the corners stay the same whatever is drawn here.
    noise = np.random.default_rng([seed, key, indices.start, 1])
    canvas += config.noise * noise.standard_normal(canvas.shape, dtype=np.float32)
    gray = np.round(255 * np.clip(canvas, 0, 1)).astype(np.uint8)
    lattice_x = left + TILE_PX * np.arange(1, columns) - 0.5
    lattice_y = top + TILE_PX * np.arange(1, rows) - 0.5
    return CornerImage(
        image=np.repeat(gray[:, :, None], 3, axis=2),
        positions=np.array(positions),
        axes=np.array(axes),
        groups=tuple(groups),
        decoys=np.stack(np.meshgrid(lattice_x, lattice_y), axis=-1).reshape(-1, 2),
    )


def _render(draw: Callable[[Plane, Plane], Plane], place: NDArray[np.float64], blur_px: float) -> Plane:
    """One tile (64, 64), relative to the background, with the pattern's origin at ``place`` (x, y)."""
    fine = (np.arange(TILE_PX * SAMPLES_PER_PIXEL) + 0.5) / SAMPLES_PER_PIXEL - 0.5
    x = (fine - place[0]).astype(np.float32)[None, :]
    y = (fine - place[1]).astype(np.float32)[:, None]
    scene = draw(x, y) * _fade(x, y)
    sampling = _sampling_matrix(fine, blur_px)
    return sampling @ scene @ sampling.T


def _fade(x: Plane, y: Plane) -> Plane:
    """1 near the origin, then half a cosine down to 0."""
    radius = np.sqrt(x * x + y * y)
    share = np.clip((radius - FULL_CONTRAST_RADIUS_PX) / (FADED_RADIUS_PX - FULL_CONTRAST_RADIUS_PX), 0, 1)
    return 0.5 + 0.5 * np.cos(np.float32(np.pi) * share)


def _sampling_matrix(fine: NDArray[np.float64], blur_px: float) -> Plane:
    """(64, 512): weights with which the fine samples of a line make its pixels.

    A Gaussian blur followed by the mean over a pixel weighs a point at distance u from the pixel's centre by
    ``(erf((u + 0.5) / (sqrt(2) s)) - erf((u - 0.5) / (sqrt(2) s))) / 2``.
    """
    distance = fine[None, :] - np.arange(TILE_PX)[:, None]
    scale = np.sqrt(2.0) * max(blur_px, 1e-6)
    weights = erf((distance + 0.5) / scale) - erf((distance - 0.5) / scale)
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)


def _left_of(angle: float, x: Plane, y: Plane) -> NDArray[np.bool_]:
    """Points on the side of the ray's line that larger angles lie on."""
    return np.float32(np.cos(angle)) * y > np.float32(np.sin(angle)) * x


def _l_corner(rng: np.random.Generator, contrast: float) -> _Scene:
    opening = np.radians(rng.uniform(*OPENING_DEG))
    bisector = rng.uniform(0, 2 * np.pi)
    is_bright = bool(rng.integers(2))
    share = opening / (2 * np.pi)
    height = contrast if is_bright else -contrast

    def draw(x: Plane, y: Plane) -> Plane:
        inside = _left_of(bisector - opening / 2, x, y) & ~_left_of(bisector + opening / 2, x, y)
        return np.float32(height) * (inside - np.float32(share))

    axis = (float(np.cos(bisector)), float(np.sin(bisector)))
    return _Scene(draw=draw, axis=axis, group="bright" if is_bright else "dark")


def _x_junction(rng: np.random.Generator, contrast: float) -> _Scene:
    opening = np.radians(rng.uniform(*OPENING_DEG))
    first = rng.uniform(0, 2 * np.pi)
    share = opening / np.pi

    def draw(x: Plane, y: Plane) -> Plane:
        inside = _left_of(first, x, y) ^ _left_of(first + opening, x, y)
        return np.float32(contrast) * (inside - np.float32(share))

    return _Scene(draw=draw)


def _y_junction(rng: np.random.Generator, contrast: float) -> _Scene:
    low, high = np.radians(Y_SECTOR_DEG)
    while True:
        sectors = low + (2 * np.pi - 3 * low) * rng.dirichlet([1.0, 1.0, 1.0])
        if sectors.max() <= high:
            break
    rays = rng.uniform(0, 2 * np.pi) + np.concatenate([[0.0], np.cumsum(sectors)])
    # The middle level keeps a third of the contrast from both others, so that all three edges can be seen.
    levels = rng.permutation([0.0, rng.uniform(1 / 3, 2 / 3), 1.0])
    levels = contrast * (levels - float(levels @ sectors) / (2 * np.pi))
    narrowest = int(np.argmin(sectors))
    bisector = rays[narrowest] + sectors[narrowest] / 2

    def draw(x: Plane, y: Plane) -> Plane:
        total = np.zeros((y.shape[0], x.shape[1]), dtype=np.float32)
        for index in range(3):
            # No sector reaches 180 degrees, so it is where two half-planes overlap.
            inside = _left_of(rays[index], x, y) & ~_left_of(rays[index + 1], x, y)
            total += np.float32(levels[index]) * inside
        return total

    return _Scene(draw=draw, axis=(float(np.cos(bisector)), float(np.sin(bisector))))


def _blob(rng: np.random.Generator, contrast: float) -> _Scene:
    major = rng.uniform(*BLOB_SIGMA_PX)
    minor = major * rng.uniform(*BLOB_AXIS_RATIO)
    angle = rng.uniform(0, np.pi)
    is_bright = bool(rng.integers(2))
    height = contrast if is_bright else -contrast
    cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))

    def draw(x: Plane, y: Plane) -> Plane:
        along = (cosine * x + sine * y) / np.float32(major)
        across = (cosine * y - sine * x) / np.float32(minor)
        return np.float32(height) * np.exp(-0.5 * (along * along + across * across))

    return _Scene(draw=draw, group="bright" if is_bright else "dark")


PATTERNS: dict[str, Callable[[np.random.Generator, float], _Scene]] = {
    "l-corner": _l_corner,
    "x-junction": _x_junction,
    "y-junction": _y_junction,
    "blob": _blob,
}
"""Pattern names, in the order of reports."""
