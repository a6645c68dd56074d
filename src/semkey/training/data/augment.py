"""Photometric change of a training view: shadow, light across the image, tone, blur, noise, JPEG. Nothing moves."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.training.data.config import LightConfig

View = NDArray[np.uint8]


def relight(rng: np.random.Generator, image: View, config: LightConfig) -> View:
    """The view (H, W) or (H, W, 3) uint8 as it might look under other light and through another camera.

    In this order: shadow, gradient, tone curve, contrast and level, Gaussian or motion blur, noise, JPEG. All blur
    kernels are point-symmetric, so that no position changes.
    """
    view = image.astype(np.float32) / np.float32(255.0)
    if rng.random() < config.shadow:
        view *= _spread(_shadow(rng, view.shape[:2]), view)
    if rng.random() < config.gradient:
        view *= _spread(_gradient(rng, view.shape[:2]), view)
    view = np.clip(view, 0, 1) ** np.float32(np.exp(rng.uniform(-config.gamma, config.gamma)))
    contrast, level = rng.uniform(*config.contrast), rng.uniform(-config.level, config.level)
    view = (view - np.float32(0.5)) * np.float32(contrast) + np.float32(0.5 + level)
    chance = rng.random()
    if chance < config.blur:
        view = cv2.GaussianBlur(view, (0, 0), rng.uniform(*config.blur_px))
    elif chance < config.blur + config.motion_blur:
        kernel = motion_kernel(rng.uniform(*config.motion_px), rng.uniform(0.0, np.pi))
        view = cv2.filter2D(view, -1, kernel, borderType=cv2.BORDER_REFLECT_101)
    if rng.random() < config.noise:
        sigma = np.float32(rng.uniform(0.05, 1.0) * config.noise_level)
        view = view + sigma * rng.standard_normal(view.shape, dtype=np.float32)
    pixels = np.rint(np.clip(view, 0, 1) * np.float32(255.0)).astype(np.uint8)
    if rng.random() < config.jpeg:
        quality = int(rng.integers(config.jpeg_quality[0], config.jpeg_quality[1] + 1))
        _, code = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
        flags = cv2.IMREAD_GRAYSCALE if view.ndim == 2 else cv2.IMREAD_COLOR
        pixels = np.asarray(cv2.imdecode(code, flags), dtype=np.uint8)
    return pixels


def _spread(factor: NDArray[np.float32], view: NDArray[np.float32]) -> NDArray[np.float32]:
    """A factor per pixel (H, W) in the shape that multiplies a view."""
    return factor if view.ndim == 2 else factor[..., None]


def motion_kernel(length: float, angle: float) -> NDArray[np.float32]:
    """Point-symmetric kernel of a straight motion.

    Args:
        length: pixels, > 0.
        angle: radians, from the x axis.

    Returns:
        (n, n) float32 with odd n, sum 1, centre of mass in the middle.
    """
    half = int(np.ceil(length / 2)) + 1
    kernel = np.zeros((2 * half + 1, 2 * half + 1), np.float64)
    steps = np.linspace(-length / 2, length / 2, max(5, 4 * int(np.ceil(length)) + 1))
    x, y = half + steps * np.cos(angle), half + steps * np.sin(angle)
    left, top = np.floor(x).astype(int), np.floor(y).astype(int)
    right, lower = x - left, y - top
    for dx, dy, weight in (
        (0, 0, (1 - right) * (1 - lower)),
        (1, 0, right * (1 - lower)),
        (0, 1, (1 - right) * lower),
        (1, 1, right * lower),
    ):
        np.add.at(kernel, (top + dy, left + dx), weight)
    return (kernel / kernel.sum()).astype(np.float32)


def _shadow(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Factor (H, W) that darkens or brightens a polygon with a soft edge."""
    height, width = shape
    polygon = (rng.uniform(-0.2, 1.2, (int(rng.integers(3, 6)), 2)) * [width, height]).astype(np.int32)
    mask = cv2.fillConvexPoly(np.zeros((height, width), np.float32), cv2.convexHull(polygon), 1.0)
    mask = cv2.GaussianBlur(mask, (0, 0), rng.uniform(0.7, 12.0))
    return np.asarray(1.0 + mask * np.float32(rng.uniform(-0.6, 0.8)), np.float32)


def _gradient(rng: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Factor (H, W) that changes linearly across the view."""
    height, width = shape
    across, down = rng.uniform(-0.5, 0.5, 2)
    x, y = np.linspace(-across, across, width), np.linspace(-down, down, height)
    return np.maximum(1.0 + x[None, :] + y[:, None], 0.0).astype(np.float32)
