"""Temporary files of dead processes are removed; those of living ones, young ones and other files stay."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from semkey import temporaries
from semkey.files import atomic_write_bytes
from semkey.rendering import RoomConfig, write_room
from semkey.temporaries import remove_stale, temporary_beside


def aged(path: Path, seconds: float = 7200.0) -> Path:
    stamp = time.time() - seconds
    os.utime(path, (stamp, stamp))
    return path


@pytest.fixture
def dead() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_dead_processes_left_is_removed_and_nothing_else(tmp_path: Path, dead: int) -> None:
    stale, folder = tmp_path / f".map.{dead}-0123456789ab.tmp", tmp_path / f".room.{dead}-ba9876543210.tmp"
    stale.write_bytes(b"half")
    (folder / "rgb").mkdir(parents=True)
    (folder / "rgb" / "0.png").write_bytes(b"x")
    kept = [
        aged(tmp_path / name)
        for name in (f".map.{os.getpid()}-0123456789ab.tmp", ".map.1-0123456789ab.tmp", "map", ".map.tmp", ".x.9-1.tmp")
        if (tmp_path / name).write_bytes(b"x") is not None
    ]
    young = tmp_path / f".map.{dead}-ffffffffffff.tmp"
    young.write_bytes(b"of another machine, perhaps")
    aged(stale)
    aged(folder)
    assert sorted(remove_stale(tmp_path)) == sorted([stale, folder])
    assert sorted(tmp_path.iterdir()) == sorted([*kept, young])
    assert remove_stale(tmp_path / "nowhere") == []


def test_a_link_is_removed_and_not_followed(tmp_path: Path, dead: int) -> None:
    (tmp_path / "precious").mkdir()
    link = tmp_path / f".room.{dead}-0123456789ab.tmp"
    link.symlink_to(tmp_path / "precious")
    os.utime(link, (0, 0), follow_symlinks=False)
    assert remove_stale(tmp_path) == [link]
    assert (tmp_path / "precious").is_dir()


def test_writing_cleans_up_once(tmp_path: Path, dead: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(temporaries, "_looked_into", set())
    for write in (
        lambda: atomic_write_bytes(tmp_path / "a", b"x"),
        lambda: write_room(tmp_path / "room", RoomConfig(frames=1, width=32, height=24)),
    ):
        temporaries._looked_into.clear()
        aged_path = tmp_path / f".room.{dead}-0123456789ab.tmp"
        aged_path.write_bytes(b"")
        aged(aged_path)
        write()
        assert not aged_path.exists()
    assert temporary_beside(tmp_path / "b").name.startswith(f".b.{os.getpid()}-")
