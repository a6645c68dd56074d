"""Keypoints of one image of a rectified pair found along their rows in the other, to whole pixels, all at once."""

from __future__ import annotations

import cv2
import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

Pixels = NDArray[np.int64]
Grey = NDArray[np.uint8]

# A patch whose grey levels differ by less (standard deviation, grey levels) looks like any other.
_FLAT = 0.5
_MID_GREY = 128.0
# Between whole pixels lies up to half a pixel, which costs fine patches some of their correlation.
_WHOLE_PIXEL_SHARE = 0.75


class RowImage:
    """One image of a pair, prepared for patches to be cut out of it anywhere.

    Args:
        grey: (H, W) uint8.
        span: largest disparity, pixels.
        size: side of the patches, odd.
        strips_from_left: how far beyond its left border patches are searched, pixels; beyond the right one it is as
            much as is missing to ``span``.
    """

    def __init__(self, grey: Grey, span: int, size: int, *, strips_from_left: int) -> None:
        self.height, self.width = grey.shape
        self.span, self.size = span, size
        self._left = strips_from_left
        radius, right = size // 2, span - strips_from_left
        padded = cv2.copyMakeBorder(grey, radius, radius, radius + self._left, radius + right, cv2.BORDER_REPLICATE)
        # Whole numbers, and therefore exact: S^4 times the variance of every patch.
        window = (size, size)
        sums = cv2.boxFilter(padded, cv2.CV_32S, window, normalize=False)
        variance = cv2.sqrBoxFilter(padded, cv2.CV_32S, window, normalize=False)
        np.multiply(variance, size**2, out=variance)
        np.multiply(sums, sums, out=sums)
        np.subtract(variance, sums, out=variance)
        variance = variance[radius : radius + self.height, radius : radius + self.width + span]
        # Around the middle grey, so that sums of products keep their digits.
        levels = padded.astype(np.float32)
        levels -= _MID_GREY
        self._patches = sliding_window_view(levels, window)
        self._strips = sliding_window_view(levels, (size, size + span))
        self._variances = sliding_window_view(variance, (1, span + 1))

    def patches(self, x: Pixels, y: Pixels) -> NDArray[np.float32]:
        """Patches (N, S, S) around whole pixels, with mean 0 and norm 1; all zeros where the image is flat."""
        patches = self._patches[y, x + self._left]
        patches = patches - patches.mean(axis=(1, 2), keepdims=True)
        norm = np.sqrt(np.square(patches).sum(axis=(1, 2), keepdims=True))
        flat = norm <= _FLAT * self.size
        return np.where(flat, 0.0, patches / np.where(flat, 1.0, norm)).astype(np.float32)

    def correlate(self, patches: NDArray[np.float32], first: Pixels, y: Pixels) -> NDArray[np.float32]:
        """Normalised correlations (N, span + 1) of patches with those at columns ``first, ..., first + span``."""
        columns = first + self._left
        strips = torch.from_numpy(self._strips[y, columns])
        wanted = torch.from_numpy(patches)
        scores = torch.zeros(len(patches), self.span + 1)
        for row in range(self.size):
            for column in range(self.size):
                # A patch has mean 0: that of the strip does not matter.
                scores.addcmul_(strips[:, row, column : column + self.span + 1], wanted[:, row, column, None])
        # The norm of a patch without its mean is the root of the variance times S^2; flat ones correlate with nothing.
        variance = self._variances[y, columns][:, 0].astype(np.float32)
        variance[variance <= (_FLAT * self.size**2) ** 2] = np.inf
        return scores.numpy() * (self.size / np.sqrt(variance))


def whole_disparities(
    left: Grey,
    right: Grey,
    pixels: NDArray[np.float64],
    *,
    span: int,
    size: int,
    min_correlation: float,
    left_right_px: float,
) -> NDArray[np.float64]:
    """Disparities (N,) of keypoints of the left image in whole pixels, NaN where there is none to trust.

    The patch around a keypoint is compared with all patches of its row up to ``span`` pixels further left by normalised
    correlation, independent of gain and offset of the exposure; the best one has to lead back to the keypoint when
    searched for in the left image.

    Args:
        left: (H, W) uint8.
        right: of the same shape.
        pixels: (N, 2); those outside the image find nothing.
        span: largest disparity, pixels.
        size: side of the compared patches, odd.
        min_correlation: smallest correlation of two patches that show the same point, once they lie on each other to a
            fraction of a pixel; here three quarters of it are enough.
        left_right_px: largest difference between the disparities found from the left and from the right image.
    """
    height, width = left.shape
    found = np.full(len(pixels), np.nan)
    x_given, y_given = pixels.T
    inside = np.flatnonzero((x_given >= 0) & (x_given <= width - 1) & (y_given >= 0) & (y_given <= height - 1))
    if not len(inside):
        return found
    x, y = np.rint(pixels[inside]).astype(np.int64).T
    images = (
        RowImage(left, span, size, strips_from_left=0),
        RowImage(right, span, size, strips_from_left=span),
    )

    # Columns of the scores stand for disparities span, ..., 1, 0; points outside the right image are no candidates.
    scores = images[1].correlate(images[0].patches(x, y), x - span, y)
    scores[np.arange(span + 1)[None, :] < (span - x)[:, None]] = -np.inf
    best = scores.argmax(axis=1)
    nearest = np.maximum(span - x, 0)
    good = (scores[np.arange(len(x)), best] >= _WHOLE_PIXEL_SHARE * min_correlation) & (best != nearest)
    inside, x, y, disparity = inside[good], x[good], y[good], span - best[good]

    back = images[0].correlate(images[1].patches(x - disparity, y), x - disparity, y)
    back[np.arange(span + 1)[None, :] > (width - 1 - x + disparity)[:, None]] = -np.inf
    same = np.abs(back.argmax(axis=1) - disparity) <= left_right_px
    found[inside[same]] = disparity[same]
    return found
