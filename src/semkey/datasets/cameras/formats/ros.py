"""The YAML files of ROS's camera_calibration: ``image_width``, ``camera_matrix``, ``distortion_model``, ..."""

from __future__ import annotations

import numpy as np

from semkey.datasets.cameras.lens import Calibration
from semkey.datasets.cameras.ros import RosCamera
from semkey.datasets.cameras.yaml_section import YamlSection
from semkey.errors import ConfigError


def is_ros(top: YamlSection) -> bool:
    """Whether this is such a file; OpenCV's have no model or projection by these names."""
    return "camera_matrix" in top and "image_width" in top and ("distortion_model" in top or "projection_matrix" in top)


def ros_calibration(top: YamlSection) -> Calibration:
    """The camera of the raw images.

    Raises:
        DatasetError: a value is missing or out of range, or the model is unknown; names the file and line.
    """
    counts = range(15)
    camera = RosCamera(
        size=top.sides("image_width", "image_height"),
        model=top.text("distortion_model") if "distortion_model" in top else "plumb_bob",
        D=_data(top, "distortion_coefficients", counts) if "distortion_coefficients" in top else (),
        K=np.reshape(_data(top, "camera_matrix", (9,)), (3, 3)),
        R=np.eye(3),
        P=np.zeros((3, 4)),
    )
    try:
        return Calibration(left=camera.lens())
    except ConfigError as error:
        raise top.error("camera_matrix", str(error)) from None


def _data(top: YamlSection, name: str, counts: range | tuple[int, ...]) -> tuple[float, ...]:
    return top.section(name).numbers("data", counts)
