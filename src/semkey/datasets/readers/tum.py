"""The TUM RGB-D benchmark's layout (Sturm et al., IROS 2012): rgb.txt, depth.txt, groundtruth.txt.

Images and depth are paired by time; images without depth nearby are left out, as the benchmark's associate.py does.
Rows that are not in order of time are sorted (associate.py does so too); of rows with one timestamp the first is kept.
The lens distortion of freiburg1 and freiburg2 is removed from images and depth, unless the caller or ``camera.txt``
gives a camera: that one is taken for the images as they are. Stamps in milli-, micro- or nanoseconds are recognised.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.calibration import CAMERA_FILE, CameraArgument, optics_for, read_camera_file
from semkey.datasets.cameras.lens import Calibration, Lens
from semkey.datasets.cameras.optics import Optics
from semkey.datasets.clocks import find_clock
from semkey.datasets.readers.file_sequence import FileSequence, FrameFiles
from semkey.datasets.readers.listing import as_given, image_size, require_file, rows_by_time
from semkey.datasets.sequence import SequenceFault
from semkey.errors import DatasetError
from semkey.geometry.trajectories import Trajectory, associate_by_time, pose_at, read_tum_trajectory
from semkey.textfiles import finite_number, numbered_rows

DEPTH_UNITS_PER_METRE = 5000.0

# Pairs must be closer than this (associate.py's default): under one frame at 30 Hz.
_MAX_PAIR_DIFFERENCE_S = 0.02
# Motion capture gives a pose every 10 ms; a gap of more than this means that it had lost its markers, and a hand-held
# camera moves centimetres meanwhile: what is interpolated across is no longer ground truth.
_MAX_GROUND_TRUTH_DISTANCE_S = 0.1
# Published with the benchmark for its 640x480 images: intrinsics and, but for the undistorted freiburg3, distortion.
_PUBLISHED_SIZE = (640, 480)
_PUBLISHED_LENSES = {
    "freiburg1": Lens(
        model="radial-tangential",
        intrinsics=(517.3, 516.5, 318.6, 255.3),
        distortion=(0.2624, -0.9531, -0.0054, 0.0026, 1.1633),
        size=_PUBLISHED_SIZE,
    ),
    "freiburg2": Lens(
        model="radial-tangential",
        intrinsics=(520.9, 521.0, 325.1, 249.7),
        distortion=(0.2312, -0.7849, -0.0033, -0.0001, 0.9172),
        size=_PUBLISHED_SIZE,
    ),
    "freiburg3": Lens(model="pinhole", intrinsics=(535.4, 539.2, 320.1, 247.6), size=_PUBLISHED_SIZE),
}


def open_tum(path: Path, camera: CameraArgument | None = None, *, strict: bool = False) -> FileSequence:
    """Open a TUM RGB-D folder; depth.txt and groundtruth.txt may be absent.

    The camera is the argument, else ``camera.txt`` (``fx fy cx cy``) in the folder, else the published one if the
    folder's name holds ``freiburg1``, ``freiburg2`` or ``freiburg3``. Ground truth is interpolated at the images' time.

    Args:
        path: the folder.
        camera: see :func:`semkey.datasets.open_sequence`.
        strict: raise for a missing file or a timestamp given twice, instead of reporting it.

    Raises:
        DatasetError: a list is missing, empty or has a broken row, depth has another size than the images, or the
            camera is not known; with ``strict`` also for a listed file that is missing or empty. The message names the
            file and line.
    """
    notes: list[str] = []
    images, faults = _read_list(path / "rgb.txt", strict, notes)
    span_s = (images[0][0], images[-1][0])
    truth = _read_truth(path / "groundtruth.txt", span_s, notes)
    files: list[tuple[float, Path, Path | None]] = [(stamp, image, None) for stamp, image in images]
    if (path / "depth.txt").exists():
        depths, depth_faults = _read_list(path / "depth.txt", strict, notes, span_s)
        faults += depth_faults
        pairs = associate_by_time(
            [stamp for stamp, _ in images], [stamp for stamp, _ in depths], max_difference_s=_MAX_PAIR_DIFFERENCE_S
        )
        if len(pairs) == 0:
            raise DatasetError(
                f"{path}: no row of rgb.txt has one in depth.txt within {_MAX_PAIR_DIFFERENCE_S} s; do clocks differ?"
            )
        if len(pairs) < len(images):
            message = f"{path}: {len(images) - len(pairs)} of {len(images)} images have no depth and are left out"
            faults.append(SequenceFault(kind="unpaired", message=message))
        files = [(*images[i], depths[j][1]) for i, j in pairs.tolist()]
    size = image_size(image for _, image, _ in files)
    return FileSequence(
        name=as_given(path).name,
        format="tum",
        frames=[
            FrameFiles(timestamp=stamp, image=image, depth=depth, T_world_cam=_true_pose(truth, stamp))
            for stamp, image, depth in files
        ],
        image_size=size,
        optics=_find_optics(path, camera, size),
        depth=DEPTH_UNITS_PER_METRE,
        faults=faults,
        notes=notes,
        strict=strict,
    )


def _read_list(
    path: Path, strict: bool, notes: list[str], span_s: tuple[float, float] | None = None
) -> tuple[list[tuple[float, Path]], list[SequenceFault]]:
    """(seconds, file) of every row of rgb.txt or depth.txt, by time, and what was wrong with their order."""
    rows: list[tuple[float, int, str, Path]] = []
    for line, columns in numbered_rows(path):
        if len(columns) != 2:
            raise DatasetError(f"{path}:{line}: expected 2 columns (timestamp filename), found {len(columns)}")
        rows.append((finite_number(columns[0], path, line), line, columns[0], path.parent / columns[1]))
        if strict:
            require_file(rows[-1][3], listed_in=f"{path}:{line}")
    if not rows:
        raise DatasetError(f"{path}: lists no files")
    clock = find_clock([stamp for stamp, *_ in rows], path, span_s=span_s)
    _add(notes, clock.note(path))
    return rows_by_time([(clock.seconds(text), line, file) for _, line, text, file in rows], path, strict=strict)


def _read_truth(path: Path, span_s: tuple[float, float], notes: list[str]) -> Trajectory | None:
    """The poses, in seconds; None where there are none."""
    if not path.exists():
        return None
    truth = read_tum_trajectory(path)
    clock = find_clock(truth.timestamps.tolist(), path, poses=True, span_s=span_s)
    _add(notes, clock.note(path))
    return truth if clock.unit == "s" else Trajectory(truth.timestamps / clock.per_second, truth.poses)


def _add(notes: list[str], note: str | None) -> None:
    if note is not None:
        notes.append(note)


def _true_pose(truth: Trajectory | None, timestamp: float) -> NDArray[np.float64] | None:
    if truth is None:
        return None
    return pose_at(truth, timestamp, max_distance_s=_MAX_GROUND_TRUTH_DISTANCE_S)


def _find_optics(path: Path, camera: CameraArgument | None, size: tuple[int, int]) -> Optics:
    if camera is None and (path / CAMERA_FILE).exists():
        camera = read_camera_file(path / CAMERA_FILE)
    if camera is None and size == _PUBLISHED_SIZE:
        names = (as_given(path).name, path.resolve().name)
        fitting = [lens for name in names for key, lens in _PUBLISHED_LENSES.items() if key in name]
        camera = Calibration(left=fitting[0]) if fitting else None
    if camera is None:
        raise DatasetError(
            f"{path}: camera unknown ({size[0]}x{size[1]} images); pass --camera fx,fy,cx,cy or write 'fx fy cx cy' to "
            f"{CAMERA_FILE} in that folder"
        )
    return optics_for(camera, size)
