"""The layout of ScanNet (Dai et al., CVPR 2017) as its SensReader exports it: color/, depth/, pose/, intrinsic/.

``color/N.jpg`` (1296x968), ``depth/N.png`` (640x480, millimetres), ``pose/N.txt`` (4x4, camera to world, ``-inf`` where
tracking was lost), ``intrinsic/intrinsic_color.txt`` and ``intrinsic_depth.txt`` (4x4). Both cameras look from the same
place. Frames are delivered as the depth camera sees them: depth as it is, colour resampled onto its pixels. There is no
clock: time is the frame's number at 30 Hz.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.calibration import CameraArgument, camera_for
from semkey.datasets.cameras.lens import Calibration
from semkey.datasets.cameras.optics import Optics
from semkey.datasets.readers.file_sequence import FileSequence, FrameFiles
from semkey.datasets.readers.folder import IMAGE_SUFFIXES
from semkey.datasets.readers.listing import as_given, image_size
from semkey.datasets.readers.pose_files import read_pose_matrix
from semkey.datasets.sequence import SequenceFault
from semkey.errors import ConfigError, DatasetError, InputError
from semkey.geometry.camera import PinholeCamera
from semkey.images.reading import read_depth
from semkey.textfiles import finite_number, numbered_rows

DEPTH_UNITS_PER_METRE = 1000.0
FRAMES_PER_SECOND = 30.0

# Colour that is shifted by less than this against depth is not resampled again.
_ALIGNED_PX = 0.05


def is_scannet(path: Path) -> bool:
    """Whether ``path`` is an exported ScanNet scene."""
    return all((path / name).is_dir() for name in ("color", "depth", "pose"))


def open_scannet(path: Path, camera: CameraArgument | None = None, *, strict: bool = False) -> FileSequence:
    """Open an exported ScanNet scene.

    Args:
        path: the folder with color, depth, pose and intrinsic.
        camera: pinhole camera of the colour images as stored, instead of intrinsic/intrinsic_color.txt.
        strict: raise for a missing depth or pose file instead of reporting it.

    Raises:
        DatasetError: no images, a broken intrinsic or pose file; with ``strict`` a missing file.
        ConfigError: a calibration with lenses is given: ScanNet's images come undistorted.
    """
    if isinstance(camera, Calibration):
        raise ConfigError(f"{path}: ScanNet images come undistorted; pass --camera fx,fy,cx,cy instead")
    colors = _numbered(path / "color", IMAGE_SUFFIXES)
    depths = _numbered(path / "depth", {".png"})
    if not colors or not depths:
        raise DatasetError(f"{path}: no images with numbers as names in color, or no .png in depth")
    color_size = image_size(colors.values())
    depth_size = _depth_size(depths)
    color_camera = camera_for(_read_intrinsics(path, "color") if camera is None else camera, color_size)
    depth_file = path / "intrinsic" / "intrinsic_depth.txt"
    if depth_file.exists():
        depth_camera = camera_for(_read_intrinsics(path, "depth"), depth_size)
    else:
        depth_camera = color_camera.resized(*depth_size)
    faults: list[SequenceFault] = []
    frames: list[FrameFiles] = []
    for number, color in colors.items():
        pose = path / "pose" / f"{number}.txt"
        if not pose.is_file():
            if strict:
                raise DatasetError(f"{pose}: file is missing")
            faults.append(SequenceFault(kind="missing", message=f"{pose}: file is missing"))
        frames.append(
            FrameFiles(
                timestamp=number / FRAMES_PER_SECOND,
                image=color,
                depth=depths.get(number, path / "depth" / f"{number}.png"),
                T_world_cam=read_pose_matrix(pose) if pose.is_file() else None,
            )
        )
    return FileSequence(
        name=as_given(path).name,
        format="scannet",
        frames=frames,
        image_size=color_size,
        optics=Optics(camera=depth_camera, left=_ColorToDepth(color_camera, depth_camera)),
        depth=DEPTH_UNITS_PER_METRE,
        depth_size=depth_size,
        faults=faults,
        strict=strict,
    )


class _ColorToDepth:
    """Resamples colour images onto the pixels of the depth camera, which has the same centre and axes."""

    def __init__(self, color: PinholeCamera, depth: PinholeCamera) -> None:
        self._size = (depth.width, depth.height)
        resized = color.resized(*self._size)
        # Depth pixel -> ray -> pixel of the resized colour image.
        sx, sy = resized.fx / depth.fx, resized.fy / depth.fy
        self._matrix = np.array([[sx, 0.0, resized.cx - sx * depth.cx], [0.0, sy, resized.cy - sy * depth.cy]])
        corners = np.array([[0.0, 0.0, 1.0], [depth.width - 1, depth.height - 1, 1.0]])
        self._aligned = bool(np.abs(corners @ self._matrix.T - corners[:, :2]).max() < _ALIGNED_PX)

    def __call__(self, image: NDArray[Any]) -> NDArray[Any]:
        # Shrinking first averages what one delivered pixel covers; the rest is a shift of a few pixels.
        if (image.shape[1], image.shape[0]) != self._size:
            image = cv2.resize(image, self._size, interpolation=cv2.INTER_AREA)
        if self._aligned:
            return image
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        return cv2.warpAffine(image, self._matrix, self._size, flags=flags, borderMode=cv2.BORDER_REPLICATE)


def _numbered(folder: Path, suffixes: frozenset[str] | set[str]) -> dict[int, Path]:
    """The files of a folder by the number that is their name, in order."""
    files = [file for file in folder.iterdir() if file.suffix.lower() in suffixes and file.stem.isdecimal()]
    return {int(file.stem): file for file in sorted(files, key=lambda file: int(file.stem))}


def _depth_size(depths: dict[int, Path]) -> tuple[int, int]:
    first: InputError | None = None
    for file in depths.values():
        try:
            height, width = read_depth(file, DEPTH_UNITS_PER_METRE).shape
        except InputError as error:
            first = first or error
        else:
            return width, height
    raise first or InputError("no depth maps")


def _read_intrinsics(path: Path, kind: str) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy of a 4x4 or 3x3 matrix."""
    file = path / "intrinsic" / f"intrinsic_{kind}.txt"
    if not file.exists():
        raise DatasetError(f"{file}: file is missing; pass --camera fx,fy,cx,cy of the colour images")
    rows = [[finite_number(text, file, line) for text in columns] for line, columns in numbered_rows(file)]
    if [len(row) for row in rows] not in ([3, 3, 3], [4, 4, 4, 4]):
        raise DatasetError(f"{file}: expected a 4x4 matrix, found rows of {[len(row) for row in rows]} numbers")
    fx, fy, cx, cy = rows[0][0], rows[1][1], rows[0][2], rows[1][2]
    if fx <= 0 or fy <= 0:
        raise DatasetError(f"{file}: focal lengths must be positive, got {fx} and {fy}")
    return fx, fy, cx, cy
