"""Time-stamped camera poses, their text format, and which of them belong to one time."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import DatasetError, InputError
from semkey.files import atomic_write_text
from semkey.geometry.similarity import ScaledTransform
from semkey.geometry.transforms import (
    interpolate_pose,
    make_transform,
    quaternion_xyzw_from_rotation,
    rotation_from_quaternion_xyzw,
)
from semkey.textfiles import finite_number, numbered_rows

logger = logging.getLogger(__name__)

# Stamps (seconds) this close are of the same instant: files give them with 4 to 6 decimals.
_SAME_INSTANT_S = 1e-4
# Four decimals, as in the TUM files, leave a quaternion's length within 2e-4 of 1; more than this is another format.
_QUATERNION_LENGTH_TOLERANCE = 0.05
# Rotations read from text are orthonormal to about 1e-4 (7-Scenes writes float32); more than this is not a rotation.
_ROTATION_TOLERANCE = 1e-2
# Seven times as far as the sun; squares of what lies much farther overflow.
_FARTHEST_M = 1e12


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory:
    """Camera poses over time.

    Attributes:
        timestamps: (N,) float64 seconds, strictly increasing.
        poses: (N, 4, 4) float64, T_world_cam: camera to world, metres.

    Raises:
        InputError: shapes differ, a value is not finite, time does not increase, or a pose is no rigid transform.

    Example:
        >>> import semkey, numpy
        >>> trajectory = semkey.Trajectory([0.0, 0.5], numpy.stack([numpy.eye(4)] * 2))
        >>> trajectory, trajectory.positions.shape
        (Trajectory(2 poses in 0.5 s), (2, 3))
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

    def __repr__(self) -> str:
        seconds = float(self.timestamps[-1] - self.timestamps[0]) if len(self) else 0.0
        return f"Trajectory({len(self)} poses in {seconds:.1f} s)"

    def mapped(self, similarity: ScaledTransform) -> Trajectory:
        """The trajectory in another world: positions mapped, orientations rotated."""
        poses = self.poses.copy()
        poses[:, :3, :3] = similarity.T[:3, :3] @ poses[:, :3, :3]
        poses[:, :3, 3] = similarity.apply(self.positions)
        return Trajectory(self.timestamps, poses)

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
        if max(map(abs, values[1:4])) > _FARTHEST_M:
            raise DatasetError(f"{path}:{line}: position is more than {_FARTHEST_M:.0e} m away: no unit gives that")
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


def associate_by_time(
    timestamps0: ArrayLike, timestamps1: ArrayLike, *, max_difference_s: float = 0.02
) -> NDArray[np.int64]:
    """Pairs of stamps that are close in time, one to one, as ``associate.py`` of the TUM RGB-D benchmark finds them.

    All pairs nearer than ``max_difference_s`` are taken greedily, closest first.

    Args:
        timestamps0: (N,) seconds, increasing.
        timestamps1: (M,) seconds, increasing.
        max_difference_s: pairs must be closer than this; 0.02 s is the benchmark's default, under one frame at 30 Hz.

    Returns:
        (K, 2) int64 indices into both, in order of time.
    """
    stamps0 = np.asarray(timestamps0, dtype=np.float64)
    stamps1 = np.asarray(timestamps1, dtype=np.float64)
    begins = np.searchsorted(stamps1, stamps0 - max_difference_s, side="left")
    ends = np.searchsorted(stamps1, stamps0 + max_difference_s, side="right")
    candidates = [
        (abs(stamps0[i] - stamps1[j]), i, j)
        for i, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True))
        for j in range(begin, end)
        if abs(stamps0[i] - stamps1[j]) < max_difference_s
    ]
    free0, free1 = np.ones(len(stamps0), dtype=bool), np.ones(len(stamps1), dtype=bool)
    pairs: list[tuple[int, int]] = []
    for _, i, j in sorted(candidates):
        if free0[i] and free1[j]:
            free0[i] = free1[j] = False
            pairs.append((i, j))
    return np.array(sorted(pairs), dtype=np.int64).reshape(-1, 2)


def pose_at(trajectory: Trajectory, timestamp: float, *, max_distance_s: float = 0.1) -> NDArray[np.float64] | None:
    """The pose T_world_cam (4, 4) at ``timestamp``: that of the row of this instant, else between its two neighbours.

    Rotation is interpolated by slerp and position linearly, if the rows before and after are both within
    ``max_distance_s``; otherwise the result is None. The trajectory is never extrapolated.
    """
    stamps = trajectory.timestamps
    after = int(np.searchsorted(stamps, timestamp))
    for index in (after - 1, after):
        if 0 <= index < len(stamps) and abs(stamps[index] - timestamp) <= _SAME_INSTANT_S:
            return trajectory.poses[index].copy()
    if after in (0, len(stamps)):
        return None
    before_s, after_s = timestamp - stamps[after - 1], stamps[after] - timestamp
    if max(before_s, after_s) > max_distance_s:
        return None
    alpha = before_s / (before_s + after_s)
    return interpolate_pose(trajectory.poses[after - 1], trajectory.poses[after], alpha)
