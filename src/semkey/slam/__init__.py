"""RGB-D odometry on semantic keypoints."""

from __future__ import annotations

from semkey.slam.config import OdometryConfig
from semkey.slam.odometry import LostEvent, OdometryInterrupted, SlamResult, require_rgbd, run_odometry
from semkey.slam.tracker import FrameRecord

__all__ = [
    "FrameRecord",
    "LostEvent",
    "OdometryConfig",
    "OdometryInterrupted",
    "SlamResult",
    "require_rgbd",
    "run_odometry",
]
