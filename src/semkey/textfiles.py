"""Rows of the small text files that data sets are described by, with errors that name the file and the line."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

from semkey.errors import DatasetError


def numbered_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a text file as ``(line number from 1, columns)``; empty lines and ``#`` comments are skipped.

    Columns are separated by white space or commas, as the tools of the TUM RGB-D benchmark accept them.

    Raises:
        DatasetError: the file is missing, cannot be read or is not text.
    """
    try:
        # utf-8-sig: a byte-order mark written by Windows editors is no part of the first number.
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DatasetError(f"{path}: file is missing") from None
    except UnicodeDecodeError:
        raise DatasetError(f"{path}: is not a text file") from None
    except OSError as error:
        raise DatasetError(f"{path}: cannot be read ({error.strerror})") from None
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
        raise DatasetError(f"{path}:{line}: '{text}' is not a number") from None
    if not math.isfinite(value):
        raise DatasetError(f"{path}:{line}: '{text}' is not a finite number")
    return value
