"""The layout of Microsoft 7-Scenes (Shotton et al., CVPR 2013): one folder per sequence, three files per frame.

``frame-%06d.color.png`` (or .jpg), ``frame-%06d.depth.png`` (16 bit, millimetres, 0 and 65535 invalid) and
``frame-%06d.pose.txt`` (4x4, camera to world, metres). The data set has no clock: time is the frame's number at 30 Hz.
A pose with NaN or infinite numbers marks a frame whose tracking was lost and counts as no ground truth.
"""

from __future__ import annotations

import re
from pathlib import Path

from semkey.datasets.cameras.calibration import CAMERA_FILE, CameraArgument, optics_for, read_camera_file
from semkey.datasets.cameras.optics import Optics
from semkey.datasets.readers.file_sequence import FileSequence, FrameFiles
from semkey.datasets.readers.listing import as_given, image_size
from semkey.datasets.readers.pose_files import read_pose_matrix
from semkey.datasets.sequence import SequenceFault
from semkey.errors import DatasetError

DEPTH_UNITS_PER_METRE = 1000.0
FRAMES_PER_SECOND = 30.0

# Published with the data set: fx, fy, cx, cy.
_PUBLISHED_SIZE = (640, 480)
_PUBLISHED_CAMERA = (585.0, 585.0, 320.0, 240.0)
_INTRINSICS_FILE = "camera-intrinsics.txt"
_FRAME_FILE = re.compile(r"frame-(\d+)\.(color|depth|pose)\.(png|jpg|txt)")


def open_seven_scenes(path: Path, camera: CameraArgument | None = None, *, strict: bool = False) -> FileSequence:
    """Open one 7-Scenes sequence folder (``seq-01``); depth and poses may be absent, but then for all frames.

    The camera is the argument, else ``camera-intrinsics.txt`` (3x3) in the folder or its parent, else ``camera.txt``
    (``fx fy cx cy``) in the folder, else the published 585 585 320 240.

    Args:
        path: the folder.
        camera: see :func:`semkey.datasets.open_sequence`.
        strict: raise for a frame without its depth or pose file, instead of reporting it.

    Raises:
        DatasetError: no frames, depth of another size, or a pose that is no 4x4 rigid transform; with ``strict`` also
            for a frame without its depth or pose file, or an empty file.
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
    faults: list[SequenceFault] = []
    for number in sorted(colors.keys() - poses.keys()) if poses else ():
        message = f"{path / f'frame-{number:06d}.pose.txt'}: file is missing"
        if strict:
            raise DatasetError(message)
        faults.append(SequenceFault(kind="missing", message=message))
    numbers = sorted(colors)
    size = image_size(colors[number] for number in numbers)
    folder = as_given(path)
    return FileSequence(
        name=f"{folder.parent.name}/{folder.name}",
        format="7scenes",
        frames=[
            FrameFiles(
                timestamp=number / FRAMES_PER_SECOND,
                image=colors[number],
                depth=path / f"frame-{number:06d}.depth.png" if depths else None,
                T_world_cam=read_pose_matrix(poses[number]) if number in poses else None,
            )
            for number in numbers
        ],
        image_size=size,
        optics=_find_optics(folder, camera, size),
        depth=DEPTH_UNITS_PER_METRE,
        faults=faults,
        strict=strict,
    )


def _find_optics(folder: Path, camera: CameraArgument | None, size: tuple[int, int]) -> Optics:
    if camera is None:
        parents = (folder.parent, folder.resolve().parent)
        files = (folder / _INTRINSICS_FILE, *(parent / _INTRINSICS_FILE for parent in parents), folder / CAMERA_FILE)
        camera = next((read_camera_file(file) for file in files if file.exists()), None)
    if camera is None and size == _PUBLISHED_SIZE:
        camera = _PUBLISHED_CAMERA
    if camera is None:
        raise DatasetError(
            f"{folder}: camera unknown ({size[0]}x{size[1]} images, not 7-Scenes' 640x480); pass --camera fx,fy,cx,cy"
        )
    return optics_for(camera, size)
