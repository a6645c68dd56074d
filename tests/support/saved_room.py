"""A rendered room, and the map that semkey makes of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from semkey.cli.main import main
from semkey.rendering import RoomConfig, write_room

ROOM = RoomConfig(seed=3, frames=24, width=256, height=192, fps=8.0, blur=False, noise=False, texel_size=0.008)


@dataclass(frozen=True)
class SavedRoom:
    """Where the recording lies, and its map."""

    folder: Path
    map: Path


def make_room(folder: Path) -> SavedRoom:
    """Render the room into a folder, and track the camera through it."""
    write_room(folder / "room", ROOM)
    files = ("--out", folder / "run", "--save-map", folder / "room.semkey", "--autosave", "0")
    with pytest.raises(SystemExit) as stopped:
        main([str(one) for one in ("slam", folder / "room", *files, "--features", "orb")])
    assert stopped.value.code in (0, None)
    return SavedRoom(folder=folder / "room", map=folder / "room.semkey")
