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
