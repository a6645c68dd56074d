"""Where the camera of a sequence comes from: the argument, a small text file, or the data set's published values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from semkey.datasets.cameras.formats.colmap import is_colmap_cameras
from semkey.datasets.cameras.formats.reading import read_calibration
from semkey.datasets.cameras.intrinsics import check_intrinsics
from semkey.datasets.cameras.lens import Calibration
from semkey.datasets.cameras.optics import Optics, make_optics
from semkey.errors import ConfigError, DatasetError
from semkey.geometry.camera import PinholeCamera
from semkey.textfiles import finite_number, numbered_rows

#: What a caller may give as camera: a camera with its image size or ``fx fy cx cy`` in pixels, both of the images as
#: they are stored; or a calibration, by which they are undistorted and rectified.
CameraArgument = PinholeCamera | Sequence[float] | Calibration

CAMERA_FILE = "camera.txt"


def parse_camera(text: str) -> tuple[float, float, float, float] | Calibration:
    """The camera of a command line: numbers ``fx,fy,cx,cy`` (pixels), or a calibration file of any known kind.

    Raises:
        ConfigError: these are neither four finite numbers with positive focal lengths nor a file.
        DatasetError: the file is no calibration, or a value in it is wrong.
    """
    try:
        values = [float(part) for part in text.split(",")]
        fx, fy, cx, cy = values
        PinholeCamera(fx=fx, fy=fy, cx=cx, cy=cy, width=1, height=1)
    except (ValueError, ConfigError):
        if Path(text).is_file():
            return read_camera(Path(text))
        raise ConfigError(
            f"camera '{text}': expected fx,fy,cx,cy in pixels, such as 525,525,319.5,239.5, or a calibration file"
        ) from None
    return fx, fy, cx, cy


def read_camera(path: Path) -> tuple[float, float, float, float] | Calibration:
    """A calibration file of any known kind, or a text file with ``fx fy cx cy`` or a 3x3 matrix.

    Raises:
        DatasetError: the file is missing or holds something else.
    """
    if path.suffix.lower() == ".txt" and not is_colmap_cameras(path):
        return read_camera_file(path)
    return read_calibration(path)


def optics_for(argument: CameraArgument | None, size: tuple[int, int], *, stereo: bool = False) -> Optics:
    """What makes delivered images of stored ones of ``size`` (width, height).

    Args:
        argument: a calibration (images are undistorted, with ``stereo`` rectified), a camera or its four numbers (of
            the images as they are), or None (unknown).
        size: of the stored images.
        stereo: whether there are right images that the calibration has to rectify.

    Raises:
        ConfigError: not four numbers, a value out of range, a camera of another image size, or a calibration that
            does not fit.
    """
    if argument is None:
        return Optics(camera=None)
    if isinstance(argument, Calibration):
        _check_size(argument.left.size, size, "write the calibration for the images as they are")
        check_intrinsics(argument.left.intrinsics, size, is_sized=True)
        if stereo and argument.right is not None:
            check_intrinsics(argument.right.intrinsics, argument.right.size, is_sized=True)
        return make_optics(argument, stereo=stereo)
    return Optics(camera=camera_for(argument, size))


def camera_for(parameters: PinholeCamera | Sequence[float], size: tuple[int, int]) -> PinholeCamera:
    """The camera of images of ``size`` (width, height) with these parameters.

    Raises:
        ConfigError: not four numbers, a value out of range, a camera of another image size, or numbers that no camera
            of such images has, see :mod:`semkey.datasets.cameras.intrinsics`.
    """
    width, height = size
    if isinstance(parameters, PinholeCamera):
        advice = f"use camera.resized({width}, {height}) if the images were resized"
        _check_size((parameters.width, parameters.height), size, advice)
        check_intrinsics((parameters.fx, parameters.fy, parameters.cx, parameters.cy), size, is_sized=True)
        return parameters
    if len(parameters) != 4:
        raise ConfigError(f"camera has {len(parameters)} numbers, expected four: fx, fy, cx, cy")
    fx, fy, cx, cy = (float(value) for value in parameters)
    camera = PinholeCamera(fx=fx, fy=fy, cx=cx, cy=cy, width=width, height=height)
    check_intrinsics((fx, fy, cx, cy), size)
    return camera


def _check_size(of_camera: tuple[int, int], size: tuple[int, int], advice: str) -> None:
    if of_camera != size:
        raise ConfigError(
            f"camera is for {of_camera[0]}x{of_camera[1]} images but the sequence has {size[0]}x{size[1]}; {advice}"
        )


def read_camera_file(path: Path) -> tuple[float, float, float, float]:
    """``fx, fy, cx, cy`` (pixels) from a file with these four numbers, or with a 3x3 calibration matrix.

    Raises:
        DatasetError: the file is missing or holds something else; the message names the file and line.
    """
    rows = [(line, [finite_number(text, path, line) for text in columns]) for line, columns in numbered_rows(path)]
    shape = [len(values) for _, values in rows]
    if shape == [4]:
        fx, fy, cx, cy = rows[0][1]
    elif shape == [3, 3, 3]:
        (fx, skew, cx), (zero, fy, cy), bottom = (values for _, values in rows)
        if skew != 0 or zero != 0 or bottom != [0, 0, 1]:
            raise DatasetError(f"{path}: not a pinhole matrix fx 0 cx / 0 fy cy / 0 0 1")
    else:
        raise DatasetError(f"{path}: expected one line 'fx fy cx cy' or a 3x3 matrix, found rows of {shape} numbers")
    if fx <= 0 or fy <= 0:
        raise DatasetError(f"{path}:{rows[0][0]}: focal lengths must be positive, got {fx} and {fy}")
    return fx, fy, cx, cy
