"""Images that hold nothing to find: blank, gradients, sensor noise, and photos far out of focus."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SIZE = (640, 480)
"""(width, height) of the synthetic ones, pixels."""

GREYS = {"black": 0, "dark": 30, "grey": 128, "white": 255}
NOISE_SIGMAS = (1.0, 2.0, 5.0, 10.0)
DEFOCUS_RADII_PX = (12, 20)
SENSOR_NOISE = 2.0


@dataclass(frozen=True, kw_only=True, eq=False)
class NegativeImage:
    """One image.

    Attributes:
        group: what kind of nothing it shows, such as ``grey`` or ``sigma 5``.
        image: (H, W, 3) RGB uint8.
    """

    group: str
    image: NDArray[np.uint8]


def negative_images(photos: Sequence[NDArray[np.uint8]], *, seed: int = 0) -> dict[str, list[NegativeImage]]:
    """All negatives by the name of their set.

    ``blank``: one grey value throughout. ``gradient``: brightness that rises along x, along y, from corner to corner
    and from the middle, over the whole and over a tenth of the grey range, rounded to whole values as any file's are.
    ``noise``: middle grey with independent Gaussian noise of sigma 1 to 10 grey values per pixel and channel.
    ``defocus``: photos under a disc of 12 and 20 px radius, with noise of sigma 2, as a lens far out of focus gives.

    Args:
        photos: (H, W, 3) RGB uint8 that the set ``defocus`` is made of; without any there is no such set.
        seed: of the noise.
    """
    rng = np.random.default_rng(seed)
    width, height = SIZE
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    shapes = {"along x": x, "along y": y, "diagonal": (x + y) / 2, "radial": np.hypot(x - 0.5, y - 0.5) * np.sqrt(2)}
    ranges = {"full": (0.0, 255.0), "weak": (115.0, 140.0)}
    flat = np.full((height, width), 128.0)
    sets = {
        "blank": [
            NegativeImage(group=name, image=_image(np.full((height, width), grey))) for name, grey in GREYS.items()
        ],
        "gradient": [
            NegativeImage(group=f"{name}, {strength}", image=_image(low + (high - low) * shape))
            for strength, (low, high) in ranges.items()
            for name, shape in shapes.items()
        ],
        "noise": [
            NegativeImage(group=f"sigma {sigma:g}", image=_image(flat, rng.normal(0, sigma, (height, width, 3))))
            for sigma in NOISE_SIGMAS
        ],
    }
    if photos:
        sets["defocus"] = [
            NegativeImage(group=f"radius {radius} px", image=_defocused(photo, radius, rng))
            for radius in DEFOCUS_RADII_PX
            for photo in photos
        ]
    return sets


def _image(grey: NDArray[Any], noise: NDArray[np.float64] | None = None) -> NDArray[np.uint8]:
    values = np.repeat(np.asarray(grey, dtype=np.float64)[:, :, None], 3, axis=2)
    if noise is not None:
        values = values + noise
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _defocused(photo: NDArray[np.uint8], radius: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The photo through a disc; filtered in float, so that no contour of rounding is left before the noise is added."""
    offsets = np.arange(-radius, radius + 1)
    disc = (np.hypot(*np.meshgrid(offsets, offsets)) <= radius).astype(np.float32)
    blurred = cv2.filter2D(photo.astype(np.float32), -1, disc / disc.sum(), borderType=cv2.BORDER_REFLECT_101)
    return np.clip(np.rint(blurred + rng.normal(0, SENSOR_NOISE, blurred.shape)), 0, 255).astype(np.uint8)
