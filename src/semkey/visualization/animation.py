"""Animated PNG: pictures that take turns, in a file that browsers show like any other PNG."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.images.reading import PNG_SIGNATURE


def animated_png(frames: Sequence[NDArray[np.uint8]], milliseconds: int) -> bytes:
    """Pictures that are shown in turn, endlessly; programs that know no animation show the first one.

    See the PNG specification, third edition, section 11.3.4 (chunks acTL, fcTL, fdAT).

    Args:
        frames: at least one, (H, W, 3) uint8 RGB, all of one size.
        milliseconds: that each is shown, 1 to 65535.

    Returns:
        The bytes of a PNG file.

    Raises:
        InputError: no frames, different sizes, or not 8-bit RGB.
    """
    if not frames or any(frame.shape != frames[0].shape for frame in frames):
        raise InputError("an animation needs frames of one size")
    if frames[0].ndim != 3 or frames[0].shape[2] != 3 or any(frame.dtype != np.uint8 for frame in frames):
        raise InputError(f"frames of an animation must be (H, W, 3) uint8, got {frames[0].shape} {frames[0].dtype}")
    height, width = frames[0].shape[:2]
    parts, sequence = [PNG_SIGNATURE], 0
    for number, frame in enumerate(frames):
        _, encoded = cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
        chunks = dict(_chunks(encoded.tobytes()))
        if number == 0:
            parts += [_chunk(b"IHDR", chunks[b"IHDR"]), _chunk(b"acTL", struct.pack(">II", len(frames), 0))]
        control = struct.pack(">IIIIIHHBB", sequence, width, height, 0, 0, milliseconds, 1000, 0, 0)
        parts.append(_chunk(b"fcTL", control))
        sequence += 1
        if number == 0:
            parts.append(_chunk(b"IDAT", chunks[b"IDAT"]))
        else:
            parts.append(_chunk(b"fdAT", struct.pack(">I", sequence) + chunks[b"IDAT"]))
            sequence += 1
    return b"".join([*parts, _chunk(b"IEND", b"")])


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and content of a PNG's chunks, the image data of all its parts in one piece."""
    position, image = len(PNG_SIGNATURE), b""
    while position + 12 <= len(png):
        length = int.from_bytes(png[position : position + 4])
        kind, content = png[position + 4 : position + 8], png[position + 8 : position + 8 + length]
        if kind == b"IDAT":
            image += content
        else:
            yield kind, content
        position += 12 + length
    yield b"IDAT", image


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
