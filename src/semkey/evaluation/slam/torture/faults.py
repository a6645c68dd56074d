"""Faults of single frames: what is done to an image and its depth."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from semkey.evaluation.slam.torture.edited import Depth, Edit, Image

_GREY = 118


def black(image: Image, depth: Depth, rng: np.random.Generator) -> tuple[Image, Depth]:
    """The image is black; the depth stays."""
    return np.zeros_like(image), depth


def noise(levels: int) -> Edit:
    """Uniform noise below ``levels`` grey levels instead of the image; the depth stays."""

    def edit(image: Image, depth: Depth, rng: np.random.Generator) -> tuple[Image, Depth]:
        return rng.integers(0, levels, image.shape, dtype=np.uint8), depth

    return edit


def salt(share: float) -> Edit:
    """White pixels, so many of all."""

    def edit(image: Image, depth: Depth, rng: np.random.Generator) -> tuple[Image, Depth]:
        image[rng.random(image.shape[:2]) < share] = 255
        return image, depth

    return edit


def exposure(factor: float) -> Edit:
    """So many times the light; what exceeds 255 is clipped."""

    def edit(image: Image, depth: Depth, rng: np.random.Generator) -> tuple[Image, Depth]:
        return np.clip(image * factor, 0, 255).astype(np.uint8), depth

    return edit


def letterbox(share: float) -> Edit:
    """Black bars above and below, so much of the height altogether; no depth there."""

    def edit(image: Image, depth: Depth, rng: np.random.Generator) -> tuple[Image, Depth]:
        rows = round(image.shape[0] * share / 2)
        for array in (image, depth):
            array[:rows] = 0
            array[-rows:] = 0
        return image, depth

    return edit


def covered(share: float, *, textured: bool) -> Edit:
    """The left part of the view is covered, by grey or by a fixed picture, and the depth is that of the room."""

    def edit(image: Image, depth: Depth, rng: np.random.Generator) -> tuple[Image, Depth]:
        columns = round(image.shape[1] * share)
        image[:, :columns] = texture(image.shape[0], columns, seed=1) if textured else _GREY
        return image, depth

    return edit


def occluded(share: float, *, distance: float = 0.6, shift: tuple[float, float] = (0.0, 0.0)) -> Edit:
    """A textured thing fills a share of the view, ``distance`` metres away, with its own depth.

    Args:
        share: of the image's area.
        distance: metres.
        shift: of its middle from that of the image, as shares of the width and height.
    """

    def edit(image: Image, depth: Depth, rng: np.random.Generator) -> tuple[Image, Depth]:
        rows, columns = image.shape[:2]
        high, wide = round(rows * share**0.5), round(columns * share**0.5)
        top = round((rows - high) / 2 + shift[1] * rows)
        left = round((columns - wide) / 2 + shift[0] * columns)
        picture = texture(high, wide, seed=2)
        inside = np.s_[max(top, 0) : max(top + high, 0), max(left, 0) : max(left + wide, 0)]
        target = image[inside]
        # What leaves the image on the left or at the top is cut off there.
        cut = picture[max(-top, 0) :, max(-left, 0) :][: target.shape[0], : target.shape[1]]
        target[:] = cut
        depth[inside] = distance + rng.normal(0, 0.002, target.shape[:2]).astype(np.float32)
        return image, depth

    return edit


def depth_becomes(change: Callable[[Depth, np.random.Generator], Depth]) -> Edit:
    """Only the depth is changed."""

    def edit(image: Image, depth: Depth, rng: np.random.Generator) -> tuple[Image, Depth]:
        return image, change(depth, rng).astype(np.float32)

    return edit


def texture(rows: int, columns: int, *, seed: int) -> Image:
    """A picture (rows, columns, 3) full of corners at several scales."""
    rng = np.random.default_rng([seed, rows, columns])
    total = np.zeros((rows, columns, 3), np.float32)
    for size, weight in ((4, 0.25), (12, 0.35), (40, 0.4)):
        coarse = rng.random((rows // size + 2, columns // size + 2, 3), dtype=np.float32)
        total += weight * cv2.resize(coarse, (columns, rows), interpolation=cv2.INTER_NEAREST)
    return (255 * total).astype(np.uint8)
