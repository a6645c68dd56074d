"""A COLMAP model, text or binary, with its folder of images: poses as COLMAP found them, in its own scale.

``images.txt`` and ``images.bin`` have world-to-camera poses as quaternion w x y z and translation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.calibration import CameraArgument
from semkey.datasets.cameras.formats.colmap import read_colmap_cameras
from semkey.datasets.readers.file_sequence import FileSequence
from semkey.datasets.readers.posed_files import PosedImage, posed_sequence
from semkey.errors import DatasetError, InputError
from semkey.geometry.transforms import inverse, make_transform, rotation_from_quaternion_xyzw

# Where the model lies in a folder, and where the images lie as seen from the model.
_MODELS = ("", "sparse/0", "sparse", "colmap/sparse/0", "dense/sparse", "sparse/manhattan/0")
_IMAGES = ("images", "../images", "../../images", "../../../images", ".")
_POSE = struct.Struct("<I4d3dI")
_POINT_BYTES = 24


def is_colmap(path: Path) -> bool:
    """Whether this folder is, or holds, a model of COLMAP."""
    return _model(path) is not None


def open_colmap(path: Path, camera: CameraArgument | None = None, *, strict: bool = False) -> FileSequence:
    """Open the images of a model in the natural order of their names.

    Args:
        path: the model's folder, or the project's with ``sparse/0`` and ``images``.
        camera: see :func:`semkey.datasets.open_sequence`.
        strict: raise for a missing image instead of reporting it.

    Raises:
        DatasetError: the model is missing, cut off or malformed, or its images are not found.
    """
    found = list(colmap_images(path).values())
    return posed_sequence(found, path=path, format="colmap", camera=camera, strict=strict)


def colmap_images(path: Path) -> dict[int, PosedImage]:
    """The images of a model by their number, in the model's order, each with its own camera.

    Raises:
        DatasetError: see :func:`open_colmap`.
    """
    model = _model(path)
    if model is None:
        raise DatasetError(f"{path}: no cameras.txt or cameras.bin with images of COLMAP here or in sparse/0")
    folder, suffix = model
    lenses = read_colmap_cameras(folder / f"cameras{suffix}")
    file = folder / f"images{suffix}"
    rows = list(_binary(file) if suffix == ".bin" else _text(file))
    if not rows:
        raise DatasetError(f"{file}: holds no image")
    images = _images(path, folder, [row.name for row in rows])
    found = {}
    for row in rows:
        if row.camera not in lenses:
            raise DatasetError(f"{file}: image {row.name} has camera {row.camera}, which cameras{suffix} does not hold")
        found[row.number] = PosedImage(
            name=row.name, file=images / row.name, lens=lenses[row.camera], T_world_cam=row.T_world_cam
        )
    return found


def colmap_points_file(path: Path) -> Path | None:
    """The file of a model's points, where it has one."""
    model = _model(path)
    if model is None:
        return None
    file = model[0] / f"points3D{model[1]}"
    return file if file.is_file() else None


def _model(path: Path) -> tuple[Path, str] | None:
    for name in _MODELS:
        for suffix in (".bin", ".txt"):
            if all((path / name / f"{part}{suffix}").is_file() for part in ("cameras", "images")):
                return path / name, suffix
    return None


def _images(path: Path, model: Path, names: list[str]) -> Path:
    """The folder in which the images are: that with the first name that is found at all."""
    folders = [path / "images", *((model / place).resolve() for place in _IMAGES)]
    for name in names:
        for folder in folders:
            if (folder / name).is_file():
                return folder
    raise DatasetError(f"{path}: the images of the model are not there ({names[0]}, ...); put them into {folders[0]}")


class _Row(NamedTuple):
    """A line of ``images.txt``, or its like."""

    number: int
    name: str
    camera: int
    T_world_cam: NDArray[np.float64]


def _text(file: Path) -> Iterator[_Row]:
    """Each image has two lines, of which the second (its points) may be empty."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DatasetError(f"{file}: cannot be read as text") from None
    is_points = False
    for number, line in enumerate(lines, start=1):
        if line.startswith("#") or (not is_points and not line.strip()):
            continue
        if not is_points:
            columns = line.split(maxsplit=9)
            try:
                values = [float(text) for text in columns[1:8]]
                image, camera, name = int(columns[0]), int(columns[8]), columns[9].strip()
            except (ValueError, IndexError):
                raise DatasetError(f"{file}:{number}: expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME") from None
            yield _Row(image, name, camera, _pose(values, f"{file}:{number}"))
        is_points = not is_points


def _binary(file: Path) -> Iterator[_Row]:
    data = file.read_bytes()
    try:
        (count,) = struct.unpack_from("<Q", data)
        position = 8
        for _ in range(count):
            image, *values, camera = _POSE.unpack_from(data, position)
            position += _POSE.size
            end = data.index(b"\0", position)
            name = data[position:end].decode("utf-8")
            (points,) = struct.unpack_from("<Q", data, end + 1)
            position = end + 9 + points * _POINT_BYTES
            if position > len(data):
                raise ValueError
            yield _Row(image, name, camera, _pose(values, f"{file}, image {name}"))
    except (struct.error, ValueError):
        raise DatasetError(f"{file}: is cut off, or no images.bin of COLMAP") from None


def _pose(values: list[float], where: str) -> NDArray[np.float64]:
    w, x, y, z, *translation = values
    try:
        rotation = rotation_from_quaternion_xyzw([x, y, z, w])
    except InputError as error:
        raise DatasetError(f"{where}: {error}") from None
    return inverse(make_transform(rotation, translation))
