"""Kalibr's camera chains (``cam0``, ``cam1``, ...), and the ``sensor.yaml`` of EuRoC, which names things alike."""

from __future__ import annotations

from semkey.datasets.cameras.lens import COEFFICIENTS, Calibration, Lens, lens_model, rigid
from semkey.datasets.cameras.yaml_section import YamlSection
from semkey.errors import ConfigError
from semkey.geometry.transforms import inverse


def kalibr_calibration(top: YamlSection) -> Calibration:
    """The first two cameras of a chain as a pair; the one camera where there is no second.

    ``T_cn_cnm1`` of ``cam1`` maps coordinates of ``cam0`` to those of ``cam1``. Where ``cam1`` does not lie to the
    right of ``cam0``, rectification says so; single images are those of ``cam0``.

    Raises:
        DatasetError: a value is missing or out of range, or a camera is not a pinhole with a known lens.
    """
    left = sensor_lens(top.section("cam0"))
    if "cam1" not in top or "T_cn_cnm1" not in top.section("cam1"):
        return Calibration(left=left)
    second = top.section("cam1")
    try:
        T_left_right = inverse(rigid(second.numbers("T_cn_cnm1", (16,)), "T_cn_cnm1"))
    except ConfigError as error:
        raise second.error("T_cn_cnm1", str(error)) from None
    return Calibration(left=left, right=sensor_lens(second), T_left_right=T_left_right)


def sensor_lens(section: YamlSection) -> Lens:
    """The lens of a camera's section.

    Raises:
        DatasetError: a value is missing or out of range, or the model is not known here.
    """
    camera_model = section.text("camera_model") if "camera_model" in section else "pinhole"
    if camera_model != "pinhole":
        raise section.error("camera_model", f"camera model '{camera_model}' is not supported, only pinhole")
    name = section.text("distortion_model") if "distortion_model" in section else "none"
    model = lens_model(name)
    if model is None:
        raise section.error(
            "distortion_model", f"distortion model '{name}' is unknown; known are radtan and equidistant"
        )
    key = "distortion_coeffs" if "distortion_coeffs" in section else "distortion_coefficients"
    fx, fy, cx, cy = section.numbers("intrinsics", (4,))
    distortion = () if model == "pinhole" else section.numbers(key, COEFFICIENTS[model])
    try:
        return Lens(model=model, intrinsics=(fx, fy, cx, cy), distortion=distortion, size=section.size("resolution"))
    except ConfigError as error:
        raise section.error("intrinsics", str(error)) from None
