"""The layout of EuRoC MAV (Burri et al., IJRR 2016): ``mav0/cam0``, ``mav0/cam1`` and ground truth of the body.

``camN/data.csv`` lists ``nanoseconds,file`` of the images in ``camN/data``, ``camN/sensor.yaml`` has the lens and
``T_BS``, camera to body. ``state_groundtruth_estimate0/data.csv`` has the pose of the body: nanoseconds, position
x y z, quaternion w x y z, and more that is not used. Rows of ``imu0`` are kept.
Images are undistorted and rectified on load; ground truth is turned into that of the rectified left camera. TUM-VI and
other data sets exported in this layout open as well.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.calibration import CameraArgument, optics_for
from semkey.datasets.cameras.formats.kalibr import sensor_lens
from semkey.datasets.cameras.lens import Calibration, Lens, rigid
from semkey.datasets.cameras.yaml_section import YamlSection
from semkey.datasets.readers.file_sequence import FileSequence, FrameFiles
from semkey.datasets.readers.listing import as_given, image_size, require_file, rows_by_time
from semkey.datasets.sequence import ImuSamples, SequenceFault
from semkey.errors import ConfigError, DatasetError, InputError
from semkey.geometry.trajectories import Trajectory, associate_by_time, pose_at
from semkey.geometry.transforms import inverse, make_transform, rotation_from_quaternion_xyzw
from semkey.textfiles import finite_number, numbered_rows

# Both cameras are triggered together; stamps of one pair are equal or, in re-exported data, rounded.
_MAX_PAIR_DIFFERENCE_S = 0.005
# The motion capture gives a pose every 5 ms; what is interpolated over more than this is no ground truth.
_MAX_GROUND_TRUTH_DISTANCE_S = 0.05
_GROUND_TRUTH_FOLDERS = ("state_groundtruth_estimate0", "mocap0")


def is_euroc(path: Path) -> bool:
    """Whether ``path`` is a EuRoC sequence folder, or its ``mav0``."""
    return any((folder / "cam0" / "data.csv").is_file() for folder in (path, path / "mav0"))


def open_euroc(path: Path, camera: CameraArgument | None = None, *, strict: bool = False) -> FileSequence:
    """Open a EuRoC sequence: stereo where ``cam1`` is there, else mono.

    Args:
        path: the folder that holds ``mav0``, or ``mav0``.
        camera: see :func:`semkey.datasets.open_sequence`; instead of both ``sensor.yaml``. A camera without a right
            one takes the left images alone.
        strict: raise for a missing image or a timestamp given twice, instead of reporting it.

    Raises:
        DatasetError: a list is missing, empty or has a broken row, or a calibration is; names the file and line.
    """
    mav = path / "mav0" if (path / "mav0").is_dir() else path
    lefts, faults = _read_list(mav / "cam0", strict)
    calibration, T_body_cam = _read_cameras(mav)
    argument: CameraArgument = calibration if camera is None else camera
    is_stereo = isinstance(argument, Calibration) and argument.right is not None and (mav / "cam1").is_dir()
    pairs: list[tuple[float, Path, Path | None]] = [(stamp, left, None) for stamp, left in lefts]
    if is_stereo:
        rights, right_faults = _read_list(mav / "cam1", strict)
        faults += right_faults
        pairs = _pair(mav, lefts, rights, faults)
    truth = _read_ground_truth(mav)
    size = image_size(left for _, left, _ in pairs)
    frames = [
        FrameFiles(timestamp=stamp, image=left, right=right, T_world_cam=_true_pose(truth, stamp, T_body_cam))
        for stamp, left, right in pairs
    ]
    sequence = FileSequence(
        name=as_given(mav.parent if mav.name == "mav0" else mav).name,
        format="euroc",
        frames=frames,
        image_size=size,
        optics=optics_for(argument, size, stereo=is_stereo),
        faults=faults,
        strict=strict,
    )
    sequence.imu = _read_imu(mav / "imu0" / "data.csv")
    return sequence


def _read_imu(path: Path) -> ImuSamples | None:
    """The rows of ``imu0``: nanoseconds, angular velocity, acceleration; None where there is no such file."""
    if not path.is_file():
        return None
    stamps: list[float] = []
    rows: list[list[float]] = []
    for line, columns in numbered_rows(path):
        if len(columns) != 7:
            raise DatasetError(f"{path}:{line}: expected 7 columns (nanoseconds, gyro, accel), found {len(columns)}")
        stamps.append(_seconds(columns[0], path, line))
        rows.append([finite_number(text, path, line) for text in columns[1:]])
    values = np.array(rows, dtype=np.float64).reshape(-1, 6)
    return ImuSamples(timestamps=np.array(stamps, dtype=np.float64), gyro=values[:, :3], accel=values[:, 3:])


def _read_list(folder: Path, strict: bool) -> tuple[list[tuple[float, Path]], list[SequenceFault]]:
    path = folder / "data.csv"
    rows: list[tuple[float, int, Path]] = []
    for line, columns in numbered_rows(path):
        if len(columns) != 2:
            raise DatasetError(f"{path}:{line}: expected 2 columns (nanoseconds,filename), found {len(columns)}")
        rows.append((_seconds(columns[0], path, line), line, folder / "data" / columns[1]))
        if strict:
            require_file(rows[-1][2], listed_in=f"{path}:{line}")
    if not rows:
        raise DatasetError(f"{path}: lists no files")
    return rows_by_time(rows, path, strict=strict)


def _seconds(text: str, path: Path, line: int) -> float:
    """Seconds of a stamp in nanoseconds; its 19 digits fit an integer but no float."""
    return int(text) / 1e9 if text.isdecimal() else finite_number(text, path, line) / 1e9


def _pair(
    mav: Path, lefts: list[tuple[float, Path]], rights: list[tuple[float, Path]], faults: list[SequenceFault]
) -> list[tuple[float, Path, Path | None]]:
    pairs = associate_by_time(
        [stamp for stamp, _ in lefts], [stamp for stamp, _ in rights], max_difference_s=_MAX_PAIR_DIFFERENCE_S
    )
    if len(pairs) == 0:
        raise DatasetError(f"{mav}: no image of cam0 has one of cam1 within {_MAX_PAIR_DIFFERENCE_S} s")
    if len(pairs) < len(lefts):
        message = f"{mav}: {len(lefts) - len(pairs)} of {len(lefts)} images of cam0 have none of cam1 and are left out"
        faults.append(SequenceFault(kind="unpaired", message=message))
    return [(*lefts[i], rights[j][1]) for i, j in pairs.tolist()]


def _read_cameras(mav: Path) -> tuple[Calibration, NDArray[np.float64]]:
    """The calibration of both cameras (or the one), and T_body_cam (4, 4) of the left one."""
    left, T_body_left = _read_sensor(mav / "cam0" / "sensor.yaml")
    if not (mav / "cam1").is_dir():
        return Calibration(left=left), T_body_left
    right, T_body_right = _read_sensor(mav / "cam1" / "sensor.yaml")
    return Calibration(left=left, right=right, T_left_right=inverse(T_body_left) @ T_body_right), T_body_left


def _read_sensor(path: Path) -> tuple[Lens, NDArray[np.float64]]:
    section = YamlSection.read(path)
    lens = sensor_lens(section)
    try:
        return lens, _read_transform(section)
    except ConfigError as error:
        raise DatasetError(f"{path}: {error}") from None


def _read_transform(section: YamlSection) -> NDArray[np.float64]:
    """T_BS of a sensor.yaml: sensor to body."""
    return rigid(section.section("T_BS").numbers("data", (16,)), "T_BS")


def _read_ground_truth(mav: Path) -> Trajectory | None:
    """Poses T_world_body over time, None where there are none."""
    folder = next((mav / name for name in _GROUND_TRUTH_FOLDERS if (mav / name / "data.csv").is_file()), None)
    if folder is None:
        return None
    path = folder / "data.csv"
    T_body_sensor = np.eye(4)
    if (folder / "sensor.yaml").is_file():
        section = YamlSection.read(folder / "sensor.yaml")
        try:
            T_body_sensor = _read_transform(section) if "T_BS" in section else T_body_sensor
        except ConfigError as error:
            raise DatasetError(f"{folder / 'sensor.yaml'}: {error}") from None
    rows: list[tuple[float, int, NDArray[np.float64]]] = []
    for line, columns in numbered_rows(path):
        if len(columns) < 8:
            raise DatasetError(
                f"{path}:{line}: expected at least 8 columns (nanoseconds, x y z, w x y z), found {len(columns)}"
            )
        x, y, z, qw, qx, qy, qz = (finite_number(text, path, line) for text in columns[1:8])
        try:
            rotation = rotation_from_quaternion_xyzw([qx, qy, qz, qw])
        except InputError as error:
            raise DatasetError(f"{path}:{line}: {error}") from None
        rows.append((_seconds(columns[0], path, line), line, make_transform(rotation, [x, y, z])))
    if not rows:
        return None
    ordered, _ = rows_by_time(rows, path, strict=False)
    T_sensor_body = inverse(T_body_sensor)
    return Trajectory(
        np.array([stamp for stamp, _ in ordered]), np.stack([pose @ T_sensor_body for _, pose in ordered])
    )


def _true_pose(
    truth: Trajectory | None, timestamp: float, T_body_cam: NDArray[np.float64]
) -> NDArray[np.float64] | None:
    if truth is None:
        return None
    T_world_body = pose_at(truth, timestamp, max_distance_s=_MAX_GROUND_TRUTH_DISTANCE_S)
    return None if T_world_body is None else T_world_body @ T_body_cam
