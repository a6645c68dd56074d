"""What one run of SLAM is judged by: errors of its trajectory, drift, and the path to draw."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.evaluation.running.results import Row
from semkey.geometry.trajectories import Trajectory, associate_by_time
from semkey.geometry.transforms import inverse
from semkey.metrics.trajectory import Alignment, absolute_trajectory_error, relative_pose_errors

KITTI_LENGTHS_M = (100.0, 200.0, 300.0, 400.0, 500.0, 600.0, 700.0, 800.0)
"""Sub-paths that KITTI's drift is the mean over (Geiger et al., CVPR 2012)."""

_SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_CURVE_POINTS = 300
FAILED = {"ate_rmse_m": math.inf, "rpe_trans_m": math.inf, "rpe_rot_deg": math.inf, "drift_percent": math.inf}


def measure_run(
    estimated: Trajectory, reference: Trajectory, *, alignment: Alignment, live: Trajectory | None = None
) -> Row:
    """Errors of a trajectory against ground truth.

    Args:
        estimated: as it is known at the end.
        reference: ground truth.
        alignment: ``se3``, or ``sim3`` where the scale is unknown; relative errors are then those of the estimate
            scaled by the factor found.
        live: poses as they were known at their time.

    Returns:
        ``ate_rmse_m``, ``ate_live_rmse_m``, ``rpe_trans_m`` and ``rpe_rot_deg`` (root mean squares, between
        consecutive tracked frames), ``drift_percent``, ``scale``, and the curve ``error_t``, ``error_m`` (position
        error over time). Errors are infinite where fewer than three poses have ground truth, and absent without any.
    """
    if len(reference) < 3:
        return {}
    try:
        absolute = absolute_trajectory_error(estimated, reference, alignment=alignment)
    except InputError:
        return {**FAILED, "ate_live_rmse_m": math.inf, "scale": math.nan, "error_t": [], "error_m": []}
    scaled = estimated.mapped(absolute.similarity) if alignment == "sim3" else estimated
    row: dict[str, Any] = {
        "ate_rmse_m": absolute.statistics.rmse,
        "ate_live_rmse_m": _ate(live, reference, alignment) if live is not None else math.nan,
        "scale": absolute.similarity.scale,
        "drift_percent": drift_percent(scaled, reference),
    }
    try:
        relative = relative_pose_errors(scaled, reference)
        row |= {"rpe_trans_m": relative.translation.rmse, "rpe_rot_deg": relative.rotation_deg.rmse}
    except InputError:
        row |= {"rpe_trans_m": math.inf, "rpe_rot_deg": math.inf}
    chosen = _thinned(len(absolute.errors))
    times = absolute.timestamps - reference.timestamps[0]
    row["error_t"] = np.round(times[chosen], 4).tolist()
    row["error_m"] = np.round(absolute.errors[chosen], 6).tolist()
    return row


def drift_percent(estimated: Trajectory, reference: Trajectory) -> float:
    """Mean translational error of sub-paths in percent of their length, as KITTI's ``evaluate_odometry`` measures it.

    Over sub-paths of 100, 200, ..., 800 m that start at every pose; on a path shorter than 200 m over those of 10, 20,
    ..., 80 % of its length. A sub-path ends at the first pose that is at least so far along the true path. NaN where
    there is none.
    """
    pairs = associate_by_time(estimated.timestamps, reference.timestamps)
    estimates, truths = estimated.poses[pairs[:, 0]], reference.poses[pairs[:, 1]]
    if len(pairs) < 2:
        return math.nan
    along = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(truths[:, :3, 3], axis=0), axis=1))])
    path = float(along[-1])
    lengths = KITTI_LENGTHS_M if path >= 2 * KITTI_LENGTHS_M[0] else tuple(share * path for share in _SHARES)
    shares: list[float] = []
    for length in lengths if path > 0 else ():
        lasts = np.searchsorted(along, along + length - 1e-9 * path)
        for first in np.flatnonzero(lasts < len(along)).tolist():
            last = lasts[first]
            true_motion = inverse(truths[first]) @ truths[last]
            error = inverse(true_motion) @ inverse(estimates[first]) @ estimates[last]
            shares.append(float(np.linalg.norm(error[:3, 3])) / length)
    return 100.0 * float(np.mean(shares)) if shares else math.nan


def _ate(estimated: Trajectory, reference: Trajectory, alignment: Alignment) -> float:
    try:
        return absolute_trajectory_error(estimated, reference, alignment=alignment).statistics.rmse
    except InputError:
        return math.inf


def _thinned(count: int) -> NDArray[np.int64]:
    return np.unique(np.linspace(0, count - 1, min(count, _CURVE_POINTS)).round().astype(np.int64))
