"""The process of a command: signals that end it like Ctrl-C, and standard streams that may be closed or full."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager

EXIT_CLOSED = 141
"""Nobody reads what is printed any more (``| head -1``): what a shell sees of a program that SIGPIPE ends."""
EXIT_UNWRITABLE = 2
EXIT_INTERRUPTED = 130
_SIGNALS = ("SIGTERM", "SIGHUP")


@contextmanager
def signals_as_interrupts() -> Generator[Callable[[int], int]]:
    """Within the block SIGTERM and SIGHUP interrupt like Ctrl-C, so that what was done is saved.

    Yields:
        The exit code that tells of the signal (128 and its number) instead of 130, if one came.
    """
    came: list[int] = []
    owner = os.getpid()

    def interrupt(number: int, _: object) -> None:
        if os.getpid() != owner:  # a forked worker ends as it would have ended without this
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        came.append(number)
        raise KeyboardInterrupt

    before = {}
    for name in _SIGNALS:
        number = getattr(signal, name, None)
        try:
            if number is not None and signal.getsignal(number) == signal.SIG_DFL:  # nohup has it ignored
                before[number] = signal.signal(number, interrupt)
        except ValueError:  # not the main thread
            break
    try:
        yield lambda code: 128 + came[0] if came and code == EXIT_INTERRUPTED else code
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def open_closed_streams() -> None:
    """Give a process that was started without standard streams something to print to.

    The first file that is opened would get their number otherwise, and libraries print into it.
    """
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number, which is this one
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r", encoding="utf-8"))  # noqa: SIM115 (to the end)


def is_of_stream(error: OSError) -> bool:
    """Whether an error is of printing, not of a file."""
    return error.filename is None and error.errno in (errno.EPIPE, errno.ENOSPC, errno.EIO)


def printed(code: int) -> int:
    """Print what is still held back; the exit code, which becomes another one where that cannot be printed."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError as error:
            code = unprintable(error)
        except ValueError:  # closed by the command itself
            continue
    return code


def unprintable(error: OSError) -> int:
    """Give up printing: the exit code for it, with a line on stderr unless it is a reader that has seen enough."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    closed = error.errno == errno.EPIPE
    try:
        if not closed:
            os.write(2, f"error: cannot write to standard output: {error.strerror}\n".encode())
    except OSError:  # stderr is full, too
        os.dup2(nowhere, 2)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return EXIT_CLOSED if closed else EXIT_UNWRITABLE
