"""All surface textures and their mip levels packed into one picture, so that a frame is one lookup per level."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_SHEET_WIDTH = 8192
_SHEET_HEIGHT_LIMIT = 32_000  # cv2.remap addresses source pixels with 16 bits


@dataclass(frozen=True, kw_only=True)
class TextureAtlas:
    """Mip pyramids of F textures in one sheet.

    Attributes:
        sheet: (H, W, 3) uint8 RGB.
        left, top: (F, L) float32, sheet position of the centre of each level's first texel.
        widths, heights: (F, L) float32, texels of each level. Levels past a texture's last repeat the last one.
    """

    sheet: NDArray[np.uint8]
    left: NDArray[np.float32]
    top: NDArray[np.float32]
    widths: NDArray[np.float32]
    heights: NDArray[np.float32]

    @property
    def levels(self) -> int:
        """Number of mip levels L."""
        return self.left.shape[1]

    def sample(
        self,
        texture: NDArray[np.int32],
        s: NDArray[np.float32],
        t: NDArray[np.float32],
        level_of_detail: NDArray[np.float32],
    ) -> NDArray[np.uint8]:
        """Trilinear lookup.

        Args:
            texture: (H, W) int32 texture index per pixel.
            s: (H, W) float32 position across the texture in [0, 1]; values outside are clamped.
            t: (H, W) float32 position down the texture in [0, 1].
            level_of_detail: (H, W) float32, log2 of texels per pixel.

        Returns:
            (H, W, 3) uint8 RGB.
        """
        detail = np.clip(level_of_detail, np.float32(0.0), np.float32(self.levels - 1.001))
        lower = detail.astype(np.int32)
        fraction = detail - lower.astype(np.float32)
        first = texture * np.int32(self.levels) + lower
        fine = self._bilinear(first, s, t)
        coarse = self._bilinear(first + np.int32(1), s, t)
        return cv2.blendLinear(fine, coarse, 1.0 - fraction, fraction).astype(np.uint8, copy=False)

    def _bilinear(self, index: NDArray[np.int32], s: NDArray[np.float32], t: NDArray[np.float32]) -> NDArray[np.uint8]:
        half = np.float32(0.5)
        width, height = self.widths.ravel().take(index), self.heights.ravel().take(index)
        # Clamped to texel centres, bilinear weights never reach a neighbour in the sheet: no gutters needed.
        x = np.clip(s * width - half, 0.0, width - 1) + self.left.ravel().take(index)
        y = np.clip(t * height - half, 0.0, height - 1) + self.top.ravel().take(index)
        return cv2.remap(self.sheet, x, y, cv2.INTER_LINEAR).astype(np.uint8, copy=False)


def pack_textures(textures: Sequence[NDArray[np.uint8]]) -> TextureAtlas:
    """Build the mip levels of each (h, w, 3) uint8 texture (area-averaged halvings to 1x1) and pack them in shelves."""
    pyramids: list[list[NDArray[np.uint8]]] = []
    for texture in textures:
        levels = [texture]
        while max(levels[-1].shape[:2]) > 1:
            height, width = levels[-1].shape[:2]
            size = (max(1, (width + 1) // 2), max(1, (height + 1) // 2))
            levels.append(cv2.resize(levels[-1], size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False))
        pyramids.append(levels)
    depth = max(2, *(len(levels) for levels in pyramids))
    entries = sorted(
        (
            (image.shape[0], image.shape[1], face, level)
            for face, levels in enumerate(pyramids)
            for level, image in enumerate(levels)
        ),
        reverse=True,
    )
    left, top = np.zeros((len(pyramids), depth), np.float32), np.zeros((len(pyramids), depth), np.float32)
    sheet_width = max(_SHEET_WIDTH, *(entry[1] for entry in entries))
    x = y = shelf = 0
    for height, width, face, level in entries:
        if x + width > sheet_width:
            x, y, shelf = 0, y + shelf, 0
        shelf = max(shelf, height)
        left[face, level], top[face, level] = x, y
        x += width
    total_height = y + shelf
    if total_height > _SHEET_HEIGHT_LIMIT:
        raise MemoryError(f"textures need a sheet of {sheet_width}x{total_height} texels; use a larger texel_size")
    sheet = np.zeros((total_height, sheet_width, 3), np.uint8)
    widths, heights = np.ones_like(left), np.ones_like(left)
    for face, levels in enumerate(pyramids):
        for level in range(depth):
            source = min(level, len(levels) - 1)
            image = levels[source]
            left[face, level], top[face, level] = left[face, source], top[face, source]
            heights[face, level], widths[face, level] = image.shape[:2]
            if level == source:
                row, column = int(top[face, level]), int(left[face, level])
                sheet[row : row + image.shape[0], column : column + image.shape[1]] = image
    return TextureAtlas(sheet=sheet, left=left, top=top, widths=widths, heights=heights)
