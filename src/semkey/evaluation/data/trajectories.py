"""What the kind ``trajectory`` reads: ground truth, the stamps of all frames, and the names of estimates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.opening import open_sequence
from semkey.errors import ConfigError, DatasetError
from semkey.geometry.trajectories import Trajectory, associate_by_time, read_tum_trajectory
from semkey.textfiles import finite_number, numbered_rows

# What makes a folder a sequence, whose frames count; see semkey.datasets.opening.
_OF_SEQUENCES = ("rgb.txt", "depth.txt", "mav0", "calib.txt", "pose_left.txt")


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
        path: a file in the TUM format, or a folder with one (``groundtruth.txt``); or the folder of a TUM RGB-D,
            7-Scenes or other sequence, whose frames are then the frames, and whose true poses are those at the frames'
            stamps (interpolated for TUM RGB-D).
        frames: a text file whose first column is the stamps of all frames in seconds (``rgb.txt``, ``times.txt``).

    Raises:
        DatasetError: a file is missing or broken, or the sequence has no ground truth.
    """
    path = Path(path)
    stamps = None if frames is None else _read_stamps(Path(frames))
    if path.is_dir() and _truth_file(path) is not None:
        path = _truth_file(path) or path
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


def read_estimate(path: str | Path) -> Trajectory:
    """An estimated trajectory: a file in the TUM format, or the folder of a run with its ``trajectory.txt``.

    Raises:
        DatasetError: it is missing or broken; a folder without one, such as that of ground truth, is told.
    """
    path = Path(path)
    if not path.is_dir():
        return read_tum_trajectory(path)
    file = path / "trajectory.txt"
    if file.is_file():
        return read_tum_trajectory(file)
    raise DatasetError(f"{path}: a folder without trajectory.txt; give estimates first and the ground truth last")


def in_order(estimates: Sequence[Path], ground_truth: Path) -> tuple[list[Path], Path]:
    """Estimates and ground truth, turned round where one folder without a trajectory comes before one file."""
    first = estimates[0]
    if len(estimates) == 1 and first.is_dir() and not (first / "trajectory.txt").is_file() and ground_truth.is_file():
        return [ground_truth], first
    return list(estimates), ground_truth


def require_common_time(name: str, estimate: Trajectory, truth: Trajectory, max_difference_s: float) -> None:
    """Raise for an estimate none of whose stamps meets one of the ground truth.

    Raises:
        DatasetError: says how far apart the clocks are, and which unit or offset would explain it.
    """
    if not len(estimate) or not len(truth):
        return
    if len(associate_by_time(estimate.timestamps, truth.timestamps, max_difference_s=max_difference_s)):
        return
    first, last = (float(estimate.timestamps[k]) for k in (0, -1))
    true_first, true_last = (float(truth.timestamps[k]) for k in (0, -1))
    spans = f"{first:.3f} to {last:.3f} s, and {true_first:.3f} to {true_last:.3f} s"
    if first <= true_last and last >= true_first:
        after = np.searchsorted(truth.timestamps, estimate.timestamps).clip(1, max(1, len(truth) - 1))
        near = np.minimum(
            np.abs(truth.timestamps[after - 1] - estimate.timestamps),
            np.abs(truth.timestamps[after.clip(max=len(truth) - 1)] - estimate.timestamps),
        )
        reason = f"the nearest are {float(near.min()):.3f} s apart (--max-difference)"
    else:
        reason = _other_clock((first, last), (true_first, true_last))
    raise DatasetError(f"{name}: no stamp is within {max_difference_s:g} s of the ground truth ({spans}): {reason}")


def _other_clock(span: tuple[float, float], true_span: tuple[float, float]) -> str:
    for unit, factor in (("milliseconds", 1e3), ("microseconds", 1e6), ("nanoseconds", 1e9)):
        if _is_part((span[0] / factor, span[1] / factor), true_span):
            return f"its stamps look like {unit}"
        if _is_part(span, (true_span[0] / factor, true_span[1] / factor)):
            return f"the ground truth's stamps look like {unit}"
    return f"its clock is {span[0] - true_span[0]:.3f} s away from the other; are they of the same recording?"


def _is_part(span: tuple[float, float], true_span: tuple[float, float]) -> bool:
    """Whether both can be of one recording: they meet, and none lasts but a thousandth of the other, or is one pose."""
    lasts, truly_lasts = span[1] - span[0], true_span[1] - true_span[0]
    is_alike = min(lasts, truly_lasts) == 0 or truly_lasts / 1000 <= lasts <= 1000 * truly_lasts
    return true_span[0] - 1 <= span[0] <= true_span[1] + 1 and is_alike


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


def _truth_file(folder: Path) -> Path | None:
    """The one file of true poses in a folder that is no sequence, such as that of a converted recording."""
    if any((folder / name).exists() for name in _OF_SEQUENCES):
        return None
    names = ("groundtruth.txt", "ground_truth.txt", "gt.txt", "trajectory_gt.txt", "stamped_groundtruth.txt")
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_stamps(path: Path) -> NDArray[np.float64]:
    stamps = [finite_number(columns[0], path, line) for line, columns in numbered_rows(path)]
    if not stamps:
        raise DatasetError(f"{path}: holds no timestamps")
    return np.unique(np.array(stamps))
