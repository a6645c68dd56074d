"""The learned refiner's network: grey patches and descriptors in, where in the second patch the keypoint lies out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from semkey.matching.network_file import fill_network, read_network, write_network
from semkey.settings import Settings, require_within

FORMAT = "semkey-refiner-1"
PATCH_RADIUS = 5
"""Patches have 11 x 11 pixels; three unpadded convolutions leave 5 x 5 places a pixel apart."""
_REACH = 2
_CENTRE = slice(PATCH_RADIUS - 3, PATCH_RADIUS + 4)  # what one place sees


@dataclass(frozen=True, kw_only=True)
class RefinerShape(Settings):
    """Size of the network.

    Attributes:
        channels: of each convolution.
    """

    channels: int = 16

    def __post_init__(self) -> None:
        require_within(self, "[4, 256]", "channels")


@dataclass(frozen=True, kw_only=True)
class RefinerInfo(Settings):
    """What a file of a refiner says besides its weights.

    Attributes:
        features: name of the features that it was trained for.
        input_dim: width of their descriptors.
        shape: size of the network.
        training: how it was made, for people.
    """

    features: str
    input_dim: int
    shape: RefinerShape = RefinerShape()
    training: str = ""

    def __post_init__(self) -> None:
        require_within(self, "[1, 4096]", "input_dim")


class PatchNetwork(nn.Module):
    """Where in a 5 x 5 neighbourhood the second keypoint of a match lies (Keypt2Subpx, Kim et al. 2024).

    Convolutions describe each of the places; a heat is the product with what is looked for: the mean descriptor of the
    match (as there), and besides it what the same convolutions see at the first keypoint. The network begins with the
    same heat everywhere, which is no move.

    Args:
        input_dim: width of the descriptors.
        shape: size.
    """

    def __init__(self, input_dim: int, shape: RefinerShape) -> None:
        super().__init__()
        channels = shape.channels
        self.layers = nn.Sequential(
            nn.Conv2d(1, channels, 3),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3),
        )
        self.from_descriptor = nn.Linear(input_dim, channels)
        self.from_patch = nn.Linear(channels, channels, bias=False)
        for layer in (self.from_descriptor.weight, self.from_descriptor.bias, self.from_patch.weight):
            nn.init.zeros_(layer)
        # Logarithms of how much larger the covariance is than the heat's, and of the variance of a sharp one.
        self.spread = nn.Parameter(torch.zeros(()))
        self.floor = nn.Parameter(torch.tensor(-4.0))

    def forward(
        self, patches0: torch.Tensor, patches1: torch.Tensor, descriptors: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Moves and covariances.

        Args:
            patches0: (M, 11, 11) around the first keypoints, of zero mean and unit contrast.
            patches1: (M, 11, 11) around the second ones.
            descriptors: (M, D) the mean of each match's two.

        Returns:
            Moves (M, 2) x y of the second keypoints within 2 pixels of the patches, and covariances (M, 2, 2).
        """
        moves, spreads = soft_argmax(self.heat(patches0, patches1, descriptors))
        eye = torch.eye(2, dtype=spreads.dtype, device=spreads.device)
        return moves, self.spread.exp() * spreads + self.floor.exp() * eye

    def heat(self, patches0: torch.Tensor, patches1: torch.Tensor, descriptors: torch.Tensor) -> torch.Tensor:
        """Logits (M, 5, 5) of the places; arguments as for :meth:`forward`."""
        seen0 = self.layers(patches0[:, None, _CENTRE, _CENTRE])[:, :, 0, 0]
        seen1 = self.layers(patches1[:, None])
        wanted = self.from_descriptor(descriptors) + self.from_patch(seen0)
        return (wanted[:, None] @ seen1.flatten(2)).reshape(-1, *seen1.shape[2:])


def soft_argmax(heat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Means (M, 2) x y, from the middle, and covariances (M, 2, 2) of the softmax of logits (M, 5, 5)."""
    steps = torch.arange(-_REACH, _REACH + 1, dtype=heat.dtype, device=heat.device)
    y, x = torch.meshgrid(steps, steps, indexing="ij")
    places = torch.stack([x, y], dim=-1).reshape(-1, 2)
    weights = heat.flatten(1).softmax(dim=1)
    mean = weights @ places
    products = (places[:, :, None] * places[:, None, :]).reshape(-1, 4)
    return mean, (weights @ products).reshape(-1, 2, 2) - mean[:, :, None] * mean[:, None, :]


def mean_descriptors(descriptors0: torch.Tensor, descriptors1: torch.Tensor) -> torch.Tensor:
    """Unit-norm means (M, D) of matched descriptors."""
    return F.normalize(descriptors0.float() + descriptors1.float(), dim=1)


def write_refiner(path: Path, network: PatchNetwork, info: RefinerInfo) -> None:
    """Write a refiner whole or not at all, in float32.

    Raises:
        InputError: the file cannot be written.
    """
    write_network(path, network, info, FORMAT)


def read_refiner(path: Path) -> tuple[PatchNetwork, RefinerInfo]:
    """The network of a file, on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind.
    """
    tensors, info = read_network(path, RefinerInfo, FORMAT, what="refiner", command="train-refiner")
    network = PatchNetwork(info.input_dim, info.shape)
    fill_network(path, network, tensors, "the refiner's network")
    return network, info
