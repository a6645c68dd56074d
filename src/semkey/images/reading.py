"""Reading images and depth maps from files, with one clear line for everything that can be wrong with a file."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.images.exif import Exif, parse_exif
from semkey.images.orientation import UPRIGHT, turn_upright
from semkey.images.tones import Tone, tone_of

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
JPEG_START = b"\xff\xd8"
JPEG_END = b"\xff\xd9"
JPEG_START_OF_SCAN = 0xDA
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc")
# Where the EXIF block of a JPEG ends at the latest, behind colour profiles and the like.
_EXIF_BYTES = 1 << 18


@dataclass
class _LogLevel:
    """OpenCV's level of logging: who keeps it quiet at the moment, and what it was before."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0
    before: int = 0


_log_level = _LogLevel()


def read_image(
    path: str | os.PathLike[str], *, orientation: int | None = None, tone: Tone | None = None
) -> NDArray[np.uint8]:
    """Read an image file as 8-bit RGB, upright.

    Gray is repeated into three channels, an alpha channel is dropped, 16-bit values are scaled to 8 bits: by 257
    where they spread over the range, else stretched between their own percentiles (:mod:`semkey.images.tones`).

    Args:
        path: a PNG, JPEG, WebP, TIFF, BMP, PNM or any other file that OpenCV decodes; any Unicode name.
        orientation: how to turn the stored picture, see :mod:`semkey.images.orientation`; None does as its EXIF block
            says, as programs that show pictures do; 1 leaves it as it is stored (TIFF files are turned always).
        tone: for 16-bit values, which become black and white; None finds them for this picture.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        InputError: the file is missing, a folder, empty, truncated, damaged, not an image, or of a pixel type other
            than 8- or 16-bit unsigned.
    """
    data = _read_bytes(Path(path))
    pixels = _decode(Path(path), data)
    code = _orientation(data) if orientation is None else orientation
    if pixels.dtype == np.uint16:
        pixels = (tone or tone_of([pixels])).apply(pixels)
    if pixels.dtype != np.uint8:
        raise InputError(f"{path} has {pixels.dtype} pixels: convert it to an 8- or 16-bit image")
    if pixels.ndim == 3 and pixels.shape[2] == 2:  # gray + alpha
        pixels = pixels[:, :, 0]
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        rgb = cv2.cvtColor(pixels, cv2.COLOR_GRAY2RGB)
    elif pixels.shape[2] == 4:
        rgb = cv2.cvtColor(pixels, cv2.COLOR_BGRA2RGB)
    else:
        # In place: at 100 megapixels a second copy is 300 MB.
        rgb = cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB, dst=pixels)
    return np.asarray(turn_upright(rgb, code), dtype=np.uint8)


def read_stored(path: str | os.PathLike[str]) -> NDArray[Any]:
    """The values of an image file as they are stored, turned upright: (H, W) or (H, W, C), BGR, of any depth.

    Raises:
        InputError: as for :func:`read_image`, but for the pixel type.
    """
    data = _read_bytes(Path(path))
    return turn_upright(_decode(Path(path), data), _orientation(data))


def read_exif(path: str | os.PathLike[str]) -> Exif:
    """What the camera has noted in an image file; all unknown where there is nothing.

    Raises:
        InputError: the file is missing, a folder, empty or cannot be read.
    """
    start = _read_bytes(Path(path), most=_EXIF_BYTES)
    # In other kinds than these the notes may stand behind the picture.
    data = start if start.startswith((JPEG_START, PNG_SIGNATURE)) else _read_bytes(Path(path))
    return replace(parse_exif(data), orientation=_orientation(data))


def read_depth(path: str | os.PathLike[str], scale: float, *, scale_of_floats: float = 1.0) -> NDArray[np.float32]:
    """Read a depth map in metres.

    Args:
        path: a single-channel image of 16-bit integers (PNG in TUM RGB-D and 7-Scenes) or of 32-bit floats (TIFF).
        scale: stored units per metre of integers, > 0 (TUM RGB-D 5000, 7-Scenes 1000).
        scale_of_floats: stored units per metre of floats, > 0; they are metres mostly.

    Returns:
        (H, W) float32 metres; 0 where the depth is invalid (stored as 0, as 65535, which 7-Scenes uses, or as a float
        that is not finite or not positive).

    Raises:
        InputError: as for :func:`read_image`, or the file is not single-channel of such numbers, or a scale is not
            positive.
    """
    if not (np.isfinite(scale) and scale > 0):
        raise InputError(f"depth scale must be a positive number of units per metre, got {scale}")
    stored = _decode(Path(path), _read_bytes(Path(path)))
    if stored.ndim == 2 and stored.dtype == np.float32:
        with np.errstate(invalid="ignore"):
            metres = stored * np.float32(1.0 / scale_of_floats)
            return np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(0.0))
    if stored.dtype != np.uint16 or stored.ndim != 2:
        channels = 1 if stored.ndim == 2 else stored.shape[2]
        raise InputError(
            f"{path} is not a depth map: expected one channel of 16-bit integers or 32-bit floats, found {channels} of "
            f"{stored.dtype}"
        )
    depth = stored.astype(np.float32)
    depth *= np.float32(1.0 / scale)
    depth[stored == np.iinfo(np.uint16).max] = 0.0
    return depth


