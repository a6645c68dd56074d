"""Calibrations that OpenCV's programs write through ``cv::FileStorage``, as YAML or XML."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np

from semkey.datasets.cameras.lens import Calibration, Lens, rigid
from semkey.datasets.cameras.ros import usual_coefficients
from semkey.datasets.cameras.yaml_section import YamlSection
from semkey.errors import ConfigError, DatasetError
from semkey.geometry.transforms import inverse, make_transform

# Names by which samples and tutorials of OpenCV have called things over the years.
_MATRICES = ("camera_matrix", "cameraMatrix", "Camera_Matrix", "K", "mtx")
_DISTORTIONS = (
    "distortion_coefficients",
    "Distortion_Coefficients",
    "distCoeffs",
    "dist_coeffs",
    "dist_coeff",
    "dist",
    "D",
)
_WIDTHS = ("image_width", "image_Width", "imageWidth", "width")
_HEIGHTS = ("image_height", "image_Height", "imageHeight", "height")
_SIZES = ("image_size", "imageSize", "size", "img_size")
_PAIRS = (
    ("M1", "D1", "M2", "D2"),
    ("K1", "D1", "K2", "D2"),
    ("cameraMatrix1", "distCoeffs1", "cameraMatrix2", "distCoeffs2"),
)
_FISHEYE_MODELS = ("fisheye", "equidistant", "kannala_brandt")
# A pair further apart than this is more likely given in millimetres.
_MAX_BASELINE_M = 5.0

_Numbers = Callable[[str], Sequence[float]]


def is_opencv(top: YamlSection) -> bool:
    """Whether this is such a file."""
    return any(name in top for name in (*_MATRICES, *(pair[0] for pair in _PAIRS)))


def opencv_calibration(top: YamlSection) -> Calibration:
    """The camera of a YAML file, or the pair (``M1``, ``D1``, ``M2``, ``D2``, ``R``, ``T``; metres).

    Raises:
        DatasetError: a value is missing or out of range; names the file and line.
    """

    def numbers(name: str) -> Sequence[float]:
        try:
            return top.section(name).numbers("data", range(1, 17))
        except DatasetError:
            return top.numbers(name, range(1, 17))

    try:
        return _calibration(top.names, numbers, top.text)
    except ConfigError as error:
        raise top.error("", str(error)) from None


def read_opencv_xml(path: Path) -> Calibration:
    """The camera, or the pair, of an XML file.

    Raises:
        DatasetError: the file is missing, no XML of OpenCV, or a value is missing or out of range.
    """
    try:
        storage = cv2.FileStorage(path.read_text(encoding="utf-8"), cv2.FILE_STORAGE_READ | cv2.FILE_STORAGE_MEMORY)
        names = tuple(storage.root().keys())
    except FileNotFoundError:
        raise DatasetError(f"{path}: file is missing") from None
    except (OSError, UnicodeDecodeError, SystemError, cv2.error):
        raise DatasetError(f"{path}: cannot be read as XML of OpenCV") from None

    def numbers(name: str) -> Sequence[float]:
        node = storage.getNode(name)
        if node.isMap():
            matrix = node.mat()
            return [] if matrix is None else [float(value) for value in matrix.reshape(-1)]
        if node.isSeq():
            return [float(node.at(index).real()) for index in range(node.size())]
        return [float(node.real())]

    try:
        return _calibration(names, numbers, lambda name: storage.getNode(name).string())
    except (ConfigError, cv2.error) as error:
        raise DatasetError(f"{path}: {' '.join(str(error).split())}") from None
    finally:
        storage.release()


def _calibration(names: Sequence[str], numbers: _Numbers, text: Callable[[str], str]) -> Calibration:
    size = _size(names, numbers)
    is_fisheye = _is_fisheye(names, numbers, text)
    pair = next((pair for pair in _PAIRS if all(name in names for name in pair)), None)
    if pair is None:
        matrix, distortion = _one_of(_MATRICES, names), _one_of(_DISTORTIONS, names, optional=True)
        return Calibration(left=_lens(numbers, matrix, distortion, size, is_fisheye))
    left, right = (_lens(numbers, *pair[start : start + 2], size, is_fisheye) for start in (0, 2))
    if "R" not in names or "T" not in names:
        raise ConfigError("a pair needs R and T of cv::stereoCalibrate in the same file")
    T_right_left = rigid(make_transform(np.reshape(numbers("R"), (3, 3)), np.reshape(numbers("T"), 3)), "R, T")
    baseline = float(np.linalg.norm(T_right_left[:3, 3]))
    if baseline > _MAX_BASELINE_M:
        raise ConfigError(f"T is {baseline:g} long; semkey takes metres: divide T by 1000 if it is in millimetres")
    return Calibration(left=left, right=right, T_left_right=inverse(T_right_left))


def _lens(numbers: _Numbers, matrix: str, distortion: str, size: tuple[int, int], is_fisheye: bool) -> Lens:
    K = numbers(matrix)
    if len(K) != 9:
        raise ConfigError(f"{matrix} has {len(K)} numbers, expected a 3x3 matrix")
    given = tuple(float(value) for value in numbers(distortion)) if distortion else ()
    intrinsics = (float(K[0]), float(K[4]), float(K[2]), float(K[5]))
    if is_fisheye:
        return Lens(model="fisheye", intrinsics=intrinsics, distortion=(*given, *(0.0,) * 4)[:4], size=size)
    if not any(given):
        return Lens(model="pinhole", intrinsics=intrinsics, size=size)
    distortion_used = usual_coefficients("radial-tangential", given)
    return Lens(model="radial-tangential", intrinsics=intrinsics, distortion=distortion_used, size=size)


def _size(names: Sequence[str], numbers: _Numbers) -> tuple[int, int]:
    name = _one_of(_SIZES, names, optional=True)
    if name:
        values = numbers(name)
    else:
        width, height = (_one_of(kinds, names, optional=True) for kinds in (_WIDTHS, _HEIGHTS))
        values = [*numbers(width), *numbers(height)] if width and height else []
    if len(values) != 2 or any(value < 1 or value != int(value) for value in values):
        raise ConfigError("the image size is missing; add image_width and image_height to the file")
    return int(values[0]), int(values[1])


def _is_fisheye(names: Sequence[str], numbers: _Numbers, text: Callable[[str], str]) -> bool:
    if "fisheye_model" in names:
        return bool(numbers("fisheye_model")[0])
    models = [text(name).lower() for name in ("distortion_model", "camera_model", "model") if name in names]
    return any(name in model for model in models for name in _FISHEYE_MODELS)


def _one_of(known: Sequence[str], names: Sequence[str], *, optional: bool = False) -> str:
    found = next((name for name in known if name in names), "")
    if not found and not optional:
        raise ConfigError(f"no camera matrix; expected one of {', '.join(known)}")
    return found
