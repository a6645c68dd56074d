"""Patches of an image at fractions of a pixel, many at once, that are moved along their rows."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Array = NDArray[np.float64]
Floats = NDArray[np.float32]

# Patches may lie so far beyond the image, whose border then goes on, pixels.
_MARGIN = 6


class RowPatches:
    """M patches of an image, each of which can be read again a little farther left or right.

    Read by cubic convolution (Keys 1981, a = -1/2); OpenCV's ``remap`` would read at multiples of 1/32 px. Rows are
    read at fractions of a pixel as well: on a floor disparity grows from row to row, on that of a road by a third of a
    pixel.

    Args:
        image: (H, W) float32.
        x: (M,) where the centres of the patches are at first, pixels.
        y: (M,) their rows, for good.
        size: side of the patches, odd.
        reach: how far patches may be moved from there, pixels.
    """

    def __init__(self, image: Floats, x: Array, y: Array, size: int, *, reach: int = 0) -> None:
        self._size, self._reach = size, reach
        m = size // 2 + _MARGIN + reach
        padded = cv2.copyMakeBorder(image, m, m, m, m, cv2.BORDER_REPLICATE)
        self._first, row = np.floor(x), np.floor(y)
        windows = sliding_window_view(padded, (size + 3, size + 3 + 2 * reach))
        height, width = image.shape
        columns = np.clip(self._first.astype(np.int64), -_MARGIN + 1, width + _MARGIN - 3) + _MARGIN - 1
        rows = np.clip(row.astype(np.int64), -_MARGIN + 1, height + _MARGIN - 3) + _MARGIN + reach - 1
        raw = torch.from_numpy(windows[rows, columns])
        weights = _cubic((y - row).astype(np.float32))[0]
        self._rows = _mix(weights, [raw[:, k : k + size] for k in range(4)])

    def read(self, x: Array) -> tuple[Floats, Floats]:
        """The patches (M, S^2) about columns ``x`` (M,), of mean 0 and norm 1, and their derivatives by x.

        Derivatives are those of the normalised patches. Columns farther than ``reach`` pixels from the first ones are
        read there.
        """
        moved = np.clip(x - self._first, -self._reach, np.nextafter(self._reach + 1, 0))
        whole = np.floor(moved)
        weights, slopes = _cubic((moved - whole).astype(np.float32))
        taps = 4 + 2 * self._reach
        # Weights of all columns that may be read, most of them 0, are faster than other columns for each patch.
        at = (whole.astype(np.int64) + self._reach)[:, None] + np.arange(4)
        row = np.arange(len(x))[:, None]
        parts = [self._rows[:, :, k : k + self._size] for k in range(taps)]
        both = []
        for four in (weights, slopes):
            spread = np.zeros((len(x), taps), np.float32)
            spread[row, at] = four
            values = _mix(spread, parts).reshape(len(x), -1)
            both.append(values - values.mean(dim=1, keepdim=True))
        patches, slope = both
        norm = torch.linalg.vector_norm(patches, dim=1, keepdim=True).clamp_(min=1e-6)
        patches /= norm
        slope /= norm
        slope -= patches * (patches * slope).sum(dim=1, keepdim=True)
        return patches.numpy(), slope.numpy()


def _cubic(t: Floats) -> tuple[Floats, Floats]:
    """Weights (M, 4) of the values at -1, 0, 1 and 2 for one at ``t`` (M,) in [0, 1), and their derivatives by t."""
    weights = (
        t * (-0.5 + t * (1 - 0.5 * t)),
        1 + t * t * (1.5 * t - 2.5),
        t * (0.5 + t * (2 - 1.5 * t)),
        t * t * (0.5 * t - 0.5),
    )
    slopes = (-0.5 + t * (2 - 1.5 * t), t * (4.5 * t - 5), 0.5 + t * (4 - 4.5 * t), t * (1.5 * t - 1))
    return np.stack(weights, axis=1), np.stack(slopes, axis=1)


def _mix(weights: Floats, parts: list[torch.Tensor]) -> torch.Tensor:
    """``sum_k weights[:, k] parts[k]`` for K weights (M, K) of images (M, H, W)."""
    of_image = torch.from_numpy(np.ascontiguousarray(weights))[:, :, None, None]
    mixed = parts[0] * of_image[:, 0]
    for k, part in enumerate(parts[1:], start=1):
        mixed.addcmul_(part, of_image[:, k])
    return mixed
