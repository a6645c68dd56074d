"""Nothing to see gives nothing: keypoints stay only where the image holds more than its noise.

A network finds its 1024 maxima in anything, in black and in the noise of a sensor as well. So each keypoint is asked
whether the picture around it varies by more than its noise would make it, at a scale where structure and noise differ.

Noise is measured at the finest scale by a mask that planes and straight ramps do not pass (Immerkaer 1996). White noise
of standard deviation ``n`` leaves a Laplacian of Gaussian of scale ``s`` with variance ``n^2 / (2 pi s^6)``: at two
pixels a 400th of it. Whatever has an edge or a corner has far more there. Smooth gradients and what is far out of focus
have no Laplacian to speak of, and are asked for more than the noise of rounding to whole grey levels.

An image that is out of focus everywhere has structure, but no places: what is left lies at scales of tens of pixels,
and keypoints on it wander as far. There even the keypoints with most energy at two pixels have little more than at
eight.
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

LEAST_SHARPNESS = 55.0
"""Energy of the Laplacian at 2 px over that at 8 px, without what noise gives, of the tenth of an image's keypoints
with most of it at 2 px. Photos, interiors and hand-held clips have 75 or more, pictures moved by 31 px 90, enlarged
four times 55, under a disc of 5 px radius 46 to 180, of 8 px 17 to 49, of 12 and 20 px 5 to 28 (SIFT 54)."""

LEAST_SHARPNESS_OF_IMAGE = 32.0
"""The same where the image, and not a keypoint, has most energy at 8 px: keypoints on the middles of large blobs have
few edges around them. Pictures have 76 or more, moved by 31 px 67, enlarged four times 54, under a disc of 8 px 18 to
46, of 12 and 20 px 5 to 22."""

_LONG_SIDE = 1280
"""Focus is asked of larger images as if they were so large: what is sharp on a photo is not on its every pixel."""

_SHARPEST = 0.9
_RICHEST = 0.8  # the fifth of the image with the most energy at 8 px
_SCALE_PX = 2.0
_COARSE = 4  # the scale of comparison, in units of the other
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
    return np.asarray(_Energies(gray).fine(keypoints) / _noise_energy(gray), dtype=np.float32)


def sharpness(gray: NDArray[np.float32], keypoints: NDArray[np.float32] | None = None) -> float:
    """How much more energy the Laplacian has at 2 px than at 8 px where it has most.

    Args:
        gray: as for :func:`contrast_to_noise`.
        keypoints: (N, 2) pixels, N > 0: the tenth of them with most energy at 2 px counts; None for the image itself,
            of which the sharpest tenth of what is rich at 8 px counts.

    Returns:
        A ratio of energies; infinite for images that are smaller than the filters.
    """
    scale = min(1.0, _LONG_SIDE / max(gray.shape))
    if scale < 1.0:
        size = (max(1, round(scale * gray.shape[1])), max(1, round(scale * gray.shape[0])))
        gray = np.asarray(cv2.resize(gray, size, interpolation=cv2.INTER_AREA), dtype=np.float32)
    energies, noise = _Energies(gray), _noise_energy(gray)
    if keypoints is None:
        return energies.sharpness(noise)
    places = np.asarray((keypoints + 0.5) * scale - 0.5, dtype=np.float32)
    return _sharpness(energies.fine(places), energies.coarse(places), noise)


def has_structure(gray: torch.Tensor, keypoints: torch.Tensor) -> torch.Tensor:
    """Which keypoints (N, 2) lie where an image (H, W), float32 in grey levels from 0 to 255, holds more than noise.

    None where the image is out of focus everywhere.
    """
    if not len(keypoints):
        return torch.zeros(0, dtype=torch.bool, device=keypoints.device)
    pixels = np.ascontiguousarray(gray.cpu().numpy(), dtype=np.float32)
    places = keypoints.cpu().numpy()
    energies, noise = _Energies(pixels), _noise_energy(pixels)
    fine = energies.fine(places)
    kept = fine >= LEAST_RATIO * noise
    if not kept.any():
        return torch.from_numpy(kept).to(keypoints.device)
    if max(pixels.shape) > _LONG_SIDE:
        sharp = sharpness(pixels, places[kept])
    else:  # the same, from what is there
        sharp = _sharpness(fine[kept], energies.coarse(places[kept]), noise)
    if sharp < LEAST_SHARPNESS and sharpness(pixels) < LEAST_SHARPNESS_OF_IMAGE:
        kept[:] = False
    return torch.from_numpy(kept).to(keypoints.device)


def _sharpness(fine: NDArray[np.float32], coarse: NDArray[np.float32], noise: np.float32) -> float:
    """Of keypoints. A ratio of their own would be largest where there is least of either, on plain parts of a blur."""
    above = np.maximum(fine - noise, 0)
    richest = np.argpartition(above, -max(1, len(above) // 10))[-max(1, len(above) // 10) :]
    below = float(coarse[richest].sum())
    return float(above[richest].sum()) / below if below > 0 else float("inf")


class _Energies:
    """Energy of the Laplacian of an image (H, W) at two scales, in the units of half its resolution."""

    def __init__(self, gray: NDArray[np.float32]) -> None:
        # At half the resolution the same costs a quarter; the mean of four pixels is smooth by half a pixel itself.
        self._half = _smaller(gray, 2)
        self._fine = _energy(self._half)

    def fine(self, keypoints: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) at 2 px around keypoints (N, 2)."""
        return _at(self._fine, keypoints, 2)

    def coarse(self, keypoints: NDArray[np.float32]) -> NDArray[np.float32]:
        """(N,) at 8 px around keypoints (N, 2)."""
        return _at(self._coarse(), keypoints, 2 * _COARSE)

    def sharpness(self, noise: np.float32) -> float:
        """That of the image itself."""
        coarse = self._coarse()
        fine = cv2.resize(self._fine, (coarse.shape[1], coarse.shape[0]), interpolation=cv2.INTER_AREA)
        seen = coarse > 0
        if not seen.any():
            return float("inf")
        rich = seen & (coarse >= np.quantile(coarse[seen], _RICHEST))
        ratios = np.maximum(fine[rich] - noise, 0) / coarse[rich]
        return float(np.quantile(ratios, _SHARPEST, method="higher"))

    def _coarse(self) -> NDArray[np.float32]:
        # Second derivatives by pixels four times as large are 16 times as large.
        return np.asarray(_energy(_smaller(self._half, _COARSE)) / _COARSE**4, dtype=np.float32)


