"""Cameras and poses of nerfstudio's ``transforms.json`` (and NeRF's): OpenGL axes, pixel centres at 0.5."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.formats.colmap import COLMAP_PIXEL_CENTRE
from semkey.datasets.cameras.lens import Lens, LensModel, rigid
from semkey.errors import ConfigError, DatasetError

#: What nerfstudio calls the file.
TRANSFORMS_FILE = "transforms.json"

# OpenGL's camera looks along -z with y up; ours along z with y down.
OPENGL_FROM_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
_MODELS: dict[str, tuple[LensModel, tuple[str, ...]]] = {
    "PINHOLE": ("pinhole", ()),
    "SIMPLE_PINHOLE": ("pinhole", ()),
    "OPENCV": ("radial-tangential", ("k1", "k2", "p1", "p2")),
    "OPENCV_FISHEYE": ("fisheye", ("k1", "k2", "k3", "k4")),
}
_CAMERA_KEYS = ("fl_x", "camera_angle_x")


def read_transforms(file: Path) -> dict[str, Any]:
    """The content of the file: a mapping with a list ``frames`` of mappings that have a ``file_path``.

    Raises:
        DatasetError: the file is missing or no such JSON.
    """
    try:
        stored = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetError(f"{file}: no such file") from None
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{file}: cannot be read as JSON ({error})") from None
    frames = stored.get("frames") if isinstance(stored, dict) else None
    if not isinstance(frames, list) or not frames:
        raise DatasetError(f"{file}: has no list 'frames': this is no transforms.json of nerfstudio")
    for index, frame in enumerate(frames):
        if not isinstance(frame, dict) or not isinstance(frame.get("file_path"), str):
            raise DatasetError(f"{file}, frame {index}: has no 'file_path'")
    return stored


def transforms_lens(stored: Mapping[str, Any], file: Path) -> Lens:
    """The camera of all frames: that of the top, or the one that every frame repeats.

    Raises:
        DatasetError: frames have cameras of their own that differ, or a value is missing or out of range.
    """
    frames = stored["frames"]
    lenses = {nerfstudio_lens({**stored, **frame}, None, f"{file}, frame {k}") for k, frame in enumerate(frames)}
    if len(lenses) != 1:
        raise DatasetError(f"{file}: its frames have {len(lenses)} different cameras")
    return lenses.pop()


def nerfstudio_lens(values: Mapping[str, Any], size: tuple[int, int] | None, where: str) -> Lens:
    """The camera of a frame.

    Args:
        values: of the top and of the frame, which counts.
        size: (width, height) of the image, to be compared with ``w`` and ``h``; None takes these.
        where: for messages.

    Raises:
        DatasetError: a value is missing or out of range, the model is unknown, or the size is another.
    """

    def number(key: str, default: float | None = None) -> float:
        value = values.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise DatasetError(f"{where}: '{key}' must be a number, found {value!r}")
        return float(value)

    stated = (
        int(number("w", None if size is None else size[0])),
        int(number("h", None if size is None else size[1])),
    )
    if size is not None and stated != size:
        raise DatasetError(f"{where}: has {size[0]}x{size[1]} pixels, the file says {stated[0]}x{stated[1]}")
    width, height = stated
    model_name = values.get("camera_model", "OPENCV")
    if model_name not in _MODELS:
        raise DatasetError(f"{where}: camera model '{model_name}' is unknown; known are {', '.join(_MODELS)}")
    model, keys = _MODELS[model_name]
    if "fl_x" not in values and "camera_angle_x" in values:
        fx = 0.5 * width / math.tan(0.5 * number("camera_angle_x"))
    else:
        fx = number("fl_x")
    centre = (number("cx", width / 2) - COLMAP_PIXEL_CENTRE, number("cy", height / 2) - COLMAP_PIXEL_CENTRE)
    distortion = tuple(number(key, 0.0) for key in keys)
    if model == "radial-tangential" and number("k3", 0.0):
        distortion = (*distortion, number("k3"))
    if model == "radial-tangential" and number("k4", 0.0):
        raise DatasetError(f"{where}: a fourth radial coefficient k4 is not supported with camera model {model_name}")
    try:
        return Lens(model=model, intrinsics=(fx, number("fl_y", fx), *centre), distortion=distortion, size=stated)
    except ConfigError as error:
        raise DatasetError(f"{where}: {error}") from None


def opengl_pose(stored: Any, where: str) -> NDArray[np.float64]:
    """T_world_cam (4, 4) with x right, y down, z forward, of a ``transform_matrix`` with OpenGL's axes.

    Raises:
        DatasetError: these are not 4 x 4 numbers, or no rotation, translation and 0 0 0 1.
    """
    try:
        matrix = np.array(stored, dtype=np.float64)
    except (TypeError, ValueError):
        matrix = np.zeros(0)
    if matrix.shape != (4, 4) or not np.isfinite(matrix).all():
        raise DatasetError(f"{where}: 'transform_matrix' must be 4 x 4 numbers")
    try:
        return rigid(matrix, "'transform_matrix'") @ OPENGL_FROM_OPENCV
    except ConfigError as error:
        raise DatasetError(f"{where}: {error}") from None
