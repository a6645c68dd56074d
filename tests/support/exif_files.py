"""Photos and videos that are stored turned, as phones write them."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import cv2
import numpy as np

from semkey.images.orientation import turn_upright

#: Which orientation stores a picture so that the given one shows it: quarter turns undo each other, the rest itself.
INVERSE = {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}


def exif_block(values: Mapping[int, float | int], *, big: bool = True) -> bytes:
    """A TIFF directory with these tags: whole numbers as SHORT, others as RATIONAL; tags from 0x9000 in EXIF's own."""
    order = ">" if big else "<"
    outer = {tag: value for tag, value in values.items() if tag < 0x9000}
    inner = {tag: value for tag, value in values.items() if tag >= 0x9000}
    head = (b"MM\0*" if big else b"II*\0") + struct.pack(order + "I", 8)
    count = len(outer) + bool(inner)
    inner_at = 8 + 2 + 12 * count + 4 + 8 * sum(isinstance(value, float) for value in outer.values())
    body, rest = b"", b""
    rest_at = 8 + 2 + 12 * count + 4
    for tag, value in sorted(outer.items()):
        body, rest = _entry(order, tag, value, body, rest, rest_at)
    if inner:
        body += struct.pack(order + "HHII", 0x8769, 4, 1, inner_at)
    block = head + struct.pack(order + "H", count) + body + struct.pack(order + "I", 0) + rest
    if inner:
        body, rest, rest_at = b"", b"", inner_at + 2 + 12 * len(inner) + 4
        for tag, value in sorted(inner.items()):
            body, rest = _entry(order, tag, value, body, rest, rest_at)
        block += struct.pack(order + "H", len(inner)) + body + struct.pack(order + "I", 0) + rest
    return block


def _entry(order: str, tag: int, value: float, body: bytes, rest: bytes, rest_at: int) -> tuple[bytes, bytes]:
    if isinstance(value, float):
        body += struct.pack(order + "HHII", tag, 5, 1, rest_at + len(rest))
        return body, rest + struct.pack(order + "II", round(value * 1000), 1000)
    return body + struct.pack(order + "HHIHH", tag, 3, 1, value, 0), rest


def with_exif(jpeg: bytes, values: Mapping[int, float | int]) -> bytes:
    """A JPEG with these notes."""
    payload = b"Exif\0\0" + exif_block(values)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(payload) + 2) + payload + jpeg[2:]


def write_turned(path: Path, shown: np.ndarray, orientation: int, more: Mapping[int, float | int] = {}) -> None:
    """A JPEG (RGB pixels given) that programs show as ``shown``, stored as a camera held otherwise stores it."""
    stored = turn_upright(shown, INVERSE[orientation])
    encoded, data = cv2.imencode(".jpg", cv2.cvtColor(stored, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 98])
    assert encoded
    path.write_bytes(with_exif(data.tobytes(), {0x0112: orientation, **more}))


def write_video(path: Path, frames: Sequence[np.ndarray], rate: float = 20.0) -> Path:
    """A video of RGB pictures as they are stored."""
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), rate, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(np.ascontiguousarray(frame[..., ::-1]))
    writer.release()
    return path


def set_rotation(video: Path, degrees: int) -> None:
    """Note in an MP4 file that it is to be shown turned clockwise: the matrix of its track header."""
    a, b = {0: (1, 0), 90: (0, 1), 180: (-1, 0), 270: (0, -1)}[degrees]
    matrix = struct.pack(">9i", a << 16, b << 16, 0, -b << 16, a << 16, 0, 0, 0, 1 << 30)
    data = bytearray(video.read_bytes())
    start = data.index(b"tkhd") + 4 + 40
    data[start : start + 36] = matrix
    video.write_bytes(bytes(data))


def write_variable_rate(path: Path, frames: Sequence[np.ndarray], ticks: Sequence[int], rate: float = 60.0) -> Path:
    """A Matroska video whose frames are shown at these multiples of ``1 / rate`` seconds."""
    plain = write_video(path.with_suffix(".mp4"), frames, rate)
    packets = cv2.VideoCapture(str(plain), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    height, width = frames[0].shape[:2]
    options = [cv2.VIDEOWRITER_PROP_RAW_VIDEO, 1]
    code = cv2.VideoWriter.fourcc(*"mp4v")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, code, rate, (width, height), options)
    for tick in ticks:
        found, packet = packets.read()
        assert found
        writer.set(cv2.VIDEOWRITER_PROP_PTS, float(tick))
        writer.write(packet.copy())
    writer.release()
    plain.unlink()
    return path
