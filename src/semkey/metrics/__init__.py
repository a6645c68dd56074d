"""Error measures against ground truth: numbers in, numbers out, no images and no files but trajectories."""

from __future__ import annotations

from semkey.metrics.trajectory import (
    Trajectory,
    absolute_trajectory_error,
    read_tum_trajectory,
    relative_pose_errors,
    umeyama_alignment,
    write_tum_trajectory,
)
from semkey.metrics.two_view import area_under_curve, relative_pose_error

__all__ = [
    "Trajectory",
    "absolute_trajectory_error",
    "area_under_curve",
    "read_tum_trajectory",
    "relative_pose_error",
    "relative_pose_errors",
    "umeyama_alignment",
    "write_tum_trajectory",
]
