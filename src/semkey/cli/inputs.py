"""Options of commands that read a sequence: its kind and its camera."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from semkey.datasets import FrameSequence


class InputFormat(StrEnum):
    """Kinds of input: ``semkey.datasets.FORMATS``, which are not imported here so that ``--help`` stays quick."""

    AUTO = "auto"
    TUM = "tum"
    EUROC = "euroc"
    KITTI = "kitti"
    SEVEN_SCENES = "7scenes"
    SCANNET = "scannet"
    TARTANAIR = "tartanair"
    ICL_NUIM = "icl-nuim"
    VIDEO = "video"
    FOLDER = "folder"
    WEBCAM = "webcam"


class SensorChoice(StrEnum):
    """What a camera is tracked with."""

    RGBD = "rgbd"
    STEREO = "stereo"
    MONO = "mono"


FormatOption = typer.Option(InputFormat.AUTO, "--format", help="Kind of input; auto looks at what is there.")
CameraOption = typer.Option(
    None, "--camera", metavar="FX,FY,CX,CY", help="Pinhole camera of the images as stored, instead of the input's own."
)
CalibrationOption = typer.Option(
    None,
    "--calibration",
    metavar="FILE.yaml",
    help="Camera with its lens, or a stereo pair: images are undistorted and rectified (docs/datasets.md).",
)


def open_input(path: Path, format: InputFormat, camera: str | None, calibration: Path | None) -> FrameSequence:
    """The sequence that these options ask for; missing and broken files in mid-sequence are reported, not fatal.

    Raises:
        ConfigError: both ``--camera`` and ``--calibration`` are given, or the former is not ``fx,fy,cx,cy``.
        DatasetError: the calibration or the input is broken.
    """
    from semkey.datasets import CameraArgument, open_sequence, parse_camera, read_calibration
    from semkey.errors import ConfigError

    if camera is not None and calibration is not None:
        raise ConfigError("--camera and --calibration are two descriptions of one camera; give one of them")
    argument: CameraArgument | None = None
    if camera is not None:
        argument = parse_camera(camera)
    elif calibration is not None:
        argument = read_calibration(calibration)
    return open_sequence(path, format=format.value, camera=argument)
