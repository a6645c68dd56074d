"""Reading and extraction of frames ahead of tracking, in order, and frames left out when time runs short.

Tracking frame ``k`` needs the pose of frame ``k - 1``; reading and extraction need nothing but the image. So a thread
reads frame ``k + 2`` while another extracts frame ``k + 1`` and the caller tracks frame ``k``. Queues between them are
bounded: nothing runs further ahead than ``ahead`` frames, and memory stays flat.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from types import TracebackType

from semkey.datasets import Frame, FrameSequence
from semkey.errors import ConfigError, SemkeyError
from semkey.extractors import Extractor
from semkey.model.features import Features

# How long a thread sleeps at most before it looks whether it is to stop.
_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedFrame:
    """One frame, ready to be tracked; or what went wrong with it.

    Attributes:
        index: position in the sequence.
        timestamp: seconds.
        frame: as read; None where it could not be.
        features: of its image; None where it could not be read.
        error: why there is no frame, one line; None where there is one.
        dropped: frames left out right before this one because time ran short.
        read_seconds: wall time of reading.
        extract_seconds: wall time of extraction.
    """

    index: int
    timestamp: float
    frame: Frame | None
    features: Features | None = None
    error: SemkeyError | None = None
    dropped: int = 0
    read_seconds: float = 0.0
    extract_seconds: float = 0.0


class FramePipeline:
    """The frames of a sequence with their features, in order: ``with FramePipeline(...) as frames: for frame in frames``.

    A frame that cannot be read (:class:`SemkeyError`) is delivered as such; any other exception of reading or
    extraction is raised where its frame would have come. Leaving the ``with`` block, by Ctrl-C or otherwise, stops the
    threads.

    With ``realtime`` the sequence is played like a camera: a frame is there when as much time has passed since the
    first one as its stamp says, and when reading begins, the newest frame that is there is taken; older ones that
    nobody had time for are dropped and counted.

    Args:
        sequence: where frames come from.
        extractor: features of each frame; used by one thread at a time.
        indices: which frames, in order; None for all.
        ahead: frames that may wait between two stages, >= 1; 0 reads and extracts in the caller's thread.
        realtime: play by the frames' stamps.
        clock: seconds, for tests.
        sleep: waits so many seconds, for tests.

    Raises:
        ConfigError: ``ahead`` is negative.
    """

    def __init__(
        self,
        sequence: FrameSequence,
        extractor: Extractor,
        indices: Sequence[int] | None = None,
        *,
        ahead: int = 1,
        realtime: bool = False,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        if ahead < 0:
            raise ConfigError(f"ahead must be 0 or more, got {ahead}")
        self._sequence = sequence
        self._extractor = extractor
        self._indices = range(len(sequence)) if indices is None else indices
        self._ahead = ahead
        self._realtime = realtime
        self._clock = clock
        self._sleep = sleep
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> FramePipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[PreparedFrame]:
        if self._ahead == 0:
            yield from (self._extracted(prepared) for prepared in self._read())
            return
        read: _Handover = _Handover(self._ahead, self._stop)
        ready: _Handover = _Handover(self._ahead, self._stop)
        self._start(read.fill, self._read)
        self._start(ready.fill, lambda: (self._extracted(prepared) for prepared in read))
        yield from ready

    def close(self) -> None:
        """Stop the threads; a frame that one of them is busy with is finished first."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _start(self, fill: Callable[[Callable[[], Iterator[PreparedFrame]]], None], source: Callable) -> None:
        thread = threading.Thread(target=fill, args=(source,), daemon=True, name="semkey-frames")
        self._threads.append(thread)
        thread.start()

    def _read(self) -> Iterator[PreparedFrame]:
        due = _Due(self._sequence, self._indices, self._clock, self._sleep, self._stop) if self._realtime else None
        position = 0
        while position < len(self._indices) and not self._stop.is_set():
            skipped = 0 if due is None else due.skip_from(position)
            position += skipped
            yield replace(self._read_one(int(self._indices[position])), dropped=skipped)
            position += 1

    def _read_one(self, index: int) -> PreparedFrame:
        start = time.perf_counter()
        try:
            frame, error = self._sequence[index], None
        except SemkeyError as problem:
            frame, error = None, problem
        return PreparedFrame(
            index=index,
            timestamp=float(self._sequence.timestamps[index]),
            frame=frame,
            error=error,
            read_seconds=time.perf_counter() - start,
        )

    def _extracted(self, prepared: PreparedFrame) -> PreparedFrame:
        if prepared.frame is None:
            return prepared
        start = time.perf_counter()
        features = self._extractor.extract(prepared.frame.image)
        return replace(prepared, features=features, extract_seconds=time.perf_counter() - start)


class _Due:
    """Which frame a camera would deliver now."""

    def __init__(
        self,
        sequence: FrameSequence,
        indices: Sequence[int],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        stop: threading.Event,
    ) -> None:
        self._stamps = [float(sequence.timestamps[index]) for index in indices]
        self._clock, self._sleep, self._stop = clock, sleep, stop
        self._offset: float | None = None

    def skip_from(self, position: int) -> int:
        """How many frames from ``position`` on to leave out; waits until the frame after them is due."""
        now = self._clock()
        if self._offset is None:  # the clock starts with the first frame
            self._offset = now - self._stamps[position]
        newest = position
        while newest + 1 < len(self._stamps) and self._stamps[newest + 1] + self._offset <= now:
            newest += 1
        while (wait := self._stamps[newest] + self._offset - self._clock()) > 0 and not self._stop.is_set():
            self._sleep(min(wait, _POLL_S))
        return newest - position


class _Handover:
    """A bounded queue that one thread fills and another iterates over; an exception travels along."""

    def __init__(self, size: int, stop: threading.Event) -> None:
        self._queue: queue.Queue[PreparedFrame | BaseException | None] = queue.Queue(size)
        self._stop = stop

    def fill(self, source: Callable[[], Iterator[PreparedFrame]]) -> None:
        """Put everything that ``source`` yields, then the end or the exception that it ended with."""
        end: BaseException | None = None
        try:
            for prepared in source():
                if not self._put(prepared):
                    return
        except BaseException as error:  # whatever it is belongs to the caller's thread
            end = error
        self._put(end)

    def __iter__(self) -> Iterator[PreparedFrame]:
        while not self._stop.is_set():
            try:
                item = self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def _put(self, item: PreparedFrame | BaseException | None) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False
