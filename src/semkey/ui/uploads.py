"""Files that somebody dropped on the page: which kind they are, and images from them, within limits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.readers.folder import IMAGE_SUFFIXES
from semkey.datasets.readers.video import VIDEO_SUFFIXES
from semkey.errors import InputError, SemkeyError
from semkey.images.headers import header_size
from semkey.images.reading import read_image
from semkey.ui.config import PageConfig

_MEGA = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """What was dropped: one or two images, or a clip.

    Attributes:
        images: their files, in the order of dropping.
        clip: the file of a video.
    """

    images: tuple[Path, ...] = ()
    clip: Path | None = None


def sort_files(paths: Sequence[str | Path], config: PageConfig) -> Dropped:
    """What the dropped files are, by their names; nothing is read but their sizes.

    Raises:
        InputError: none, too many, of another kind, of both kinds, or too large.
    """
    files = [Path(path) for path in paths]
    if not files:
        raise InputError("drop one or two images, or a short clip, first")
    for file in files:
        if not file.is_file():
            raise InputError(f"{file.name} is not here any more: drop it again")
        if file.stat().st_size > config.max_megabytes * _MEGA:
            raise InputError(
                f"{file.name} has {file.stat().st_size / _MEGA:.0f} MB, more than the {config.max_megabytes} MB that "
                "this page takes (--max-megabytes)"
            )
    clips = [file for file in files if file.suffix.lower() in VIDEO_SUFFIXES]
    images = [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    unknown = [file for file in files if file not in clips and file not in images]
    if unknown:
        raise InputError(f"{unknown[0].name} is neither an image nor a video by its name: {_known()}")
    if len(clips) > 1 or (clips and images):
        raise InputError("one clip, or one or two images, at a time: remove the others")
    if len(images) > 2:
        raise InputError(
            f"{len(images)} images are too many for this page: one or two (semkey match-all takes folders)"
        )
    return Dropped(images=tuple(images), clip=clips[0] if clips else None)


def read_upload(path: Path, config: PageConfig) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of an image, whose size is looked at before it is decoded.

    Raises:
        InputError: no image, damaged, or larger than the page takes.
    """
    size = header_size(path)
    if size is None and path.stat().st_size:
        raise InputError(f"{path.name} does not say how large it is: save it as PNG, JPEG or WebP")
    if size is not None:
        check_pixels(path.name, size, config)
    try:
        return read_image(path)
    except InputError as error:
        raise InputError(said_of(error, path)) from None


def check_pixels(name: str, size: tuple[int, int], config: PageConfig) -> None:
    """Refuse images larger than the page takes.

    Raises:
        InputError: it is.
    """
    pixels = size[0] * size[1] / _MEGA
    if pixels > config.max_megapixels:
        raise InputError(
            f"{name} has {size[0]}x{size[1]} pixels ({pixels:.1f} megapixels), more than the "
            f"{config.max_megapixels:g} that this page takes (--max-megapixels)"
        )


def said_of(error: SemkeyError, path: Path) -> str:
    """What is wrong, with the file's name as it was dropped instead of where the page keeps it."""
    return " ".join(str(error).replace(str(path), path.name).split())


def _known() -> str:
    return f"{', '.join(sorted(IMAGE_SUFFIXES | VIDEO_SUFFIXES))}"
