"""Weights that do not come with the package: the folders they are looked for in, and their download.

A download goes over https to a partial file beside its target, which an interrupted one is continued from; it is
renamed when it is whole and its SHA-256 is right. Programs show progress by :func:`report_downloads`.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.client
import logging
import os
import re
import stat
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from io import BufferedRandom
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from semkey.errors import CheckpointError, ConfigError

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 60.0
MAX_BYTES = 8_000_000_000
"""Of a file whose size is not known beforehand."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_BLOCK_BYTES = 1 << 20
_LOCK_ATTEMPTS = 100
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
    url: str,
    target: Path,
    *,
    sha256: str | None = None,
    headers: Mapping[str, str] | None = None,
    max_bytes: int = MAX_BYTES,
    needs_hash: bool = False,
) -> Download:
    """Fetch a file, or go on where an earlier attempt stopped; of several processes one fetches, the others wait.

    Args:
        url: https; plain http from this machine alone.
        target: where it goes; missing folders are made.
        sha256: its expected hash, hex: of everything that semkey itself names. Without it, a hash that the server
            states is what counts, and without that the length it states, and nothing is continued.
        headers: of the request. They go to the host of ``url`` alone, and not to another port or scheme of it either.
        max_bytes: a longer file is refused.
        needs_hash: refuse a file whose hash neither ``sha256`` nor the server states.

    Raises:
        DownloadError: the server cannot be reached, or the connection broke (what came is kept for the next attempt).
        CheckpointError: the bytes are not those expected (they are not kept), are too many, or nothing says how many
            they are; the server leads away from https; or ``target`` cannot be written.
    """
    if not _is_safe(url):
        raise CheckpointError(f"{url}: weights are fetched over https only")
    partial = target.with_name(f".{target.name}.{hashlib.blake2b(url.encode(), digest_size=4).hexdigest()}.part")
    missing = [folder for folder in target.parents if not folder.exists()]
    try:
        with _locked_partial(partial, target) as file:
            if file is None:  # another process has finished it meanwhile
                return Download(path=target, sha256=file_sha256(target))
            try:
                stated, found = _fetch_whole(
                    _Request(url, headers or {}, max_bytes, sha256 is not None, needs_hash), file, target.name, sha256
                )
            except DownloadError:
                file.flush()  # what came is judged by the file's size
                _drop_if_empty(partial, missing)
                raise
            expected = sha256 or stated.stated_sha256
            if expected and found != expected:
                partial.unlink()
                raise CheckpointError(
                    f"{url}: SHA-256 of the download is {found[:16]}..., expected {expected[:16]}...: not kept"
                )
            partial.replace(target)
    except OSError as error:
        raise CheckpointError(
            f"cannot write {target}: {error.strerror or error}: downloaded weights need a writable $XDG_CACHE_HOME"
        ) from None
    return Download(path=target, sha256=found, stated_sha256=stated.stated_sha256, commit=stated.commit)


@dataclass(frozen=True)
class _Request:
    """What is asked for."""

    url: str
    headers: Mapping[str, str]
    max_bytes: int
    has_hash: bool
    needs_hash: bool


def _is_safe(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)


@contextmanager
def _locked_partial(partial: Path, target: Path) -> Generator[BufferedRandom | None]:
    """The partial file, this process's alone; None where another one has made ``target`` of it meanwhile.

    What was locked counts only while ``partial`` is still its name: whoever held the lock before may have renamed the
    file, and then the bytes that are written here would be those of ``target``.
    """
    for _ in range(_LOCK_ATTEMPTS):
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            file = _open_partial(partial)
        except FileNotFoundError:  # a process that fetched nothing has just removed the folder that it had made
            continue
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)
            held = os.fstat(file.fileno())
            if _is_named(partial, held):
                yield file
                return
            if _is_named(target, held):
                yield None
                return
    raise CheckpointError(f"{partial}: other processes keep taking it away: start again when they have ended")


def _is_named(path: Path, status: os.stat_result) -> bool:
    """Whether ``path`` names the file of ``status``."""
    try:
        return os.path.samestat(path.lstat(), status)
    except FileNotFoundError:
        return False


def _open_partial(path: Path) -> BufferedRandom:
    """The partial file, made if missing; never what a link leads to, nor a pipe or a device."""
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK):
            raise CheckpointError(f"{path}: is a link, and a download goes through none: remove it") from None
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise CheckpointError(f"{path}: is no regular file: remove it")
    return os.fdopen(handle, "r+b")


