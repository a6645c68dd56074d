"""Which image of a left camera belongs to which of a right one, by their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from semkey.datasets.clocks import Clock, find_clock
from semkey.datasets.sequence import SequenceFault
from semkey.errors import DatasetError
from semkey.geometry.trajectories import associate_by_time

# Two cameras that are triggered together stamp their images within this; EuRoC's do within microseconds.
_MAX_DIFFERENCE_S = 0.005
# A word that tells the sides apart, between other characters than letters: img_left_07, 000007_R, cam1-07.
_SIDE = re.compile(r"(?<![a-z])(?:left|right|l|r|cam_?[01]|image_?[0-3])(?![a-z])")
_STAMP_DIGITS = 9
_STAMP = re.compile(r"\d+(?:\.\d+)?")


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Pairs of images, in order.

    Attributes:
        lefts: of the left camera.
        rights: of the right camera, one for each.
        seconds: of each pair from the first one, where names are stamps; else None.
        faults: images that have no partner.
    """

    lefts: list[Path]
    rights: list[Path]
    seconds: list[float] | None = None
    faults: list[SequenceFault] = field(default_factory=list)


def pair_images(folder: Path, lefts: Sequence[Path], rights: Sequence[Path]) -> Pairing:
    """Pair images by their names: equal ones, else equal but for the side, else equal last numbers, else stamps.

    Args:
        folder: of both, for messages.
        lefts: images of the left camera, in order.
        rights: images of the right camera.

    Raises:
        DatasetError: no image has a partner.
    """
    stamped = _pair_stamps(folder, lefts, rights)
    if stamped is not None:
        return stamped
    for key in (_stem, _without_side, _last_number):
        found = _pair_by(key, lefts, rights)
        if found:
            left_files, right_files = [left for left, _ in found], [right for _, right in found]
            faults = _unpaired(folder, lefts, rights, len(found))
            return Pairing(lefts=left_files, rights=right_files, faults=faults)
    if not rights:
        raise DatasetError(f"{folder / 'right'}: no images in this folder")
    raise DatasetError(
        f"{folder}: no image in left has one in right of the same name, number or time (within "
        f"{_MAX_DIFFERENCE_S * 1000:g} ms): {lefts[0].name}, {rights[0].name}; rename one side"
    )


def _pair_by(key: Callable[[Path], str | None], lefts: Sequence[Path], rights: Sequence[Path]) -> list:
    """Pairs of equal keys; none where a side has a key twice, since then it does not tell images apart."""
    keyed: list[dict[str, Path]] = []
    for side in (lefts, rights):
        keys = [key(path) for path in side]
        known = [name for name in keys if name is not None]
        if len(set(known)) < len(side):
            return []
        keyed.append({name: path for name, path in zip(keys, side, strict=True) if name is not None})
    left_by, right_by = keyed
    return [(path, right_by[name]) for name, path in left_by.items() if name in right_by]


def _stem(path: Path) -> str | None:
    return path.stem.lower()


def _without_side(path: Path) -> str | None:
    return _SIDE.sub("*", path.stem.lower())


def _last_number(path: Path) -> str | None:
    numbers = re.findall(r"\d+", path.stem)
    return str(int(numbers[-1])) if numbers else None


def _pair_stamps(folder: Path, lefts: Sequence[Path], rights: Sequence[Path]) -> Pairing | None:
    """Pairs nearest in time, where all names are stamps; None where they are something else."""
    texts = [[path.stem for path in side] for side in (lefts, rights)]
    if not all(side and all(_is_stamp(text) for text in side) for side in texts):
        return None
    try:
        clocks = [find_clock([float(text) for text in side], folder) for side in texts]
    except DatasetError:
        return None
    seconds = [_seconds(clock, side) for clock, side in zip(clocks, texts, strict=True)]
    orders = [sorted(range(len(side)), key=side.__getitem__) for side in seconds]
    sorted_seconds = [[side[k] for k in order] for side, order in zip(seconds, orders, strict=True)]
    pairs = associate_by_time(*sorted_seconds, max_difference_s=_MAX_DIFFERENCE_S).tolist()
    if not pairs:
        return None
    start = sorted_seconds[0][pairs[0][0]]
    return Pairing(
        lefts=[lefts[orders[0][i]] for i, _ in pairs],
        rights=[rights[orders[1][j]] for _, j in pairs],
        seconds=[sorted_seconds[0][i] - start for i, _ in pairs],
        faults=_unpaired(folder, lefts, rights, len(pairs)),
    )


def _is_stamp(text: str) -> bool:
    """Whether a name is a time: a number with decimals, or more digits than anybody counts frames with."""
    counts = text.startswith("0") or len(text) <= _STAMP_DIGITS  # KITTI's raw recordings have 0000000007
    return _STAMP.fullmatch(text) is not None and ("." in text or not counts)


def _seconds(clock: Clock, texts: Sequence[str]) -> list[float]:
    return [clock.seconds(text) for text in texts]


def _unpaired(folder: Path, lefts: Sequence[Path], rights: Sequence[Path], pairs: int) -> list[SequenceFault]:
    message = ", ".join(
        f"{len(side) - pairs} of {len(side)} images in {name}"
        for name, side in (("left", lefts), ("right", rights))
        if len(side) > pairs
    )
    fault = SequenceFault(kind="unpaired", message=f"{folder}: {message} have no partner and are left out")
    return [fault] if message else []
