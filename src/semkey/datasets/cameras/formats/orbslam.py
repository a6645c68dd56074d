"""Settings of ORB-SLAM2 and ORB-SLAM3: ``Camera.fx`` or ``Camera1.fx``, pairs by ``bf``, ``T_c1_c2`` or LEFT, RIGHT."""

from __future__ import annotations

import numpy as np

from semkey.datasets.cameras.lens import Calibration, Lens, rigid
from semkey.datasets.cameras.ros import RosCamera, ros_pair
from semkey.datasets.cameras.yaml_section import YamlSection
from semkey.errors import ConfigError
from semkey.geometry.transforms import make_transform

_FISHEYE = "KannalaBrandt8"
_TYPES = ("PinHole", _FISHEYE, "Rectified")


def is_orbslam(top: YamlSection) -> bool:
    """Whether this is such a file."""
    return any(name in top for name in ("Camera.fx", "Camera1.fx", "LEFT.K"))


def orbslam_calibration(top: YamlSection) -> Calibration:
    """The camera, or the pair.

    ``Camera.bf`` (ORB-SLAM2) and ``Stereo.b`` are the baseline of a rectified pair or of a depth camera;
    ``Stereo.T_c1_c2`` maps the right camera's coordinates to the left one's; ``LEFT.*`` and ``RIGHT.*`` describe raw
    images as ROS does, and count before ``Camera.*``, which then is that of the rectified ones.

    Raises:
        DatasetError: a value is missing (the image size, in older files) or out of range; names the file and line.
    """
    try:
        if "LEFT.K" in top and "RIGHT.K" in top:
            return ros_pair(_raw(top, "LEFT"), _raw(top, "RIGHT"), rectified=False)
        first = "Camera1" if "Camera1.fx" in top else "Camera"
        left = _lens(top, first)
        if "Stereo.T_c1_c2" in top and "Camera2.fx" in top:
            T_left_right = rigid(top.section("Stereo.T_c1_c2").numbers("data", (16,)), "Stereo.T_c1_c2")
            return Calibration(left=left, right=_lens(top, "Camera2"), T_left_right=T_left_right)
        baseline = _baseline(top, left)
    except ConfigError as error:
        raise top.error("", str(error)) from None
    if baseline is None:
        return Calibration(left=left)
    return Calibration(left=left, right=left, T_left_right=make_transform(np.eye(3), [baseline, 0.0, 0.0]))


def _baseline(top: YamlSection, left: Lens) -> float | None:
    if "Camera.bf" in top:
        value = top.number("Camera.bf") / left.intrinsics[0]
    elif "Stereo.b" in top:
        value = top.number("Stereo.b")
    else:
        return None
    return value if value > 0 else None


def _lens(top: YamlSection, camera: str) -> Lens:
    kind = top.text("Camera.type") if "Camera.type" in top else "PinHole"
    if kind not in _TYPES:
        raise top.error("Camera.type", f"camera type '{kind}' is unknown; known are {', '.join(_TYPES)}")
    if "Camera.width" not in top or "Camera.height" not in top:
        raise top.error(f"{camera}.fx", "the image size is missing; add Camera.width and Camera.height to the file")
    names = ("k1", "k2", "k3", "k4") if kind == _FISHEYE else ("k1", "k2", "p1", "p2", "k3")
    given = [top.number(f"{camera}.{name}") if f"{camera}.{name}" in top else 0.0 for name in names]
    if kind == "Rectified" or (kind == "PinHole" and not any(given)):
        model, distortion = "pinhole", ()
    elif kind == "PinHole":
        model, distortion = "radial-tangential", tuple(given)
    else:
        model, distortion = "fisheye", tuple(given)
    fx, fy, cx, cy = (top.number(f"{camera}.{name}") for name in ("fx", "fy", "cx", "cy"))
    return Lens(
        model=model,
        intrinsics=(fx, fy, cx, cy),
        distortion=distortion,
        size=top.sides("Camera.width", "Camera.height"),
    )


def _raw(top: YamlSection, side: str) -> RosCamera:
    def data(name: str, counts: tuple[int, ...]) -> tuple[float, ...]:
        return top.section(f"{side}.{name}").numbers("data", counts)

    return RosCamera(
        size=top.sides(f"{side}.width", f"{side}.height"),
        model="plumb_bob",
        D=data("D", (4, 5, 8)),
        K=np.reshape(data("K", (9,)), (3, 3)),
        R=np.reshape(data("R", (9,)), (3, 3)),
        P=np.reshape(data("P", (12,)), (3, 4)),
    )
