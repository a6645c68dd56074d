"""What the network computes for every pixel or cell, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from semkey.backbones.backbone import BackboneFeatures


@dataclass(frozen=True, kw_only=True)
class DenseMaps:
    """What the network computes for every pixel or cell.

    Attributes:
        log_probability: (B, 1, H, W) float32, of a keypoint at each pixel, at most 0.
        grid: (B, C, H/8, W/8) fused features.
        fine: (B, C, H/s, W/s) features that descriptors are sampled from (stride s).
        detail: (B, C, H/s, W/s) features that sub-pixel offsets are read from (stride s); no channels by pixels.
        coarse: coarse maps (B, C, h, w): the context's, finest first, then the backbone's.
        semantic: all that the backbone has found, its maps among them; None without one.
    """

    log_probability: torch.Tensor
    grid: torch.Tensor
    fine: torch.Tensor
    detail: torch.Tensor
    coarse: tuple[torch.Tensor, ...]
    semantic: BackboneFeatures | None = None

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> DenseMaps:
        """The maps with ``change`` applied to each, e.g. ``maps.map(lambda m: m[:1])`` for the first image's."""
        return DenseMaps(
            log_probability=change(self.log_probability),
            grid=change(self.grid),
            fine=change(self.fine),
            detail=change(self.detail),
            coarse=tuple(change(coarse) for coarse in self.coarse),
            semantic=None if self.semantic is None else self.semantic.map(change),
        )

    def image(self, row: int) -> DenseMaps:
        """The maps of one image of the batch, as a batch of one."""
        return self.map(lambda m: m[row : row + 1])
