"""SLAM on semantic keypoints.

Everything here is imported on first use: the process for background work needs the solver and not the networks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from semkey.lazy import lazy_exports

if TYPE_CHECKING:
    from semkey.slam.config import MapConfig as MapConfig
    from semkey.slam.config import SlamConfig as SlamConfig
    from semkey.slam.config import TrackingConfig as TrackingConfig
    from semkey.slam.events import SlamListener as SlamListener
    from semkey.slam.frames.sensing import choose_sensor as choose_sensor
    from semkey.slam.map.slam_map import SlamMap as SlamMap
    from semkey.slam.records import FrameRecord as FrameRecord
    from semkey.slam.records import KeyframePose as KeyframePose
    from semkey.slam.records import TrackedFrame as TrackedFrame
    from semkey.slam.result import LostEvent as LostEvent
    from semkey.slam.result import SlamInterrupted as SlamInterrupted
    from semkey.slam.result import SlamResult as SlamResult
    from semkey.slam.runner import run_slam as run_slam
    from semkey.slam.system import Slam as Slam

if not TYPE_CHECKING:  # a type checker takes __getattr__ for a promise that every name exists
    __getattr__, __dir__, __all__ = lazy_exports(__name__)
