"""Where the pixels of a clip's first frame lie in its later ones, by dense optical flow from frame to frame."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.float32]


def follow_points(frames: Sequence[NDArray[np.uint8]], tolerance_px: float) -> Positions:
    """Follow all pixels of the first frame through a clip.

    Flow is that of DIS (Kroeger et al. 2016) between neighbouring frames. A pixel is lost for good where the flow back
    from its next place ends further than ``tolerance_px`` from where it was, or where it leaves the image. Places
    without texture may drift all the same: take points where there is some.

    Args:
        frames: T of (H, W) uint8, all of one size.
        tolerance_px: > 0.

    Returns:
        (T, H, W, 2) x y; NaN where lost. The first frame's are the pixels themselves.
    """
    height, width = frames[0].shape
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    places = [np.stack([x, y], axis=-1)]
    flow: Any = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    for before, after in pairwise(np.ascontiguousarray(frame) for frame in frames):
        ahead = np.asarray(flow.calc(before, after, None), np.float32)
        back = np.asarray(flow.calc(after, before, None), np.float32)
        places.append(_moved(places[-1], ahead, back, tolerance_px))
    return np.stack(places)


def _moved(places: Positions, ahead: Positions, back: Positions, tolerance_px: float) -> Positions:
    height, width = places.shape[:2]
    moved = places + _read(ahead, places)
    error = np.linalg.norm(moved + _read(back, moved) - places, axis=-1)
    inside = ((moved >= 0) & (moved <= [width - 1, height - 1])).all(axis=-1)
    return np.where((inside & (error < tolerance_px))[..., None], moved, np.float32(np.nan)).astype(np.float32)


def _read(field: Positions, places: Positions) -> Positions:
    """A field (H, W, 2) at places (H, W, 2), bilinearly; NaN at NaN and outside."""
    lost = np.isnan(places[..., 0])
    x, y = (np.where(lost, -2.0, places[..., k]).astype(np.float32) for k in (0, 1))
    value = cv2.remap(field, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(np.nan, np.nan))
    return np.where(lost[..., None], np.float32(np.nan), value)
