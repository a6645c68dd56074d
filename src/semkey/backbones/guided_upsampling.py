"""Tokens of a backbone at the places of finer cells, chosen by what the image itself shows there."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

_LEAST_WEIGHT = 1e-6
_WIDTH = 16


class GuidedUpsampling(nn.Module):
    """Attention of each cell over the four tokens around its centre.

    Reading bilinearly mixes the tokens of both sides of an edge. Here the convolutions, which know on which side of it
    a cell lies, correct the bilinear weights: a query of theirs is compared with a key of each token, as FeatUp (Fu et
    al. 2024) and JAFAR (Couairon et al. 2025) do over larger windows. Untrained it reads bilinearly.

    Args:
        guide_channels: of the map of the convolutions, one cell per ``stride`` pixels.
        channels: of the tokens.
    """

    def __init__(self, guide_channels: int, channels: int) -> None:
        super().__init__()
        self.query = nn.Conv2d(guide_channels, _WIDTH, 1)
        self.key = nn.Conv2d(channels, _WIDTH, 1)
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, tokens: torch.Tensor, guide: torch.Tensor, patch: int, stride: int) -> torch.Tensor:
        """Read tokens at the centres of the guide's cells.

        Args:
            tokens: (B, C, h, w), cells of ``patch`` pixels.
            guide: (B, G, H, W), cells of ``stride`` pixels over the same image.
            patch: pixels.
            stride: pixels.

        Returns:
            (B, C, H, W), everywhere a mean of the tokens around; beyond the outermost centres their value.
        """
        rows, below = _nearest(guide.shape[-2], tokens.shape[-2], patch, stride, tokens)
        columns, right = _nearest(guide.shape[-1], tokens.shape[-1], patch, stride, tokens)
        keys, query = self.key(tokens), self.query(guide)
        read, logits = [], []
        for row in (0, 1):
            for column in (0, 1):
                at = (slice(None), slice(None), rows[row][:, None], columns[column])
                weight = (below if row else 1.0 - below)[:, None] * (right if column else 1.0 - right)
                alike = (query * keys[at]).sum(dim=1) / _WIDTH**0.5
                logits.append(weight.clamp(min=_LEAST_WEIGHT).log() + self.gain * alike)
                read.append(tokens[at])
        weights = F.softmax(torch.stack(logits, dim=1).float(), dim=1).to(tokens.dtype)  # (B, 4, H, W)
        return (torch.stack(read, dim=1) * weights[:, :, None]).sum(dim=1)


def _nearest(
    count: int, tokens: int, patch: int, stride: int, like: torch.Tensor
) -> tuple[tuple[torch.Tensor, torch.Tensor], torch.Tensor]:
    """Along one side, the token before and after each cell's centre, and how far between them it lies, in [0, 1]."""
    places = (torch.arange(count, device=like.device, dtype=torch.float32) + 0.5) * stride / patch - 0.5
    places = places.clamp(0, tokens - 1)
    before = places.floor().long().clamp(max=max(tokens - 2, 0))
    return (before, (before + 1).clamp(max=tokens - 1)), places - before
