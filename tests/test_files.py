"""Atomic writing: the old file or the whole new one."""

from __future__ import annotations

from pathlib import Path

import pytest

from semkey.errors import InputError
from semkey.files import atomic_write_bytes, atomic_write_text


def test_writing_replaces_whole_files_and_creates_folders(tmp_path: Path) -> None:
    target = tmp_path / "new" / "folder" / "a.txt"
    atomic_write_text(target, "first\n")
    atomic_write_text(target, "zweiter: ü\n")
    assert target.read_bytes() == "zweiter: ü\n".encode()
    assert [path.name for path in target.parent.iterdir()] == ["a.txt"]


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "a.bin"
    atomic_write_bytes(target, b"old")

    def full_disk(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(InputError, match=r"a\.bin: No space left"):
        atomic_write_bytes(target, b"new")
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_an_interrupted_write_leaves_no_rubbish(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        atomic_write_bytes(tmp_path / "a.bin", b"new")
    assert list(tmp_path.iterdir()) == []


def test_written_files_obey_the_umask(tmp_path: Path) -> None:
    atomic_write_bytes(tmp_path / "a", b"x")
    (tmp_path / "plain").write_bytes(b"x")
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_writing_where_it_cannot_be_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="is a folder"):
        atomic_write_bytes(tmp_path, b"x")
    with pytest.raises(InputError, match="cannot write"):
        atomic_write_bytes(tmp_path / "file" / "a", b"x")
