"""Frames read and observed ahead of tracking, in order; and frames left out when time runs short.

Tracking frame ``k`` needs the pose of frame ``k - 1``; reading an image and extracting its features need nothing but
the file. So one thread reads frame ``k + 2`` and another observes frame ``k + 1`` while the caller tracks frame ``k``.
The queues between them are bounded: nobody runs far ahead, and memory stays flat.

Threads share one interpreter. A network on a CPU is some hundred short calls from Python, and after each of them its
thread waits until the tracker's lets go, by default for 5 ms; :func:`semkey.runtime.tune_process` makes that 0.5 ms.
Measured on 2 cores at 640x480 with ``nano``, frames per second: one after the other 22, threads 26, with the shorter
interval 29, extraction in a process of its own 29, reading and extraction in a process 33. The process would take
seconds to start, 400 MB, and extractors and sequences that can be pickled.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any, Generic, TypeVar

from semkey.datasets import BrokenFrame, EndOfSequence, Frame, FrameSequence
from semkey.errors import ConfigError, DatasetError, InputError
from semkey.slam.timing import StageTimer

Observed = TypeVar("Observed")
Item = TypeVar("Item")

# How long a waiting thread goes without looking whether it is to stop.
_POLL_S = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedFrame(Generic[Observed]):
    """One frame on its way to the tracker.

    Attributes:
        frame: as read, or what cannot be.
        observed: what was made of it; None where it is broken.
        dropped: frames left out right before this one because time ran short.
        stage_seconds: wall time that reading and observing took, by stage.
    """

    frame: Frame | BrokenFrame
    observed: Observed | None = None
    dropped: int = 0
    stage_seconds: Mapping[str, float] = field(default_factory=dict)


class FramePipeline(Generic[Observed]):
    """Frames of a sequence, read and observed ahead of the caller, in order; a context manager to iterate over once.

    A frame that cannot be read or used (``InputError``, ``DatasetError``) comes as a ``BrokenFrame``; any other
    exception is raised where its frame would have come. Leaving the ``with`` block, by Ctrl-C or otherwise, stops the
    threads.

    With ``realtime`` the sequence is played as a camera would have delivered it: a frame is there when as much time has
    passed since the first one as their stamps say. Reading takes the newest frame that is there; older ones that nobody
    had time for are dropped and counted. A running camera (``sequence.is_live``) has its own clock: its frames are
    dropped while the next stage is busy.

    Args:
        sequence: where frames come from.
        observe: what is made of each frame, such as features with depth; called by one thread, in order, with a timer
            for its stages.
        indices: which frames, increasing; None for all.
        ahead: frames that may wait between two stages; 0 does everything in the caller's thread, when it asks.
        realtime: play by the frames' stamps.
        clock: seconds, for tests.
        sleep: waits so many seconds, for tests.

    Raises:
        ConfigError: ``ahead`` is negative.
    """

    def __init__(
        self,
        sequence: FrameSequence,
        observe: Callable[[Frame, StageTimer], Observed],
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
        self._observe = observe
        self._indices = range(len(sequence)) if indices is None else indices
        self._ahead = ahead
        self._realtime = realtime
        self._clock, self._sleep = clock, sleep
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> FramePipeline[Observed]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __iter__(self) -> Iterator[PreparedFrame[Observed]]:
        if self._ahead == 0:
            yield from (self._observed(prepared) for prepared in self._read())
            return
        drops = self._realtime and self._sequence.is_live
        read: _Handover[PreparedFrame[Observed]] = _Handover(self._ahead, self._stop)
        ready: _Handover[PreparedFrame[Observed]] = _Handover(self._ahead, self._stop)
        self._start(lambda: read.fill(_newest(self._read(), read) if drops else self._read()))
        self._start(lambda: ready.fill(self._observed(prepared) for prepared in read))
        yield from ready

    def close(self) -> None:
        """Stop the threads; what they are busy with is finished first."""
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()

    def _start(self, target: Callable[[], None]) -> None:
        thread = threading.Thread(target=target, daemon=True, name="semkey-frames")
        self._threads.append(thread)
        thread.start()

    def _read(self) -> Iterator[PreparedFrame[Observed]]:
        plays = self._realtime and not self._sequence.is_live
        player = _Player(self._sequence, self._indices, self._clock, self._sleep, self._stop) if plays else None
        position = 0
        while position < len(self._indices) and not self._stop.is_set():
            dropped = 0 if player is None else player.skip_from(position)
            position += dropped
            start = time.perf_counter()
            try:
                frame = self._sequence.read(int(self._indices[position]))
            except EndOfSequence:
                return
            yield PreparedFrame(frame=frame, dropped=dropped, stage_seconds={"read": time.perf_counter() - start})
            position += 1

    def _observed(self, prepared: PreparedFrame[Observed]) -> PreparedFrame[Observed]:
        if isinstance(prepared.frame, BrokenFrame):
            return prepared
        frame, timer = prepared.frame, StageTimer()
        try:
            observed = self._observe(frame, timer)
        except (InputError, DatasetError) as error:
            broken = BrokenFrame(
                index=frame.index, timestamp=frame.timestamp, error=error, T_world_cam=frame.T_world_cam
            )
            return replace(prepared, frame=broken)
        return replace(prepared, observed=observed, stage_seconds={**prepared.stage_seconds, **timer.seconds})


class _Player:
    """Which frame of a recording a camera would deliver now."""

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
        """How many frames from ``position`` on to leave out; waits until the one after them is there."""
        now = self._clock()
        if self._offset is None:  # the clock starts with the first frame
            self._offset = now - self._stamps[position]
        newest = position
        while newest + 1 < len(self._stamps) and self._stamps[newest + 1] + self._offset <= now:
            newest += 1
        while (wait := self._stamps[newest] + self._offset - self._clock()) > 0 and not self._stop.is_set():
            self._sleep(min(wait, _POLL_S))
        return newest - position


class _Handover(Generic[Item]):
    """A bounded queue that one thread fills and another one iterates over; an exception travels along."""

    def __init__(self, size: int, stop: threading.Event) -> None:
        self._queue: queue.Queue[tuple[Item | None, BaseException | None]] = queue.Queue(size)
        self._stop = stop

    @property
    def is_full(self) -> bool:
        """Whether the other side has to take something before more can be put."""
        return self._queue.full()

    def fill(self, items: Iterator[Item]) -> None:
        """Put all items, then the end or the exception that they ended with."""
        end: BaseException | None = None
        try:
            for item in items:
                if not self._put((item, None)):
                    return
        except BaseException as error:  # whatever it is, it belongs to the thread that iterates
            end = error
        self._put((None, end))

    def __iter__(self) -> Iterator[Item]:
        while not self._stop.is_set():
            try:
                item, end = self._queue.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if end is not None:
                raise end
            if item is None:
                return
            yield item

    def _put(self, entry: tuple[Item | None, BaseException | None]) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(entry, timeout=_POLL_S)
            except queue.Full:
                continue
            return True
        return False


def _newest(frames: Iterator[PreparedFrame[Any]], queue: _Handover[PreparedFrame[Any]]) -> Iterator[PreparedFrame[Any]]:
    """Frames of a running camera, without those for which there was no room when they came."""
    dropped = 0
    for prepared in frames:
        if queue.is_full:
            dropped += 1
            continue
        yield replace(prepared, dropped=dropped)
        dropped = 0
