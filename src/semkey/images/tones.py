"""From 16-bit grey values to 8 bits: whole range where it is used, else stretched between robust percentiles.

Cameras of 10 to 14 bits and thermal ones use a small part of 16 bits; divided by 257 nothing is left of their picture.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

# What lies outside is glare, dead pixels or the image's border.
_PERCENTILES = (0.1, 99.9)
# A picture that spreads over a quarter of the range is one of 16 bits; sensors of 14 bits stay below.
_SMALL_SPREAD = 1 << 14
_SAMPLED_PIXELS = 100_000


@dataclass(frozen=True, kw_only=True)
class Tone:
    """Which 16-bit values become black and white.

    Attributes:
        low: this value and smaller ones become 0.
        high: this value and larger ones become 255.
    """

    low: int = 0
    high: int = 65535

    @property
    def is_whole(self) -> bool:
        """Whether the whole range is kept."""
        return (self.low, self.high) == (0, 65535)

    def apply(self, pixels: NDArray[np.uint16]) -> NDArray[np.uint8]:
        """8-bit values of 16-bit ones, of the same shape."""
        above = np.maximum(pixels, np.uint16(self.low)) - np.uint16(self.low) if self.low else pixels
        scaled = cv2.convertScaleAbs(above, alpha=255.0 / (self.high - self.low))
        return np.asarray(scaled, dtype=np.uint8).reshape(pixels.shape)


def tone_of(pictures: Iterable[NDArray[np.uint16]]) -> Tone:
    """The tone that suits all of these 16-bit pictures, (H, W) or (H, W, C) each; an alpha channel does not count."""
    samples = [_sample(picture) for picture in pictures]
    if not samples:
        return Tone()
    low, high = np.percentile(np.concatenate(samples), _PERCENTILES)
    if high - low >= _SMALL_SPREAD:
        return Tone()
    bottom = int(np.floor(low))
    return Tone(low=bottom, high=max(int(np.ceil(high)), bottom + 1))


def _sample(picture: NDArray[np.uint16]) -> NDArray[np.uint16]:
    if picture.ndim == 3 and picture.shape[2] in (2, 4):
        picture = picture[..., :-1]
    step = max(1, int(np.sqrt(picture.size / _SAMPLED_PIXELS)))
    return picture[::step, ::step].ravel()
