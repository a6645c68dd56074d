"""Writing images atomically, in the format that the name tells."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.files import atomic_write_bytes, check_output_file

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def check_image_path(path: str | os.PathLike[str]) -> None:
    """Tell early, before the work, whether :func:`write_image` can be given this path.

    Raises:
        InputError: the ending is not a known image format, or the path is a folder or a read-only file.
    """
    target = Path(path)
    check_output_file(target)
    if target.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(f"cannot write {target}: an image name ends in one of {', '.join(IMAGE_SUFFIXES)}")


def write_image(path: str | os.PathLike[str], rgb: NDArray[Any]) -> None:
    """Write an image atomically in the format that the file name's ending tells.

    Args:
        path: a name ending in one of ``IMAGE_SUFFIXES``; missing folders are created.
        rgb: (H, W, 3) uint8 RGB, (H, W) uint8 gray, or (H, W) uint16 (a depth map; ``.png`` or ``.tif`` only).

    Raises:
        InputError: unknown ending, another shape or dtype, or the path cannot be written.
    """
    check_image_path(path)
    suffix = Path(path).suffix.lower()
    pixels = np.asarray(rgb)
    is_color = pixels.ndim == 3 and pixels.shape[2] == 3 and pixels.dtype == np.uint8
    is_deep = pixels.ndim == 2 and pixels.dtype == np.uint16 and suffix in (".png", ".tif", ".tiff")
    is_gray = pixels.ndim == 2 and pixels.dtype == np.uint8
    if not (is_color or is_deep or is_gray) or pixels.size == 0:
        raise InputError(f"cannot write {path}: {pixels.dtype} pixels of shape {pixels.shape} are no {suffix} image")
    encodable = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if is_color else pixels
    try:
        _, encoded = cv2.imencode(suffix, encodable)
    except cv2.error as error:
        raise InputError(f"cannot write {path}: {' '.join(str(error).split())}") from error
    atomic_write_bytes(path, encoded.tobytes())
