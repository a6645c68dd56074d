"""The layouts of ICL-NUIM (Handa et al., ICRA 2014): the PNGs in TUM style, or the renderer's own files.

TUM style: ``rgb/N.png``, ``depth/N.png`` (5000 per metre), ``associations.txt`` (``N depth/N.png N rgb/N.png``). Own:
``scene_00_NNNN.png`` and ``scene_00_NNNN.depth`` (text, distance along the ray in metres). Ground truth is any
``*.gt.freiburg`` in the folder: ``N x y z qx qy qz qw``; its rows begin with frame 1.

The renderer's coordinates are left-handed: the camera's y axis points up, which is why its published fy is negative.
Poses are mirrored in y on both sides, so that they are those of a camera with y down and positive fy. There is no
clock: time is the frame's number at 30 Hz.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.calibration import CameraArgument, camera_for, optics_for
from semkey.datasets.cameras.lens import Calibration
from semkey.datasets.readers.file_sequence import FileSequence, FrameFiles
from semkey.datasets.readers.listing import as_given, image_size, rows_by_time
from semkey.datasets.sequence import SequenceFault
from semkey.errors import DatasetError, InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.trajectories import read_tum_trajectory
from semkey.textfiles import finite_number, numbered_rows

DEPTH_UNITS_PER_METRE = 5000.0
FRAMES_PER_SECOND = 30.0

# Published for the 640x480 images: fx, fy, cx, cy; fy there is -480.
_PUBLISHED_SIZE = (640, 480)
_PUBLISHED_CAMERA = (481.2, 480.0, 319.5, 239.5)
_MIRROR = np.diag([1.0, -1.0, 1.0, 1.0])
_OWN_FILE = re.compile(r"scene_\d+_(\d+)\.png")


def is_icl_nuim(path: Path) -> bool:
    """Whether ``path`` is a sequence folder of ICL-NUIM."""
    if (path / "rgb.txt").exists():  # the TUM layout in full, whatever else lies there
        return False
    return (path / "associations.txt").is_file() or next(path.glob("scene_*_*.depth"), None) is not None


def open_icl_nuim(path: Path, camera: CameraArgument | None = None, *, strict: bool = False) -> FileSequence:
    """Open an ICL-NUIM sequence.

    Args:
        path: the folder.
        camera: see :func:`semkey.datasets.open_sequence`; with positive fy.
        strict: raise for a missing file or a frame that is listed twice, instead of reporting it.

    Raises:
        DatasetError: no images, a broken list or ground truth, or images of another size and no camera.
    """
    faults: list[SequenceFault] = []
    is_own = not (path / "associations.txt").is_file()
    files = _own_files(path) if is_own else _listed_files(path / "associations.txt", strict, faults)
    size = image_size(image for _, image, _ in files)
    if camera is None:
        if size != _PUBLISHED_SIZE:
            raise DatasetError(f"{path}: camera unknown ({size[0]}x{size[1]} images); pass --camera fx,fy,cx,cy")
        camera = _PUBLISHED_CAMERA
    pinhole = camera.left.pinhole if isinstance(camera, Calibration) else camera_for(camera, size)
    truth = _read_ground_truth(path)
    return FileSequence(
        name=as_given(path).name,
        format="icl-nuim",
        frames=[
            FrameFiles(
                timestamp=number / FRAMES_PER_SECOND, image=image, depth=depth, T_world_cam=truth.get(round(number))
            )
            for number, image, depth in files
        ],
        image_size=size,
        optics=optics_for(camera, size),
        depth=_RayDepth(pinhole) if is_own else DEPTH_UNITS_PER_METRE,
        faults=faults,
        strict=strict,
    )


def _listed_files(path: Path, strict: bool, faults: list[SequenceFault]) -> list[tuple[float, Path, Path]]:
    """(number, image, depth) of every row of associations.txt, in order."""
    rows: list[tuple[float, int, tuple[Path, Path]]] = []
    for line, columns in numbered_rows(path):
        if len(columns) != 4:
            raise DatasetError(f"{path}:{line}: expected 4 columns (number depth number rgb), found {len(columns)}")
        number = finite_number(columns[2], path, line)
        names = (columns[1], columns[3])
        depth, image = names if "depth" in names[0] else reversed(names)
        rows.append((number, line, (path.parent / image, path.parent / depth)))
    if not rows:
        raise DatasetError(f"{path}: lists no files")
    ordered, found = rows_by_time(rows, path, strict=strict)
    faults += found
    return [(number, image, depth) for number, (image, depth) in ordered]


def _own_files(path: Path) -> list[tuple[float, Path, Path]]:
    found = [(match[1], file) for file in path.iterdir() if (match := _OWN_FILE.fullmatch(file.name))]
    if not found:
        raise DatasetError(f"{path}: no associations.txt and no scene_00_0000.png")
    return sorted((float(number), file, file.with_suffix(".depth")) for number, file in found)


def _read_ground_truth(path: Path) -> dict[int, NDArray[np.float64]]:
    """Poses T_world_cam (y down) by frame number."""
    files = sorted(path.glob("*.gt.freiburg"))
    if not files:
        return {}
    if len(files) > 1:
        raise DatasetError(f"{path}: holds {len(files)} files *.gt.freiburg; keep the one of this sequence")
    trajectory = read_tum_trajectory(files[0])
    poses = _MIRROR @ trajectory.poses @ _MIRROR
    return {round(number): pose for number, pose in zip(trajectory.timestamps.tolist(), poses, strict=True)}


class _RayDepth:
    """Reads the renderer's distances along rays and turns them into depth along the axis."""

    def __init__(self, camera: PinholeCamera) -> None:
        x, y = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
        rays = camera.backproject(np.stack([x, y], axis=2), np.ones(x.size))
        self._ray_lengths = np.linalg.norm(rays, axis=1).reshape(x.shape)

    def __call__(self, path: Path) -> NDArray[np.float32]:
        try:
            distances = np.array(path.read_text().split(), dtype=np.float64)
        except (OSError, ValueError):
            raise InputError(f"{path} is not a depth map: expected numbers as text") from None
        if distances.size != self._ray_lengths.size:
            raise InputError(f"{path} has {distances.size} numbers, expected {self._ray_lengths.size}; truncated?")
        depth = (distances.reshape(self._ray_lengths.shape) / self._ray_lengths).astype(np.float32)
        depth[~(np.isfinite(depth) & (depth > 0))] = 0.0
        return depth