def _fetch_whole(request: _Request, file: BufferedRandom, name: str, sha256: str | None) -> tuple[_Stated, str]:
    """The whole file, with its hash; what an earlier attempt left is trusted only where a hash can tell."""
    for _ in range(2):
        had = file.seek(0, os.SEEK_END)
        stated = _fetch(request, file, name)
        expected = sha256 or stated.stated_sha256
        file.flush()
        os.fsync(file.fileno())
        file.seek(0)
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if not had or found == expected:
            break
        log.warning("%s: what an earlier attempt left of it is not usable, fetching all of it again", name)
        file.truncate(0)
    return stated, found


@dataclass
class _Stated:
    """What the server's answers said about the file."""

    stated_sha256: str = ""
    commit: str = ""

    def read(self, headers: Any) -> None:
        linked = (headers.get(_LINKED_HASH) or "").strip('"').lower()
        if re.fullmatch(r"[0-9a-f]{64}", linked):
            self.stated_sha256 = linked
        self.commit = headers.get("x-repo-commit") or self.commit


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Reads what the first answer says, stays on https, and keeps credentials from everybody else."""

    def __init__(self, stated: _Stated, origin: str) -> None:
        self._stated, self._origin = stated, _origin(origin)

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        self._stated.read(headers)
        leaves_tls = req.full_url.startswith("https:") and not newurl.startswith("https:")
        if leaves_tls or not _is_safe(newurl):
            raise CheckpointError(
                f"{req.full_url}: leads to {urlsplit(newurl).scheme}://{urlsplit(newurl).hostname}, which is not https:"
                " not followed"
            )
        request = super().redirect_request(req, fp, code, msg, headers, newurl)
        if request is not None and _origin(newurl) != self._origin:
            request.headers = {key: value for key, value in request.headers.items() if key.lower() == "range"}
        return request


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = urlsplit(url)
    return parts.scheme, parts.hostname, parts.port or {"https": 443, "http": 80}.get(parts.scheme)


def _fetch(asked: _Request, file: IO[bytes], name: str) -> _Stated:
    """Append what ``file`` lacks of the file."""
    stated, url = _Stated(), asked.url
    opener = urllib.request.build_opener(_Redirects(stated, url))
    start = file.seek(0, os.SEEK_END)
    request = urllib.request.Request(url, headers={**asked.headers, **({"Range": f"bytes={start}-"} if start else {})})
    try:
        with opener.open(request, timeout=TIMEOUT_SECONDS) as response:
            stated.read(response.headers)
            begins, total = _extent(response)
            if start and begins != start:  # the server sends all of it again, or another part
                file.truncate(0)
                if begins:
                    return _fetch(asked, file, name)
                start = 0
            if total > asked.max_bytes:
                raise _too_long(asked)
            if not (stated.stated_sha256 or asked.has_hash or (total and not asked.needs_hash)):
                unknown = "its hash" if asked.needs_hash else "its length or its hash"
                raise CheckpointError(f"{url}: the server does not say {unknown}: not fetched")
            _copy(response, file, start, total, name, asked)
            if total and file.tell() != total:
                raise DownloadError(url, f"the connection broke after {file.tell()} of {total} bytes")
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # the partial file is longer than the file: begin anew
            file.truncate(0)
            return _fetch(asked, file, name)
        raise DownloadError(url, f"HTTP {error.code} {error.reason}") from None
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
        raise DownloadError(url, getattr(error, "reason", None) or error) from None
    return stated


def _extent(response: Any) -> tuple[int, int]:
    """Where an answer begins in the file, and how long the file is; 0 where that is not said."""
    length = response.headers.get("Content-Length") or ""
    if response.status != 206:
        return 0, int(length) if length.isdecimal() else 0
    said = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", (response.headers.get("Content-Range") or "").strip())
    if said is None:
        return -1, 0
    begins = int(said[1])
    return begins, int(said[2]) if said[2] != "*" else begins + (int(length) if length.isdecimal() else 0)


def _too_long(asked: _Request) -> CheckpointError:
    return CheckpointError(
        f"{asked.url}: has more than {asked.max_bytes / 1e6:.0f} MB, which such a file does not have"
    )


def _copy(response: IO[bytes], file: IO[bytes], start: int, total: int, name: str, asked: _Request) -> None:
    progress, done, told = _reporter.get(), start, start
    if progress is None:
        log.info("downloading %s, %s", name, f"{total / 1e6:.0f} MB" if total else "size unknown")
    while block := response.read(_BLOCK_BYTES):
        done += len(block)
        if done > (total or asked.max_bytes):
            file.truncate(0)
            raise _too_long(asked)
        file.write(block)
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
