"""Pair sets as the options of ``semkey eval`` ask for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from semkey.evaluation.data.pairs import PairSet

_PLANAR_FILES = ("H_1_*", "H1to*p", "*_H_A_to_B.txt")
_SEQUENCE_FILES = ("rgb.txt", "groundtruth.txt", "frame-*.pose.txt", "*.gt.freiburg")


def posed_sets(
    data: Sequence[Path],
    images: Path | None,
    *,
    gaps: Sequence[int],
    stride: int,
    min_overlap: float,
    resize: str | None,
    camera: str | None = None,
    use_depth: bool | None = None,
    angles: Sequence[float] = (),
    max_pairs: int = 1,
) -> list[PairSet]:
    """Sets of sequences and posed photos (folders) and pair lists (files).

    Raises:
        ConfigError: a pair list without ``--images``.
    """
    from semkey.datasets import parse_camera
    from semkey.errors import ConfigError
    from semkey.evaluation.data.image_sources import parse_resize
    from semkey.evaluation.data.pair_lists import pair_list_sets
    from semkey.evaluation.data.posed import posed_sequence_sets
    from semkey.evaluation.data.transforms_json import FILE_NAME, transforms_sets

    sets: list[PairSet] = []
    for path in data:
        if path.name == FILE_NAME or (path / FILE_NAME).is_file():
            found = transforms_sets(path, angles=angles, min_overlap=min_overlap, max_pairs=max_pairs)
            sets += resized(found, resize)
            continue
        if not path.is_file():
            found = posed_sequence_sets(
                path,
                gaps=gaps,
                stride=stride,
                min_overlap=min_overlap,
                camera=None if camera is None else parse_camera(camera),
                use_depth=use_depth,
            )
            sets += resized(found, resize)
            continue
        if images is None:
            raise ConfigError(f"{path} is a pair list: say with --images where its images lie")
        sets += pair_list_sets(path, images, resize=None if resize is None else parse_resize(resize))
    return unique_names(sets)


def unique_names(sets: Sequence[PairSet]) -> list[PairSet]:
    """The sets, with a number behind the name where several have the same."""
    seen: dict[str, int] = {}
    named = []
    for pair_set in sets:
        seen[pair_set.name] = seen.get(pair_set.name, 0) + 1
        number = seen[pair_set.name]
        named.append(pair_set if number == 1 else replace(pair_set, name=f"{pair_set.name} ({number})"))
    return named


def joined(sets: list[PairSet], together: bool) -> list[PairSet]:
    """The sets, or with ``together`` one that holds all of them."""
    from semkey.evaluation.data import pairs

    return [pairs.join_sets(sets)] if together else sets


def resized(sets: Sequence[PairSet], resize: str | None) -> list[PairSet]:
    """The sets with their images resized as ``--resize`` says."""
    from semkey.evaluation.data.image_sources import parse_resize, resized_set

    if resize is None:
        return list(sets)
    return [resized_set(pair_set, parse_resize(resize)) for pair_set in sets]


def folder_layout(path: Path) -> Literal["planar", "sequence", "photos"]:
    """What kind of pairs a folder gives, by the files that tell."""
    if any(next(path.glob(pattern), None) is not None for pattern in _SEQUENCE_FILES):
        return "sequence"
    below = (*_PLANAR_FILES, *(f"*/{pattern}" for pattern in _PLANAR_FILES), "*/*/H_1_*")
    if any(next(path.glob(pattern), None) is not None for pattern in below):
        return "planar"
    return "photos"
