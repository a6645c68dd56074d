"""What happens during a run, for whoever listens: viewers, recordings, automatic saving."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from semkey.datasets import Frame
    from semkey.slam.frames.frame import ObservedFrame
    from semkey.slam.map.keyframe import Keyframe
    from semkey.slam.map.slam_map import SlamMap
    from semkey.slam.records import FrameRecord, LoopRecord
    from semkey.slam.result import SlamResult


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameEvent:
    """A frame is done, tracked or lost.

    Attributes:
        record: what became of it.
        frame: the images; None where the frame could not be read.
        observed: its keypoints; None where the frame could not be read.
        landmark_ids: (N,) int64, the landmark of the map that each keypoint was tracked by, -1 for none; empty where
            there are no keypoints.
        slam_map: the map after the frame; to look at, not to change.
    """

    record: FrameRecord
    frame: Frame | None
    observed: ObservedFrame | None
    landmark_ids: NDArray[np.int64]
    slam_map: SlamMap


@dataclass(frozen=True, kw_only=True, eq=False)
class KeyframeEvent:
    """A frame became a keyframe; comes before the :class:`FrameEvent` of the same frame.

    Attributes:
        keyframe: the keyframe, already part of the map.
        slam_map: the map; to look at, not to change.
    """

    keyframe: Keyframe
    slam_map: SlamMap


@dataclass(frozen=True, kw_only=True, eq=False)
class LoopEvent:
    """A loop was closed, or two submaps were merged.

    Attributes:
        loop: what was found; also the last of ``SlamResult.loops``.
        slam_map: the corrected map; to look at, not to change.
    """

    loop: LoopRecord
    slam_map: SlamMap


class SlamListener:
    """Receives what happens in a run, in the thread of the run and in the order in which it happens.

    A subclass overrides what it wants to know. An exception ends the run, and comes out of it, after ``on_end``.
    """

    def on_start(self, result: SlamResult, slam_map: SlamMap) -> None:
        """The run begins; ``result`` is the one that it fills in frame by frame."""

    def on_keyframe(self, event: KeyframeEvent) -> None:
        """A keyframe was added to the map."""

    def on_loop(self, event: LoopEvent) -> None:
        """A loop was closed or two submaps were merged."""

    def on_frame(self, event: FrameEvent) -> None:
        """A frame is done."""

    def on_end(self, result: SlamResult, slam_map: SlamMap) -> None:
        """The run is over, also when it was interrupted or failed; ``result`` covers the frames until then."""


class ListenerGroup(SlamListener):
    """Passes every event on to several listeners, in their order."""

    def __init__(self, listeners: Iterable[SlamListener]) -> None:
        self._listeners = tuple(listeners)

    def on_start(self, result: SlamResult, slam_map: SlamMap) -> None:
        """See :class:`SlamListener`."""
        for listener in self._listeners:
            listener.on_start(result, slam_map)

    def on_keyframe(self, event: KeyframeEvent) -> None:
        """See :class:`SlamListener`."""
        for listener in self._listeners:
            listener.on_keyframe(event)

    def on_loop(self, event: LoopEvent) -> None:
        """See :class:`SlamListener`."""
        for listener in self._listeners:
            listener.on_loop(event)

    def on_frame(self, event: FrameEvent) -> None:
        """See :class:`SlamListener`."""
        for listener in self._listeners:
            listener.on_frame(event)

    def on_end(self, result: SlamResult, slam_map: SlamMap) -> None:
        """See :class:`SlamListener`."""
        for listener in self._listeners:
            listener.on_end(result, slam_map)
