"""The size of an image file, from its header: before anything is decoded that may be larger than it should be."""

from __future__ import annotations

from pathlib import Path

from semkey.images.orientation import UPRIGHT
from semkey.images.reading import JPEG_START, PNG_SIGNATURE, read_image

Size = tuple[int, int]

# Start-of-frame markers of JPEG (ITU-T T.81, table B.1); C4, C8 and CC in between are other segments.
_JPEG_START_OF_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_HEADER_BYTES = 1 << 18


def stored_size(path: Path) -> Size:
    """(width, height) of an image file as it is stored: :func:`header_size`, else by decoding it.

    Raises:
        InputError: the header does not tell, and the file cannot be decoded.
    """
    size = header_size(path)
    if size is None:
        height, width = read_image(path, orientation=UPRIGHT).shape[:2]
        return width, height
    return size


def header_size(path: Path) -> Size | None:
    """(width, height) as the header of PNG, JPEG, WebP, BMP and binary PNM says; None where it does not tell."""
    with path.open("rb") as file:
        header = file.read(_HEADER_BYTES)
    found = (reader(header) for reader in (_png_size, _jpeg_size, _webp_size, _bmp_size, _pnm_size))
    size = next((one for one in found if one is not None), None)
    return None if size is None or min(size) < 1 else size


def _png_size(header: bytes) -> Size | None:
    if len(header) < 24 or not header.startswith(PNG_SIGNATURE):
        return None
    return int.from_bytes(header[16:20], "big"), int.from_bytes(header[20:24], "big")


def _jpeg_size(header: bytes) -> Size | None:
    if not header.startswith(JPEG_START):
        return None
    position = len(JPEG_START)
    while position + 9 <= len(header) and header[position] == 0xFF:
        marker = header[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
            continue
        if marker in _JPEG_START_OF_FRAME:
            height, width = header[position + 5 : position + 7], header[position + 7 : position + 9]
            return int.from_bytes(width, "big"), int.from_bytes(height, "big")
        position += 2 + int.from_bytes(header[position + 2 : position + 4], "big")
    return None


def _webp_size(header: bytes) -> Size | None:
    """Of the first chunk: lossy (RFC 6386, 9.1), lossless (14 bits a side, less one), or extended (24 bits)."""
    if len(header) < 30 or header[:4] != b"RIFF" or header[8:12] != b"WEBP":
        return None
    kind, body = header[12:16], header[20:30]
    if kind == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    if kind == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    return None


def _bmp_size(header: bytes) -> Size | None:
    """Of the usual header of 40 bytes or more; rows that run down have a negative height."""
    if len(header) < 26 or header[:2] != b"BM" or int.from_bytes(header[14:18], "little") < 40:
        return None
    height = int.from_bytes(header[22:26], "little", signed=True)
    return int.from_bytes(header[18:22], "little", signed=True), abs(height)


def _pnm_size(header: bytes) -> Size | None:
    if header[:2] not in (b"P5", b"P6"):
        return None
    fields = b" ".join(line.split(b"#")[0] for line in header[2:1024].split(b"\n")).split()[:2]
    if len(fields) < 2 or not all(value.isdigit() for value in fields):
        return None
    return int(fields[0]), int(fields[1])
