"""A question to another process: JSON goes in, and JSON comes out as its last line.

The process ends when the one that asked does. What its libraries print does not belong to the answer.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from semkey.errors import SemkeyError

_STOPPED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PARENT_SECONDS = 0.5
_FAILURE = "failure"


class NoAnswerError(SemkeyError):
    """The process failed, or took too long; the message holds its last line."""


def ask(program: str, request: Mapping[str, Any], *, timeout: float | None = None) -> Any:
    """What a new Python process answers.

    Args:
        program: what it runs; it calls :func:`answer`.
        request: values that JSON can hold.
        timeout: seconds, None for no limit.

    Raises:
        NoAnswerError: it failed, or took longer.
        KeyboardInterrupt: somebody asked the process to end: that says nothing about the question.
    """
    # The child finds modules where this process does, a user's own extractors among them.
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(entry or os.getcwd() for entry in sys.path)}
    try:
        child = subprocess.run(
            [sys.executable, "-c", program, str(os.getpid())],
            input=json.dumps(dict(request)),
            capture_output=True,
            text=True,
            env=environment,
            timeout=timeout,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoAnswerError(f"no answer after {timeout} s") from None
    if -child.returncode in _STOPPED:
        raise KeyboardInterrupt
    lines = child.stdout.strip().splitlines()
    if child.returncode != 0 or not lines:
        raise NoAnswerError((child.stderr.strip().splitlines() or [f"its process ended with {child.returncode}"])[-1])
    reply = json.loads(lines[-1])
    if isinstance(reply, dict) and _FAILURE in reply:
        raise NoAnswerError(reply[_FAILURE])
    return reply


def answer(function: Callable[[dict[str, Any]], Any]) -> None:
    """In the process: read the request, and write what the function makes of it."""
    threading.Thread(target=_end_with, args=(int(sys.argv[1]),), daemon=True).start()
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        reply = function(json.load(sys.stdin))
    except (SemkeyError, MemoryError) as error:
        reply = {_FAILURE: " ".join(str(error).split()) or type(error).__name__}
    answers.write("\n" + json.dumps(reply, allow_nan=False) + "\n")
    answers.close()


def _end_with(parent: int) -> None:
    """End this process once its parent is gone: nobody would read the answer."""
    while os.getppid() == parent:
        time.sleep(_PARENT_SECONDS)
    os._exit(1)
