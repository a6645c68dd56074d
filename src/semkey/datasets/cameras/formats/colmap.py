"""Cameras of COLMAP models, ``cameras.txt`` and ``cameras.bin``; COLMAP counts pixel centres at 0.5."""

from __future__ import annotations

import struct
from pathlib import Path

from semkey.datasets.cameras.lens import Lens, LensModel
from semkey.errors import ConfigError, DatasetError
from semkey.textfiles import finite_number, numbered_rows

#: COLMAP counts the middle of the upper left pixel as (0.5, 0.5), semkey as (0, 0).
COLMAP_PIXEL_CENTRE = 0.5

# Name: number in binary files, parameters, lens, and where in the parameters its coefficients are (-1: zero).
_MODELS: dict[str, tuple[int, int, LensModel, tuple[int, ...]]] = {
    "SIMPLE_PINHOLE": (0, 3, "pinhole", ()),
    "PINHOLE": (1, 4, "pinhole", ()),
    "SIMPLE_RADIAL": (2, 4, "radial-tangential", (3, -1, -1, -1)),
    "RADIAL": (3, 5, "radial-tangential", (3, 4, -1, -1)),
    "OPENCV": (4, 8, "radial-tangential", (4, 5, 6, 7)),
    "OPENCV_FISHEYE": (5, 8, "fisheye", (4, 5, 6, 7)),
    "FULL_OPENCV": (6, 12, "radial-tangential", (4, 5, 6, 7, 8, 9, 10, 11)),
    "SIMPLE_RADIAL_FISHEYE": (8, 4, "fisheye", (3, -1, -1, -1)),
    "RADIAL_FISHEYE": (9, 5, "fisheye", (3, 4, -1, -1)),
}
_ONE_FOCAL_LENGTH = ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE")
_BY_NUMBER = {number: name for name, (number, *_) in _MODELS.items()}


def is_colmap_cameras(path: Path) -> bool:
    """Whether a text file is a ``cameras.txt``: its first row is a number and the name of a model."""
    first = next(iter(numbered_rows(path)), None)
    return first is not None and len(first[1]) > 4 and first[1][1].isupper()


def read_colmap_cameras(path: Path) -> dict[int, Lens]:
    """The cameras of a model by their numbers.

    Raises:
        DatasetError: the file is missing, cut off or malformed, or a model is not known here.
    """
    return _read_binary(path) if path.suffix.lower() == ".bin" else _read_text(path)


def single_lens(path: Path) -> Lens:
    """The one camera of a file.

    Raises:
        DatasetError: as :func:`read_colmap_cameras`, or there are several different ones.
    """
    lenses = read_colmap_cameras(path)
    different = set(lenses.values())
    if len(different) != 1:
        raise DatasetError(f"{path}: holds {len(different)} different cameras; leave the one of these images in a copy")
    return different.pop()


def _read_text(path: Path) -> dict[int, Lens]:
    lenses: dict[int, Lens] = {}
    for line, columns in numbered_rows(path):
        where = f"{path}:{line}"
        if len(columns) < 5 or not columns[0].isdecimal():
            raise DatasetError(f"{where}: expected CAMERA_ID MODEL WIDTH HEIGHT PARAMETERS")
        numbers = [finite_number(text, path, line) for text in columns[2:]]
        lenses[int(columns[0])] = _lens(columns[1], int(numbers[0]), int(numbers[1]), tuple(numbers[2:]), where)
    if not lenses:
        raise DatasetError(f"{path}: holds no camera")
    return lenses


def _read_binary(path: Path) -> dict[int, Lens]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from None
    lenses: dict[int, Lens] = {}
    try:
        (count,) = struct.unpack_from("<Q", data)
        position = 8
        for _ in range(count):
            camera, number, width, height = struct.unpack_from("<IiQQ", data, position)
            name = _BY_NUMBER.get(number)
            if name is None:
                raise DatasetError(f"{path}: camera {camera} is of COLMAP's model {number}; known are {_known()}")
            parameters = struct.unpack_from(f"<{_MODELS[name][1]}d", data, position + 24)
            position += 24 + 8 * len(parameters)
            lenses[camera] = _lens(name, width, height, parameters, f"{path}, camera {camera}")
    except struct.error:
        raise DatasetError(f"{path}: is cut off, or no cameras.bin of COLMAP") from None
    if not lenses:
        raise DatasetError(f"{path}: holds no camera")
    return lenses


def _lens(name: str, width: int, height: int, parameters: tuple[float, ...], where: str) -> Lens:
    if name not in _MODELS:
        raise DatasetError(f"{where}: camera model '{name}' is not supported; known are {_known()}")
    _, count, model, places = _MODELS[name]
    if len(parameters) != count:
        raise DatasetError(f"{where}: {name} has {count} parameters, found {len(parameters)}")
    first = parameters[:1] if name in _ONE_FOCAL_LENGTH else ()
    fx, fy, cx, cy = (*first, *parameters)[:4]
    distortion = tuple(parameters[place] if place >= 0 else 0.0 for place in places)
    try:
        return Lens(
            model=model,
            intrinsics=(fx, fy, cx - COLMAP_PIXEL_CENTRE, cy - COLMAP_PIXEL_CENTRE),
            distortion=distortion,
            size=(width, height),
        )
    except ConfigError as error:
        raise DatasetError(f"{where}: {error}") from None


def _known() -> str:
    return ", ".join(_MODELS)
