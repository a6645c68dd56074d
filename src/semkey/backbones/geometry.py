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
    return (height + patch - 1) // patch, (width + patch - 1) // patch


def pad_to_patches(images: torch.Tensor, patch: int) -> torch.Tensor:
    """Images (B, C, H, W) continued to the right and below to multiples of ``patch``."""
    height, width = images.shape[-2:]
    rows, columns = grid_size(height, width, patch)
    below, right = rows * patch - height, columns * patch - width
    return F.pad(images, (0, right, 0, below), mode="replicate") if below or right else images


def moved(images: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Images (B, C, H, W) whose first pixel is that at row ``down``, column ``right``; continued as they are padded."""
    continued = F.pad(images, (0, right, 0, down), mode="replicate") if down or right else images
    return continued[..., down:, right:]


def resample(
    tokens: torch.Tensor, patch: int, stride: int, size: tuple[int, int], origin: tuple[int, int] = (0, 0)
) -> torch.Tensor:
    """Read a map of tokens bilinearly at the centres of another grid over the same image.

    Args:
        tokens: (B, C, h, w), cells of ``patch`` pixels.
        patch: their side, pixels.
        stride: side of the cells of the other grid, pixels.
        size: rows and columns of the other grid.
        origin: row and column of the first token's first pixel, in the image that the other grid covers.

    Returns:
        (B, C, *size): at each cell's centre; beyond the outermost tokens' centres their value.
    """
    height, width = tokens.shape[-2:]
    if origin == (0, 0) and height * patch == size[0] * stride and width * patch == size[1] * stride:
        return F.interpolate(tokens, size=size, mode="bilinear", align_corners=False)
    x, y = (
        2.0 * ((_steps(count, tokens) + 0.5) * stride - first) / (cells * patch) - 1.0
        for count, cells, first in ((size[1], width, origin[1]), (size[0], height, origin[0]))
    )
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1).to(tokens.dtype)
    return F.grid_sample(
        tokens, grid.expand(tokens.shape[0], -1, -1, -1), mode="bilinear", padding_mode="border", align_corners=False
    )


def _steps(count: int, like: torch.Tensor) -> torch.Tensor:
    return torch.arange(count, device=like.device, dtype=torch.float32)
