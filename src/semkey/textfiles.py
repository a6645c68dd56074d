"""Rows of the small text files that data sets are described by, with errors that name the file and the line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from semkey.errors import DatasetError
from semkey.untrusted import MEGABYTE, one_line, read_text

_LIMIT = 128 * MEGABYTE  # two million rows of a trajectory


def numbered_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a text file as ``(line number from 1, columns)``; empty lines and ``#`` comments are skipped.

    Columns are separated by white space or commas, as the tools of the TUM RGB-D benchmark accept them.

    Raises:
        DatasetError: the file is missing, cannot be read, is not text, or has more than 128 MB.
    """
    if not path.exists():
        raise DatasetError(f"{path}: file is missing")
    text = read_text(path, limit=_LIMIT, error=DatasetError)
    for number, line in enumerate(text.splitlines(), start=1):
        columns = line.replace(",", " ").split()
        if columns and not columns[0].startswith("#"):
            yield number, columns


def finite_number(text: str, path: Path, line: int) -> float:
    """The finite number that ``text`` spells; ``path`` and ``line`` are for the message.

    Raises:
        DatasetError: ``text`` is no number, or it is NaN or infinite.
    """
    try:
        value = float(text)
    except ValueError:
        raise DatasetError(f"{path}:{line}: '{one_line(text)}' is not a number") from None
    if not math.isfinite(value):
        raise DatasetError(f"{path}:{line}: '{one_line(text)}' is not a finite number")
    return value
