"""The one exception tree of semkey: everything a caller can act on derives from :class:`SemkeyError`.

The command line prints ``str(error)`` on one line and exits with code 2, so every message names the file or argument
at fault and what to do about it.
"""

from __future__ import annotations


class SemkeyError(Exception):
    """Base of every error semkey raises on purpose; the message is one line, written for the user."""


class InputError(SemkeyError):
    """An image, array or option cannot be used (missing, truncated, wrong type, NaN, ...)."""


class DatasetError(SemkeyError):
    """A sequence or dataset folder is broken; the message names the file and, where it applies, the line."""


class CheckpointError(SemkeyError):
    """A checkpoint is missing, has another SHA-256 than expected, or holds foreign keys."""


class ConfigError(SemkeyError):
    """A configuration holds an unknown key or a value out of range."""


def check_type(value: object, kinds: type | tuple[type, ...], what: str, remedy: str) -> None:
    """Refuse an argument that is something else altogether, before it fails somewhere inside.

    Args:
        value: as given.
        kinds: what it may be.
        what: the argument in words: ``the matches``.
        remedy: what to pass instead.

    Raises:
        InputError: it is none of these.
    """
    if not isinstance(value, kinds):
        raise InputError(f"{what}: cannot use {type(value).__name__}, {remedy}")
