"""How a submap begins: with one frame that has depth, or with two views of a single camera."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from semkey.slam.config import SlamConfig, image_scale
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.frames.sensing import CameraSensor
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.mapping.local_mapping import LocalMapping
from semkey.slam.timing import StageTimer
from semkey.slam.tracking.mono_start import MonoStarter, begin_submap

Array = NDArray[np.float64]


class SubmapStarter(Protocol):
    """Begins submaps.

    Attributes:
        between: frames between the keyframes of the last beginning, which can be placed now.
    """

    between: list[ObservedFrame]

    def begin(self, frame: ObservedFrame, T_world_cam: Array, submap: int) -> list[Keyframe]:
        """The first keyframes of a submap, in order of time; empty where the frame is not enough for a beginning.

        Args:
            frame: seen now.
            T_world_cam: (4, 4) where the first keyframe is put.
            submap: number of the submap.
        """
        ...

    def reset(self) -> None:
        """Forget frames that were waited with."""


class DepthStarter:
    """Begins with any frame that has enough keypoints with depth to be tracked by.

    Args:
        mapping: keeps the frame.
        min_keypoints: how many are enough.
    """

    def __init__(self, mapping: LocalMapping, *, min_keypoints: int) -> None:
        self.between: list[ObservedFrame] = []
        self._mapping = mapping
        self._min_keypoints = min_keypoints

    def begin(self, frame: ObservedFrame, T_world_cam: Array, submap: int) -> list[Keyframe]:
        """See :class:`SubmapStarter`."""
        if np.count_nonzero(frame.depth > 0) < self._min_keypoints:
            return []
        self._mapping.before_keyframe()
        return [self._mapping.add_keyframe(frame, T_world_cam, None, submap=submap)]

    def reset(self) -> None:
        """See :class:`SubmapStarter`: no frame is waited with."""


class TwoViewStarter:
    """Begins as soon as an earlier frame and the present one tell motion and structure.

    Args:
        slam_map: the map.
        mapping: takes over its results before the map changes.
        config: settings.
        timer: where the time is added up.
    """

    def __init__(self, slam_map: SlamMap, mapping: LocalMapping, config: SlamConfig, timer: StageTimer) -> None:
        self.between: list[ObservedFrame] = []
        self._map = slam_map
        self._mapping = mapping
        self._timer = timer
        self._starter = MonoStarter(
            slam_map.camera,
            config.mono,
            image_scale=image_scale(slam_map.camera),
            seed=config.seed,
        )

    def begin(self, frame: ObservedFrame, T_world_cam: Array, submap: int) -> list[Keyframe]:
        """See :class:`SubmapStarter`."""
        with self._timer.stage("initialise"):
            start = self._starter.offer(frame)
        if start is None:
            return []
        self._mapping.before_keyframe()
        self.between = start.between
        with self._timer.stage("map"):
            return list(begin_submap(self._map, start, T_world_cam, submap))

    def reset(self) -> None:
        """See :class:`SubmapStarter`."""
        self._starter.reset()


def make_starter(
    slam_map: SlamMap, mapping: LocalMapping, config: SlamConfig, sensor: CameraSensor, timer: StageTimer
) -> SubmapStarter:
    """The way in which submaps begin with a kind of camera."""
    if sensor.is_metric:
        return DepthStarter(mapping, min_keypoints=config.tracking.min_relocalisation_inliers)
    return TwoViewStarter(slam_map, mapping, config, timer)
