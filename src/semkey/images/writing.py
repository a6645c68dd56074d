"""Writing files atomically: a reader sees the old file or the whole new one, never a part."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.errors import InputError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path`` through a temporary file in the same folder; missing folders are created.

    Raises:
        InputError: the path cannot be written; a file that was there before is left as it was.
    """
    target = Path(path)
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        if target.is_dir():
            raise InputError(f"cannot write {target}: it is a folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(data)
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot write {target}: {reason}") from error


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, line ends as they are; otherwise as :func:`atomic_write_bytes`."""
    atomic_write_bytes(path, text.encode("utf-8"))


def check_image_path(path: str | os.PathLike[str]) -> None:
    """Tell early, before the work, whether :func:`write_image` can be given this path.

    Raises:
        InputError: the ending is not a known image format, or the path is a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"cannot write {target}: it is a folder")
    if target.suffix.lower() not in IMAGE_SUFFIXES:
        raise InputError(f"cannot write {target}: an image name ends in one of {', '.join(IMAGE_SUFFIXES)}")


def write_image(path: str | os.PathLike[str], rgb: NDArray) -> None:
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
