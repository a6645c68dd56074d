"""A frozen transformer as a source of feature maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from semkey.backbones.geometry import grid_size, pad_to_patches
from semkey.backbones.specs import Architecture


@dataclass(frozen=True, kw_only=True)
class BackboneFeatures:
    """What a backbone makes of a batch of images.

    Attributes:
        maps: per layer (B, C, h, w), after the network's last layer norm; class and register tokens are not in them.
        class_token: (B, C) of the last layer, after the norm.
        patch: side of a cell of the maps, pixels.
    """

    maps: tuple[torch.Tensor, ...]
    class_token: torch.Tensor
    patch: int

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> BackboneFeatures:
        """The features with ``change`` applied to each tensor."""
        return BackboneFeatures(
            maps=tuple(change(m) for m in self.maps), class_token=change(self.class_token), patch=self.patch
        )


@dataclass(frozen=True, kw_only=True)
class BackboneIdentity:
    """Which weights a backbone has; what a detector's checkpoint says of its backbone.

    Attributes:
        name: preset, ``owner/name`` of the hub, or folder.
        revision: commit of the hub's repository, empty where there is none.
        content: hash of its tensors, see :func:`semkey.backbones.naming.content_hash`; empty for random weights.
    """

    name: str
    revision: str = ""
    content: str = ""


class Backbone(nn.Module):
    """A transformer that never learns.

    Its network is no submodule: it is in no ``parameters()``, no ``state_dict()`` and no optimiser, ``train()`` and
    ``requires_grad_()`` do not reach it, and copies of a detector share it. ``to(device)`` moves it.

    Args:
        network: of :func:`semkey.backbones.network.build_network`.
        architecture: its shape.
        layers: which ones give maps, counted from 1, in order; empty for four at equal distances.
        identity: which weights these are.

    Raises:
        ConfigError: a layer does not exist.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(
        self,
        network: nn.Module,
        architecture: Architecture,
        *,
        layers: tuple[int, ...] = (),
        identity: BackboneIdentity,
    ) -> None:
        super().__init__()
        self.architecture, self.identity = architecture, identity
        self.layers = architecture.check_layers(tuple(layers), identity.name)
        self.is_reduced = False
        self._holder = [network.eval().requires_grad_(False)]  # in a list, so that it is not registered as a part
        for name, values in (("mean", architecture.mean), ("std", architecture.std)):
            self.register_buffer(name, torch.tensor(values).reshape(3, 1, 1), persistent=False)

    @property
    def network(self) -> nn.Module:
        """The transformer."""
        return self._holder[0]

    @property
    def patch(self) -> int:
        """Side of a token's square, pixels."""
        return self.architecture.patch

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each map."""
        return (self.architecture.width,) * len(self.layers)

    @property
    def parameter_count(self) -> int:
        """How many numbers the network has."""
        return sum(parameter.numel() for parameter in self.network.parameters())

    @property
    def weight_bytes(self) -> int:
        """Memory that they take."""
        return sum(parameter.numel() * parameter.element_size() for parameter in self.network.parameters())

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the maps of an image."""
        return grid_size(height, width, self.patch)

    def reduce(self) -> Self:
        """Keep the matrices in bfloat16, and compute in it: what autocast would make of them for every image.

        Features are those under autocast. It takes half the memory, and the time that turning all weights into bfloat16
        takes: for the larger networks that is a good part of an image's.
        """
        for module in self.network.modules():
            if isinstance(module, nn.Linear):  # the first convolution decides the precision of the positions
                module.to(torch.bfloat16)
        self.is_reduced = True
        return self

    def forward(self, images: torch.Tensor) -> BackboneFeatures:
        """Features of RGB images (B, 3, H, W) in [0, 1], of any size; without gradients."""
        kind = images.device.type
        reduced = self.is_reduced or torch.is_autocast_enabled(kind)
        with torch.no_grad(), torch.autocast(kind, torch.bfloat16, enabled=reduced):
            padded = pad_to_patches((images - self.mean) / self.std, self.patch)
            rows, columns = self.grid(images.shape[-2], images.shape[-1])
            options = {"interpolate_pos_encoding": True} if self.architecture.family == "vit" else {}
            outputs: Any = self.network(padded, output_hidden_states=True, **options)
            last: torch.Tensor = outputs.last_hidden_state
            norm: Any = getattr(self.network, "norm", None) or self.network.layernorm
            # hidden_states[0] are the embeddings, and whether the last entry is normalised differs between networks
            states = [
                last if layer == self.architecture.layers else norm(outputs.hidden_states[layer])
                for layer in self.layers
            ]
            first = last.shape[1] - rows * columns  # class and register tokens come first
            maps = tuple(state[:, first:].transpose(1, 2).reshape(len(images), -1, rows, columns) for state in states)
            return BackboneFeatures(maps=maps, class_token=last[:, 0], patch=self.patch)

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode."""
        return super().train(False)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        self.network._apply(fn)
        return super()._apply(fn, recurse)

    def __deepcopy__(self, memo: dict[int, Any]) -> Backbone:
        """A copy shares the network: it never changes, and it is large."""
        copy = Backbone(self.network, self.architecture, layers=self.layers, identity=self.identity)
        copy.is_reduced = self.is_reduced
        copy.to(self.mean.device)
        memo[id(self)] = copy
        return copy
