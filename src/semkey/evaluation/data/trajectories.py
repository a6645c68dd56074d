"""What the kind ``trajectory`` reads: ground truth, the stamps of all frames, and the names of estimates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.opening import open_sequence
from semkey.errors import ConfigError, DatasetError
from semkey.geometry.trajectories import Trajectory, read_tum_trajectory
from semkey.textfiles import finite_number, numbered_rows


@dataclass(frozen=True, kw_only=True, eq=False)
class GroundTruth:
    """What estimates are compared with.

    Attributes:
        name: for reports.
        trajectory: true poses.
        frame_timestamps: (N,) float64 seconds of all frames that a tracker was given, increasing; None where unknown.
    """

    name: str
    trajectory: Trajectory
    frame_timestamps: NDArray[np.float64] | None = None


def read_ground_truth(path: str | Path, *, frames: str | Path | None = None) -> GroundTruth:
    """Ground truth of a trajectory file or a sequence folder.

    Args:
        path: a file in the TUM format; or the folder of a TUM RGB-D, 7-Scenes or other sequence, whose frames are then
            the frames, and whose true poses are those at the frames' stamps (interpolated for TUM RGB-D).
        frames: a text file whose first column is the stamps of all frames in seconds (``rgb.txt``, ``times.txt``).

    Raises:
        DatasetError: a file is missing or broken, or the sequence has no ground truth.
    """
    path = Path(path)
    stamps = None if frames is None else _read_stamps(Path(frames))
    if not path.is_dir():
        return GroundTruth(name=path.stem, trajectory=read_tum_trajectory(path), frame_timestamps=stamps)
    sequence = open_sequence(path)
    known = [index for index, pose in enumerate(sequence.ground_truth) if pose is not None]
    if not known:
        raise DatasetError(f"{path}: this sequence has no ground truth")
    poses = np.stack([pose for pose in sequence.ground_truth if pose is not None])
    return GroundTruth(
        name=sequence.name,
        trajectory=Trajectory(sequence.timestamps[known], poses),
        frame_timestamps=sequence.timestamps if stamps is None else stamps,
    )


def name_estimates(paths: Sequence[str | Path]) -> dict[str, Path]:
    """Short unique names for files: the file's own, else its folder's, else the path.

    Raises:
        ConfigError: there are none, or one is given twice.
    """
    files = [Path(path) for path in paths]
    if not files:
        raise ConfigError("there is no estimated trajectory to evaluate")
    for names in (
        [file.stem for file in files],
        [file.resolve().parent.name for file in files],
        [str(file) for file in files],
    ):
        if len(set(names)) == len(files) and all(names):
            return dict(zip(names, files, strict=True))
    raise ConfigError("an estimated trajectory is given twice")


def _read_stamps(path: Path) -> NDArray[np.float64]:
    stamps = [finite_number(columns[0], path, line) for line, columns in numbered_rows(path)]
    if not stamps:
        raise DatasetError(f"{path}: holds no timestamps")
    return np.unique(np.array(stamps))
