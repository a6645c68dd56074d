"""Drawn pictures of polygons, checkerboards, junctions and dots whose corners and centres are known exactly.

The idea is SuperPoint's synthetic shapes (DeTone et al. 2018, section 4), with area-sampled edges so that positions
hold to a few hundredths of a pixel. Pixel centres are at integers.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.training.data.config import DataConfig
from semkey.training.data.pair import Pair
from semkey.training.data.planar import Picture, planar_pair

Array = NDArray[np.float64]
Box = tuple[int, int, int, int]

FACTOR = 3
"""Samples per pixel in x and y."""
LEAST_CONTRAST = 12
"""A keypoint whose 7x7 surroundings span fewer grey levels cannot be seen and does not count."""


class ShapePairs:
    """Endless pairs of drawn pictures; their targets are the corners and centres, all of strength 1.

    Args:
        config: of all data.
        seed: pair ``index`` depends on this and the index alone.
        colors: the views are needed in colour as well; they are grey all the same.
    """

    def __init__(self, config: DataConfig, seed: tuple[int, ...], *, colors: bool = False) -> None:
        self._config, self._seed, self._colors = config, seed, colors

    def __getitem__(self, index: int) -> Pair:
        rng = np.random.default_rng([*self._seed, index])
        while True:  # the picture is larger than what a view shows: nearly every draw is good
            image, keypoints = draw_shapes(rng)
            strengths = np.ones(len(keypoints), np.float32)
            if self._colors:
                image = np.repeat(image[..., None], 3, axis=2)
            picture = Picture(image=image, keypoints=keypoints, strengths=strengths, is_scene=False)
            pair = planar_pair(rng, picture, self._config)
            if pair is not None:
                return pair


class Canvas:
    """A grey picture and the keypoints that are visible in it."""

    def __init__(self, rng: np.random.Generator, width: int, height: int) -> None:
        self.rng = rng
        self.size = (width, height)
        x, y = np.meshgrid(np.linspace(-1, 1, width), np.linspace(-1, 1, height))
        level, slope = rng.uniform(40, 215), rng.uniform(-40, 40, 2)
        self.image = (level + slope[0] * x + slope[1] * y).astype(np.float32)
        self.keypoints = np.zeros((0, 2))

    def gray(self) -> float:
        """A random grey value."""
        return float(self.rng.uniform(0, 255))

    def paint(self, box: Box, cover: NDArray[np.float32], value: NDArray[np.float32] | float) -> None:
        """Blend ``value`` into the box x0 y0 x1 y1 by coverage in [0, 1]; keypoints under it vanish."""
        x0, y0, x1, y1 = box
        part = self.image[y0:y1, x0:x1]
        self.image[y0:y1, x0:x1] = part + cover * (value - part)
        if len(self.keypoints):
            margin = cv2.dilate((cover > 0).astype(np.uint8), np.ones((7, 7), np.uint8)) > 0
            hidden = np.zeros(self.image.shape, bool)
            hidden[y0:y1, x0:x1] = margin
            pixels = np.rint(self.keypoints).astype(int)
            self.keypoints = self.keypoints[~hidden[pixels[:, 1], pixels[:, 0]]]

    def add_keypoints(self, points: Array) -> None:
        """Add the points that lie inside the picture."""
        inside = ((points >= 2) & (points <= np.array(self.size) - 3)).all(axis=1)
        self.keypoints = np.concatenate([self.keypoints, points[inside]])

    def samples(self, points: Array, margin: float) -> tuple[Box, Array, Array] | None:
        """Box around points, clipped to the picture, and its sample positions x (1, w F), y (h F, 1); None: outside."""
        low = np.maximum(np.floor(points.min(axis=0) - margin), 0).astype(int)
        high = np.minimum(np.ceil(points.max(axis=0) + margin) + 1, self.size).astype(int)
        if (high - low < 2).any():
            return None
        x, y = (low[i] - 0.5 + (np.arange((high[i] - low[i]) * FACTOR) + 0.5) / FACTOR for i in (0, 1))
        return (int(low[0]), int(low[1]), int(high[0]), int(high[1])), x[None, :], y[:, None]


def area_mean(samples: NDArray[Any]) -> NDArray[np.float32]:
    """(h F, w F) samples -> (h, w) means per pixel."""
    height, width = samples.shape[0] // FACTOR, samples.shape[1] // FACTOR
    # Rows first: adding whole rows is many times faster than a mean over two small axes.
    rows = samples.reshape(height, FACTOR, width * FACTOR).sum(axis=1, dtype=np.float32)
    return rows.reshape(height, width, FACTOR).sum(axis=2) / np.float32(FACTOR**2)


def add_polygon(canvas: Canvas) -> None:
    """A convex polygon with 3 to 6 corners."""
    rng = canvas.rng
    corners = int(rng.integers(3, 7))
    angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
    gaps = np.diff(np.append(angles, angles[0] + 2 * np.pi))
    if gaps.min() < 0.5 or gaps.max() > 2.6:
        return
    axes, turn = rng.uniform(12, 110, 2), rng.uniform(0, np.pi)
    ring = np.stack([np.cos(angles), np.sin(angles)], axis=1) * axes
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = ring @ rotation.T + rng.uniform([0, 0], canvas.size)
    found = canvas.samples(points, 1.0)
    if found is None:
        return
    box, x, y = found
    inside = np.ones((y.size, x.size), bool)
    for start, end in zip(points, np.roll(points, -1, axis=0), strict=True):
        edge = end - start
        inside &= edge[0] * (y - start[1]) >= edge[1] * (x - start[0])
    canvas.paint(box, area_mean(inside), canvas.gray())
    canvas.add_keypoints(points)


def add_checkerboard(canvas: Canvas) -> None:
    """A checkerboard in perspective with random grey values of its squares."""
    rng = canvas.rng
    rows, columns = (int(n) for n in rng.integers(2, 9, 2))
    square = rng.uniform(10, 34)
    center, angle = rng.uniform([0, 0], canvas.size), rng.uniform(0, 2 * np.pi)
    outline = np.array([[0, 0], [columns, 0], [columns, rows], [0, rows]], dtype=np.float32)
    rotation = square * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    placed = (outline - [columns / 2, rows / 2]) @ rotation.T * rng.uniform(0.7, 1.0, 2) + center
    placed = (placed + rng.uniform(-0.3, 0.3, (4, 2)) * square).astype(np.float32)
    H = cv2.getPerspectiveTransform(outline, placed)
    found = canvas.samples(placed.astype(np.float64), 1.0)
    if found is None:
        return
    box, x, y = found
    # From the box's corner on, where single precision is good for a ten-thousandth of a pixel.
    back = np.linalg.inv(H) @ np.array([[1.0, 0.0, box[0]], [0.0, 1.0, box[1]], [0.0, 0.0, 1.0]])
    across, along = (x - box[0]).astype(np.float32), (y - box[1]).astype(np.float32)
    u, v, w = (row[0] * across + (row[1] * along + row[2]) for row in back.astype(np.float32))
    inside = (u >= 0) & (u < columns * w) & (v >= 0) & (v < rows * w)
    dark, bright = rng.uniform(0, 110), rng.uniform(140, 255)
    parity = np.add.outer(np.arange(rows), np.arange(columns)) % 2
    grays = np.where(parity == 1, bright, dark) + rng.uniform(-25, 25, (rows, columns))
    cells = (v[inside] / w[inside]).astype(np.intp) * columns + (u[inside] / w[inside]).astype(np.intp)
    values = np.zeros(inside.shape, np.float32)
    values[inside] = grays.astype(np.float32).ravel().take(cells, mode="clip")
    cover = area_mean(inside)
    canvas.paint(box, cover, area_mean(values) / np.maximum(cover, np.float32(1e-6)))
    ticks = np.stack(np.meshgrid(np.arange(columns + 1), np.arange(rows + 1)), axis=-1).reshape(-1, 2)
    mapped = np.c_[ticks, np.ones(len(ticks))] @ H.T
    canvas.add_keypoints(mapped[:, :2] / mapped[:, 2:])


def add_junction(canvas: Canvas) -> None:
    """Two to five edges that meet in a point and fade out around it: L, Y, X and beyond."""
    rng = canvas.rng
    center, radius = rng.uniform([4, 4], np.array(canvas.size) - 5), rng.uniform(14, 36)
    found = canvas.samples(center[None], radius + 1)
    sectors = int(rng.integers(2, 6))
    angles = np.sort(rng.uniform(0, 2 * np.pi, sectors))
    gaps = np.diff(np.append(angles, angles[0] + 2 * np.pi))
    if found is None or gaps.min() < 0.5 or (sectors == 2 and abs(gaps[0] - np.pi) < 0.5):
        return
    box, x, y = found
    across, along = x - center[0], y - center[1]
    grays = _distinct_grays(rng, sectors)
    sector = np.searchsorted(angles, np.arctan2(along, across) % (2 * np.pi)) % sectors
    distance = np.hypot(across, along) / radius
    cover = np.clip(2.0 - 2.0 * distance, 0.0, 1.0)
    canvas.paint(box, area_mean(cover), area_mean(grays[sector]))
    canvas.add_keypoints(center[None])


def _distinct_grays(rng: np.random.Generator, count: int) -> Array:
    """Grey values of sectors in turn; neighbours differ by 30 at least."""
    while True:
        grays = rng.uniform(0, 255, count)
        if np.abs(grays - np.roll(grays, 1)).min() >= 30:
            return grays


def add_dots(canvas: Canvas) -> None:
    """A few round spots, each a keypoint at its centre."""
    rng = canvas.rng
    for _ in range(int(rng.integers(2, 12))):
        center, radius = rng.uniform([4, 4], np.array(canvas.size) - 5), rng.uniform(1.2, 4.0)
        found = canvas.samples(center[None], radius + 2)
        if found is None:
            continue
        box, x, y = found
        canvas.paint(box, area_mean((x - center[0]) ** 2 + (y - center[1]) ** 2 <= radius**2), canvas.gray())
        canvas.add_keypoints(center[None])


def draw_shapes(rng: np.random.Generator, width: int = 480, height: int = 400) -> tuple[NDArray[np.uint8], Array]:
    """A synthetic picture.

    Args:
        rng: the only source of randomness.
        width: pixels.
        height: pixels.

    Returns:
        The grey picture (height, width) uint8 and its keypoints (N, 2) float64, pixels x y.
    """
    canvas = Canvas(rng, width, height)
    makers = [add_polygon, add_polygon, add_checkerboard, add_junction, add_junction, add_dots]
    for _ in range(int(rng.integers(10, 28))):
        makers[int(rng.integers(len(makers)))](canvas)
    image = np.clip(np.rint(canvas.image), 0, 255).astype(np.uint8)
    window = np.ones((7, 7), np.uint8)
    contrast = cv2.subtract(cv2.dilate(image, window), cv2.erode(image, window))
    pixels = np.rint(canvas.keypoints).astype(int)
    return image, canvas.keypoints[contrast[pixels[:, 1], pixels[:, 0]] >= LEAST_CONTRAST]
