"""Nothing to see gives nothing: keypoints stay only where the image holds more than its noise.

A network finds its 1024 maxima in anything, in black and in the noise of a sensor as well. So each keypoint is asked
whether the picture around it varies by more than its noise would make it, at a scale where structure and noise differ.

Noise is measured at the finest scale by a mask that planes and straight ramps do not pass (Immerkaer 1996). White noise
of standard deviation ``n`` leaves a Laplacian of Gaussian of scale ``s`` with variance ``n^2 / (2 pi s^6)``: at two
pixels a 400th of it. Whatever has an edge or a corner has far more there. Smooth gradients and what is far out of focus
have no Laplacian to speak of, and are asked for more than the noise of rounding to whole grey levels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

if TYPE_CHECKING:
    from semkey.model.features import Features

LEAST_RATIO = 6.0
"""Energy of the Laplacian around a keypoint, in units of what the image's noise gives. Of nano's 1024 keypoints on
images of noise alone (Gaussian of 1 to 30 grey levels, uniform, shot noise) the strongest has 3.9; of those on
pictures of a low-texture interior (fr3_cabinet) one in a hundred has less than 9 to 13, on other pictures 24."""

_SCALE_PX = 2.0
_EDGE = 3  # pixels of half the resolution
_WINDOW_PX = 4.0
# Rounding makes steps of one grey level of a smooth gradient: they count as noise.
_LEAST_NOISE = 0.5
# Noise is read from the image's quieter part: the rest may be texture. The 20th percentile of |z| of a normal variable.
_QUANTILE = 0.2
_NORMAL_QUANTILE = 0.2533
_NOISE_MASK = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], dtype=np.float32)
# Variance of the filtered noise of standard deviation 1, measured: masks so small are no Gaussians.
_WHITE_NOISE_ENERGY = 0.0279
_NOISE_GAIN = 6.0  # what the mask multiplies the standard deviation of white noise by


def noise_level(gray: NDArray[np.float32]) -> float:
    """Standard deviation of the noise of an image (H, W) in grey levels, at least 0.5."""
    response = np.abs(cv2.filter2D(gray, cv2.CV_32F, _NOISE_MASK)[1:-1:2, 1:-1:2])
    if not response.size:
        return _LEAST_NOISE
    return max(float(np.quantile(response, _QUANTILE)) / (_NORMAL_QUANTILE * _NOISE_GAIN), _LEAST_NOISE)


def contrast_to_noise(gray: NDArray[np.float32], keypoints: NDArray[np.float32]) -> NDArray[np.float32]:
    """Energy of the Laplacian around keypoints, in units of what the noise of the image gives.

    Args:
        gray: (H, W) float32, grey levels from 0 to 255; an offset does not matter.
        keypoints: (N, 2) pixels.

    Returns:
        (N,): about 1 where there is noise alone, hundreds at corners of everyday pictures.
    """
    # At half the resolution the same costs a quarter; the mean of four pixels is smooth by half a pixel itself.
    size = (max(1, gray.shape[1] // 2), max(1, gray.shape[0] // 2))
    half = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    smooth = cv2.GaussianBlur(half, (0, 0), _SCALE_PX / 2)
    laplacian = cv2.Laplacian(smooth, cv2.CV_32F, ksize=1)
    # Filters bend what they cannot see beyond the image's edge.
    inner = np.zeros_like(laplacian)
    inner[_EDGE:-_EDGE, _EDGE:-_EDGE] = laplacian[_EDGE:-_EDGE, _EDGE:-_EDGE]
    energy = cv2.GaussianBlur(inner * inner, (0, 0), _WINDOW_PX / 2)
    columns = np.clip(np.rint((keypoints[:, 0] - 0.5) / 2), 0, size[0] - 1).astype(np.int64)
    rows = np.clip(np.rint((keypoints[:, 1] - 0.5) / 2), 0, size[1] - 1).astype(np.int64)
    return energy[rows, columns] / np.float32(noise_level(gray) ** 2 * _WHITE_NOISE_ENERGY)


def has_structure(gray: torch.Tensor, keypoints: torch.Tensor) -> torch.Tensor:
    """Which keypoints (N, 2) lie where an image (H, W), float32 in grey levels from 0 to 255, holds more than noise."""
    if not len(keypoints):
        return torch.zeros(0, dtype=torch.bool, device=keypoints.device)
    pixels = np.ascontiguousarray(gray.cpu().numpy(), dtype=np.float32)
    ratios = contrast_to_noise(pixels, keypoints.cpu().numpy())
    return torch.from_numpy(ratios >= LEAST_RATIO).to(keypoints.device)


def with_structure(features: Features, gray: torch.Tensor) -> Features:
    """The features whose keypoints lie where their image (H, W), grey in [0, 1], holds more than noise."""
    return features.select(has_structure(255.0 * gray, features.keypoints))