def _smaller(image: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    size = (max(1, image.shape[1] // factor), max(1, image.shape[0] // factor))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.float32)


def _noise_energy(gray: NDArray[np.float32]) -> np.float32:
    return np.float32(noise_level(gray) ** 2 * _WHITE_NOISE_ENERGY)


def _energy(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Energy of the Laplacian of an image, as large as the image."""
    smooth = cv2.GaussianBlur(image, (0, 0), _SCALE_PX / 2)
    laplacian = cv2.Laplacian(smooth, cv2.CV_32F, ksize=1)
    # Filters bend what they cannot see beyond the image's edge.
    inner = np.zeros_like(laplacian)
    inner[_EDGE:-_EDGE, _EDGE:-_EDGE] = laplacian[_EDGE:-_EDGE, _EDGE:-_EDGE]
    return np.asarray(cv2.GaussianBlur(inner * inner, (0, 0), _WINDOW_PX / 2), dtype=np.float32)


def _at(energy: NDArray[np.float32], keypoints: NDArray[np.float32], factor: int) -> NDArray[np.float32]:
    """The values (N,) at keypoints (N, 2) of an image that is ``factor`` times larger."""
    height, width = energy.shape
    shift = (factor - 1) / 2
    columns = np.clip(np.rint((keypoints[:, 0] - shift) / factor), 0, width - 1).astype(np.int64)
    rows = np.clip(np.rint((keypoints[:, 1] - shift) / factor), 0, height - 1).astype(np.int64)
    return energy[rows, columns]


def with_structure(features: Features, gray: torch.Tensor) -> Features:
    """The features whose keypoints lie where their image (H, W), grey in [0, 1], holds more than noise."""
    return features.select(has_structure(255.0 * gray, features.keypoints))
