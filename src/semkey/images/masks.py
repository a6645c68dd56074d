"""Masks: which pixels of an image may be used. People, the robot's own arm, a lens hood, the sky are left out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.images.reading import read_stored

MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff", ".webp", ".jpg", ".jpeg")
"""In the order in which a mask is looked for in a folder."""
_JPEG_SUFFIXES = (".jpg", ".jpeg")
_LINE_SAMPLES = 32


def read_mask(path: str | os.PathLike[str]) -> NDArray[np.uint8]:
    """Read a mask: black is left out, every other value is used.

    JPEG does not keep black black: there a pixel is used from 128 on.

    Args:
        path: an image file of any kind that :func:`semkey.images.read_image` reads.

    Returns:
        (H, W) uint8, 0 or 255.

    Raises:
        InputError: as for :func:`semkey.images.read_image`.
    """
    stored = read_stored(path)
    if stored.ndim == 3:
        stored = stored[..., :-1] if stored.shape[2] in (2, 4) else stored  # an alpha channel says nothing
        stored = stored.max(axis=2)
    threshold = 128 if Path(path).suffix.lower() in _JPEG_SUFFIXES else 1
    return np.where(stored >= threshold, np.uint8(255), np.uint8(0))


def check_mask(mask: object, size: tuple[int, int], *, name: str = "mask") -> NDArray[np.bool_]:
    """A mask as it is used, or what is wrong with it.

    A mask that leaves out every pixel is allowed: such an image has no keypoints.

    Args:
        mask: (H, W) uint8 or bool array, or anything that becomes one (a torch tensor); or the path of a mask.
        size: (width, height) of the image, pixels.
        name: of the mask, for messages.

    Returns:
        (H, W) bool: which pixels may be used.

    Raises:
        InputError: another size than the image, another type, or an unreadable file.
    """
    if isinstance(mask, str | os.PathLike):
        name, mask = str(mask), read_mask(mask)
    array = np.asarray(mask.detach().cpu() if hasattr(mask, "detach") else mask)  # ty: ignore[not-callable]
    if array.dtype not in (np.uint8, np.bool_) or array.ndim != 2:
        raise InputError(
            f"{name} is {array.dtype} of shape {array.shape}: a mask is uint8 (or bool) of shape (H, W), 0 where the "
            "image is to be left out"
        )
    if (array.shape[1], array.shape[0]) != tuple(size):
        raise InputError(
            f"{name} has {array.shape[1]}x{array.shape[0]} pixels, its image {size[0]}x{size[1]}: "
            "a mask has the size of the image"
        )
    return array != 0


def shrink_mask(usable: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """The mask of a reduced image: a pixel is used where everything that it covers is used.

    Args:
        usable: (H, W) bool.
        size: (width, height) of the reduced image, at most that of the mask.
    """
    height, width = usable.shape
    if (width, height) == tuple(size):
        return usable
    # A pixel left out anywhere under a reduced one must count, however small its share of the area is.
    x0, x1 = _covered(width, size[0])
    y0, y1 = _covered(height, size[1])
    excluded = np.zeros((height + 1, width + 1), dtype=np.int64)
    excluded[1:, 1:] = np.cumsum(np.cumsum(~usable, axis=0), axis=1)
    inside = excluded[y1][:, x1] - excluded[y0][:, x1] - excluded[y1][:, x0] + excluded[y0][:, x0]
    return inside == 0


def _covered(length: int, reduced: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First pixel, and the one behind the last, that each pixel of a reduced axis covers."""
    edges = np.arange(reduced + 1) * (length / reduced)
    return np.floor(edges[:-1] + 1e-6).astype(np.int64), np.ceil(edges[1:] - 1e-6).astype(np.int64)


def in_mask(points: NDArray[Any], usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which points lie on pixels that may be used.

    Args:
        points: (..., 2) pixels ``x y``, pixel centres at integers; outside the image counts as its edge.
        usable: (H, W) bool.
    """
    height, width = usable.shape
    x = np.clip(np.floor(points[..., 0] + 0.5).astype(np.int64), 0, width - 1)
    y = np.clip(np.floor(points[..., 1] + 0.5).astype(np.int64), 0, height - 1)
    return usable[y, x]


def segments_in_mask(segments: NDArray[Any], usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which line segments lie wholly on pixels that may be used, with the pixels that they separate.

    An edge between a masked object and what is behind it moves with the object: a segment is refused that comes within
    two pixels of the mask.

    Args:
        segments: (L, 2, 2) pixels, start and end.
        usable: (H, W) bool.

    Returns:
        (L,) bool.
    """
    if not len(segments):
        return np.zeros(0, dtype=bool)
    away = cv2.erode(usable.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    longest = float(np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1).max())
    share = np.linspace(0.0, 1.0, max(_LINE_SAMPLES, int(np.ceil(longest)) + 1))
    points = segments[:, None, 0] + share[None, :, None] * (segments[:, None, 1] - segments[:, None, 0])
    return np.all(in_mask(points, away), axis=1)


class MaskSource:
    """Masks of many images: one for all of them, or a folder with one for each.

    In a folder the mask of ``frames/a.png`` is ``a.png``, or a file of that name with another ending or ``_mask``
    before it (``a_mask.png``, ``a.png.png`` as COLMAP has it).

    Args:
        path: an image file, or a folder.

    Raises:
        InputError: there is nothing, or the folder holds no images.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path: Path = Path(path)
        if not self.path.exists():
            raise InputError(f"{self.path}: no such mask or folder of masks")
        self._one = None if self.path.is_dir() else read_mask(self.path)
        self._files: dict[str, Path] = {}
        if self._one is None:
            inside = [file for file in sorted(self.path.iterdir()) if file.suffix.lower() in MASK_SUFFIXES]
            self._files = {file.name.lower(): file for file in inside}
            if not self._files:
                raise InputError(f"{self.path}: holds no masks (images named like those that they are for)")

    @property
    def is_one(self) -> bool:
        """Whether all images have the same mask."""
        return self._one is not None

    def mask(self, image_name: str) -> NDArray[np.uint8]:
        """The mask of an image, (H, W) uint8.

        Args:
            image_name: its file name; folders before it do not count.

        Raises:
            InputError: the folder has none for it, or it cannot be read.
        """
        return self._one if self._one is not None else read_mask(self.file(image_name))

    def file(self, image_name: str) -> Path:
        """Where the mask of an image lies.

        Raises:
            InputError: the folder has none for it.
        """
        if self._one is not None:
            return self.path
        name = Path(image_name).name.lower()
        stem = Path(name).stem
        for base in (name, stem, f"{stem}_mask", f"{name}_mask"):
            for candidate in (base, *(f"{base}{suffix}" for suffix in MASK_SUFFIXES)):
                if candidate in self._files:
                    return self._files[candidate]
        raise InputError(f"{self.path}: no mask for {Path(image_name).name} (it would be named {stem}.png)")
