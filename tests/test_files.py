"""Writing: the old file or the whole new one; through links, devices and pipes."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from semkey.errors import InputError
from semkey.files import atomic_write_bytes, atomic_write_text, check_output_file


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


def test_a_link_is_followed_and_stays_a_link(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    (disk / "old.json").write_text("old")
    link, dangling = tmp_path / "link.json", tmp_path / "new.json"
    link.symlink_to(Path("disk") / "old.json")
    dangling.symlink_to(disk / "fresh.json")
    atomic_write_text(link, "new")
    atomic_write_text(dangling, "fresh")
    assert link.is_symlink()
    assert dangling.is_symlink()
    assert {file.name: file.read_text() for file in disk.iterdir()} == {"old.json": "new", "fresh.json": "fresh"}


def test_links_in_a_circle_are_told(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(InputError, match=r"cannot write \S+a: "):
        atomic_write_text(tmp_path / "a", "x")
    assert (tmp_path / "a").is_symlink()


def test_mode_and_owner_of_a_file_are_kept(tmp_path: Path) -> None:
    target = tmp_path / "secret.json"
    target.write_text("old")
    target.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(target, 1234, 2345)
    before = target.stat()
    atomic_write_text(target, "new")
    after = target.stat()
    assert target.read_text() == "new"
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)


def test_a_named_pipe_is_written_through(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    received: list[bytes] = []
    reader = threading.Thread(target=lambda: received.append(pipe.read_bytes()))
    reader.start()
    atomic_write_bytes(pipe, b"through")
    reader.join(timeout=10)
    assert received == [b"through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_device_is_never_replaced(tmp_path: Path) -> None:
    """Under a name of its own, so that a fault here does not take /dev/null away from the machine."""
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        device.symlink_to("/dev/null")
    atomic_write_bytes(device, b"gone")
    assert stat.S_ISCHR(device.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["null"]


def test_a_socket_is_told(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        with pytest.raises(InputError, match="it is a socket"):
            atomic_write_bytes(tmp_path / "s", b"x")
        assert stat.S_ISSOCK((tmp_path / "s").stat().st_mode)


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_own_descriptors_are_written_where_they_are(tmp_path: Path, name: str) -> None:
    """A shell has redirected stdout to a file: what was printed before and comes after stays in it."""
    if name == "link":
        (tmp_path / "link").symlink_to("/dev/stdout")
        name = str(tmp_path / "link")
    code = f"""
from semkey.files import atomic_write_text
print("before")
atomic_write_text({name!r}, "json\\n")
print("after")
"""
    with (tmp_path / "out.txt").open("wb") as redirected:
        subprocess.run([sys.executable, "-c", code], stdout=redirected, check=True)
    assert (tmp_path / "out.txt").read_text() == "before\njson\nafter\n"


def test_a_file_that_cannot_be_replaced_is_written_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a single file that is mounted into a container."""

    def busy(self: Path, target: Path) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    target = tmp_path / "mounted.json"
    target.write_text("a longer text that was there")
    number = target.stat().st_ino
    monkeypatch.setattr(Path, "replace", busy)
    atomic_write_text(target, "new")
    assert (target.read_text(), target.stat().st_ino) == ("new", number)
    assert [path.name for path in tmp_path.iterdir()] == ["mounted.json"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write every file")
def test_a_read_only_file_is_told(tmp_path: Path) -> None:
    target = tmp_path / "kept.json"
    target.write_text("old")
    target.chmod(0o444)
    with pytest.raises(InputError, match="read-only"):
        check_output_file(target)
    with pytest.raises(InputError, match="read-only"):
        atomic_write_text(target, "new")
    assert target.read_text() == "old"
