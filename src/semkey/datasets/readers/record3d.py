"""Recordings of Record3D (iPhone, iPad), an unpacked ``.r3d``.

``metadata`` is JSON (``K`` column by column, ``poses`` as x y z w quaternion and position with OpenGL axes), ``rgbd``
has ``N.jpg`` and ``N.depth`` (float32 metres, packed with LZFSE, smaller than the images).
"""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.calibration import CameraArgument, optics_for
from semkey.datasets.cameras.formats.nerfstudio import OPENGL_FROM_OPENCV
from semkey.datasets.readers.file_sequence import FileSequence, FrameFiles
from semkey.datasets.readers.folder import list_images
from semkey.datasets.readers.listing import image_size
from semkey.datasets.readers.small_depth import enlarged
from semkey.datasets.sequence import SequenceFault
from semkey.errors import DatasetError, InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import make_transform, rotation_from_quaternion_xyzw

_METADATA = ("metadata", "metadata.json")
_DEPTH_SIZE = (256, 192)
_LZFSE_MODULE = "liblzfse"


def is_record3d(path: Path) -> bool:
    """Whether this is an unpacked recording of Record3D."""
    return any((path / name).is_file() for name in _METADATA) and (path / "rgbd").is_dir()


def open_record3d(path: Path, camera: CameraArgument | None = None, *, strict: bool = False) -> FileSequence:
    """Open an unpacked ``.r3d``. Depth needs the module liblzfse (``pip install pyliblzfse``), else it is left out.

    Args:
        path: the folder with ``metadata`` and ``rgbd``.
        camera: see :func:`semkey.datasets.open_sequence`.
        strict: raise for a missing file instead of reporting it.

    Raises:
        DatasetError: the metadata are missing, no JSON, or lack poses or the camera; or there are fewer poses than
            images.
    """
    file = next((path / name for name in _METADATA if (path / name).is_file()), path / _METADATA[0])
    metadata = _json(file)
    images = [image for image in list_images(path / "rgbd") if image.stem.isdecimal()]
    poses = metadata.get("poses")
    if not images or not isinstance(poses, list) or len(poses) < len(images):
        count = len(poses) if isinstance(poses, list) else 0
        raise DatasetError(f"{path}: {len(images)} images in rgbd, but {count} poses in {file.name}")
    size = image_size(images)
    rate, stamps = metadata.get("fps", 60), metadata.get("frameTimestamps")
    depths = [image.with_suffix(".depth") for image in images]
    faults: list[SequenceFault] = []
    has_depth = all(depth.is_file() for depth in depths)
    if has_depth and _lzfse() is None:
        message = f"{path}: depth is packed with LZFSE and left out; pip install pyliblzfse to use it"
        faults.append(SequenceFault(kind="unpaired", message=message))
        has_depth = False
    stored_size = (int(metadata.get("dw", _DEPTH_SIZE[0])), int(metadata.get("dh", _DEPTH_SIZE[1])))
    frames = []
    for number, image in enumerate(images):
        index = int(image.stem)
        timed = isinstance(stamps, list) and index < len(stamps)
        frames.append(
            FrameFiles(
                timestamp=float(stamps[index]) if timed else number / float(rate),
                image=image,
                depth=depths[number] if has_depth else None,
                T_world_cam=_arkit_pose(poses[index], f"{file}, pose {index}"),
            )
        )
    return FileSequence(
        name=path.resolve().name,
        format="record3d",
        frames=frames,
        image_size=size,
        optics=optics_for(_record3d_camera(metadata, size, file) if camera is None else camera, size),
        depth=lambda depth: _record3d_depth(depth, stored_size, size),
        faults=faults,
        strict=strict,
    )


def _json(file: Path) -> dict[str, Any]:
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{file}: cannot be read as JSON ({error})") from None
    if not isinstance(stored, dict):
        raise DatasetError(f"{file}: is no metadata of Record3D")
    return stored


def _record3d_camera(metadata: dict[str, Any], size: tuple[int, int], file: Path) -> PinholeCamera:
    K = metadata.get("K")
    if not isinstance(K, list) or len(K) != 9:
        raise DatasetError(f"{file}: 'K' must be nine numbers, found {K!r}")
    width, height = int(metadata.get("w", size[0])), int(metadata.get("h", size[1]))
    fx, fy, cx, cy = float(K[0]), float(K[4]), float(K[6]), float(K[7])  # column by column
    return PinholeCamera(fx=fx, fy=fy, cx=cx, cy=cy, width=width, height=height).resized(*size)


def _arkit_pose(stored: Any, where: str) -> NDArray[np.float64]:
    try:
        values = [float(value) for value in stored]
        if len(values) != 7 or not all(math.isfinite(value) for value in values):
            raise ValueError
        return make_transform(rotation_from_quaternion_xyzw(values[:4]), values[4:]) @ OPENGL_FROM_OPENCV
    except (TypeError, ValueError, InputError):
        raise DatasetError(f"{where}: expected seven numbers qx qy qz qw x y z, found {stored!r}") from None


def _lzfse() -> Any | None:
    try:
        return importlib.import_module(_LZFSE_MODULE)
    except ImportError:
        return None


def _record3d_depth(file: Path, stored: tuple[int, int], size: tuple[int, int]) -> NDArray[np.float32]:
    lzfse = _lzfse()
    assert lzfse is not None
    try:
        values = np.frombuffer(lzfse.decompress(file.read_bytes()), dtype=np.float32)
    except Exception as error:  # the module's own error has no common base
        raise DatasetError(f"{file}: cannot be unpacked ({error})") from None
    if values.size != stored[0] * stored[1]:
        raise DatasetError(f"{file}: holds {values.size} values, expected {stored[0]}x{stored[1]}")
    return enlarged(np.nan_to_num(values.reshape(stored[1], stored[0]), nan=0.0, posinf=0.0, neginf=0.0), size)
