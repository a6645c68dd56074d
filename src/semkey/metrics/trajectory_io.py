"""Time-stamped camera poses and their text format."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import DatasetError, InputError
from semkey.files import atomic_write_text
from semkey.geometry.transforms import (
    make_transform,
    quaternion_xyzw_from_rotation,
    rotation_from_quaternion_xyzw,
)
from semkey.textfiles import finite_number, numbered_rows

logger = logging.getLogger(__name__)

# Four decimals, as in the TUM files, leave a quaternion's length within 2e-4 of 1; more than this is another format.
_QUATERNION_LENGTH_TOLERANCE = 0.05
# Rotations read from text are orthonormal to about 1e-4 (7-Scenes writes float32); more than this is not a rotation.
_ROTATION_TOLERANCE = 1e-2


@dataclass(frozen=True, eq=False)
class Trajectory:
    """Camera poses over time.

    Attributes:
        timestamps: (N,) float64 seconds, strictly increasing.
        poses: (N, 4, 4) float64, T_world_cam: camera to world, metres.

    Raises:
        InputError: shapes differ, a value is not finite, time does not increase, or a pose is no rigid transform.
    """

    timestamps: NDArray[np.float64]
    poses: NDArray[np.float64]

    def __post_init__(self) -> None:
        timestamps = np.asarray(self.timestamps, dtype=np.float64)
        poses = np.asarray(self.poses, dtype=np.float64)
        if timestamps.size == 0 and poses.size == 0:
            timestamps, poses = np.zeros(0), np.zeros((0, 4, 4))
        if timestamps.ndim != 1 or poses.shape != (len(timestamps), 4, 4):
            raise InputError(
                f"trajectory has timestamps {timestamps.shape} and poses {poses.shape}, not (N,), (N, 4, 4)"
            )
        if not (np.isfinite(timestamps).all() and np.isfinite(poses).all()):
            raise InputError("trajectory has a timestamp or pose that is not finite")
        if (np.diff(timestamps) <= 0).any():
            raise InputError("timestamps of a trajectory must increase strictly")
        for index, pose in enumerate(poses):
            if not is_rigid(pose):
                raise InputError(f"pose {index} of the trajectory is not a rigid transform")
        object.__setattr__(self, "timestamps", timestamps)
        object.__setattr__(self, "poses", poses)

    def __len__(self) -> int:
        return len(self.timestamps)

    @property
    def positions(self) -> NDArray[np.float64]:
        """Camera centres (N, 3) in the world, metres."""
        return self.poses[:, :3, 3]

    def select(self, indices: ArrayLike) -> Trajectory:
        """The poses at ``indices`` ((M,) increasing integers, or (N,) boolean)."""
        chosen = np.asarray(indices)
        return Trajectory(self.timestamps[chosen], self.poses[chosen])


def is_rigid(matrix: ArrayLike) -> bool:
    """Whether a finite (4, 4) matrix is a rotation and a translation, to the precision of text files (1e-2)."""
    pose = np.asarray(matrix, dtype=np.float64)
    rotation = pose[:3, :3]
    return bool(
        np.abs(rotation @ rotation.T - np.eye(3)).max() < _ROTATION_TOLERANCE
        and np.linalg.det(rotation) > 0
        and np.abs(pose[3] - (0.0, 0.0, 0.0, 1.0)).max() < 1e-9
    )


def read_tum_trajectory(path: str | Path) -> Trajectory:
    """Read ``timestamp tx ty tz qx qy qz qw`` rows (seconds, metres, T_world_cam).

    Rows out of order are sorted by time, and of rows with the same stamp the first one counts, both with a warning in
    the log; the benchmark's own tools do the same. Quaternions are normalised.

    Raises:
        DatasetError: the file is missing or empty, or a row has another number of columns, something that is not a
            finite number, or no unit quaternion; the message names the file and line.
    """
    path = Path(path)
    timestamps: list[float] = []
    poses: list[NDArray[np.float64]] = []
    for line, columns in numbered_rows(path):
        if len(columns) != 8:
            raise DatasetError(
                f"{path}:{line}: expected 8 columns (timestamp tx ty tz qx qy qz qw), found {len(columns)}"
            )
        values = [finite_number(text, path, line) for text in columns]
        length = float(np.linalg.norm(values[4:]))
        if abs(length - 1.0) > _QUATERNION_LENGTH_TOLERANCE:
            raise DatasetError(f"{path}:{line}: quaternion has length {length:.4g}, expected 1")
        timestamps.append(values[0])
        poses.append(make_transform(rotation_from_quaternion_xyzw(values[4:]), values[1:4]))
    if not poses:
        raise DatasetError(f"{path}: holds no poses")
    stamps, first_indices = np.unique(timestamps, return_index=True)
    if len(stamps) < len(timestamps):
        logger.warning("%s: %d rows repeat a timestamp and are left out", path, len(timestamps) - len(stamps))
    elif (np.diff(first_indices) < 0).any():
        logger.warning("%s: rows are not in order of time; sorted", path)
    return Trajectory(stamps, np.stack(poses)[first_indices])


def write_tum_trajectory(path: str | Path, trajectory: Trajectory) -> None:
    """Write a trajectory as ``timestamp tx ty tz qx qy qz qw`` rows, atomically.

    Numbers carry enough digits to give the poses back to 1e-9.
    """
    lines = ["# timestamp tx ty tz qx qy qz qw"]
    for timestamp, pose in zip(trajectory.timestamps, trajectory.poses, strict=True):
        numbers = [*pose[:3, 3], *quaternion_xyzw_from_rotation(pose[:3, :3])]
        lines.append(f"{timestamp:.9f} " + " ".join(f"{number:.12f}" for number in numbers))
    atomic_write_text(Path(path), "\n".join(lines) + "\n")
