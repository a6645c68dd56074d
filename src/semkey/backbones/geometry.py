"""Where tokens lie: an image is continued to the patch grid, never stretched, and maps are read at true places.

Token (i, j) of a network with patches of p pixels covers pixels p i .. p i + p - 1 and p j .. p j + p - 1, so its
centre lies at (p - 1) / 2 + p i. An image whose side is no multiple of p is continued to the right and below by its
last column and row; no pixel moves.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F


def grid_size(height: int, width: int, patch: int) -> tuple[int, int]:
    """Rows and columns of tokens of an image: every pixel is covered."""
    return -(-height // patch), -(-width // patch)


def pad_to_patches(images: torch.Tensor, patch: int) -> torch.Tensor:
    """Images (B, C, H, W) continued to the right and below to multiples of ``patch``."""
    height, width = images.shape[-2:]
    rows, columns = grid_size(height, width, patch)
    below, right = rows * patch - height, columns * patch - width
    return F.pad(images, (0, right, 0, below), mode="replicate") if below or right else images


def resample(tokens: torch.Tensor, patch: int, stride: int, size: tuple[int, int]) -> torch.Tensor:
    """Read a map of tokens bilinearly at the centres of another grid over the same image.

    Args:
        tokens: (B, C, h, w), cells of ``patch`` pixels.
        patch: their side, pixels.
        stride: side of the cells of the other grid, pixels.
        size: rows and columns of the other grid.

    Returns:
        (B, C, *size): at each cell's centre; beyond the outermost tokens' centres their value.
    """
    height, width = tokens.shape[-2:]
    if height * patch == size[0] * stride and width * patch == size[1] * stride:
        return F.interpolate(tokens, size=size, mode="bilinear", align_corners=False)
    x, y = (
        2.0 * (torch.arange(count, device=tokens.device, dtype=torch.float32) + 0.5) * stride / (cells * patch) - 1.0
        for count, cells in ((size[1], width), (size[0], height))
    )
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).to(tokens.dtype)
    return F.grid_sample(
        tokens, grid.expand(len(tokens), -1, -1, -1), mode="bilinear", padding_mode="border", align_corners=False
    )
