"""The images that the kind ``speed`` extracts from: a user's own, cropped and resized, or a synthetic texture."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.errors import ConfigError
from semkey.images.reading import read_image

Size = tuple[int, int]

MAX_IMAGES = 8
"""Taken from a folder, evenly spaced: enough that no cache of a method holds one answer."""


def speed_images(paths: Sequence[Path], size: Size, *, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Images of exactly ``size``: the middle of each file with that aspect, resized; without files two synthetic ones.

    Args:
        paths: image files.
        size: (width, height) pixels, at least 32 each.
        seed: of the synthetic texture.

    Returns:
        uint8 (H, W, 3) RGB, one per path, or two views of a synthetic texture.

    Raises:
        ConfigError: a side is under 32 pixels.
        InputError: a file cannot be read.
    """
    if min(size) < 32:
        raise ConfigError(f"size {size[0]}x{size[1]} is too small to measure: 32 pixels or more on each side")
    if not paths:
        return list(synthetic_views(size, seed=seed))
    return [fitted(read_image(path), size) for path in paths]


def fitted(image: NDArray[np.uint8], size: Size) -> NDArray[np.uint8]:
    """The largest middle part of ``image`` with the aspect of ``size`` (width, height), resized to it."""
    height, width = image.shape[:2]
    scale = min(width / size[0], height / size[1])
    crop_width, crop_height = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    crop = image[top : top + crop_height, left : left + crop_width]
    method = cv2.INTER_AREA if scale >= 1 else cv2.INTER_CUBIC
    return np.ascontiguousarray(cv2.resize(crop, size, interpolation=method), dtype=np.uint8)


def synthetic_views(size: Size, *, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Two views of one plane covered with polygons and smooth noise: more corners than any method is asked for.

    The number of polygons grows with the area, so that a larger image holds more structure and not a larger copy of it.
    The second view is turned by 8 degrees and 10 % larger, so that there is something to match.
    """
    rng = np.random.default_rng(seed)
    width, height = size
    canvas_width, canvas_height = round(1.3 * width), round(1.3 * height)
    canvas = np.full((canvas_height, canvas_width, 3), 128, dtype=np.uint8)
    for _ in range(canvas_width * canvas_height // 500):
        corners = rng.integers(3, 7)
        angles = np.sort(rng.uniform(0, 2 * np.pi, corners))
        radius = 4 + rng.exponential(12.0)
        centre = rng.uniform((0, 0), (canvas_width, canvas_height))
        points = centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        color = tuple(int(value) for value in rng.integers(0, 256, 3))
        cv2.fillPoly(canvas, [np.round(16 * points).astype(np.int32)], color, cv2.LINE_AA, 4)
    noise = sum(_octave(rng, canvas_width, canvas_height, cell) for cell in (64, 16, 4, 1))
    textured = np.clip(canvas.astype(np.float32) * 0.8 + 25 + 6 * np.asarray(noise)[:, :, None], 0, 255)
    views = []
    for angle, scale in ((0.0, 1.0), (8.0, 1.1)):
        matrix = cv2.getRotationMatrix2D((canvas_width / 2 - 0.5, canvas_height / 2 - 0.5), angle, scale)
        shift = np.array([[0, 0, (width - canvas_width) / 2], [0, 0, (height - canvas_height) / 2]])
        view = cv2.warpAffine(textured, matrix + shift, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        views.append(np.round(view).astype(np.uint8))
    return views[0], views[1]


def _octave(rng: np.random.Generator, width: int, height: int, cell: int) -> NDArray[np.float32]:
    grid = rng.standard_normal((height // cell + 2, width // cell + 2), dtype=np.float32)
    return np.asarray(cv2.resize(grid, (width, height), interpolation=cv2.INTER_CUBIC), dtype=np.float32)
