"""Position embeddings of DINOv2 with registers as products of matrices: ONNX 17 has no antialiased interpolation."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from torch import nn

# Of the cubic kernel that antialiased interpolation has in torch, as in Pillow.
_CUBIC = -0.5


def interpolate_antialiased(maps: torch.Tensor, rows: int, columns: int) -> torch.Tensor:
    """``torch.nn.functional.interpolate(maps, (rows, columns), mode="bicubic", antialias=True)``.

    Args:
        maps: (B, C, h, w).
        rows: of the result.
        columns: of the result.

    Returns:
        (B, C, rows, columns).
    """
    below, across = _weights(maps.shape[2], rows), _weights(maps.shape[3], columns)
    return below @ maps @ across.transpose(0, 1)


@contextmanager
def traceable_positions(module: nn.Module) -> Generator[None]:
    """Let every transformer of DINOv2 with registers in a module interpolate its positions by products of matrices."""
    found: list[Any] = [part for part in module.modules() if type(part).__name__ == "Dinov2WithRegistersEmbeddings"]
    for part in found:
        part.interpolate_pos_encoding = MethodType(_positions, part)
    try:
        yield
    finally:
        for part in found:
            del part.interpolate_pos_encoding


def _positions(self: Any, _embeddings: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """In place of the library's ``interpolate_pos_encoding``, which gets the tokens to see how many they are."""
    stored = self.position_embeddings
    side = round(self.patch_embeddings.num_patches**0.5)
    patch_height, patch_width = self.patch_embeddings.patch_size
    grid = stored[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    found = interpolate_antialiased(grid, height // patch_height, width // patch_width)
    return torch.cat([stored[:, :1], found.flatten(2).transpose(1, 2)], dim=1)


def _weights(cells: int, count: int) -> torch.Tensor:
    """How much of each of ``cells`` cells each of ``count`` others gets: (count, cells), rows that sum to one."""
    scale = torch.as_tensor(cells, dtype=torch.float32) / torch.as_tensor(count, dtype=torch.float32)
    centers = (torch.arange(count, dtype=torch.float32) + 0.5) * scale
    away = (torch.arange(cells, dtype=torch.float32) + 0.5)[None, :] - centers[:, None]
    x = (away / scale.clamp(min=1.0)).abs()
    near = ((_CUBIC + 2.0) * x - (_CUBIC + 3.0)) * x * x + 1.0
    far = (((x - 5.0) * x + 8.0) * x - 4.0) * _CUBIC
    weights = torch.where(x < 1.0, near, torch.where(x < 2.0, far, 0.0))
    return weights / weights.sum(dim=1, keepdim=True)
