"""How far long work is: a bar on a terminal, a plain line every few seconds elsewhere, nothing with ``-q``."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager

from semkey.cli.terminal.messages import is_quiet

# What is done sooner needs no progress; lines in a log file should not drown what else is there.
FIRST_LINE_S, NEXT_LINE_S = 2.0, 5.0

#: ``show(done, total, what="", detail="")``: what is being done, and words on how it goes.
Show = Callable[..., None]


@contextmanager
def show_progress(
    description: str = "", *, clock: Callable[[], float] = time.monotonic, every: float = NEXT_LINE_S
) -> Generator[Show]:
    """How far work is, with an estimate of the time that is left, on stderr.

    Args:
        description: what is being done, unless ``show`` says it.
        clock: seconds.
        every: seconds between the lines where stderr is no terminal.
    """
    if is_quiet():
        yield _nothing
    elif sys.stderr.isatty():
        with _bar(description) as show:
            yield show
    else:
        yield _Lines(description, clock, every).show


def _nothing(done: float, total: float | None, what: str = "", detail: str = "") -> None:
    del done, total, what, detail


class _Lines:
    """Plain lines, the first after two seconds."""

    def __init__(self, description: str, clock: Callable[[], float], every: float) -> None:
        self._description, self._clock, self._every = description, clock, every
        self._what = ""
        self._start = self._first_done = 0.0
        self._next = 0.0
        self._restart(0.0)

    def _restart(self, done: float) -> None:
        self._start, self._first_done = self._clock(), done
        self._next = self._start + FIRST_LINE_S

    def show(self, done: float, total: float | None, what: str = "", detail: str = "") -> None:
        if what != self._what:  # another step: its estimate starts anew
            self._what = what
            self._restart(done)
        now = self._clock()
        if now < self._next:
            return
        self._next = now + self._every
        parts = [f"{what or self._description or 'done'}: {done:.0f}"]
        if total:
            parts[0] += f" of {total:.0f} ({100 * done / total:.0f} %)"
            parts.append(f"{_clock_text(left)} left" if (left := self._left(now, done, total)) is not None else "")
        else:
            parts.append(f"{_clock_text(now - self._start)} so far")
        print(", ".join(part for part in [*parts, detail] if part), file=sys.stderr, flush=True)

    def _left(self, now: float, done: float, total: float) -> float | None:
        made = done - self._first_done
        return (now - self._start) * (total - done) / made if made > 0 else None


@contextmanager
def _bar(description: str) -> Generator[Show]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        TextColumn("{task.fields[detail]}"),
    ]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=None, detail="")

        def show(done: float, total: float | None, what: str = "", detail: str = "") -> None:
            bar.update(task, completed=done, total=total, description=what or description, detail=detail)

        yield show


def _clock_text(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
