"""SLAM on semantic keypoints."""

from __future__ import annotations

from semkey.slam.config import MapConfig, SlamConfig, TrackingConfig
from semkey.slam.events import SlamObserver
from semkey.slam.map import SlamMap
from semkey.slam.system import LostEvent, SlamInterrupted, SlamResult, require_rgbd, run_slam
from semkey.slam.tracker import FrameRecord

__all__ = [
    "FrameRecord",
    "LostEvent",
    "MapConfig",
    "SlamConfig",
    "SlamInterrupted",
    "SlamMap",
    "SlamObserver",
    "SlamResult",
    "TrackingConfig",
    "require_rgbd",
    "run_slam",
]
