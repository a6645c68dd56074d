"""Does a detector give the same keypoints when its picture is moved? The pixels are the same: no truth is needed.

Two crops of one picture, the second taken ``shift`` pixels further right and down, show the same pixels in what they
have in common. A keypoint at ``p`` of the first crop lies at ``p - shift`` of the second, whatever the picture shows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError
from semkey.metrics.keypoints import nearest_distances

WITHIN_PX = 0.5


@dataclass(frozen=True, kw_only=True, eq=False)
class ShiftErrors:
    """How far keypoints of a shifted crop lie from those of the first crop.

    Attributes:
        distances: (N,) float64 pixels, of each keypoint of the shifted crop that both crops show to the nearest
            keypoint of the first crop; ``inf`` where the first crop has none.
    """

    distances: NDArray[np.float64]

    @property
    def median_px(self) -> float:
        """Median distance, pixels; NaN without keypoints."""
        return float(np.median(self.distances)) if len(self.distances) else float("nan")

    def share_within(self, limit: float = WITHIN_PX) -> float:
        """Share of the distances that are at most ``limit`` pixels, in [0, 1]; NaN without keypoints."""
        return float((self.distances <= limit).mean()) if len(self.distances) else float("nan")

    @classmethod
    def joined(cls, parts: Sequence[ShiftErrors]) -> Self:
        """The errors of several pictures as one."""
        return cls(distances=np.concatenate([part.distances for part in parts]) if parts else np.zeros(0))


def shift_errors(
    keypoints: ArrayLike, shifted: ArrayLike, shift: tuple[float, float], size: tuple[int, int], margin: float = 16.0
) -> ShiftErrors:
    """Compare the keypoints of a crop with those of a crop of the same size, taken further right and down.

    Args:
        keypoints: (N, 2) pixels x y of the first crop.
        shifted: (M, 2) pixels x y of the crop whose upper left pixel lies at ``shift`` of the first one.
        shift: x y, pixels, 0 or more; may be fractional where the second crop was resampled.
        size: (width, height) of both crops.
        margin: keypoints closer than this to the edge of what both crops show do not count, pixels: a detector that
            gives nothing near an image's edge would be blamed for it.

    Raises:
        InputError: a negative shift, or nothing in common.
    """
    first, second = (np.asarray(points, dtype=np.float64).reshape(-1, 2) for points in (keypoints, shifted))
    offset, extent = np.asarray(shift, dtype=np.float64), np.asarray(size, dtype=np.float64)
    if (offset < 0).any():
        raise InputError(f"shift is {shift}: give the crop that starts further left and higher first")
    low, high = offset + margin, extent - 1.0 - margin
    if (low > high).any():
        raise InputError(f"crops of {size} pixels, {shift} apart, have nothing in common {margin} pixels from edges")
    moved = second + offset
    common = ((moved >= low) & (moved <= high)).all(axis=1)
    return ShiftErrors(distances=nearest_distances(moved[common], first))


def shifted_crop(
    picture: NDArray[np.uint8], shift: tuple[float, float], size: tuple[int, int], origin: tuple[int, int] = (0, 0)
) -> NDArray[np.uint8]:
    """A crop that starts at ``origin + shift`` of a picture; fractions of a pixel by the Fourier transform.

    Whole shifts copy pixels. Fractional ones are exact for what the pixels determine: the picture is continued by its
    mirror image, so that it has no jump at its edges, and each frequency is turned by its phase. A picture with
    structures finer than two pixels rings; blur it first (see :func:`band_limited`).

    Args:
        picture: (H, W) or (H, W, 3) uint8.
        shift: x y, pixels, 0 or more.
        size: (width, height) of the crop.
        origin: x y, pixel of the picture that an unshifted crop starts at.

    Raises:
        InputError: the crop does not lie inside the picture.
    """
    height, width = picture.shape[:2]
    whole, rest = np.floor(shift).astype(int), np.asarray(shift, dtype=np.float64) % 1.0
    x, y = int(origin[0] + whole[0]), int(origin[1] + whole[1])
    if x < 0 or y < 0 or x + size[0] + (rest[0] > 0) > width or y + size[1] + (rest[1] > 0) > height:
        raise InputError(f"a crop of {size} pixels at {origin} + {shift} does not fit into {width}x{height} pixels")
    values = picture if not rest.any() else _turned_by_phase(picture, rest)
    return np.ascontiguousarray(values[y : y + size[1], x : x + size[0]])


def band_limited(picture: NDArray[np.uint8], sigma: float = 0.8) -> NDArray[np.uint8]:
    """A picture (H, W) or (H, W, 3) blurred as by a camera's pixel: no structure that fractional shifts ring at."""
    import cv2

    return np.asarray(cv2.GaussianBlur(picture, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101), np.uint8)


def _turned_by_phase(picture: NDArray[np.uint8], rest: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The picture sampled ``rest`` = (x, y) pixels, each in [0, 1), further right and down."""
    values = picture.astype(np.float64)
    for axis, amount in ((1, rest[0]), (0, rest[1])):
        if amount == 0.0:
            continue
        count = values.shape[axis]
        mirrored = np.concatenate([values, np.flip(values, axis)], axis=axis)
        spectrum = np.fft.rfft(mirrored, axis=axis)
        phase = np.exp(2j * np.pi * np.fft.rfftfreq(2 * count) * amount)
        phase[-1] = phase[-1].real  # a cosine at the highest frequency cannot be turned
        shape = [1] * values.ndim
        shape[axis] = len(phase)
        moved = np.fft.irfft(spectrum * phase.reshape(shape), n=2 * count, axis=axis)
        values = np.take(moved, np.arange(count), axis=axis)
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
