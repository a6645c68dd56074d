"""Names of temporary files and folders beside their targets, and the removal of those that killed processes left."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

_NAME = re.compile(r"\..+\.(\d+)-[0-9a-f]{12}\.tmp")
# A process of another machine, on a shared disk, is not to be seen from here: what it writes is younger than this.
_STALE_S = 3600.0
_looked_into: set[Path] = set()


def temporary_beside(target: Path) -> Path:
    """A name in the folder of ``target`` that nothing has yet, with this process's number in it.

    The first time that a process asks for one in a folder, what dead processes left there an hour ago or more is
    removed.
    """
    folder = target.parent
    if folder not in _looked_into:
        _looked_into.add(folder)
        remove_stale(folder)
    return target.with_name(f".{target.name[:200]}.{os.getpid()}-{secrets.token_hex(6)}.tmp")


def remove_stale(folder: Path) -> list[Path]:
    """Remove temporary files and folders of processes that are no more; returns what was removed."""
    removed: list[Path] = []
    with suppress(OSError):
        for path in folder.iterdir():
            named = _NAME.fullmatch(path.name)
            if named is None or _is_alive(int(named[1])) or time.time() - path.lstat().st_mtime < _STALE_S:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
            removed.append(path)
    return removed


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True
