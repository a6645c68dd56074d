"""Text files of poses: one 4x4 matrix per file, or one 3x4 matrix per row."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.errors import DatasetError
from semkey.geometry.trajectories import is_rigid
from semkey.geometry.transforms import make_transform, nearest_rotation
from semkey.textfiles import finite_number, numbered_rows


def read_pose_matrix(path: Path) -> NDArray[np.float64] | None:
    """A pose (4, 4) of a file of its own, its rotation made orthonormal to float64.

    None where a number is not finite: 7-Scenes and ScanNet mark frames so whose tracking was lost.

    Raises:
        DatasetError: the file is missing or holds no rigid 4x4 transform; names the file and line.
    """
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
    return _rigid(np.array(rows), str(path))


def read_pose_rows(path: Path) -> list[NDArray[np.float64]]:
    """Poses (4, 4) of the rows of a file, twelve numbers each: the upper 3x4 part, row by row (KITTI odometry).

    Raises:
        DatasetError: the file is missing or a row is no rigid transform; names the file and line.
    """
    poses: list[NDArray[np.float64]] = []
    for line, columns in numbered_rows(path):
        if len(columns) != 12:
            raise DatasetError(f"{path}:{line}: expected 12 columns (a 3x4 matrix), found {len(columns)}")
        values = [finite_number(text, path, line) for text in columns]
        poses.append(_rigid(np.array([*values, 0.0, 0.0, 0.0, 1.0]).reshape(4, 4), f"{path}:{line}"))
    return poses


def _rigid(matrix: NDArray[np.float64], where: str) -> NDArray[np.float64]:
    if not is_rigid(matrix):
        raise DatasetError(f"{where}: pose is not a rigid transform (a rotation, a translation and 0 0 0 1)")
    return make_transform(nearest_rotation(matrix[:3, :3]), matrix[:3, 3])
