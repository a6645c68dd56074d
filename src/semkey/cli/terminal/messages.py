"""What the command line says besides results: notes, warnings and, with ``-v``, what the library logs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

NOTES = "semkey.notes"
"""Logger of what was taken for granted about an input, which is shown always."""
_LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@dataclass
class _State:
    """Of this process's command: how much it says, and what it has said."""

    quiet: bool = False
    said: set[str] = field(default_factory=set)


_state = _State()


@dataclass(frozen=True, kw_only=True)
class Verbosity:
    """How much is said.

    Attributes:
        quiet: results and errors only.
        verbose: all that the library logs.
        log: a file that all of it is appended to; None for none.
    """

    quiet: bool = False
    verbose: bool = False
    log: str | None = None


def take_verbosity(typed: Sequence[str]) -> tuple[Verbosity, list[str]]:
    """``-q``, ``-v`` and ``--log FILE`` may stand anywhere; also the arguments without them.

    Raises:
        ConfigError: ``--log`` without a file, or both ``-q`` and ``-v``.
    """
    from semkey.errors import ConfigError

    quiet = verbose = False
    log: str | None = None
    rest: list[str] = []
    waiting = iter(typed)
    for argument in waiting:
        if argument == "--":
            rest += [argument, *waiting]
        elif argument in ("-q", "--quiet"):
            quiet = True
        elif argument in ("-v", "--verbose"):
            verbose = True
        elif argument == "--log" or argument.startswith("--log="):
            log = argument.partition("=")[2] or next(waiting, None)
            if not log:
                raise ConfigError("--log needs the name of a file")
        else:
            rest.append(argument)
    if quiet and verbose:
        raise ConfigError("-q and -v exclude each other")
    return Verbosity(quiet=quiet, verbose=verbose, log=log), rest


def is_quiet() -> bool:
    """Whether only results and errors are wanted."""
    return _state.quiet


def say_warning(text: str) -> None:
    """``warning: ...`` on stderr, once; nothing with ``-q``."""
    if not _state.quiet and text not in _state.said:
        _state.said.add(text)
        print(f"warning: {text}", file=sys.stderr)


@contextmanager
def messages(verbosity: Verbosity, command: Sequence[str]) -> Generator[None]:
    """Show what the library logs, and write it to a file.

    Args:
        verbosity: how much.
        command: as typed, for the file.

    Raises:
        InputError: the file cannot be written.
    """
    logger = logging.getLogger("semkey")
    handlers: list[logging.Handler] = [_Terminal(verbosity)]
    if verbosity.log is not None:
        handlers.append(_open_log(verbosity.log, command))
    before, _state.quiet = (logger.level, logger.propagate), verbosity.quiet
    _state.said = set()
    logger.setLevel(logging.DEBUG if verbosity.log is not None else logging.INFO)
    for handler in handlers:
        logger.addHandler(handler)
    try:
        yield
    finally:
        for handler in handlers:
            logger.removeHandler(handler)
            handler.close()
        logger.setLevel(before[0])
        logger.propagate = before[1]
        _state.quiet = False


class _Terminal(logging.Handler):
    """``note: ...``, ``warning: ...`` and, where asked for, the rest, on what stderr is now (a bar may stand there)."""

    def __init__(self, verbosity: Verbosity) -> None:
        super().__init__(logging.INFO)
        self._verbosity = verbosity

    def emit(self, record: logging.LogRecord) -> None:
        """Show a record."""
        if self._verbosity.quiet and record.levelno < logging.ERROR:
            return
        text = " ".join(record.getMessage().splitlines())
        if record.levelno >= logging.ERROR:
            print(f"error: {text}", file=sys.stderr)
        elif record.levelno >= logging.WARNING:
            say_warning(text)
        elif record.name == NOTES:
            print(f"note: {text}", file=sys.stderr)
        elif self._verbosity.verbose:
            print(f"{record.name.removeprefix('semkey.')}: {text}", file=sys.stderr)


def _open_log(path: str, command: Sequence[str]) -> logging.Handler:
    from semkey import __version__
    from semkey.errors import InputError

    try:
        handler = logging.FileHandler(path, encoding="utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror or error}") from None
    handler.setFormatter(logging.Formatter(_LOG_FORMAT))
    start = logging.LogRecord("semkey", logging.INFO, "", 0, f"semkey {__version__}: {' '.join(command)}", None, None)
    handler.handle(start)
    return handler
