"""The layout of KITTI odometry (Geiger et al., CVPR 2012): ``sequences/NN`` with poses in ``poses/NN.txt`` beside it.

``image_0`` and ``image_1`` are the rectified grey cameras, ``image_2`` and ``image_3`` the colour ones; ``calib.txt``
has their 3x4 projections P0 to P3 of points in the frame of camera 0, ``times.txt`` the seconds of each frame, and the
poses are those of camera 0 (x right, y down, z forward). Files, times and poses are matched by the frame's number.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.calibration import Calibration, CameraArgument, optics_for
from semkey.datasets.readers.file_sequence import FileSequence, FrameFiles
from semkey.datasets.readers.folder import IMAGE_SUFFIXES
from semkey.datasets.readers.listing import as_given, image_size, rising_frames
from semkey.datasets.readers.pose_files import read_pose_rows
from semkey.datasets.sequence import SequenceFault
from semkey.errors import DatasetError
from semkey.geometry.transforms import make_transform
from semkey.textfiles import finite_number, numbered_rows

# For sequences without times.txt.
FRAMES_PER_SECOND = 10.0

_CAMERAS = ("image_0", "image_1", "image_2", "image_3")
#: Left cameras and their right ones.
_PARTNERS = {"image_0": "image_1", "image_2": "image_3"}


def is_kitti(path: Path) -> bool:
    """Whether ``path`` is a sequence folder of KITTI odometry, or one of its image folders."""
    sequence = path.parent if path.name in _CAMERAS else path
    return (sequence / "calib.txt").is_file() and any((sequence / name).is_dir() for name in _CAMERAS)


def open_kitti(path: Path, camera: CameraArgument | None = None, *, strict: bool = False) -> FileSequence:
    """Open a KITTI odometry sequence.

    The grey pair is taken where both its folders are there, else the colour pair, else the first single camera.
    ``poses/NN.txt`` beside ``sequences``, or ``poses.txt`` in the folder, is ground truth.

    Args:
        path: ``sequences/NN``, or one of its image folders to choose the (left) camera: ``sequences/NN/image_2``.
        camera: see :func:`semkey.datasets.open_sequence`; a pair keeps the baseline of ``calib.txt``.
        strict: raise for a missing image, or times that do not increase, instead of reporting it.

    Raises:
        DatasetError: no images, no or a broken calibration, or fewer times or poses than frames; names file and line.
    """
    folder = path.parent if path.name in _CAMERAS else path
    left = path.name if path.name in _CAMERAS else _choose_camera(folder)
    right = _PARTNERS.get(left)
    images = _numbered_images(folder / left)
    if not images:
        raise DatasetError(f"{folder / left}: no images with numbers as names")
    rights = _numbered_images(folder / right) if right is not None else {}
    numbers = sorted(images)
    times = _read_times(folder / "times.txt", numbers)
    poses = _read_poses(folder, numbers)
    projections = _read_projections(folder / "calib.txt")
    T_cam0_cam = _camera_pose(projections, left, folder)
    kept, faults = rising_frames(times, folder / "times.txt", strict=strict)
    size = image_size(images[number] for number in numbers)
    is_stereo = bool(rights)
    if camera is None or not isinstance(camera, Calibration):
        K = projections[left][:, :3]
        optics = optics_for((K[0, 0], K[1, 1], K[0, 2], K[1, 2]) if camera is None else camera, size)
        if is_stereo and right is not None:
            baseline = float(_camera_pose(projections, right, folder)[0, 3] - T_cam0_cam[0, 3])
            if baseline <= 0:
                raise DatasetError(f"{folder / 'calib.txt'}: {right} lies {baseline} m to the right of {left}")
            optics = replace(optics, baseline=baseline)
    else:
        optics = optics_for(camera, size, stereo=is_stereo and camera.right is not None)
    frames = [
        FrameFiles(
            timestamp=times[position],
            image=images[number],
            right=rights.get(number, folder / str(right) / images[number].name) if is_stereo else None,
            T_world_cam=poses[number] @ T_cam0_cam if poses else None,
        )
        for position, number in ((position, numbers[position]) for position in kept)
    ]
    return FileSequence(
        name=as_given(folder).name,
        format="kitti",
        frames=frames,
        image_size=size,
        optics=optics,
        faults=[*_missing_numbers(folder / left, numbers), *faults],
        strict=strict,
    )


def _choose_camera(folder: Path) -> str:
    there = [name for name in _CAMERAS if (folder / name).is_dir()]
    pairs = [name for name, partner in _PARTNERS.items() if name in there and partner in there]
    if not there:
        raise DatasetError(f"{folder}: no image_0 to image_3 in this folder; give one sequence, such as sequences/07")
    return (pairs or there)[0]


def _numbered_images(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.stem.isdecimal()]
    return {int(file.stem): file for file in files}


def _missing_numbers(folder: Path, numbers: list[int]) -> list[SequenceFault]:
    """Numbers left out between the first and the last: dropped frames, which keep their time."""
    absent = sorted(set(range(numbers[0], numbers[-1] + 1)) - set(numbers))
    if not absent or len(absent) > len(numbers):  # more gaps than frames: the sequence was thinned out on purpose
        return []
    return [SequenceFault(kind="missing", message=f"{folder}: {len(absent)} frames are missing, first {absent[0]:06d}")]


def _read_times(path: Path, numbers: list[int]) -> list[float]:
    """Seconds of each frame in ``numbers``."""
    if not path.exists():
        return [number / FRAMES_PER_SECOND for number in numbers]
    times: list[float] = []
    for line, columns in numbered_rows(path):
        if len(columns) != 1:
            raise DatasetError(f"{path}:{line}: expected 1 column (seconds), found {len(columns)}")
        times.append(finite_number(columns[0], path, line))
    _check_rows(path, len(times), numbers)
    return [times[number] for number in numbers]


def _read_poses(folder: Path, numbers: list[int]) -> list[NDArray[np.float64]]:
    """Poses T_world_cam0 by frame number, empty where there is no file."""
    places = (as_given(folder), folder.resolve())
    for file in (folder / "poses.txt", *(place.parent.parent / "poses" / f"{place.name}.txt" for place in places)):
        if file.exists():
            poses = read_pose_rows(file)
            _check_rows(file, len(poses), numbers)
            return poses
    return []


def _check_rows(path: Path, rows: int, numbers: list[int]) -> None:
    if rows <= numbers[-1]:
        raise DatasetError(f"{path}: has {rows} rows, but the last frame is number {numbers[-1]} (counted from 0)")


def _read_projections(path: Path) -> dict[str, NDArray[np.float64]]:
    """The (3, 4) projections of calib.txt by image folder."""
    projections: dict[str, NDArray[np.float64]] = {}
    for line, columns in numbered_rows(path):
        name = columns[0].rstrip(":")
        if name not in ("P0", "P1", "P2", "P3"):  # Tr, of the laser scanner
            continue
        values = [finite_number(text, path, line) for text in columns[1:]]
        if len(values) != 12:
            raise DatasetError(f"{path}:{line}: expected {name}: and 12 numbers (a 3x4 matrix), found {len(values)}")
        matrix = np.reshape(values, (3, 4))
        if matrix[0, 0] <= 0 or matrix[1, 1] <= 0 or not np.allclose(matrix[2, :3], [0, 0, 1]):
            raise DatasetError(f"{path}:{line}: {name} is not the projection of a rectified camera")
        projections[f"image_{name[1]}"] = matrix
    return projections


def _camera_pose(projections: dict[str, NDArray[np.float64]], name: str, folder: Path) -> NDArray[np.float64]:
    """T_cam0_cam (4, 4) of a rectified camera: P = K [I | t] with t = -(its position)."""
    if name not in projections:
        raise DatasetError(f"{folder / 'calib.txt'}: has no P{name[-1]}, the camera of {name}")
    matrix = projections[name]
    return make_transform(np.eye(3), -np.linalg.solve(matrix[:, :3], matrix[:, 3]))
