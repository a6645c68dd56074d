"""What every feature is to a user: one kind of object that turns images into features."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import nn

from semkey.errors import ConfigError, InputError
from semkey.model.features import Features
from semkey.model.preprocess import ImageLike

MaskLike = ArrayLike | torch.Tensor
"""(H, W) uint8 or bool, 0 where an image is to be left out; or the path of such an image."""


class Extractor(Protocol):
    """The least that something must have to be used as features: what own extractors have."""

    name: str

    def extract(self, image: ImageLike, /) -> Features:
        """Features of one image, strongest first."""
        ...


class Detector(ABC):
    """Finds and describes keypoints; what :func:`semkey.load` returns, whatever the features are.

    Attributes:
        name: of the features, as they were asked for.
        max_keypoints: largest number of keypoints per image.
        device: where the results lie.
        settings: everything that results depend on besides the versions of the libraries; JSON types.

    Example:
        >>> import semkey
        >>> from skimage import data
        >>> detector = semkey.load("orb", max_keypoints=200)
        >>> detector
        Detector(orb: at most 200 keypoints, on cpu)
        >>> features = detector.extract(data.camera())
        >>> detector.describe(data.camera(), [[100.0, 120.0], [30.5, 40.0]]).keypoints
        tensor([[100.0000, 120.0000],
                [ 30.5000,  40.0000]])
    """

    name: str
    max_keypoints: int
    device: torch.device
    settings: dict[str, Any]

    @abstractmethod
    def extract(self, image: ImageLike, mask: MaskLike | None = None) -> Features:
        """Find and describe keypoints.

        Args:
            image: a path, uint8 (H, W, 3) RGB or (H, W), or float tensor (3, H, W) or (1, H, W) in [0, 1]; any size.
            mask: (H, W) uint8 or bool, 0 where no keypoints are wanted; the others are the strongest of what is left.

        Returns:
            At most ``max_keypoints`` features, strongest first, in pixels of the image as given. Images without
            structure, and masks that leave out everything, give none.

        Raises:
            InputError: the image or the mask cannot be used; the message says why.
        """

    def describe(self, image: ImageLike, points: ArrayLike | torch.Tensor) -> Features:
        """Describe keypoints of one's own.

        Args:
            image: as :meth:`extract` takes it.
            points: (N, 2) pixels ``x y`` of the image as given, within it.

        Returns:
            N features at these points and in their order, whose scores say what the detector thinks of them.

        Raises:
            InputError: the image cannot be used, or points are not (N, 2) finite numbers within it.
            ConfigError: these features describe only keypoints that they have found.
        """
        raise ConfigError(
            f"features '{self.name}' describe only keypoints that they have found themselves: use compact, nano, "
            "another of semkey's presets, orb, sift or xfeat to describe your own"
        )

    @property
    def network(self) -> nn.Module:
        """The network, whose ``forward`` gives a tuple of tensors, for ``torch.export`` and the like.

        Raises:
            ConfigError: there is none.
        """
        raise ConfigError(f"features '{self.name}' have no network")

    def __getattr__(self, name: str) -> Any:
        hint = ""
        if hasattr(nn.Module, name):  # half(), eval(), parameters(), ...
            hint = ": the network is detector.network; device= and precision= are arguments of semkey.load"
        raise AttributeError(f"'Detector' object has no attribute '{name}'{hint}")

    def __repr__(self) -> str:
        return f"Detector({self.name}: at most {self.max_keypoints} keypoints, on {self.device})"


def check_points(points: ArrayLike | torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Points to describe, (N, 2) float32 on the CPU.

    Args:
        points: as given.
        size: (width, height) of the image.

    Raises:
        InputError: not (N, 2) finite numbers, or outside the image.
    """
    try:
        array = np.array(points.detach().cpu() if isinstance(points, torch.Tensor) else points, dtype=np.float32)
    except (TypeError, ValueError):
        raise InputError("points to describe are (N, 2) numbers: pixels x y") from None
    if array.size == 0:
        array = array.reshape(0, 2)
    if array.ndim != 2 or array.shape[1] != 2 or not np.isfinite(array).all():
        raise InputError(f"points to describe must be (N, 2) finite pixels x y, got shape {array.shape}")
    outside = ((array < -0.5) | (array > np.array(size, dtype=np.float32) - 0.5)).any(axis=1)
    if outside.any():
        x, y = array[outside][0]
        raise InputError(f"point ({x:g}, {y:g}) to describe lies outside the image of {size[0]}x{size[1]} pixels")
    return torch.from_numpy(array)
