"""What a camera has noted in a photo's EXIF block: which way is up, and the focal length.

Read from JPEG, PNG, WebP and TIFF files (CIPA DC-008, Exif 2.32; the block is a TIFF directory). A damaged block counts
as none: it is a note about the picture, not the picture.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass

_JPEG_START, _PNG_SIGNATURE = b"\xff\xd8", b"\x89PNG\r\n\x1a\n"
_EXIF_HEADER = b"Exif\x00\x00"
_ORIENTATION, _EXIF_FOLDER = 0x0112, 0x8769
_FOCAL_MM, _FOCAL_35MM = 0x920A, 0xA405
_PIXEL_WIDTH, _PLANE_RESOLUTION, _PLANE_UNIT = 0xA002, 0xA20E, 0xA210
_WANTED = {_ORIENTATION, _EXIF_FOLDER, _FOCAL_MM, _FOCAL_35MM, _PIXEL_WIDTH, _PLANE_RESOLUTION, _PLANE_UNIT}
# Codes of the types SHORT, LONG and RATIONAL: how a value is unpacked, and its bytes.
_TYPES = {3: ("H", 2), 4: ("I", 4), 5: ("II", 8)}
_UNIT_MM = {2: 25.4, 3: 10.0, 4: 1.0}
# Diagonal of a frame of 35 mm film: the equivalent focal length compares diagonals (CIPA DCG-001).
_FILM_DIAGONAL_MM = math.hypot(36.0, 24.0)
_MOST_ENTRIES = 512


@dataclass(frozen=True, kw_only=True)
class Exif:
    """What is known of how a photo was taken.

    Attributes:
        orientation: 1 to 8, as EXIF counts: how the stored picture is to be turned to be upright, see
            :mod:`semkey.images.orientation`.
        focal_mm: focal length of the lens, millimetres; None where it is not noted.
        focal_35mm: focal length that gives the same view on 35 mm film, millimetres; or None.
        pixels_per_mm: of the sensor, for a picture ``plane_width`` pixels wide; or None.
        plane_width: pixels, or None.
    """

    orientation: int = 1
    focal_mm: float | None = None
    focal_35mm: float | None = None
    pixels_per_mm: float | None = None
    plane_width: int | None = None

    def focal_px(self, width: int, height: int) -> float | None:
        """Focal length in pixels of the whole picture at ``width`` x ``height``; None where nothing tells it.

        By the equivalent on film, else by lens and sensor; good to some per cent, since cameras round both and most
        crop a little for a video or for stabilisation.
        """
        if self.focal_35mm is not None:
            return self.focal_35mm * math.hypot(width, height) / _FILM_DIAGONAL_MM
        if self.focal_mm is None or self.pixels_per_mm is None:
            return None
        longest = max(width, height)
        return self.focal_mm * self.pixels_per_mm * (longest / (self.plane_width or longest))


def parse_exif(data: bytes) -> Exif:
    """The notes in an image file's bytes (its beginning is enough for JPEG); all unknown where there are none."""
    block = _block(data)
    if block is None:
        return Exif()
    try:
        values = dict(_entries(block))
    except (struct.error, IndexError):
        return Exif()
    orientation = values.get(_ORIENTATION, 1)
    unit = _UNIT_MM.get(int(values.get(_PLANE_UNIT, 2)))
    resolution = values.get(_PLANE_RESOLUTION, 0.0)
    width = int(values.get(_PIXEL_WIDTH, 0))
    return Exif(
        orientation=int(orientation) if orientation in range(1, 9) else 1,
        focal_mm=values.get(_FOCAL_MM) or None,
        focal_35mm=values.get(_FOCAL_35MM) or None,
        pixels_per_mm=resolution / unit if unit and resolution else None,
        plane_width=width or None,
    )


def _block(data: bytes) -> bytes | None:
    """The TIFF directory inside an image file."""
    if data.startswith(_JPEG_START):
        block = next((part[6:] for marker, part in _jpeg_parts(data) if marker == 0xE1 and _is_exif(part)), None)
    elif data.startswith(_PNG_SIGNATURE):
        block = next((part for kind, part in _chunks(data, 8, ">I4s", 4) if kind == b"eXIf"), None)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        block = next((part for kind, part in _chunks(data, 12, "<4sI", 0) if kind == b"EXIF"), None)
        block = block[6:] if block is not None and _is_exif(block) else block
    else:
        block = data
    return block if block is not None and block[:4] in (b"II*\x00", b"MM\x00*") else None


def _is_exif(part: bytes) -> bool:
    return part.startswith(_EXIF_HEADER)


def _jpeg_parts(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers before the picture itself, with their contents."""
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        if data[position + 1] == 0xFF:  # fill byte
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4])
        yield data[position + 1], data[position + 4 : position + 2 + length]
        position += 2 + max(length, 2)


def _chunks(data: bytes, position: int, header: str, behind: int) -> Iterator[tuple[bytes, bytes]]:
    """Chunks of PNG (length first, checksum behind) and of RIFF (name first, padded to an even length)."""
    while position + 8 <= len(data):
        first, second = struct.unpack_from(header, data, position)
        kind, length = (second, first) if header[0] == ">" else (first, second)
        yield kind, data[position + 8 : position + 8 + length]
        position += 8 + length + (behind or length % 2)


def _entries(block: bytes) -> Iterator[tuple[int, float]]:
    """Tags that are wanted, with their numbers, of the first folder and of its EXIF folder."""
    order = "<" if block[:2] == b"II" else ">"
    (folder,) = struct.unpack_from(order + "I", block, 4)
    inner = yield from _folder(block, order, folder)
    if inner is not None:
        yield from _folder(block, order, inner)


def _folder(block: bytes, order: str, start: int):
    (count,) = struct.unpack_from(order + "H", block, start)
    inner = None
    for number in range(min(count, _MOST_ENTRIES)):
        entry = start + 2 + 12 * number
        tag, kind, values = struct.unpack_from(order + "HHI", block, entry)
        if tag not in _WANTED or kind not in _TYPES or values != 1:
            continue
        pattern, size = _TYPES[kind]
        place = entry + 8 if size <= 4 else struct.unpack_from(order + "I", block, entry + 8)[0]
        parts = struct.unpack_from(order + pattern, block, place)
        if tag == _EXIF_FOLDER:
            inner = parts[0]
        elif len(parts) == 1 or parts[1]:
            yield tag, parts[0] / parts[1] if len(parts) == 2 else float(parts[0])
    return inner
