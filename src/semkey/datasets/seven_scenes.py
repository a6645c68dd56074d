"""The layout of Microsoft 7-Scenes (Shotton et al., CVPR 2013): one folder per sequence, three files per frame.

``frame-%06d.color.png`` (or .jpg), ``frame-%06d.depth.png`` (16 bit, millimetres, 0 and 65535 invalid) and
``frame-%06d.pose.txt`` (4x4, camera to world, metres). The data set has no clock: time is the frame's number at 30 Hz.
A pose with NaN or infinite numbers marks a frame whose tracking was lost and counts as no ground truth.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.calibration import CAMERA_FILE, CameraArgument, camera_for, read_camera_file
from semkey.datasets.file_sequence import FileSequence, FrameFiles, image_size
from semkey.errors import DatasetError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import make_transform, nearest_rotation
from semkey.metrics.trajectory import is_rigid
from semkey.textfiles import numbered_rows

DEPTH_UNITS_PER_METRE = 1000.0
FRAMES_PER_SECOND = 30.0

# Published with the data set for its 640x480 images: fx, fy, cx, cy.
_PUBLISHED_CAMERA = (585.0, 585.0, 320.0, 240.0)
_INTRINSICS_FILE = "camera-intrinsics.txt"
_FRAME_FILE = re.compile(r"frame-(\d+)\.(color|depth|pose)\.(png|jpg|txt)")


def open_seven_scenes(path: Path, camera: CameraArgument | None = None) -> FileSequence:
    """Open one 7-Scenes sequence folder (``seq-01``); depth and poses may be absent, but then for all frames.

    The camera is the argument, else ``camera-intrinsics.txt`` (3x3) in the folder or its parent, else ``camera.txt``
    (``fx fy cx cy``) in the folder, else the published 585 585 320 240.

    Raises:
        DatasetError: no frames, a frame without its depth or pose file, a file that is empty, depth of another size, or
            a pose that is no 4x4 rigid transform.
    """
    found: dict[str, dict[int, Path]] = {"color": {}, "depth": {}, "pose": {}}
    for file in sorted(path.iterdir()):
        if match := _FRAME_FILE.fullmatch(file.name):
            found[match[2]][int(match[1])] = file
    colors, depths, poses = found["color"], found["depth"], found["pose"]
    if not colors:
        raise DatasetError(
            f"{path}: no frame-NNNNNN.color.png or .jpg; give the folder of one sequence, such as seq-01"
        )
    for kind, files in (("depth.png", depths), ("pose.txt", poses)):
        missing = sorted(colors.keys() - files.keys()) if files else []
        if missing:
            raise DatasetError(f"{path}/{colors[missing[0]].name.split('.')[0]}.{kind}: file is missing")
    size = image_size(next(iter(colors.values())))
    frames = [
        FrameFiles(
            timestamp=number / FRAMES_PER_SECOND,
            image=colors[number],
            depth=depths.get(number),
            T_world_cam=_read_pose(poses[number]) if poses else None,
        )
        for number in sorted(colors)
    ]
    folder = path.resolve()
    return FileSequence(
        name=f"{folder.parent.name}/{folder.name}",
        format="7scenes",
        camera=_find_camera(folder, camera, size),
        frames=frames,
        depth_units_per_metre=DEPTH_UNITS_PER_METRE,
        image_size=size,
    )


def _read_pose(path: Path) -> NDArray[np.float64] | None:
    """T_world_cam (4, 4), its rotation made orthonormal to float64; None where tracking was lost."""
    rows: list[list[float]] = []
    for line, columns in numbered_rows(path):
        try:
            rows.append([float(text) for text in columns])
        except ValueError:
            raise DatasetError(f"{path}:{line}: a column is not a number") from None
        if len(columns) != 4:
            raise DatasetError(f"{path}:{line}: expected 4 columns, found {len(columns)}")
    if len(rows) != 4:
        raise DatasetError(f"{path}: expected 4 rows of 4 numbers, found {len(rows)} rows")
    if not all(math.isfinite(value) for row in rows for value in row):
        return None
    matrix = np.array(rows)
    if not is_rigid(matrix):
        raise DatasetError(f"{path}: pose is not a rigid transform (a rotation, a translation and 0 0 0 1)")
    return make_transform(nearest_rotation(matrix[:3, :3]), matrix[:3, 3])


def _find_camera(folder: Path, camera: CameraArgument | None, size: tuple[int, int]) -> PinholeCamera:
    if camera is not None:
        return camera_for(camera, size)
    for file in (folder / _INTRINSICS_FILE, folder.parent / _INTRINSICS_FILE, folder / CAMERA_FILE):
        if file.exists():
            return camera_for(read_camera_file(file), size)
    if size != (640, 480):
        raise DatasetError(
            f"{folder}: camera unknown ({size[0]}x{size[1]} images, not 7-Scenes' 640x480); pass --camera fx,fy,cx,cy"
        )
    return camera_for(_PUBLISHED_CAMERA, size)
