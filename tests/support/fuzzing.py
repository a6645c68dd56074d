"""A seeded fuzzer of every file that semkey reads back: a damaged one is read right or told of in one line.

Of each kind a whole file is made, changed at random, and read and used the way the commands do. What may come out is a
result, or a :class:`SemkeyError` of one line; a traceback, a hang and gigabytes are failures. ``tests/test_fuzz.py``
runs some hundred cases, ``scripts/fuzz.py`` as many as asked for.
"""

from __future__ import annotations

import contextlib
import logging
import random
import resource
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fuzz_targets import TARGETS, Target
from semkey.errors import SemkeyError

SECONDS = 6.0
"""Of computing; ten times as much of waiting."""
MEMORY_BYTES = 3 << 29
_LONGEST_MESSAGE = 600


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A file that was neither read nor refused in one line."""

    kind: str
    case: str
    reason: str
    file: Path


class _TooSlowError(BaseException):
    """Not an Exception, so that nothing in between takes it for damage."""


def fuzz(kind: str, cases: int, *, seed: int, folder: Path) -> tuple[dict[str, int], list[Failure]]:
    """Run cases of one kind; how many were read and refused, and the failures, whose files stay in ``folder``."""
    target = TARGETS[kind]
    folder.mkdir(parents=True, exist_ok=True)
    counts, failures = {"read": 0, "refused": 0}, []
    with tempfile.TemporaryDirectory() as name, _quiet_log():
        seeds = target.make(Path(name))
        for path in seeds:  # a whole file is read without complaint, and what is loaded late is loaded
            target.use(_copy(path, Path(name) / "whole" / path.name))
        for number in range(cases):
            rng = random.Random(f"{kind} {seed} {number}")
            original = rng.choice(seeds)
            path = Path(name) / f"case{number}" / original.name
            path.parent.mkdir()
            data = _mutated(target, original.read_bytes(), rng)
            path.write_bytes(data)
            reason = _judge(target, path, counts)
            if reason:
                kept = folder / f"{kind}-{seed}-{number}{path.suffix}"
                kept.write_bytes(data)
                failures.append(Failure(kind=kind, case=f"{seed}:{number}", reason=reason, file=kept))
            shutil.rmtree(path.parent)
    return counts, failures


@contextlib.contextmanager
def _quiet_log() -> Generator[None]:
    """Without the warnings of damaged files, for as long as the fuzzer runs: other tests read the log."""
    logger = logging.getLogger("semkey")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _mutated(target: Target, data: bytes, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        mutation: Callable[[bytes, random.Random], bytes] = rng.choice(target.mutations)
        with contextlib.suppress(Exception):  # what is damaged already may have no tree any more
            data = mutation(data, rng)
    return data


def _judge(target: Target, path: Path, counts: dict[str, int]) -> str:
    try:
        with _bounds():
            target.use(path)
    except SemkeyError as error:
        counts["refused"] += 1
        text = str(error)
        if "\n" in text or len(text) > _LONGEST_MESSAGE + len(str(path)) * 2:
            return f"the message is not one short line: {text[:300]!r}"
        if target.names_file and path.name not in text and path.stem not in text:
            return f"the message does not name the file: {text}"
        return ""
    except _TooSlowError:
        return f"took more than {SECONDS:g} s\n{traceback.format_exc(limit=-4)}"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:300]}\n{traceback.format_exc(limit=-5)}"
    counts["read"] += 1
    return ""


@contextlib.contextmanager
def _bounds() -> Generator[None]:
    """A limit on time, and on the memory that is taken on top of what the process has."""

    over = False

    def too_slow(number: int, frame: Any) -> None:
        nonlocal over
        if not over:  # on busy cores the second timer may end while the first one's exception is on its way
            over = True
            raise _TooSlowError

    before = {number: signal.signal(number, too_slow) for number in (signal.SIGALRM, signal.SIGPROF)}
    limits = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY_BYTES, limits[1]))
    signal.setitimer(signal.ITIMER_PROF, SECONDS)  # not the clock's: the cores may be busy
    signal.setitimer(signal.ITIMER_REAL, 10 * SECONDS)
    try:
        yield
    finally:
        over = True
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)
        for number, handler in before.items():  # a signal on its way must not meet the default, which ends the process
            signal.signal(number, handler if callable(handler) else signal.SIG_IGN)


def _copy(path: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, target)
    return target
