"""The keyframes' depth as views for :mod:`semkey.surfaces`."""

from __future__ import annotations

from semkey.geometry.camera import PinholeCamera
from semkey.interop.recording import Recording
from semkey.surfaces.views import DepthView


class KeyframeViews:
    """Depth views of a map's keyframes, read from its recording.

    Args:
        recording: opened with ``needs_depth``.
    """

    def __init__(self, recording: Recording) -> None:
        self._recording = recording

    @property
    def camera(self) -> PinholeCamera:
        """Of the map."""
        return self._recording.part.camera

    def __len__(self) -> int:
        return len(self._recording.frames)

    def view(self, number: int) -> DepthView | None:
        """The view of keyframe ``number``; None where the recording lacks it."""
        frame = self._recording.read(number)
        if frame is None or frame.depth is None:
            return None
        pose = self._recording.part.keyframes[number].T_world_cam
        return DepthView(depth=frame.depth, image=frame.image, T_world_cam=pose)
