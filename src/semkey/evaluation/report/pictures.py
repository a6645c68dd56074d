"""Pictures that belong to an evaluation, kept beside its results so that the report can be made again."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from semkey.errors import InputError
from semkey.files import atomic_write_bytes, atomic_write_text
from semkey.images.reading import PNG_SIGNATURE

PICTURES_FOLDER = "pictures"
INDEX_FILE = "index.json"


@dataclass(frozen=True, kw_only=True)
class ReportPicture:
    """A picture of the report.

    Attributes:
        section: heading of the part it belongs to.
        caption: what it shows, in words.
        data: bytes of a PNG or JPEG file.
    """

    section: str
    caption: str
    data: bytes = field(repr=False)


def write_pictures(out: str | Path, pictures: Sequence[ReportPicture]) -> None:
    """Write pictures and their captions into ``OUT/pictures``; those of an earlier run are removed.

    Raises:
        InputError: the folder cannot be written to.
    """
    folder = Path(out) / PICTURES_FOLDER
    entries = []
    for number, picture in enumerate(pictures):
        suffix = ".png" if picture.data.startswith(PNG_SIGNATURE) else ".jpg"
        name = f"{number:02d}{suffix}"
        atomic_write_bytes(folder / name, picture.data)
        entries.append({"file": name, "section": picture.section, "caption": picture.caption})
    atomic_write_text(folder / INDEX_FILE, json.dumps(entries, indent=1) + "\n")
    kept = {entry["file"] for entry in entries}
    for old in [*folder.glob("[0-9][0-9].png"), *folder.glob("[0-9][0-9].jpg")]:
        if old.name not in kept:
            old.unlink(missing_ok=True)


def read_pictures(out: str | Path) -> list[ReportPicture]:
    """Read what :func:`write_pictures` wrote; none where there is no such folder.

    Raises:
        InputError: the index is damaged, or a file is missing.
    """
    folder = Path(out) / PICTURES_FOLDER
    index = folder / INDEX_FILE
    if not index.is_file():
        return []
    try:
        entries = json.loads(index.read_text(encoding="utf-8"))
        return [
            ReportPicture(
                section=str(entry["section"]),
                caption=str(entry["caption"]),
                data=(folder / Path(entry["file"]).name).read_bytes(),
            )
            for entry in entries
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{index}: cannot be used ({error}); delete {folder} to do without pictures") from None
