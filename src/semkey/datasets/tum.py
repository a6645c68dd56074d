"""The TUM RGB-D benchmark's layout (Sturm et al., IROS 2012): rgb.txt, depth.txt, groundtruth.txt.

Images and depth are paired by time; images without depth nearby are left out, as the benchmark's associate.py does.
Rows that are not in order of time are sorted (associate.py does so too); a stamp that occurs twice in one list is an
error, since the pairs would be ambiguous. Lens distortion (freiburg1 and freiburg2 have some) is not removed.
"""

from __future__ import annotations

import logging
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.calibration import CAMERA_FILE, CameraArgument, camera_for, read_camera_file
from semkey.datasets.file_sequence import FileSequence, FrameFiles, image_size, require_file
from semkey.errors import DatasetError
from semkey.geometry.camera import PinholeCamera
from semkey.metrics.trajectory import Trajectory, associate_by_time, pose_at, read_tum_trajectory
from semkey.textfiles import finite_number, numbered_rows

logger = logging.getLogger(__name__)

DEPTH_UNITS_PER_METRE = 5000.0

# Pairs must be closer than this (associate.py's default): under one frame at 30 Hz.
_MAX_PAIR_DIFFERENCE_S = 0.02
# Motion capture gives a pose every 10 ms; a gap of more than this means that it had lost its markers, and a hand-held
# camera moves centimetres meanwhile: what is interpolated across is no longer ground truth.
_MAX_GROUND_TRUTH_DISTANCE_S = 0.1
# Intrinsics published with the benchmark for its 640x480 images: fx, fy, cx, cy.
_PUBLISHED_CAMERAS = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3),
    "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}
_PUBLISHED_SIZE = (640, 480)


def open_tum(path: Path, camera: CameraArgument | None = None) -> FileSequence:
    """Open a TUM RGB-D folder; depth.txt and groundtruth.txt may be absent.

    The camera is the argument, else ``camera.txt`` (``fx fy cx cy``) in the folder, else the published one if the
    folder's name holds ``freiburg1``, ``freiburg2`` or ``freiburg3``. Ground truth is interpolated at the images' time.

    Raises:
        DatasetError: a list is missing, empty or has a broken row, a listed file is missing or empty, depth has another
            size than the images, or the camera is not known; the message names the file and line.
    """
    images = _read_list(path / "rgb.txt")
    size = image_size(images[0][1])
    truth = read_tum_trajectory(path / "groundtruth.txt") if (path / "groundtruth.txt").exists() else None
    if (path / "depth.txt").exists():
        depths = _read_list(path / "depth.txt")
        pairs = associate_by_time(
            [stamp for stamp, _ in images], [stamp for stamp, _ in depths], max_difference_s=_MAX_PAIR_DIFFERENCE_S
        )
        if len(pairs) == 0:
            raise DatasetError(
                f"{path}: no row of rgb.txt has one in depth.txt within {_MAX_PAIR_DIFFERENCE_S} s; do clocks differ?"
            )
        if len(pairs) < len(images):
            logger.info(
                "%s: %d of %d images have no depth and are left out", path, len(images) - len(pairs), len(images)
            )
        files = [(*images[i], depths[j][1]) for i, j in pairs.tolist()]
    else:
        files = [(stamp, image, None) for stamp, image in images]
    frames = [
        FrameFiles(timestamp=stamp, image=image, depth=depth, T_world_cam=_true_pose(truth, stamp))
        for stamp, image, depth in files
    ]
    return FileSequence(
        name=path.resolve().name,
        format="tum",
        camera=_find_camera(path, camera, size),
        frames=frames,
        depth_units_per_metre=DEPTH_UNITS_PER_METRE,
        image_size=size,
    )


def _read_list(path: Path) -> list[tuple[float, Path]]:
    """(timestamp, file) of every row of rgb.txt or depth.txt, by time; every file has been seen to exist."""
    rows: list[tuple[float, Path]] = []
    lines: dict[float, int] = {}
    for line, columns in numbered_rows(path):
        if len(columns) != 2:
            raise DatasetError(f"{path}:{line}: expected 2 columns (timestamp filename), found {len(columns)}")
        stamp = finite_number(columns[0], path, line)
        if stamp in lines:
            raise DatasetError(f"{path}:{line}: timestamp {columns[0]} was already given in line {lines[stamp]}")
        lines[stamp] = line
        file = path.parent / columns[1]
        require_file(file, listed_in=f"{path}:{line}")
        rows.append((stamp, file))
    if not rows:
        raise DatasetError(f"{path}: lists no files")
    if any(after[0] < before[0] for before, after in pairwise(rows)):
        logger.warning("%s: rows are not in order of time; sorted", path)
    return sorted(rows)


def _true_pose(truth: Trajectory | None, timestamp: float) -> NDArray[np.float64] | None:
    if truth is None:
        return None
    return pose_at(truth, timestamp, max_distance_s=_MAX_GROUND_TRUTH_DISTANCE_S)


def _find_camera(path: Path, camera: CameraArgument | None, size: tuple[int, int]) -> PinholeCamera:
    if camera is not None:
        return camera_for(camera, size)
    if (path / CAMERA_FILE).exists():
        return camera_for(read_camera_file(path / CAMERA_FILE), size)
    name = path.resolve().name
    for key, published in _PUBLISHED_CAMERAS.items():
        if key in name and size == _PUBLISHED_SIZE:
            return camera_for(published, size)
    raise DatasetError(
        f"{path}: camera unknown ({size[0]}x{size[1]} images); pass --camera fx,fy,cx,cy or write 'fx fy cx cy' to "
        f"{CAMERA_FILE} in that folder"
    )
