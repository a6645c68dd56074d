"""How exactly keypoints lie where they should: a 2x2 covariance for each, from the features or from the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semkey.images.structure_tensor import structure_tensors
from semkey.model.features import Features

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class KeypointNoise:
    """Standard deviation of a keypoint's position across and along the edge that it lies on, pixels.

    With the eigenvalues ``l1 >= l2`` of the structure tensor the variance along its eigenvector ``i`` is
    ``across^2 (l1 + faint^2) / li``, at most ``largest^2``: what two views agree on is the edge; how well a place along
    it is told depends on how much brightness changes along it.

    Attributes:
        across: across an edge of good contrast.
        faint: root mean square slope, in grey levels per pixel, below which noise of the image adds to that.
        largest: along a straight edge, and in any direction where the image shows nothing.
    """

    across: float = 0.2
    faint: float = 2.0
    largest: float = 3.0

    def scaled(self, factor: float) -> KeypointNoise:
        """The same for an image of another size, whose pixels are ``1 / factor`` as large."""
        return KeypointNoise(across=self.across * factor, faint=self.faint, largest=self.largest * factor)


def keypoint_covariances(
    features: Features, image: NDArray[np.uint8], noise: KeypointNoise | None = None
) -> NDArray[np.float64]:
    """Covariances (N, 2, 2) of the positions of keypoints, pixels^2.

    Those of the features where they bring some (``features.covariances``), else from the structure tensor of the image.

    Args:
        features: of the image.
        image: (H, W, 3) RGB or (H, W) grey, uint8.
        noise: how the structure tensor becomes a covariance; None for the defaults.
    """
    own = getattr(features, "covariances", None)
    if own is not None:
        return own.cpu().numpy().astype(np.float64)
    return covariances_of_tensors(structure_tensors(image, features.keypoints.cpu().numpy()), noise or KeypointNoise())


def covariances_of_tensors(tensors: Array, noise: KeypointNoise) -> Array:
    """Covariances (N, 2, 2), pixels^2, of keypoints where an image has structure tensors (N, 2, 2)."""
    a, b, c = tensors[:, 0, 0], tensors[:, 0, 1], tensors[:, 1, 1]
    half_difference = 0.5 * (a - c)
    root = np.hypot(half_difference, b)
    large, small = 0.5 * (a + c) + root, np.maximum(0.5 * (a + c) - root, 0.0)
    strength = noise.across**2 * (large + noise.faint**2)
    least = 1e-12 + strength / noise.largest**2
    across, along = strength / np.maximum(large, least), strength / np.maximum(small, least)
    # The projector on the large eigenvector is (1 + reflection) / 2, with the reflection [[p, q], [q, -p]].
    safe = np.where(root > 0, root, 1.0)
    p, q = half_difference / safe, b / safe
    mean, half = 0.5 * (along + across), 0.5 * (along - across)
    rows = [np.stack([mean - half * p, -half * q], axis=1), np.stack([-half * q, mean + half * p], axis=1)]
    return np.stack(rows, axis=1)


def isotropic_covariances(count: int, sigma: float) -> NDArray[np.float64]:
    """Covariances (N, 2, 2) of ``count`` keypoints that err by ``sigma`` pixels in every direction."""
    return np.tile(np.square(sigma) * np.eye(2), (count, 1, 1))
