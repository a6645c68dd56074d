"""semkey's own calibration file: a short YAML that describes one camera, or a pair of them (docs/datasets.md)."""

from __future__ import annotations

import numpy as np

from semkey.datasets.cameras.lens import COEFFICIENTS, Calibration, Lens, lens_model
from semkey.datasets.cameras.yaml_section import YamlSection
from semkey.errors import ConfigError
from semkey.geometry.transforms import make_transform
from semkey.untrusted import one_line


def own_calibration(top: YamlSection) -> Calibration:
    """The calibration of a file.

    Raises:
        DatasetError: a value is missing, unknown or out of range; names the file and line.
    """
    top.allow(("model", "size", "intrinsics", "distortion", "right"))
    left = _read_lens(top, None)
    if "right" not in top:
        return Calibration(left=left)
    section = top.section("right")
    section.allow(("model", "intrinsics", "distortion", "T_left_right", "baseline"))
    right = _read_lens(section, left) if "intrinsics" in section else left
    if "intrinsics" not in section and ("model" in section or "distortion" in section):
        raise section.error("model", "'right.intrinsics' is missing; leave model and distortion out as well if equal")
    if ("T_left_right" in section) == ("baseline" in section):
        raise section.error("baseline", "right: give either T_left_right (4x4) or baseline (metres, rectified pairs)")
    if "baseline" in section:
        baseline = section.number("baseline")
        if baseline <= 0:
            raise section.error("baseline", f"'right.baseline' must be positive metres, got {baseline}")
        return Calibration(left=left, right=right, T_left_right=make_transform(np.eye(3), [baseline, 0.0, 0.0]))
    values = section.numbers("T_left_right", (16,))
    try:
        return Calibration(left=left, right=right, T_left_right=np.reshape(values, (4, 4)))
    except ConfigError as error:
        raise section.error("T_left_right", str(error)) from None


def _read_lens(section: YamlSection, left: Lens | None) -> Lens:
    """The lens of a section; ``left`` gives size and model of a right camera."""
    name = section.text("model") if "model" in section else (left.model if left is not None else "pinhole")
    model = lens_model(name)
    if model is None:
        raise section.error("model", f"model '{one_line(name)}' is unknown; choose one of {', '.join(COEFFICIENTS)}")
    size = left.size if left is not None else section.size("size")
    fx, fy, cx, cy = section.numbers("intrinsics", (4,))
    distortion: tuple[float, ...] = ()
    if model != "pinhole" or "distortion" in section:
        distortion = section.numbers("distortion", COEFFICIENTS[model])
    try:
        return Lens(model=model, intrinsics=(fx, fy, cx, cy), distortion=distortion, size=size)
    except ConfigError as error:
        raise section.error("intrinsics", str(error)) from None


def calibration_text(lens: Lens, comment: str) -> str:
    """A calibration file of one camera; :func:`semkey.datasets.read_calibration` reads it back."""

    def row(values: tuple[float, ...]) -> str:
        return "[" + ", ".join(f"{value:.10g}" for value in values) + "]"

    lines = [f"# {comment}", f"model: {lens.model}", f"size: [{lens.size[0]}, {lens.size[1]}]"]
    lines.append(f"intrinsics: {row(lens.intrinsics)}  # fx, fy, cx, cy in pixels, pixel centres at integers")
    if lens.distortion:
        lines.append(f"distortion: {row(lens.distortion)}")
    return "\n".join(lines) + "\n"
