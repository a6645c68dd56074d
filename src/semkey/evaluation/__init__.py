"""Judging results against ground truth."""

from __future__ import annotations

from semkey.evaluation.trajectory import (
    Trajectory,
    absolute_trajectory_error,
    read_tum_trajectory,
    relative_pose_errors,
    umeyama_alignment,
    write_tum_trajectory,
)

__all__ = [
    "Trajectory",
    "absolute_trajectory_error",
    "read_tum_trajectory",
    "relative_pose_errors",
    "umeyama_alignment",
    "write_tum_trajectory",
]
