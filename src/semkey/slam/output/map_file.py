"""The file that a map is kept in: named arrays and a JSON header in one safetensors file, with version and checksum.

What the arrays mean is the subject of :mod:`semkey.slam.output.session`; ``docs/map-format.md`` describes both.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.files import atomic_write_bytes
from semkey.untrusted import JSON_LIMIT, MEGABYTE, parse_json, read_bytes

FORMAT_VERSION = 2
"""Highest version that is read. A file has the lowest one whose readers understand it: 2 where lines are in it."""

_METADATA_KEY = "semkey_map"
_FILE_LIMIT = 16 << 30  # bytes; a device, which has no end, is refused as such
_NO_MAP = "is not a semkey map; give a file written by 'semkey slam --save-map'"


@dataclass(frozen=True, kw_only=True)
class ArraySpec:
    """What an array of the file must look like.

    Attributes:
        dtype: numpy's name of the element type.
        shape: of each axis its length, or a letter that stands for one length throughout the file.
        optional: whether a file may lack it.
    """

    dtype: str
    shape: tuple[int | str, ...]
    optional: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class MapFile:
    """The content of a map file.

    Attributes:
        header: what is no array; JSON types only.
        arrays: by name, such as ``keyframes/T_world_cam``.
        version: of the format.
    """

    header: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]
    version: int = 1


def encode_map_file(content: MapFile) -> bytes:
    """The bytes of a map file; the same content gives the same bytes."""
    from safetensors.numpy import save

    arrays = {name: np.ascontiguousarray(content.arrays[name]) for name in sorted(content.arrays)}
    header = json.dumps(content.header, sort_keys=True, allow_nan=False)
    metadata = {"version": content.version, "sha256": _checksum(header, arrays), "header": header}
    # One entry of metadata only: safetensors writes several in an order that changes from run to run.
    return save(arrays, metadata={_METADATA_KEY: json.dumps(metadata)})


def write_map_file(path: str | Path, content: MapFile) -> None:
    """Write a map file atomically.

    Raises:
        InputError: it cannot be written (no such folder, disk full, ...); a file that was there stays as it was.
    """
    write_encoded(path, encode_map_file(content))


def write_encoded(path: str | Path, data: bytes) -> None:
    """Write the bytes of :func:`encode_map_file` atomically.

    Raises:
        InputError: see :func:`write_map_file`.
    """
    try:
        atomic_write_bytes(path, data)
    except InputError as error:
        raise InputError(
            f"{error}; the map needs {len(data) / 1e6:.1f} MB, and a file of that name is left as it was"
        ) from error


def read_map_file(path: str | Path, specs: Mapping[str, ArraySpec]) -> MapFile:
    """Read a map file and check it.

    Args:
        path: the file.
        specs: the arrays that it must have; others are not allowed.

    Raises:
        InputError: missing, no map, of a newer version, damaged (truncated or another checksum), or with an array
            missing or of another type or shape than ``specs`` says.
    """
    path = Path(path)
    data = read_bytes(path, limit=_FILE_LIMIT)
    metadata = _metadata(path, data)
    version = metadata.get("version")
    if not isinstance(version, int) or version < 1:
        raise InputError(f"{path}: {_NO_MAP}")
    if version > FORMAT_VERSION:
        raise InputError(
            f"{path}: map format {version} is newer than this semkey, which reads up to {FORMAT_VERSION}; update semkey"
        )
    arrays = _arrays(path, data)
    header_text = metadata.get("header")
    if not isinstance(header_text, str) or metadata.get("sha256") != _checksum(header_text, arrays):
        raise InputError(f"{path}: the map is damaged (its checksum is wrong); use another copy")
    header = parse_json(header_text, path)
    if not isinstance(header, dict):
        raise InputError(f"{path}: {_NO_MAP}")
    check_arrays(path, arrays, specs)
    return MapFile(header=header, arrays=arrays, version=version)


def check_arrays(
    path: str | Path, arrays: Mapping[str, NDArray[Any]], specs: Mapping[str, ArraySpec]
) -> dict[str, int]:
    """Check names, types and shapes of arrays; returns the length that each letter stands for.

    Raises:
        InputError: an array is missing, unknown, or of another type or shape.
    """
    unknown = sorted(arrays.keys() - specs.keys())
    if unknown:
        raise InputError(f"{path}: unknown array '{unknown[0]}' in the map")
    lengths: dict[str, int] = {}
    for name, spec in specs.items():
        array = arrays.get(name)
        if array is None:
            if spec.optional:
                continue
            raise InputError(f"{path}: array '{name}' is missing in the map")
        expected = [lengths.get(axis, axis) if isinstance(axis, str) else axis for axis in spec.shape]
        fits = array.ndim == len(expected) and all(
            isinstance(axis, str) or axis == length for axis, length in zip(expected, array.shape, strict=True)
        )
        if array.dtype != np.dtype(spec.dtype) or not fits:
            wanted = ", ".join(map(str, expected))
            raise InputError(f"{path}: array '{name}' is {array.dtype} {array.shape}, expected {spec.dtype} ({wanted})")
        lengths |= {axis: length for axis, length in zip(spec.shape, array.shape, strict=True) if isinstance(axis, str)}
    return lengths


def _metadata(path: Path, data: bytes) -> dict[str, Any]:
    """The JSON entry of the safetensors header that only maps have."""
    # A safetensors file starts with the length of its JSON header (8 bytes, little endian) and that header.
    length = struct.unpack("<Q", data[:8])[0] if len(data) >= 8 else 0
    if not length >= 2 or data[8:9] != b"{":
        raise InputError(f"{path}: {_NO_MAP}")
    if length > len(data) - 8:
        raise InputError(f"{path}: the file is cut off or {_NO_MAP}")
    if length > JSON_LIMIT:
        raise InputError(f"{path}: its header has {length / MEGABYTE:.0f} MB, which no map's has")
    try:
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        content = json.loads(metadata[_METADATA_KEY])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise InputError(f"{path}: {_NO_MAP}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: {_NO_MAP}")
    return content


def _arrays(path: Path, data: bytes) -> dict[str, NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return load(data)
    except (SafetensorError, KeyError, ValueError, TypeError):
        raise InputError(f"{path}: the map is damaged (cut off or overwritten); use another copy") from None


def _checksum(header: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 (hex) over the header and, in order of their names, every array's name, type, shape and bytes."""
    digest = hashlib.sha256(header.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"\n{name} {array.dtype.str} {array.shape}\n".encode())
        # Arrays of length 0 have no buffer to view as bytes.
        if array.size:
            digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
