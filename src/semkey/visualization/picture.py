"""A drawing: pixels that can be saved, shown in a notebook, and used as an array."""

from __future__ import annotations

import os
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.images.writing import write_image


class Picture:
    """A drawing. NumPy and Pillow take it as an array (``np.asarray(picture)``, ``Image.fromarray(picture)``).

    Attributes:
        pixels: (H, W, 3) uint8 RGB.

    Example:
        >>> import semkey, tempfile, pathlib
        >>> from skimage import data
        >>> features = semkey.load("orb").extract(data.camera())
        >>> picture = semkey.draw_keypoints(data.camera(), features)
        >>> picture
        Picture(512x512)
        >>> picture.pixels.shape, picture.pixels.dtype
        ((512, 512, 3), dtype('uint8'))
        >>> file = pathlib.Path(tempfile.mkdtemp()) / "keypoints.png"
        >>> picture.save(file)
        >>> file.is_file()
        True
    """

    def __init__(self, pixels: NDArray[np.uint8]) -> None:
        self.pixels = pixels

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W, 3)."""
        return self.pixels.shape

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the picture, whole or not at all, in the format that the name ends in (.png, .jpg, .webp, ...).

        Raises:
            InputError: unknown ending, or the path cannot be written.
        """
        write_image(path, self.pixels)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        array = self.pixels if dtype is None else self.pixels.astype(dtype, copy=False)
        return array.copy() if copy else array

    @property
    def __array_interface__(self) -> dict[str, Any]:
        return {**self.pixels.__array_interface__, "strides": self.pixels.strides}  # with them Pillow asks for bytes

    def tobytes(self) -> bytes:
        """The pixels row by row, red, green and blue."""
        return self.pixels.tobytes()

    def _repr_png_(self) -> bytes:
        return cv2.imencode(".png", cv2.cvtColor(self.pixels, cv2.COLOR_RGB2BGR))[1].tobytes()

    def __repr__(self) -> str:
        return f"Picture({self.pixels.shape[1]}x{self.pixels.shape[0]})"
