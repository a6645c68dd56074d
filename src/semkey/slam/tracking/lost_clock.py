"""When a lost camera starts a map of its own."""

from __future__ import annotations

# A single bad frame is no loss, however slow the camera.
_FEWEST_LOST_FRAMES = 3


class LostClock:
    """For how long the camera has been lost, and whether waiting for the old map is still worth it.

    Args:
        patience_seconds: a camera that is lost for longer starts a new submap.
    """

    def __init__(self, patience_seconds: float) -> None:
        self._patience = patience_seconds
        self._since: float | None = None
        self._lost_frames = 0
        self._tracked_frames = 0

    @property
    def lost_frames(self) -> int:
        """Lost frames in a row; 0 while tracking."""
        return self._lost_frames

    def started(self, frames: int = 1) -> None:
        """A new submap began with so many frames."""
        self._tracked_frames = frames
        self._lost_frames = 0
        self._since = None

    def tracked(self) -> None:
        """A frame was placed."""
        self._tracked_frames += 1
        self._lost_frames = 0
        self._since = None

    def resume(self, *, lost_frames: int, tracked_frames: int) -> None:
        """Go on where an earlier run ended: after so many placed frames and, behind them, so many lost ones."""
        self._tracked_frames = tracked_frames
        self._lost_frames = lost_frames
        self._since = None

    def lost(self, timestamp: float) -> None:
        """A frame was not placed, at ``timestamp`` seconds."""
        if self._since is None or timestamp < self._since:
            self._since = timestamp
        self._lost_frames += 1

    def gives_up(self, timestamp: float) -> bool:
        """Whether a new submap should start with the frame at ``timestamp`` seconds, the latest of the lost ones.

        Lost for the given time and for a few frames; but a map is waited for no longer than it was of use: a bad first
        frame is given up after one more. A map that was loaded and never found yet is waited for all of the time.
        """
        if self._since is None:
            return False
        if 0 < self._tracked_frames < self._lost_frames:
            return True
        return self._lost_frames >= _FEWEST_LOST_FRAMES and timestamp - self._since >= self._patience
