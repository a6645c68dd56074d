"""Position and orientation of a trajectory over time, beside those of the ground truth."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.trajectories import Trajectory
from semkey.visualization.palette import ESTIMATE, TRUTH, TRUTH_ALPHA, TRUTH_WIDTH

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_ANGLES = ("roll", "pitch", "yaw")


def draw_poses_over_time(
    figure: Figure,
    place: Any,
    estimate: Trajectory,
    truth: Trajectory | None,
    start: float,
    *,
    lost: NDArray[np.float64],
    unit: str,
) -> None:
    """Draw x, y, z in the left column and roll, pitch, yaw in the right one.

    Angles are those of ``R = Rz(yaw) Ry(pitch) Rx(roll)``, camera to world, in degrees, without jumps of 360.

    Args:
        figure: to draw into.
        place: a cell of its grid.
        estimate: aligned to the ground truth where there is one.
        truth: ground truth, or None.
        start: second that counts as 0.
        lost: (L,) seconds of frames without a pose, where the line of the estimate is broken.
        unit: of lengths.
    """
    grid = place.subgridspec(3, 2, hspace=0.08)
    kinds = (
        ("xyz", unit, lambda trajectory: trajectory.positions),
        (_ANGLES, "degrees", lambda trajectory: euler_angles_deg(trajectory.poses)),
    )
    for column, (names, of, values) in enumerate(kinds):
        for row, name in enumerate(names):
            axes = figure.add_subplot(grid[row, column])
            if truth is not None and len(truth):
                _line(axes, truth.timestamps, values(truth)[:, row], start, TRUTH, TRUTH_WIDTH, alpha=TRUTH_ALPHA)
            if len(estimate):
                shown = values(estimate)[:, row]
                if of == "degrees" and truth is not None and len(truth):
                    shown = shown + _turns(values(truth)[:, row], truth, shown, estimate)
                _line(axes, estimate.timestamps, shown, start, ESTIMATE, 1.1, lost)
            axes.set_ylabel(f"{name} ({'°' if of == 'degrees' else of})", fontsize=9)
            axes.tick_params(labelsize=8, labelbottom=row == 2)
            if row == 2:
                axes.set_xlabel("time from the first frame (s)", fontsize=9)
            axes.grid(alpha=0.3)


def euler_angles_deg(poses: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3) roll, pitch, yaw in degrees of (N, 4, 4) poses, unwrapped along time."""
    rotations = poses[:, :3, :3]
    roll = np.arctan2(rotations[:, 2, 1], rotations[:, 2, 2])
    pitch = np.arcsin(np.clip(-rotations[:, 2, 0], -1.0, 1.0))
    yaw = np.arctan2(rotations[:, 1, 0], rotations[:, 0, 0])
    return np.degrees(np.unwrap(np.stack([roll, pitch, yaw], axis=1), axis=0))


def _turns(true_values: NDArray[Any], truth: Trajectory, values: NDArray[Any], estimate: Trajectory) -> float:
    """Whole turns by which an unwrapped angle differs from that of the truth, for it starts elsewhere."""
    nearest = int(np.abs(truth.timestamps - estimate.timestamps[0]).argmin())
    return 360.0 * round(float(true_values[nearest] - values[0]) / 360.0)


def _line(
    axes: Axes,
    stamps: NDArray[Any],
    values: NDArray[Any],
    start: float,
    color: str,
    width: float,
    lost: NDArray[np.float64] | None = None,
    alpha: float = 1.0,
) -> None:
    lost_before = np.searchsorted(np.sort(lost), stamps) if lost is not None else np.zeros(len(stamps), dtype=int)
    gaps = np.flatnonzero(np.diff(lost_before)) + 1
    times, shown = np.insert(stamps - start, gaps, np.nan), np.insert(values, gaps, np.nan)
    axes.plot(times, shown, color=color, linewidth=width, alpha=alpha)
