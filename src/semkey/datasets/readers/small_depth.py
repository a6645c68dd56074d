"""Depth maps that are smaller than their images, as telephones record them."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray


def enlarged(depth: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Depth at the size of the image (width, height) by the nearest pixel.

    Both show the same view. Interpolating would put points into the air between both sides of an edge.
    """
    return np.asarray(cv2.resize(depth, size, interpolation=cv2.INTER_NEAREST_EXACT), dtype=np.float32)
