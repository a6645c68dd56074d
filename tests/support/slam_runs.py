"""Ways to stop a run in its middle."""

from __future__ import annotations

from semkey.slam.events import FrameEvent, SlamListener


class StopAt(SlamListener):
    """Interrupts a run behind a frame."""

    def __init__(self, index: int) -> None:
        self._index = index

    def on_frame(self, event: FrameEvent) -> None:
        if event.record.index == self._index:
            raise KeyboardInterrupt
