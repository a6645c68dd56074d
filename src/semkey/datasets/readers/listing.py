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
        DatasetError: with ``strict``, a timestamp is given twice; or time jumps back for good and rows of before and
            after would be mixed by sorting.
    """
    _refuse_mixed_clocks([(stamp, line) for stamp, line, _ in rows], path)
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


def _refuse_mixed_clocks(rows: Sequence[tuple[float, int]], path: Path) -> None:
    """Tell a clock that jumped back from rows in another order, as by name, and from single ones that come late.

    The list consists of a few long pieces in order of time, as two recordings of a clock that was set back in between,
    and frames of one would come to lie between those of another. Pieces that follow each other in time are none of
    this, whatever their order in the file.

    Raises:
        DatasetError: it has jumped back.
    """
    starts = [index for index in range(1, len(rows)) if rows[index][0] < rows[index - 1][0]]
    if not starts or len(starts) > _MOST_LEFT_OUT * len(rows):
        return
    piece = np.zeros(len(rows), np.int64)
    piece[starts] = 1
    piece = np.cumsum(piece)
    order = np.argsort([stamp for stamp, _ in rows], kind="stable")
    changes = int(np.count_nonzero(np.diff(piece[order])))
    # A late row, and a piece that lies elsewhere, make two changes each, a piece of names by their digits (1, 10, 100)
    # twice as many; clocks that overlap by three frames more.
    if changes <= 4 * len(starts) + 1:
        return
    longest = max(starts, key=lambda start: rows[start - 1][0] - rows[start][0])
    back = rows[longest - 1][0] - rows[longest][0]
    raise DatasetError(
        f"{path}:{rows[longest][1]}: time jumps back by {back:.6g} s, and frames of before and after would be mixed; "
        "give the parts before and after as sequences of their own, or sort the list where it is one recording"
    )


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
