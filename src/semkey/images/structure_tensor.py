"""The structure tensor of an image at keypoints: in which directions its brightness changes there, and how much."""

from __future__ import annotations

import threading

import cv2
import numpy as np
from cv2.typing import MatLike
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError

# Standard deviations of the derivative filter and of the window over which products of derivatives are averaged,
# pixels.
GRADIENT_SIGMA = 1.0
WINDOW_SIGMA = 2.0


def structure_tensors(image: NDArray[np.uint8], keypoints: ArrayLike) -> NDArray[np.float64]:
    """Structure tensors (N, 2, 2) of an image at keypoints, in squared grey levels per pixel.

    The mean of ``[[Ix^2, Ix Iy], [Ix Iy, Iy^2]]`` over a Gaussian window (Förstner and Gülch 1987). Its large
    eigenvector points across an edge, its small one along it.

    Args:
        image: (H, W, 3) RGB or (H, W) grey, uint8.
        keypoints: (N, 2) pixels, pixel centres at integers; read bilinearly, beyond the image as at its border.

    Raises:
        InputError: the image is neither of the two.
    """
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] != 3):
        raise InputError(f"an image has shape {image.shape} and type {image.dtype}, expected (H, W[, 3]) of uint8")
    pixels = np.asarray(keypoints, dtype=np.float32).reshape(-1, 2)
    if not len(pixels):
        return np.zeros((0, 2, 2))
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY) if image.ndim == 3 else image
    averaged = _averaged_products(grey)
    height, width = grey.shape
    scale = np.array([averaged[0].shape[1] / width, averaged[0].shape[0] / height], dtype=np.float32)
    xx, xy, yy = (_sample(product, (pixels + 0.5) * scale - 0.5) for product in averaged)
    return np.stack([np.stack([xx, xy], axis=1), np.stack([xy, yy], axis=1)], axis=1)


class _Buffers(threading.local):
    """Images that a thread computes structure tensors in.

    Made anew for each image they cost more than all the arithmetic, since the system clears every page of them: 5.3 ms
    instead of 1.6 at 640x480.
    """

    def __init__(self) -> None:
        self._images: dict[str, NDArray[np.float32]] = {}

    def get(self, name: str, height: int, width: int) -> NDArray[np.float32]:
        image = self._images.get(name)
        if image is None or image.shape != (height, width):
            image = self._images[name] = np.empty((height, width), dtype=np.float32)
        return image


_buffers = _Buffers()


def _averaged_products(grey: MatLike) -> list[MatLike]:
    """``Ix^2``, ``Ix Iy`` and ``Iy^2`` of a grey image (H, W), averaged over the window, at half the resolution."""
    height, width = grey.shape
    smooth, by_x, by_y, product = (_buffers.get(name, height, width) for name in ("smooth", "by_x", "by_y", "product"))
    np.copyto(product, grey)
    cv2.GaussianBlur(product, (0, 0), GRADIENT_SIGMA, dst=smooth)
    cv2.Sobel(smooth, cv2.CV_32F, 1, 0, dst=by_x, ksize=1, scale=0.5)
    cv2.Sobel(smooth, cv2.CV_32F, 0, 1, dst=by_y, ksize=1, scale=0.5)
    # The window is wide enough to be averaged at half the resolution, in half the time: the 2x2 means are part of it.
    small = ((width + 1) // 2, (height + 1) // 2)
    sigma = 0.5 * float(np.sqrt(WINDOW_SIGMA**2 - 0.25))
    averaged = []
    for name, first, second in (("xx", by_x, by_x), ("xy", by_x, by_y), ("yy", by_y, by_y)):
        cv2.multiply(first, second, dst=product)
        half = cv2.resize(product, small, dst=_buffers.get("half", *small[::-1]), interpolation=cv2.INTER_AREA)
        averaged.append(cv2.GaussianBlur(half, (0, 0), sigma, dst=_buffers.get(name, *small[::-1])))
    return averaged


def _sample(values: MatLike, pixels: NDArray[np.float32]) -> NDArray[np.float64]:
    """Bilinear values (N,) of an array (H, W) at pixels (N, 2)."""
    # One column of pixels: OpenCV takes maps of at most 32766 rows and as many columns, far more than keypoints.
    sampled = cv2.remap(values, pixels[:, :1], pixels[:, 1:], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return sampled[:, 0].astype(np.float64)
