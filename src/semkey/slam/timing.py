"""Wall time per stage of tracking."""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager


class StageTimer:
    """Adds up the wall seconds of named stages; a stage inside another is not counted twice.

    Args:
        seconds: where to go on adding; None starts from nothing.
        samples: where to go on appending; None starts from nothing.

    Attributes:
        seconds: total by stage.
        samples: by stage, seconds in each finished frame that had this stage, and as ``frame`` the wall time from
            one frame's end to the next one's; see :meth:`end_frame`.
    """

    def __init__(self, seconds: dict[str, float] | None = None, samples: dict[str, list[float]] | None = None) -> None:
        self.seconds: dict[str, float] = {} if seconds is None else seconds
        self.samples: dict[str, list[float]] = {} if samples is None else samples
        self._open: list[list[float]] = []
        self._frame: dict[str, float] = {}
        self._frame_start = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Generator[None]:
        """Count the time inside the ``with`` block for ``name``."""
        start = time.perf_counter()
        nested = [0.0]
        self._open.append(nested)
        try:
            yield
        finally:
            elapsed = time.perf_counter() - start
            self._open.pop()
            self.add(name, elapsed - nested[0])
            if self._open:
                self._open[-1][0] += elapsed

    def add(self, name: str, seconds: float) -> None:
        """Count time that was measured elsewhere, as in another thread."""
        self.seconds[name] = self.seconds.get(name, 0.0) + seconds
        self._frame[name] = self._frame.get(name, 0.0) + seconds

    def end_frame(self) -> None:
        """Keep what was counted since the last call as one sample of each of its stages."""
        now = time.perf_counter()
        self._frame["frame"] = now - self._frame_start
        self._frame_start = now
        for name, seconds in self._frame.items():
            self.samples.setdefault(name, []).append(seconds)
        self._frame = {}
