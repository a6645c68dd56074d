"""A frozen transformer as a source of feature maps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn

from semkey.backbones.geometry import grid_size, moved, pad_to_patches, resample
from semkey.backbones.specs import Architecture, Upsampling
from semkey.errors import ConfigError

_HALVING = ("shift-average", "resolution")
"""Upsamplings whose cells are half as wide as the patches."""


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
        upsampling: "bilinear" gives the tokens as they are, and so does "attention", which reads them another way
            (:class:`semkey.backbones.guided_upsampling.GuidedUpsampling`). The others give maps of cells half as wide,
            for four times the time: "shift-average" the mean of the tokens of the image and of three copies moved by
            half a patch, each read at its true places (FeatUp's idea without its training, Fu et al. 2024);
            "resolution" the tokens of the image at twice its size.

    Raises:
        ConfigError: a layer does not exist, or patches cannot be halved.
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
        upsampling: Upsampling = "bilinear",
    ) -> None:
        super().__init__()
        self.architecture, self.identity, self.upsampling = architecture, identity, upsampling
        if upsampling in _HALVING and architecture.patch % 2:
            raise ConfigError(f"upsampling '{upsampling}' halves patches, those of '{identity.name}' are odd")
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
        """Side of a cell of the maps, pixels: that of a token, or half of it."""
        return self.architecture.patch // (2 if self.upsampling in _HALVING else 1)

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

    def upsampled(self, upsampling: Upsampling) -> Backbone:
        """The same network, which it shares, with another upsampling.

        Raises:
            ConfigError: patches cannot be halved.
        """
        if upsampling == self.upsampling:
            return self
        copy = Backbone(
            self.network, self.architecture, layers=self.layers, identity=self.identity, upsampling=upsampling
        )
        copy.is_reduced = self.is_reduced
        return copy.to(self.mean.device)

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
            colors = (images - self.mean) / self.std
            if self.upsampling == "shift-average":
                return self._shift_average(colors)
            if self.upsampling == "resolution":
                colors = F.interpolate(colors, scale_factor=2, mode="bilinear", align_corners=False)
            return replace(self._tokens(colors), patch=self.patch)

    def _shift_average(self, colors: torch.Tensor) -> BackboneFeatures:
        """The mean of the tokens of normalised images at four places of the patch grid."""
        size, half = self.grid(colors.shape[-2], colors.shape[-1]), self.patch
        found = self._tokens(colors)
        sums = [resample(m, found.patch, half, size) for m in found.maps]
        for down, right in ((0, half), (half, 0), (half, half)):
            shifted = self._tokens(moved(colors, down, right))
            read = [resample(m, shifted.patch, half, size, (down, right)) for m in shifted.maps]
            sums = [total + one for total, one in zip(sums, read, strict=True)]
        return replace(found, maps=tuple(total / 4.0 for total in sums), patch=half)

    def _tokens(self, colors: torch.Tensor) -> BackboneFeatures:
        """What the network makes of normalised images (B, 3, H, W): its tokens as they are."""
        padded = pad_to_patches(colors, self.architecture.patch)
        rows, columns = grid_size(colors.shape[-2], colors.shape[-1], self.architecture.patch)
        options = {"interpolate_pos_encoding": True} if self.architecture.family == "vit" else {}
        outputs: Any = self.network(padded, output_hidden_states=True, **options)
        last: torch.Tensor = outputs.last_hidden_state
        norm: Any = getattr(self.network, "norm", None) or self.network.layernorm
        # hidden_states[0] are the embeddings, and whether the last entry is normalised differs between networks
        states = [
            last if layer == self.architecture.layers else norm(outputs.hidden_states[layer]) for layer in self.layers
        ]
        first = last.shape[1] - rows * columns  # class and register tokens come first
        # shape[0], not len: a graph that is traced keeps the number of images free.
        maps = tuple(state[:, first:].transpose(1, 2).reshape(colors.shape[0], -1, rows, columns) for state in states)
        return BackboneFeatures(maps=maps, class_token=last[:, 0], patch=self.architecture.patch)

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode."""
        return super().train(False)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Self:
        self.network._apply(fn)
        return super()._apply(fn, recurse)

    def __deepcopy__(self, memo: dict[int, Any]) -> Backbone:
        """A copy shares the network: it never changes, and it is large."""
        copy = Backbone(
            self.network, self.architecture, layers=self.layers, identity=self.identity, upsampling=self.upsampling
        )
        copy.is_reduced = self.is_reduced
        copy.to(self.mean.device)
        memo[id(self)] = copy
        return copy
