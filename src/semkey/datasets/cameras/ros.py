"""What ROS says about a camera: ``sensor_msgs/CameraInfo``, in messages and in the YAML files of camera_calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.lens import COEFFICIENTS, Calibration, Lens, LensModel
from semkey.errors import ConfigError
from semkey.geometry.transforms import make_transform

_MODELS: dict[str, LensModel] = {
    "plumb_bob": "radial-tangential",
    "rational_polynomial": "radial-tangential",
    "equidistant": "fisheye",
    "fisheye": "fisheye",
    "": "pinhole",
    "none": "pinhole",
}


@dataclass(frozen=True, kw_only=True, eq=False)
class RosCamera:
    """A camera as image_pipeline describes it; pixel centres at integers.

    Attributes:
        size: (width, height) of the images, pixels.
        model: ``plumb_bob``, ``rational_polynomial`` or ``equidistant``; empty for none.
        D: coefficients of the model, in OpenCV's order.
        K: (3, 3) intrinsics of the raw images.
        R: (3, 3) raw camera coordinates to rectified ones.
        P: (3, 4) projection of the rectified images; its fourth column is that of the left camera's frame.
    """

    size: tuple[int, int]
    model: str
    D: tuple[float, ...]
    K: NDArray[np.float64]
    R: NDArray[np.float64]
    P: NDArray[np.float64]

    def lens(self, *, rectified: bool = False) -> Lens:
        """The lens of the raw images, or the pinhole of the rectified ones.

        Raises:
            ConfigError: the camera is not calibrated (K or P is zero), or the model is unknown.
        """
        matrix = self.P[:, :3] if rectified and self.P.any() else self.K
        if matrix[0, 0] == 0:
            raise ConfigError("holds no calibration (K is zero); pass --camera fx,fy,cx,cy or a calibration file")
        intrinsics = (float(matrix[0, 0]), float(matrix[1, 1]), float(matrix[0, 2]), float(matrix[1, 2]))
        if rectified:
            return Lens(model="pinhole", intrinsics=intrinsics, size=self.size)
        model = _MODELS.get(self.model.strip().lower())
        if model is None:
            known = ", ".join(name for name in _MODELS if name)
            raise ConfigError(f"distortion model '{self.model}' is unknown; known are {known}")
        if model == "pinhole" or (model == "radial-tangential" and not any(self.D)):
            return Lens(model="pinhole", intrinsics=intrinsics, size=self.size)
        return Lens(model=model, intrinsics=intrinsics, distortion=usual_coefficients(model, self.D), size=self.size)


def usual_coefficients(model: LensModel, coefficients: tuple[float, ...]) -> tuple[float, ...]:
    """Coefficients in a count that the model takes; zeros at the end are left out (OpenCV writes up to 14).

    Raises:
        ConfigError: more are used than the model knows here (thin prism, tilted sensor).
    """
    counts = COEFFICIENTS[model]
    used = max((number for number, value in enumerate(coefficients, start=1) if value), default=0)
    fitting = next((count for count in sorted(counts) if count >= used), None)
    if fitting is None:
        raise ConfigError(
            f"{used} distortion coefficients are used; model '{model}' takes at most {max(counts)} "
            "(thin prisms and tilted sensors are not supported)"
        )
    return (*coefficients, *(0.0,) * fitting)[:fitting]


def ros_pair(left: RosCamera, right: RosCamera, *, rectified: bool) -> Calibration:
    """A stereo pair from the two messages: ``P`` of the right camera has the baseline, ``R`` the rotations.

    Raises:
        ConfigError: a camera is not calibrated, or the right one has no baseline.
    """
    fx = float(right.P[0, 0])
    baseline = -float(right.P[0, 3]) / fx if fx else 0.0
    if not baseline > 0:
        raise ConfigError(
            f"the right camera's P has no baseline (P[0, 3] is {right.P[0, 3]:g}, expected -fx * metres): it is no "
            "calibrated pair, or left and right are swapped"
        )
    T_rect = make_transform(np.eye(3), [baseline, 0.0, 0.0])
    if not rectified:
        T_rect = make_transform(left.R.T, np.zeros(3)) @ T_rect @ make_transform(right.R, np.zeros(3))
    return Calibration(left=left.lens(rectified=rectified), right=right.lens(rectified=rectified), T_left_right=T_rect)
