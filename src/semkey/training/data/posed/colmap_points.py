"""The points of a COLMAP model, text or binary: where they lie, and which images see them."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.errors import DatasetError

_HEAD = struct.Struct("<Q3d3Bd")
_SEEN_BYTES = 8  # number of an image, number of its keypoint
_TEXT_HEAD = 8  # POINT3D_ID X Y Z R G B ERROR, then pairs IMAGE_ID POINT2D_IDX


def read_colmap_points(file: Path) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Points and who sees them.

    Args:
        file: ``points3D.txt`` or ``points3D.bin``.

    Returns:
        (N, 3) positions in the world of the model, and (K,) rows of points and (K,) numbers of images: point
        ``rows[k]`` is seen by image ``images[k]``, once even where the image has two keypoints of it.

    Raises:
        DatasetError: the file is cut off or malformed.
    """
    positions, rows, images = [], [], []
    for number, (position, seen) in enumerate(_binary(file) if file.suffix == ".bin" else _text(file)):
        positions.append(position)
        distinct = np.unique(seen)
        rows.append(np.full(len(distinct), number, np.int64))
        images.append(distinct)
    if not positions:
        return np.zeros((0, 3)), np.zeros(0, np.int64), np.zeros(0, np.int64)
    points = np.array(positions, dtype=np.float64)
    if not np.isfinite(points).all():
        raise DatasetError(f"{file}: a point has numbers that are not finite")
    return points, np.concatenate(rows), np.concatenate(images)


def _text(file: Path) -> Iterator[tuple[list[float], NDArray[np.int64]]]:
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DatasetError(f"{file}: cannot be read as text") from None
    for number, line in enumerate(lines, start=1):
        if line.startswith("#") or not line.strip():
            continue
        columns = line.split()
        try:
            position = [float(text) for text in columns[1:4]]
            track = [int(text) for text in columns[_TEXT_HEAD:]]
        except ValueError:
            position, track = [], []
        if len(position) != 3 or not track or len(track) % 2:
            raise DatasetError(
                f"{file}:{number}: expected POINT3D_ID X Y Z R G B ERROR and pairs of IMAGE_ID POINT2D_IDX"
            )
        yield position, np.array(track[::2], dtype=np.int64)


def _binary(file: Path) -> Iterator[tuple[list[float], NDArray[np.int64]]]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DatasetError(f"{file}: cannot be read ({error.strerror})") from None
    try:
        (count,) = struct.unpack_from("<Q", data)
        place = 8
        for _ in range(count):
            _, x, y, z, *_ = _HEAD.unpack_from(data, place)
            (length,) = struct.unpack_from("<Q", data, place + _HEAD.size)
            place += _HEAD.size + 8
            if place + length * _SEEN_BYTES > len(data):
                raise ValueError
            seen = np.frombuffer(data, "<u4", count=2 * length, offset=place)
            place += length * _SEEN_BYTES
            yield [x, y, z], seen[::2].astype(np.int64)
    except (struct.error, ValueError):
        raise DatasetError(f"{file}: is cut off, or no points3D.bin of COLMAP") from None
