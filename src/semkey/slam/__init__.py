"""SLAM on semantic keypoints.

Everything here is imported on first use: the process for background work needs the solver and not the networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from semkey.lazy import lazy_names

if TYPE_CHECKING:
    from semkey.slam.config import MapConfig, SlamConfig, TrackingConfig
    from semkey.slam.events import SlamListener
    from semkey.slam.frames.sensing import choose_sensor
    from semkey.slam.map.slam_map import SlamMap
    from semkey.slam.records import FrameRecord, KeyframePose, TrackedFrame
    from semkey.slam.result import LostEvent, SlamInterrupted, SlamResult
    from semkey.slam.runner import run_slam
    from semkey.slam.system import Slam

_LAZY = {
    "FrameRecord": "semkey.slam.records",
    "KeyframePose": "semkey.slam.records",
    "LostEvent": "semkey.slam.result",
    "MapConfig": "semkey.slam.config",
    "Slam": "semkey.slam.system",
    "SlamConfig": "semkey.slam.config",
    "SlamInterrupted": "semkey.slam.result",
    "SlamMap": "semkey.slam.map.slam_map",
    "SlamListener": "semkey.slam.events",
    "SlamResult": "semkey.slam.result",
    "TrackedFrame": "semkey.slam.records",
    "TrackingConfig": "semkey.slam.config",
    "choose_sensor": "semkey.slam.frames.sensing",
    "run_slam": "semkey.slam.runner",
}

__all__ = [
    "FrameRecord",
    "KeyframePose",
    "LostEvent",
    "MapConfig",
    "Slam",
    "SlamConfig",
    "SlamInterrupted",
    "SlamListener",
    "SlamMap",
    "SlamResult",
    "TrackedFrame",
    "TrackingConfig",
    "choose_sensor",
    "run_slam",
]

__getattr__ = lazy_names(__name__, _LAZY)
