"""Which images of a folder are matched with which: all, neighbours in order, the most alike, or a list."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.errors import ConfigError, InputError

IndexPair = tuple[int, int]
"""Indices of two images, the smaller one first."""

_ROWS_AT_ONCE = 1024


def exhaustive_pairs(count: int) -> list[IndexPair]:
    """All pairs of ``count`` images, in order."""
    return list(combinations(range(count), 2))


def sequential_pairs(count: int, reach: int) -> list[IndexPair]:
    """Each of ``count`` images with the ``reach`` that follow it.

    Raises:
        ConfigError: ``reach`` is below 1.
    """
    if reach < 1:
        raise ConfigError(f"neighbours in order are 1 or more, got {reach}")
    return [(i, j) for i in range(count) for j in range(i + 1, min(i + reach, count - 1) + 1)]


def retrieved_pairs(descriptors: NDArray[np.float32], most: int) -> list[IndexPair]:
    """Each image with the ``most`` others whose global descriptors are most like its own.

    Args:
        descriptors: (N, G) of unit norm.
        most: >= 1; an image may have more partners, whose own lists it is on.

    Raises:
        ConfigError: ``most`` is below 1, or the features have no global descriptors.
    """
    if most < 1:
        raise ConfigError(f"retrieved images are 1 or more each, got {most}")
    count, width = descriptors.shape
    if not width:
        raise ConfigError("these features have no global descriptors: use --exhaustive, --sequential or --pairs")
    chosen: set[IndexPair] = set()
    for first in range(0, count, _ROWS_AT_ONCE):
        similarity = descriptors[first : first + _ROWS_AT_ONCE] @ descriptors.T
        rows = np.arange(len(similarity))
        similarity[rows, first + rows] = -np.inf
        best = np.argsort(-similarity, axis=1, kind="stable")[:, : min(most, count - 1)]
        chosen |= {(min(first + i, int(j)), max(first + i, int(j))) for i in rows.tolist() for j in best[i]}
    return sorted(chosen)


def listed_pairs(path: Path, names: Sequence[str]) -> list[IndexPair]:
    """The pairs of a text file: two names of images in a line, as hloc and COLMAP write them; ``#`` begins a comment.

    Args:
        path: of the file.
        names: of the images.

    Raises:
        InputError: the file cannot be read, a line is no pair, or names an image that is not there; the message names
            the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text") from None
    index = {name: number for number, name in enumerate(names)}
    pairs: dict[IndexPair, None] = {}
    for number, line in enumerate(lines, start=1):
        fields = line.partition("#")[0].split()
        if not fields:
            continue
        if len(fields) != 2:
            raise InputError(f"{path}:{number}: expected two names of images, got {len(fields)} fields")
        unknown = next((name for name in fields if name not in index), None)
        if unknown is not None:
            raise InputError(f"{path}:{number}: there is no image '{unknown}' in the folder")
        i, j = sorted(index[name] for name in fields)
        if i == j:
            raise InputError(f"{path}:{number}: pairs '{fields[0]}' with itself")
        pairs[i, j] = None
    if not pairs:
        raise InputError(f"{path}: names no pairs")
    return list(pairs)
