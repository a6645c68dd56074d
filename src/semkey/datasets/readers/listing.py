"""Checking what a data set lists: files that are there, rows in order of time, gaps; and saying what was found."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.sequence import SequenceFault
from semkey.errors import DatasetError, InputError
from semkey.images.orientation import UPRIGHT
from semkey.images.reading import read_image

logger = logging.getLogger(__name__)
notes_logger = logging.getLogger("semkey.notes")

T = TypeVar("T")

# A step in time is a gap if it is this many times the usual one and longer than a camera that merely dropped frames.
_GAP_FACTOR = 10.0
_MIN_GAP_S = 1.0
# Single frames that come late are left out; with more than this share the clock has jumped back.
_MOST_LEFT_OUT = 0.1


def require_file(path: Path, listed_in: str = "") -> None:
    """Check that ``path`` is a file with something in it; ``listed_in`` (``file:line``) says where it is asked for.

    Raises:
        DatasetError: it is missing, a folder or empty.
    """
    origin = f" (listed in {listed_in})" if listed_in else ""
    if not path.is_file():
        raise DatasetError(f"{path}: file is missing{origin}")
    if path.stat().st_size == 0:
        raise DatasetError(f"{path}: file is empty (0 bytes){origin}")


def image_size(paths: Iterable[Path]) -> tuple[int, int]:
    """(width, height), as stored, of the first of these image files that can be read.

    Raises:
        DatasetError: there is none, and the first one is missing or empty.
        InputError: there is none, and the first one is not an image.
    """
    first: DatasetError | InputError | None = None
    for path in paths:
        try:
            require_file(path)
            height, width = read_image(path, orientation=UPRIGHT).shape[:2]
        except (DatasetError, InputError) as error:
            first = first or error
        else:
            return width, height
    raise first or DatasetError("no images are listed")


def rows_by_time(
    rows: Sequence[tuple[float, int, T]], path: Path, *, strict: bool
) -> tuple[list[tuple[float, T]], list[SequenceFault]]:
    """Rows ``(seconds, line, value)`` of the list ``path`` as ``(seconds, value)`` in strict order of time.

    Rows out of order are sorted; of rows with one timestamp the first is kept. Both are reported as faults.

    Raises:
        DatasetError: with ``strict``, a timestamp is given twice.
    """
    faults: list[SequenceFault] = []
    first: dict[float, tuple[int, T]] = {}
    for stamp, line, value in rows:
        if stamp in first:
            message = f"{path}:{line}: timestamp {stamp!r} was already given in line {first[stamp][0]}"
            if strict:
                raise DatasetError(message)
            faults.append(SequenceFault(kind="duplicate", message=f"{message}; left out"))
        else:
            first[stamp] = (line, value)
    backwards = next((line for (before, _, _), (after, line, _) in pairwise(rows) if after < before), None)
    if backwards is not None:
        message = f"{path}:{backwards}: rows are not in order of time; sorted"
        faults.append(SequenceFault(kind="out-of-order", message=message))
    return [(stamp, first[stamp][1]) for stamp in sorted(first)], faults


def rising_frames(timestamps: Sequence[float], path: Path, *, strict: bool) -> tuple[list[int], list[SequenceFault]]:
    """Which frames to keep where the order of frames is that of their files and ``timestamps`` should increase.

    A frame whose time is not after that of all frames before it is left out and reported.

    Raises:
        DatasetError: with ``strict``, time does not increase; or it jumped back for good: more than a tenth of the
            frames would be left out.
    """
    kept: list[int] = []
    faults: list[SequenceFault] = []
    for index, stamp in enumerate(timestamps):
        if kept and stamp <= timestamps[kept[-1]]:
            message = f"{path}: time does not increase at frame {index} ({timestamps[kept[-1]]} s, then {stamp} s)"
            if strict:
                raise DatasetError(message)
            same = stamp == timestamps[kept[-1]]
            faults.append(SequenceFault(kind="duplicate" if same else "out-of-order", message=f"{message}; left out"))
        else:
            kept.append(index)
    late = [fault for fault in faults if fault.kind == "out-of-order"]
    if len(late) > max(1, _MOST_LEFT_OUT * len(timestamps)):
        found = late[0].message.removesuffix("; left out")
        raise DatasetError(f"{found}: {jumped_back(len(late), len(timestamps))}")
    return kept, faults


def jumped_back(count: int, frames: int) -> str:
    """What to say of a clock that jumped back and left ``count`` of ``frames`` behind."""
    return f"{count} of {frames} frames would be left out; give the parts before and after as sequences of their own"


def time_gaps(name: str, timestamps: NDArray[np.float64]) -> list[SequenceFault]:
    """A fault for each step in time of more than a second and ten times the median step."""
    steps = np.diff(timestamps)
    if len(steps) < 2:
        return []
    limit = max(_MIN_GAP_S, _GAP_FACTOR * float(np.median(steps)))
    return [
        SequenceFault(kind="gap", message=f"{name}: time jumps by {steps[i]:.1f} s between frames {i} and {i + 1}")
        for i in np.flatnonzero(steps > limit).tolist()
    ]


def as_given(path: Path) -> Path:
    """The absolute path by which the user names a folder: that of a link, not of what it leads to."""
    return Path(os.path.abspath(path))


def log_notes(notes: Iterable[str]) -> None:
    """Say what was taken for granted; the command line shows this kind of message always."""
    for note in notes:
        notes_logger.info("%s", note)


def log_faults(faults: Sequence[SequenceFault]) -> None:
    """One line for each kind of fault: the first of it, and how many more there are.

    Images without a partner are no warning: cameras that drop frames leave some in most recordings.
    """
    for kind in dict.fromkeys(fault.kind for fault in faults):
        messages = [fault.message for fault in faults if fault.kind == kind]
        more = f" (and {len(messages) - 1} more like this)" if len(messages) > 1 else ""
        level = logging.INFO if kind == "unpaired" else logging.WARNING
        logger.log(level, "%s%s", messages[0], more)
