"""SLAM on semantic keypoints."""

from __future__ import annotations

from semkey.slam.config import MapConfig, SlamConfig, TrackingConfig
from semkey.slam.events import SlamObserver
from semkey.slam.map import SlamMap
from semkey.slam.sensing import choose_sensor
from semkey.slam.system import LostEvent, SlamInterrupted, SlamResult, run_slam
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
    "choose_sensor",
    "run_slam",
]
