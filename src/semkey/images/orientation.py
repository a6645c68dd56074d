"""Turning stored pictures upright: the eight orientations of EXIF, for pixels and for positions.

An orientation is a number from 1 to 8 as EXIF counts: 1 is upright; 2 mirrored left to right; 3 turned by 180 degrees;
4 mirrored top to bottom; 5 mirrored at the main diagonal; 6 to be turned by 90 degrees clockwise; 7 mirrored at the
other diagonal; 8 to be turned by 90 degrees counter-clockwise.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

UPRIGHT = 1

#: By orientation: whether rows become columns, then whether the result is mirrored in x, and in y.
_STEPS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
_WORDS = {
    2: "mirrored left to right",
    3: "turned by 180 degrees",
    4: "mirrored top to bottom",
    5: "turned by 90 degrees and mirrored",
    6: "turned by 90 degrees clockwise",
    7: "turned by 90 degrees and mirrored",
    8: "turned by 90 degrees counter-clockwise",
}
#: Degrees clockwise that a container asks for -> orientation.
ORIENTATION_BY_DEGREES = {0: 1, 90: 6, 180: 3, 270: 8}


def turn_upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """The picture as it is shown.

    Args:
        pixels: (H, W) or (H, W, C) as stored.
        orientation: 1 to 8.

    Returns:
        (H, W, ...) or, for 5 to 8, (W, H, ...); contiguous, the same array for 1.
    """
    transposed, flip_x, flip_y = _STEPS[orientation]
    if transposed:
        pixels = cv2.transpose(pixels)
    if flip_x or flip_y:
        pixels = cv2.flip(pixels, -1 if flip_x and flip_y else 1 if flip_x else 0)
    return pixels


def shown_size(size: tuple[int, int], orientation: int) -> tuple[int, int]:
    """(width, height) of a picture as it is shown, of one stored with ``size``."""
    return (size[1], size[0]) if _STEPS[orientation][0] else size


def turn_points(points: ArrayLike, size: tuple[int, int], orientation: int) -> NDArray[np.float64]:
    """Positions (..., 2) in the picture as shown, of positions x y in one stored with ``size`` (width, height)."""
    turned = turn_directions(points, orientation)
    _, flip_x, flip_y = _STEPS[orientation]
    width, height = shown_size(size, orientation)
    return turned + np.array([width - 1.0 if flip_x else 0.0, height - 1.0 if flip_y else 0.0])


def turn_directions(directions: ArrayLike, orientation: int) -> NDArray[np.float64]:
    """Directions (..., 2) in the picture as shown, of those in the picture as stored."""
    transposed, flip_x, flip_y = _STEPS[orientation]
    values = np.asarray(directions, dtype=np.float64)
    values = values[..., ::-1] if transposed else values
    return values * np.array([-1.0 if flip_x else 1.0, -1.0 if flip_y else 1.0])


def is_sideways(orientation: int) -> bool:
    """Whether rows as stored are columns as shown."""
    return _STEPS[orientation][0]


def in_words(orientation: int) -> str:
    """What is done to a stored picture, such as ``turned by 90 degrees clockwise``; for 2 to 8."""
    return _WORDS[orientation]
