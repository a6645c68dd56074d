"""What looks wrong with an input that can be read: depth in another unit, grey values of another range."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.errors import DatasetError, InputError
from semkey.images.reading import PNG_SIGNATURE, read_stored
from semkey.images.tones import Tone, tone_of

# Frames that are looked at, spread over the sequence.
_DEPTH_FRAMES = 3
_TONE_FRAMES = 9
# Depth cameras see from 0.25 m on, and a room does not end at 1 m. On five recordings the nearest per cent ends at 0.65
# to 2.1 m, the median is 1.4 to 3.3 m, and 99 % are nearer than 3.4 to 4.3 m; each of them is told at a fifth of that.
_NEAREST_M = 0.2
_MEDIAN_M = (0.45, 30.0)
_FARTHEST_M = 1.0
_PNG_DEPTH_AT = 24
_EIGHT_BIT_SUFFIXES = frozenset({".jpg", ".jpeg", ".webp", ".bmp"})


def implausible_depth(frames: Sequence[Path], read: Callable[[Path], NDArray[np.float32]], name: str) -> str | None:
    """What is strange about the depth of a sequence, in a sentence; None where nothing is.

    Args:
        frames: depth files, in order.
        read: makes metres of one, 0 where unknown.
        name: of the sequence.
    """
    seen = []
    for path in _spread(frames, _DEPTH_FRAMES):
        try:
            depth = read(path)
        except (DatasetError, InputError, OSError):
            continue
        seen.append(depth[depth > 0])
    known = np.concatenate(seen) if seen else np.zeros(0)
    if not len(known):
        return None
    nearest, median, farthest = np.percentile(known, (1.0, 50.0, 99.0)).tolist()
    if _MEDIAN_M[0] <= median <= _MEDIAN_M[1] and nearest >= _NEAREST_M and farthest >= _FARTHEST_M:
        return None
    seen = f"depth is {nearest:.2g} to {farthest:.2g} m, its median {median:.2g} m"
    advice = "is it stored in other units per metre (--depth-scale 1000 for millimetres)?"
    return f"{name}: {seen}: {advice}"


def find_tone(images: Sequence[Path]) -> Tone:
    """Which values of 16-bit images become black and white, the same for the whole sequence; whole for 8 bits."""
    if not any(_may_be_deep(path) for path in _spread(images, _TONE_FRAMES)):
        return Tone()
    return tone_of(_deep(_spread(images, _TONE_FRAMES)))


def _deep(paths: Sequence[Path]) -> list[NDArray[np.uint16]]:
    """The pictures among these that can be read and have 16 bits."""
    found = []
    for path in paths:
        try:
            stored = read_stored(path)
        except InputError:
            continue
        if stored.dtype == np.uint16:
            found.append(stored)
    return found


def _may_be_deep(path: Path) -> bool:
    """Whether an image may have 16 bits, without decoding it."""
    try:
        with path.open("rb") as file:
            header = file.read(_PNG_DEPTH_AT + 1)
    except OSError:
        return False
    if header.startswith(PNG_SIGNATURE):
        return len(header) > _PNG_DEPTH_AT and header[_PNG_DEPTH_AT] == 16
    return path.suffix.lower() not in _EIGHT_BIT_SUFFIXES


def _spread(paths: Sequence[Path], most: int) -> list[Path]:
    chosen = np.unique(np.linspace(0, len(paths) - 1, most).round().astype(int))
    return [paths[index] for index in chosen.tolist()]
