"""Calls of functions in another process, so that long ones do not stall tracking.

A thread would not do: GTSAM holds the interpreter's lock while it optimises. The process is a fresh interpreter and not
a :mod:`multiprocessing` one, since that would run the caller's main module again, which only works where it is guarded.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class BackgroundProcessError(RuntimeError):
    """The process has ended before it had answered: it was killed, or the machine ran out of memory."""


class BackgroundProcess:
    """Another Python process that calls functions for this one, in the order in which they are submitted.

    Functions must be importable by name, their arguments and results picklable. The process ends with
    :meth:`close`, and by itself when this process ends, however it does.

    Args:
        prepare: called in the process as soon as it runs, such as to import what takes long.
    """

    def __init__(self, prepare: Callable[[], object] | None = None) -> None:
        # The process must find this very package, even where the path to it was set by the program itself.
        paths = [path or str(Path.cwd()) for path in sys.path]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "semkey.slam.mapping.background"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="semkey-background")
        if prepare is not None:
            self.submit(prepare)

    def submit(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Call a function in the process.

        Arguments are copied now: changing them later has no effect. What the function raises comes out of the
        future's ``result``; :class:`BackgroundProcessError` if the process has ended.
        """
        # The thread writes, since the pipe may fill up while the process is busy.
        return self._thread.submit(self._call, pickle.dumps((function, args, kwargs), pickle.HIGHEST_PROTOCOL))

    def close(self) -> None:
        """End the process, whatever it is doing; futures that are not done get an error."""
        self._process.kill()
        self._thread.shutdown(wait=True, cancel_futures=True)
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):  # the process may not have read everything
                    stream.close()
        self._process.wait()

    def _call(self, request: bytes) -> Any:
        # Pickle only ever comes through the pipe of a process that this one has started: nothing is read from outside.
        requests, replies = self._process.stdin, self._process.stdout
        assert requests is not None
        assert replies is not None
        try:
            requests.write(request)
            requests.flush()
            succeeded, value = pickle.load(replies)
        except (OSError, EOFError, pickle.UnpicklingError) as error:
            raise BackgroundProcessError("the background process has ended unexpectedly") from error
        if succeeded:
            return value
        raise value


def serve(requests: IO[bytes], replies: IO[bytes]) -> None:
    """Answer requests until there are no more."""
    while True:
        try:
            function, args, kwargs = pickle.load(requests)
        except EOFError:
            return
        try:
            reply = pickle.dumps((True, function(*args, **kwargs)), pickle.HIGHEST_PROTOCOL)
        except Exception as error:  # whatever it is, it belongs to the caller
            reply = _failure(error)
        replies.write(reply)
        replies.flush()


def _failure(error: Exception) -> bytes:
    try:
        reply = pickle.dumps((False, error), pickle.HIGHEST_PROTOCOL)
        pickle.loads(reply)  # some exceptions can be written but not read back
    except Exception:
        return pickle.dumps((False, RuntimeError(f"{type(error).__name__}: {error}")), pickle.HIGHEST_PROTOCOL)
    return reply


def _main() -> None:
    # Ctrl-C goes to every process of the terminal; this one ends when its caller closes the pipe.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What libraries print must not end up between the replies.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    try:
        serve(sys.stdin.buffer, replies)
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    _main()
