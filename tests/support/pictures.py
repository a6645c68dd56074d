"""Pictures full of corners, for tests that need something to find: pure noise has nothing."""

from __future__ import annotations

import numpy as np
import torch


def blocks(height: int, width: int, seed: int = 0, size: int = 3) -> np.ndarray:
    """Blocks of random colours, (height, width, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // size + 1, width // size + 1, 3), dtype=np.uint8)
    return coarse.repeat(size, axis=0).repeat(size, axis=1)[:height, :width].copy()


def block_tensor(height: int, width: int, seed: int = 0) -> torch.Tensor:
    """The same as (3, height, width) float32 in [0, 1]."""
    return torch.from_numpy(blocks(height, width, seed)).permute(2, 0, 1).float().contiguous() / 255.0