def _orientation(data: bytes) -> int:
    """As the EXIF block says; OpenCV has turned TIFF files already."""
    return UPRIGHT if data[:4] in (b"II*\x00", b"MM\x00*") else parse_exif(data).orientation


def _decode(path: Path, data: bytes) -> NDArray[Any]:
    """The pixels of an image file exactly as stored (BGR order, any depth)."""
    damage = _find_damage(data)
    if damage is not None:
        raise InputError(f"{path} is {damage}: restore the file or leave it out")
    try:
        with _quiet_opencv():
            # Decoding from memory works with any file name; UNCHANGED keeps 16 bits and ignores EXIF orientation.
            pixels = cv2.imdecode(np.frombuffer(data, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
    except (cv2.error, MemoryError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} cannot be decoded as an image: {reason}") from error
    if pixels is None and data[4:8] == b"ftyp" and any(brand in data[8:40] for brand in _HEIC_BRANDS):
        raise InputError(f"{path} is HEIC, which semkey does not read: convert it to JPEG")
    if pixels is None:
        raise InputError(f"{path} is not an image, or it is truncated or damaged")
    return pixels


def _read_bytes(path: Path, most: int = -1) -> bytes:
    try:
        if path.is_dir():
            raise InputError(f"{path} is a folder, not an image file")
        with path.open("rb") as file:
            data = file.read(most)
    except FileNotFoundError as error:
        raise InputError(f"image not found: {path}") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read {path}: {reason}") from error
    if not data:
        raise InputError(f"{path} is empty (0 bytes)")
    return data


def _find_damage(data: bytes) -> str | None:
    """What is wrong with a JPEG or PNG, as an adjective; ``None`` if it is whole or of another format.

    OpenCV 4 decodes the part of a cut file that is there and fills the rest with gray, so cuts are looked for here.
    """
    if data.startswith(PNG_SIGNATURE):
        return _find_png_damage(data)
    if data.startswith(JPEG_START):
        return _find_jpeg_damage(data)
    return None


def _find_png_damage(data: bytes) -> str | None:
    view = memoryview(data)
    position = len(PNG_SIGNATURE)
    while position + 12 <= len(data):
        length = int.from_bytes(view[position : position + 4])
        kind = bytes(view[position + 4 : position + 8])
        end = position + 12 + length
        if end > len(data):
            break
        if zlib.crc32(view[position + 4 : end - 4]) != int.from_bytes(view[end - 4 : end]):
            return "a damaged PNG (wrong checksum)"
        if kind == b"IEND":
            return None
        position = end
    return "a truncated PNG"


def _find_jpeg_damage(data: bytes) -> str | None:
    # The end marker is searched for behind the start of the first scan only, because the thumbnail inside the EXIF
    # segment of a camera's file has an end marker of its own.
    position = len(JPEG_START)
    while position + 4 <= len(data):
        if data[position] != 0xFF:
            return "a damaged JPEG"
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker == JPEG_START_OF_SCAN:
            return None if data.find(JPEG_END, position) >= 0 else "a truncated JPEG"
        position += 2 + int.from_bytes(data[position + 2 : position + 4])
    return "a truncated JPEG"


@contextmanager
def _quiet_opencv() -> Generator[None]:
    """Keep OpenCV's own warnings about broken files off stderr; the level is global, so nested users are counted."""
    with _log_level.lock:
        if _log_level.users == 0:
            _log_level.before = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        _log_level.users += 1
    try:
        yield
    finally:
        with _log_level.lock:
            _log_level.users -= 1
            if _log_level.users == 0:
                cv2.utils.logging.setLogLevel(_log_level.before)
