"""Writing outputs: files atomically, through links, with mode and owner kept; devices and pipes are written through.

A reader sees the old file or the whole new one, never a part. What is no regular file (``/dev/stdout``, a named pipe, a
terminal) is never replaced by one: the bytes go through it.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import sys
from contextlib import suppress
from pathlib import Path

from semkey.errors import InputError
from semkey.temporaries import temporary_beside

# Names of a descriptor that this process has open already: opening them again would start at the beginning of the
# file that a shell has redirected, and replacing that file would leave the shell's descriptor behind.
_DESCRIPTOR = re.compile(r"/(?:dev|proc/(?:self|thread-self|(\d+)))/fd/(\d+)")
_STANDARD = {"/dev/stdout": 1, "/dev/stderr": 2}
_MOST_LINKS = 40


def atomic_write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path`` through a temporary file in the same folder; missing folders are created.

    A link is followed, and its target written. A file that was there keeps its mode, and its owner where this process
    may give files away. Devices, pipes and descriptors (``/dev/fd/N``) are written through, not atomically.

    Raises:
        InputError: the path cannot be written; a file that was there before is left as it was.
    """
    given = Path(path)
    try:
        descriptor = _own_descriptor(given)
        if descriptor is not None:
            _write_descriptor(descriptor, data)
            return
        before = _status(given)
        if before is not None and stat.S_ISDIR(before.st_mode):
            raise InputError(f"cannot write {given}: it is a folder")
        if before is not None and not stat.S_ISREG(before.st_mode):
            _write_through(given, before, data)
            return
        target = Path(os.path.realpath(given)) if given.is_symlink() else given
        if before is not None and not os.access(target, os.W_OK):
            raise InputError(f"cannot write {given}: it is read-only")
        target.parent.mkdir(parents=True, exist_ok=True)
        _replace(target, before, data)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot write {given}: {reason}") from error


def atomic_write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8, line ends as they are; otherwise as :func:`atomic_write_bytes`."""
    atomic_write_bytes(path, text.encode("utf-8"))


def check_output_file(path: str | os.PathLike[str]) -> None:
    """Tell before the work that a file cannot be written where it is asked for.

    Raises:
        InputError: the path is a folder, a read-only file, or a link that leads in a circle.
    """
    given = Path(path)
    try:
        status = _status(given)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot write {given}: {getattr(error, 'strerror', None) or error}") from None
    if status is not None and stat.S_ISDIR(status.st_mode):
        raise InputError(f"cannot write {given}: it is a folder")
    if status is not None and stat.S_ISREG(status.st_mode) and not os.access(given, os.W_OK):
        raise InputError(f"cannot write {given}: it is read-only")


def _replace(target: Path, before: os.stat_result | None, data: bytes) -> None:
    temporary = temporary_beside(target)
    try:
        # What only its owner could read must not be readable under another name meanwhile.
        mode = 0o666 if before is None else 0o600
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(data)
        if before is not None:
            _give_status(temporary, before)
        temporary.replace(target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        if error.errno != errno.EBUSY or before is None:
            raise
        # A single file that is mounted into a container can be written, but not be replaced.
        with target.open("r+b") as file:
            file.write(data)
            file.truncate()
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _status(path: Path) -> os.stat_result | None:
    """What is there behind all links; None for nothing yet.

    Raises:
        OSError: links lead in a circle, or a folder on the way is none.
    """
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _own_descriptor(path: Path) -> int | None:
    """The descriptor of this process that a name such as ``/dev/stdout`` stands for, links followed; else None."""
    for _ in range(_MOST_LINKS):
        text = os.path.abspath(path)
        if text in _STANDARD:
            return _STANDARD[text]
        found = _DESCRIPTOR.fullmatch(text)
        if found:
            return int(found[2]) if found[1] in (None, str(os.getpid())) else None
        if not path.is_symlink():
            return None
        path = path.parent / path.readlink()
    return None


def _write_descriptor(descriptor: int, data: bytes) -> None:
    for stream in (sys.stdout, sys.stderr):  # what was printed before comes before
        if stream is not None:
            stream.flush()
    with os.fdopen(os.dup(descriptor), "wb") as file:
        file.write(data)


def _write_through(path: Path, before: os.stat_result, data: bytes) -> None:
    if stat.S_ISSOCK(before.st_mode):
        raise InputError(f"cannot write {path}: it is a socket")
    # Without O_CREAT: should the pipe vanish meanwhile, no file takes its place.
    with os.fdopen(os.open(path, os.O_WRONLY), "wb") as file:
        file.write(data)


def _give_status(path: Path, before: os.stat_result) -> None:
    """Owner and mode of the file that was there before; the owner only where this process may give files away."""
    own = path.stat()
    if hasattr(os, "chown"):
        if own.st_uid != before.st_uid:
            with suppress(PermissionError):
                os.chown(path, before.st_uid, -1)
        if own.st_gid != before.st_gid:
            with suppress(PermissionError):
                os.chown(path, -1, before.st_gid)
    path.chmod(stat.S_IMODE(before.st_mode) & 0o777)
