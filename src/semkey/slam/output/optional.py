"""A listener whose failure costs no run: a recording on a disk that fills up, a viewer that goes away."""

from __future__ import annotations

import logging
from collections.abc import Callable

from semkey.slam.events import FrameEvent, KeyframeEvent, LoopEvent, SlamListener
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.result import SlamResult
from semkey.untrusted import one_line

logger = logging.getLogger(__name__)


class OptionalListener(SlamListener):
    """Passes everything on until that fails; then it says so once, and the run goes on without.

    Args:
        listener: that is told.
        what: it does, for the message.

    Attributes:
        has_failed: whether it was given up.
    """

    def __init__(self, listener: SlamListener, what: str) -> None:
        self._listener, self._what = listener, what
        self.has_failed: bool = False

    def on_start(self, result: SlamResult, slam_map: SlamMap) -> None:
        """See :class:`SlamListener`."""
        self._try(lambda: self._listener.on_start(result, slam_map))

    def on_keyframe(self, event: KeyframeEvent) -> None:
        """See :class:`SlamListener`."""
        self._try(lambda: self._listener.on_keyframe(event))

    def on_loop(self, event: LoopEvent) -> None:
        """See :class:`SlamListener`."""
        self._try(lambda: self._listener.on_loop(event))

    def on_frame(self, event: FrameEvent) -> None:
        """See :class:`SlamListener`."""
        self._try(lambda: self._listener.on_frame(event))

    def on_end(self, result: SlamResult, slam_map: SlamMap) -> None:
        """See :class:`SlamListener`."""
        self._try(lambda: self._listener.on_end(result, slam_map))

    def _try(self, tell: Callable[[], None]) -> None:
        if self.has_failed:
            return
        try:
            tell()
        except Exception as error:  # of whatever library it uses
            self.has_failed = True
            reason = one_line(str(error)) or type(error).__name__
            logger.warning("%s has stopped, the run goes on without: %s", self._what, reason)
