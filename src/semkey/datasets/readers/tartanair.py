"""The layouts of TartanAir (Wang et al., IROS 2020) and TartanAir V2: one trajectory folder such as ``P001``.

First version: ``image_left/000000_left.png``, ``image_right``, ``depth_left/000000_left_depth.npy``, ``pose_left.txt``.
V2: ``image_lcam_front/000000_lcam_front.png``, ``image_rcam_front``, ``depth_lcam_front/..._depth.png`` (the four bytes
of a float32 in four channels), ``pose_lcam_front.txt``. Poses are ``x y z qx qy qz qw`` in NED (x forward, y right, z
down) for world and camera; they are turned into the axes used here (x right, y down, z forward) on both sides. There is
no clock: time is the frame's number at 10 Hz.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.calibration import CameraArgument, optics_for
from semkey.datasets.cameras.lens import Calibration
from semkey.datasets.readers.file_sequence import FileSequence, FrameFiles
from semkey.datasets.readers.listing import as_given, image_size
from semkey.errors import DatasetError, InputError
from semkey.geometry.transforms import make_transform, rotation_from_quaternion_xyzw
from semkey.textfiles import finite_number, numbered_rows

FRAMES_PER_SECOND = 10.0
BASELINE_M = 0.25

# Published with the data set, by image size: 90 degrees wide.
_PUBLISHED_CAMERAS = {(640, 480): (320.0, 320.0, 320.0, 240.0), (640, 640): (320.0, 320.0, 320.0, 320.0)}
# The sky is a sphere some kilometres away: no depth.
_MAX_DEPTH_M = 1000.0
# Axes of a camera (x right, y down, z forward) in NED (x forward, y right, z down).
_T_NED_CAM = np.array([[0.0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])


@dataclass(frozen=True, kw_only=True)
class _Layout:
    left: str
    right: str
    depth: str
    depth_end: str
    poses: str


_LAYOUTS = (
    _Layout(
        left="image_left",
        right="image_right",
        depth="depth_left",
        depth_end="_left_depth.npy",
        poses="pose_left.txt",
    ),
    _Layout(
        left="image_lcam_front",
        right="image_rcam_front",
        depth="depth_lcam_front",
        depth_end="_lcam_front_depth.png",
        poses="pose_lcam_front.txt",
    ),
)


def is_tartanair(path: Path) -> bool:
    """Whether ``path`` is a trajectory folder of TartanAir."""
    return _layout(path) is not None


def open_tartanair(path: Path, camera: CameraArgument | None = None, *, strict: bool = False) -> FileSequence:
    """Open a trajectory of TartanAir; depth, right images and poses may be absent.

    Args:
        path: the folder, such as ``abandonedfactory/Easy/P001``.
        camera: see :func:`semkey.datasets.open_sequence`; a pair keeps its baseline of 0.25 m.
        strict: raise for a missing file instead of reporting it.

    Raises:
        DatasetError: no images, a broken pose file, or images of an unknown size and no camera.
    """
    layout = _layout(path)
    if layout is None:
        raise DatasetError(f"{path}: no image_left or image_lcam_front; give one trajectory, such as Easy/P001")
    images = _numbered(path / layout.left)
    rights = _numbered(path / layout.right)
    has_depth = (path / layout.depth).is_dir()
    if not images:
        raise DatasetError(f"{path / layout.left}: no images such as 000000_left.png")
    numbers = sorted(images)
    poses = _read_poses(path / layout.poses) if (path / layout.poses).exists() else []
    if poses and len(poses) <= numbers[-1]:
        raise DatasetError(
            f"{path / layout.poses}: has {len(poses)} rows, but the last frame is number {numbers[-1]} (counted from 0)"
        )
    size = image_size(images[number] for number in numbers)
    if camera is None:
        if size not in _PUBLISHED_CAMERAS:
            raise DatasetError(f"{path}: camera unknown ({size[0]}x{size[1]} images); pass --camera fx,fy,cx,cy")
        camera = _PUBLISHED_CAMERAS[size]
    use_pair = bool(rights) and not (isinstance(camera, Calibration) and camera.right is None)
    optics = optics_for(camera, size, stereo=use_pair and isinstance(camera, Calibration))
    if use_pair and optics.baseline is None:
        optics = replace(optics, baseline=BASELINE_M)
    right_end = layout.right.removeprefix("image")
    return FileSequence(
        name="/".join(as_given(path).parts[-3:]),
        format="tartanair",
        frames=[
            FrameFiles(
                timestamp=number / FRAMES_PER_SECOND,
                image=images[number],
                depth=path / layout.depth / f"{number:06d}{layout.depth_end}" if has_depth else None,
                right=rights.get(number, path / layout.right / f"{number:06d}{right_end}.png") if use_pair else None,
                T_world_cam=poses[number] if poses else None,
            )
            for number in numbers
        ],
        image_size=size,
        optics=optics,
        depth=_read_depth,
        strict=strict,
    )


def _layout(path: Path) -> _Layout | None:
    return next((layout for layout in _LAYOUTS if (path / layout.left).is_dir()), None)


def _numbered(folder: Path) -> dict[int, Path]:
    if not folder.is_dir():
        return {}
    files = [(file.name.split("_")[0], file) for file in folder.iterdir() if file.suffix.lower() == ".png"]
    return {int(number): file for number, file in files if number.isdecimal()}


def _read_poses(path: Path) -> list[NDArray[np.float64]]:
    poses: list[NDArray[np.float64]] = []
    for line, columns in numbered_rows(path):
        if len(columns) != 7:
            raise DatasetError(f"{path}:{line}: expected 7 columns (x y z qx qy qz qw), found {len(columns)}")
        values = [finite_number(text, path, line) for text in columns]
        try:
            T_ned = make_transform(rotation_from_quaternion_xyzw(values[3:]), values[:3])
        except InputError as error:
            raise DatasetError(f"{path}:{line}: {error}") from None
        poses.append(_T_NED_CAM.T @ T_ned @ _T_NED_CAM)
    return poses


def _read_depth(path: Path) -> NDArray[np.float32]:
    """Depth (H, W) float32 metres; 0 for the sky and what is not finite."""
    try:
        if path.suffix == ".npy":
            depth = np.load(path, allow_pickle=False)
        else:
            # The bytes of each float32 in the order of OpenCV's channels (blue, green, red, alpha).
            pixels = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_UNCHANGED)
            if pixels is None or pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 4:
                raise InputError(f"{path} is not a depth map of TartanAir V2: expected four 8-bit channels")
            depth = np.ascontiguousarray(pixels).view("<f4")[:, :, 0]
    except (OSError, ValueError, EOFError, cv2.error):
        raise InputError(f"{path} is not a depth map, or it is truncated or damaged") from None
    if depth.ndim != 2 or depth.dtype.kind != "f":
        raise InputError(f"{path} is not a depth map: expected (H, W) numbers, found {depth.shape} {depth.dtype}")
    depth = depth.astype(np.float32)
    depth[~((depth > 0) & (depth < _MAX_DEPTH_M))] = 0.0
    return depth
