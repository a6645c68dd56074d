"""The command line as tests use it: what a run of it leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Exit code, stdout and stderr (of C libraries too) of a command."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]
"""Fixture ``run``: the command's arguments -> its outcome."""
