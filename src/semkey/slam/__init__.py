"""SLAM on semantic keypoints.

Everything here is imported on first use: the process for background work needs the solver and not the networks.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from semkey.slam.config import MapConfig, SlamConfig, TrackingConfig
    from semkey.slam.events import SlamObserver
    from semkey.slam.map import SlamMap
    from semkey.slam.records import FrameRecord
    from semkey.slam.sensing import choose_sensor
    from semkey.slam.system import LostEvent, SlamInterrupted, SlamResult, run_slam

_LAZY = {
    "FrameRecord": "semkey.slam.records",
    "LostEvent": "semkey.slam.system",
    "MapConfig": "semkey.slam.config",
    "SlamConfig": "semkey.slam.config",
    "SlamInterrupted": "semkey.slam.system",
    "SlamMap": "semkey.slam.map",
    "SlamObserver": "semkey.slam.events",
    "SlamResult": "semkey.slam.system",
    "TrackingConfig": "semkey.slam.config",
    "choose_sensor": "semkey.slam.sensing",
    "run_slam": "semkey.slam.system",
}

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


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'semkey.slam' has no attribute '{name}'")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value
