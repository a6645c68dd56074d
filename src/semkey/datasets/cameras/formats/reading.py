"""Reading a calibration file of any of the known kinds; which one it is, is told by what it holds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from semkey.datasets.cameras.formats.colmap import is_colmap_cameras, single_lens
from semkey.datasets.cameras.formats.kalibr import kalibr_calibration, sensor_lens
from semkey.datasets.cameras.formats.nerfstudio import read_transforms, transforms_lens
from semkey.datasets.cameras.formats.opencv import is_opencv, opencv_calibration, read_opencv_xml
from semkey.datasets.cameras.formats.orbslam import is_orbslam, orbslam_calibration
from semkey.datasets.cameras.formats.own import own_calibration
from semkey.datasets.cameras.formats.ros import is_ros, ros_calibration
from semkey.datasets.cameras.lens import Calibration
from semkey.datasets.cameras.yaml_section import YamlSection
from semkey.errors import ConfigError, DatasetError

_KINDS = (
    "semkey (size, intrinsics), Kalibr (cam0), ROS camera_info (image_width, camera_matrix, distortion_model), "
    "OpenCV (camera_matrix), ORB-SLAM (Camera.fx), EuRoC sensor.yaml, COLMAP cameras.txt or .bin, transforms.json"
)

# In the order in which they are tried.
_YAML: tuple[tuple[Callable[[YamlSection], bool], Callable[[YamlSection], Calibration]], ...] = (
    (lambda top: "cam0" in top, kalibr_calibration),
    (is_orbslam, orbslam_calibration),
    (is_ros, ros_calibration),
    (is_opencv, opencv_calibration),
    (lambda top: "resolution" in top and "distortion_model" in top, lambda top: Calibration(left=sensor_lens(top))),
    (lambda top: "intrinsics" in top or "size" in top or "model" in top, own_calibration),
)


def read_calibration(path: str | Path) -> Calibration:
    """Read a camera, or a pair, from a calibration file: semkey's own, or one of another tool.

    Known are semkey's YAML (docs/datasets.md), Kalibr camera chains (their first two cameras), ROS ``camera_info``
    YAML, OpenCV YAML and XML, ORB-SLAM settings, EuRoC's ``sensor.yaml``, COLMAP's ``cameras.txt`` and ``cameras.bin``,
    and nerfstudio's ``transforms.json``. Principal points of the last two count pixel centres at 0.5 and are shifted.

    Raises:
        DatasetError: the file is missing, of an unknown kind, or a value is missing, unknown or out of range; names the
            file, and the line where it applies.
    """
    path = Path(path)
    if path.is_dir():
        raise DatasetError(f"{path}: is a folder; give the calibration file itself")
    suffix = path.suffix.lower()
    try:
        if suffix == ".json":
            return Calibration(left=transforms_lens(read_transforms(path), path))
        if suffix in (".txt", ".bin") and (suffix == ".bin" or is_colmap_cameras(path)):
            return Calibration(left=single_lens(path))
        if suffix == ".xml":
            return read_opencv_xml(path)
        top = YamlSection.read(path)
        for fits, read in _YAML:
            if fits(top):
                return read(top)
    except ConfigError as error:
        raise DatasetError(f"{path}: {error}") from None
    raise top.error("", f"no calibration of a known kind; known are {_KINDS}")
