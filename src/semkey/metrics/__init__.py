"""Error measures against ground truth: numbers in, numbers out."""

from __future__ import annotations

from semkey.metrics.trajectory import absolute_trajectory_error, relative_pose_errors, umeyama_alignment
from semkey.metrics.two_view import area_under_curve, relative_pose_error

__all__ = [
    "absolute_trajectory_error",
    "area_under_curve",
    "relative_pose_error",
    "relative_pose_errors",
    "umeyama_alignment",
]
