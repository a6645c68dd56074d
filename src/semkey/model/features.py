"""The result of extraction: one image's keypoints with their scores, reliabilities and descriptors."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch

from semkey.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Features:
    """Keypoints of one image, strongest first.

    Attributes:
        keypoints: (N, 2) float32, pixels ``x y`` in the original image, pixel centres at integers.
        scores: (N,) float32 in [0, 1], detection score, non-increasing.
        reliability: (N,) float32 in [0, 1], predicted probability that a match of this keypoint is right.
        descriptors: (N, D) float32, unit norm.
        global_descriptor: (G,) float32 unit norm, for place recognition; ``G`` is 0 where a method has none.
        image_size: (width, height) of the original image in pixels.
        covariances: (N, 2, 2) float32, px^2 of the original image: how far, and in which direction, a keypoint is
            likely to lie from the place it marks; symmetric, positive definite. None where a method does not say.
    """

    keypoints: torch.Tensor
    scores: torch.Tensor
    reliability: torch.Tensor
    descriptors: torch.Tensor
    global_descriptor: torch.Tensor
    image_size: tuple[int, int]
    covariances: torch.Tensor | None = None

    def __post_init__(self) -> None:
        count = self.keypoints.shape[0]
        if self.keypoints.shape != (count, 2):
            raise InputError(f"keypoints have shape {tuple(self.keypoints.shape)}, expected (N, 2)")
        if self.scores.shape != (count,) or self.reliability.shape != (count,):
            raise InputError(f"scores and reliability must have shape ({count},)")
        if self.descriptors.ndim != 2 or self.descriptors.shape[0] != count:
            raise InputError(f"descriptors have shape {tuple(self.descriptors.shape)}, expected ({count}, D)")
        if self.covariances is not None and self.covariances.shape != (count, 2, 2):
            raise InputError(f"covariances have shape {tuple(self.covariances.shape)}, expected ({count}, 2, 2)")

    def __len__(self) -> int:
        return self.keypoints.shape[0]

    def to(self, device: torch.device | str) -> Features:
        """The same features with every tensor on ``device``."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        moved = {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in values.items()}
        return replace(self, **moved)

    def select(self, indices: torch.Tensor) -> Features:
        """The features of the keypoints at ``indices`` ((M,) integer or (N,) boolean), in that order."""
        return replace(
            self,
            keypoints=self.keypoints[indices],
            scores=self.scores[indices],
            reliability=self.reliability[indices],
            descriptors=self.descriptors[indices],
            covariances=None if self.covariances is None else self.covariances[indices],
        )
