"""Weights that do not come with the package: the folders they are looked for in, and their download.

A download goes over https to a partial file beside its target, which an interrupted one is continued from; it is
renamed when it is whole and its SHA-256 is right. Programs show progress by :func:`report_downloads`.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from semkey.errors import CheckpointError, ConfigError

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 60.0
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_BLOCK_BYTES = 1 << 20
_LINKED_HASH = "x-linked-etag"  # the hub's name for the SHA-256 of a large file

Progress = Callable[[int, int, str], None]
"""Called with (bytes done, bytes in all or 0 where that is not known, name of the file)."""

_reporter: ContextVar[Progress | None] = ContextVar("download_reporter", default=None)


class DownloadError(CheckpointError):
    """A file could not be fetched; ``reason`` is short enough to be part of a longer sentence."""

    def __init__(self, url: str, reason: object) -> None:
        self.reason = " ".join(str(reason).split()) or type(reason).__name__
        super().__init__(f"{url} cannot be reached ({self.reason})")


@dataclass(frozen=True, kw_only=True)
class Download:
    """What was fetched.

    Attributes:
        path: the file.
        sha256: of its bytes, hex.
        stated_sha256: what the server said it would be, empty where it does not say.
        commit: commit of the repository that the server read it from, empty where it does not say.
    """

    path: Path
    sha256: str
    stated_sha256: str = ""
    commit: str = ""


@contextmanager
def report_downloads(progress: Progress) -> Generator[None]:
    """Tell ``progress`` about every download within the block; without it, downloads are logged."""
    token = _reporter.set(progress)
    try:
        yield
    finally:
        _reporter.reset(token)


def cache_folder() -> Path:
    """Where downloads are kept: ``$XDG_CACHE_HOME/semkey/weights``, by default under ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "semkey" / "weights"


def weights_folders(named: Sequence[Path] = (), installed: Sequence[Path] = ()) -> Iterator[Path]:
    """Where weights are looked for, first place first.

    ``named``, ``$SEMKEY_WEIGHTS``, ``$SEMKEY_SHARED/weights`` (``../shared/weights`` where the variable is not set),
    ``installed`` (folders of installed packages), the cache folder.

    Raises:
        ConfigError: one of ``named`` or ``$SEMKEY_WEIGHTS`` does not exist.
    """
    for folder in named:
        if not folder.exists():
            raise ConfigError(f"weights folder {folder} does not exist")
    yield from named
    variable = os.environ.get("SEMKEY_WEIGHTS")
    if variable:
        if not Path(variable).is_dir():
            raise ConfigError(f"$SEMKEY_WEIGHTS is {variable}, which is no folder")
        yield Path(variable)
    yield Path(os.environ.get("SEMKEY_SHARED") or Path("..", "shared")) / "weights"
    yield from installed
    yield cache_folder()


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(
    url: str, target: Path, *, sha256: str | None = None, headers: Mapping[str, str] | None = None
) -> Download:
    """Fetch a file, or go on where an earlier attempt stopped; of several processes one fetches, the others wait.

    Args:
        url: https; plain http from this machine alone.
        target: where it goes; missing folders are made.
        sha256: its expected hash, hex. Without it, a hash that the server states is what counts.
        headers: of the request; they are not sent on to another host that the server redirects to.

    Raises:
        DownloadError: the server cannot be reached, or the connection broke (what came is kept for the next attempt).
        CheckpointError: the bytes are not those expected (they are not kept), or ``target`` cannot be written.
    """
    parts = urlsplit(url)
    if parts.scheme != "https" and parts.hostname not in LOOPBACK:
        raise CheckpointError(f"{url}: weights are fetched over https only")
    partial = target.with_name(f".{target.name}.{hashlib.blake2b(url.encode(), digest_size=4).hexdigest()}.part")
    missing = [folder for folder in target.parents if not folder.exists()]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if target.is_file() and not partial.exists():  # another process has finished it meanwhile
                return Download(path=target, sha256=file_sha256(target))
            stated = _fetch(url, file, target.name, headers or {})
            file.flush()
            os.fsync(file.fileno())
            found = file_sha256(partial)
            expected = sha256 or stated.stated_sha256
            if expected and found != expected:
                partial.unlink()
                raise CheckpointError(
                    f"{url}: SHA-256 of the download is {found[:16]}..., expected {expected[:16]}...: not kept"
                )
            partial.replace(target)
    except DownloadError:
        _drop_if_empty(partial, missing)
        raise
    except OSError as error:
        raise CheckpointError(
            f"cannot write {target}: {error.strerror or error}: downloaded weights need a writable $XDG_CACHE_HOME"
        ) from None
    return Download(path=target, sha256=found, stated_sha256=stated.stated_sha256, commit=stated.commit)


@dataclass
class _Stated:
    """What the server's answers said about the file."""

    stated_sha256: str = ""
    commit: str = ""

    def read(self, headers: Any) -> None:
        linked = (headers.get(_LINKED_HASH) or "").strip('"')
        if len(linked) == 64:
            self.stated_sha256 = linked.lower()
        self.commit = headers.get("x-repo-commit") or self.commit


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Reads what the first answer says, and keeps credentials from other hosts."""

    def __init__(self, stated: _Stated) -> None:
        self._stated = stated

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        self._stated.read(headers)
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and urlsplit(newurl).hostname != urlsplit(req.full_url).hostname:
            request.headers = {key: value for key, value in request.headers.items() if key.lower() == "range"}
        return request


def _fetch(url: str, file: IO[bytes], name: str, headers: Mapping[str, str]) -> _Stated:
    """Append what ``file`` lacks of the file at ``url``."""
    stated = _Stated()
    opener = urllib.request.build_opener(_Redirects(stated))
    start = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={**headers, **({"Range": f"bytes={start}-"} if start else {})})
    try:
        with opener.open(request, timeout=TIMEOUT_SECONDS) as response:
            stated.read(response.headers)
            if start and response.status != 206:  # the server sends all of it again
                start = 0
                file.truncate(0)
            length = response.headers.get("Content-Length")
            total = start + int(length) if length and length.isdecimal() else 0
            _copy(response, file, start, total, name)
            if total and file.tell() != total:
                raise DownloadError(url, f"the connection broke after {file.tell()} of {total} bytes")
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # the partial file is longer than the file: begin anew
            file.truncate(0)
            return _fetch(url, file, name, headers)
        raise DownloadError(url, f"HTTP {error.code} {error.reason}") from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise DownloadError(url, getattr(error, "reason", None) or error) from None
    return stated


def _copy(response: IO[bytes], file: IO[bytes], start: int, total: int, name: str) -> None:
    progress, done, told = _reporter.get(), start, start
    if progress is None:
        log.info("downloading %s, %s", name, f"{total / 1e6:.0f} MB" if total else "size unknown")
    while block := response.read(_BLOCK_BYTES):
        file.write(block)
        done += len(block)
        if progress is not None:
            progress(done, total, name)
        elif total and done - told > total / 10:
            told = done
            log.info("%s: %.0f of %.0f MB", name, done / 1e6, total / 1e6)


def _drop_if_empty(partial: Path, made: Sequence[Path]) -> None:
    """Leave nothing behind where nothing came: no empty file, and none of the folders ``made`` for it."""
    try:
        if partial.stat().st_size == 0:
            partial.unlink()
            for folder in made:
                folder.rmdir()
    except OSError:
        return
