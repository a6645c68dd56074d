"""Downloads: continued, checked, told about; credentials stay with the host that they are for."""

from __future__ import annotations

import fcntl
import hashlib
import http.server
import os
import threading
import urllib.request
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path
from typing import Any, ClassVar

import pytest

from semkey import downloads
from semkey.downloads import DownloadError, download, report_downloads
from semkey.errors import CheckpointError

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class _Handler(http.server.BaseHTTPRequestHandler):
    """``/file`` knows ranges, ``/whole`` does not, ``/cut`` breaks off, ``/hub`` redirects to another host name.

    ``/shifted`` answers with another range than asked for, ``/endless`` says no length, ``/leave`` redirects to plain
    http of another machine, ``/port`` to another port.
    """

    requests: ClassVar[list[tuple[str, dict[str, str]]]] = []
    other_port: ClassVar[int] = 0

    def do_GET(self) -> None:
        type(self).requests.append((self.path, {key.lower(): value for key, value in self.headers.items()}))
        elsewhere = {
            "/hub": f"http://localhost:{self.server.server_port}/file",  # ty: ignore
            "/leave": "http://mirror.invalid/file",
            "/port": f"http://127.0.0.1:{type(self).other_port}/file",
        }
        if self.path == "/endless":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(CONTENT)
            return
        if self.path in elsewhere:
            self.send_response(302)
            self.send_header("Location", elsewhere[self.path])
            self.send_header("X-Linked-ETag", f'"{SHA256}"')
            self.send_header("X-Repo-Commit", "abc")
            self.end_headers()
            return
        if self.path == "/gone":
            self.send_error(404)
            return
        start = 0
        asked = self.headers.get("Range")
        if asked and self.path != "/whole":
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(CONTENT):
                self.send_error(416)
                return
            self.send_response(206)
            shift = 7 if self.path == "/shifted" else 0
            self.send_header("Content-Range", f"bytes {start + shift}-{len(CONTENT) - 1}/{len(CONTENT)}")
        else:
            self.send_response(200)
        body = CONTENT[start:]
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if self.path == "/cut" else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    _Handler.requests = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def partial_of(target: Path) -> Path:
    (found,) = target.parent.glob(".*.part")
    return found


def test_a_download_that_broke_goes_on_where_it_stopped(server: str, tmp_path: Path, monkeypatch) -> None:
    target = tmp_path / "deep" / "weights"
    with pytest.raises(DownloadError, match=r"the connection broke after 5120 of 10240 bytes"):
        download(f"{server}/cut", target, sha256=SHA256)
    part = partial_of(target)
    assert part.stat().st_size == len(CONTENT) // 2
    whole = target.with_name(part.name.replace(_digest(f"{server}/cut"), _digest(f"{server}/file")))
    part.rename(whole)
    got = download(f"{server}/file", target, sha256=SHA256)
    assert got.path.read_bytes() == CONTENT
    assert _Handler.requests[-1][1]["range"] == "bytes=5120-"
    assert list(target.parent.iterdir()) == [target]


def test_a_server_that_cannot_continue_sends_it_all_again(server: str, tmp_path: Path) -> None:
    target = tmp_path / "weights"
    (tmp_path / f".weights.{_digest(f'{server}/whole')}.part").write_bytes(b"something else")
    assert download(f"{server}/whole", target, sha256=SHA256).path.read_bytes() == CONTENT


def test_a_partial_file_that_is_too_long_is_begun_anew(server: str, tmp_path: Path) -> None:
    (tmp_path / f".weights.{_digest(f'{server}/file')}.part").write_bytes(CONTENT + b"more")
    assert download(f"{server}/file", tmp_path / "weights", sha256=SHA256).path.read_bytes() == CONTENT


def test_other_bytes_are_not_kept(server: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"SHA-256 of the download is .* not kept"):
        download(f"{server}/file", tmp_path / "weights", sha256="0" * 64)
    assert list(tmp_path.iterdir()) == []


def test_what_the_hub_states_is_used_and_credentials_stay_there(server: str, tmp_path: Path) -> None:
    got = download(f"{server}/hub", tmp_path / "weights", headers={"Authorization": "Bearer secret"})
    assert (got.stated_sha256, got.commit, got.sha256) == (SHA256, "abc", SHA256)
    (first, there), (second, elsewhere) = _Handler.requests
    assert (first, second) == ("/hub", "/file")
    assert there["authorization"] == "Bearer secret"
    assert "authorization" not in elsewhere


def test_a_stated_hash_that_does_not_fit_is_an_error(server: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(globals(), "SHA256", "f" * 64)
    with pytest.raises(CheckpointError, match="not kept"):
        download(f"{server}/hub", tmp_path / "weights")


def test_missing_files_plain_http_and_folders_that_cannot_be(server: str, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="HTTP 404"):
        download(f"{server}/gone", tmp_path / "new" / "weights")
    assert not (tmp_path / "new").exists()
    with pytest.raises(CheckpointError, match="over https only"):
        download("http://example.invalid/weights", tmp_path / "weights")
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(CheckpointError, match="XDG_CACHE_HOME"):
        download(f"{server}/file", tmp_path / "file" / "weights")


def test_progress_is_told_within_the_block_alone(server: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(downloads, "_BLOCK_BYTES", 4096)
    told: list[tuple[int, int, str]] = []
    with report_downloads(lambda *what: told.append(what)):
        download(f"{server}/file", tmp_path / "weights")
    assert told == [(4096, 10240, "weights"), (8192, 10240, "weights"), (10240, 10240, "weights")]
    download(f"{server}/file", tmp_path / "other")
    assert len(told) == 3


def test_what_is_left_of_an_earlier_attempt_is_only_continued_where_a_hash_can_tell(
    server: str, tmp_path: Path
) -> None:
    target = tmp_path / "weights"
    for url, sha256 in (("/file", SHA256), ("/file", None), ("/shifted", SHA256), ("/shifted", None)):
        (tmp_path / f".weights.{_digest(server + url)}.part").write_bytes(bytes(5120))  # blank, as after a crash
        assert download(f"{server}{url}", target, sha256=sha256).path.read_bytes() == CONTENT
        target.unlink()
    assert list(tmp_path.iterdir()) == []


def test_a_file_without_length_and_hash_is_not_fetched(server: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="does not say its length or its hash"):
        download(f"{server}/endless", tmp_path / "weights")
    assert download(f"{server}/endless", tmp_path / "known", sha256=SHA256).path.read_bytes() == CONTENT
    with pytest.raises(CheckpointError, match="does not say its hash"):
        download(f"{server}/file", tmp_path / "weights", needs_hash=True)
    assert download(f"{server}/hub", tmp_path / "hub", needs_hash=True).sha256 == SHA256
    assert not (tmp_path / "weights").exists()


@pytest.mark.parametrize("path", ["/file", "/endless"])
def test_a_file_that_is_too_long_is_refused(server: str, tmp_path: Path, path: str) -> None:
    with pytest.raises(CheckpointError, match=r"has more than 0 MB"):
        download(f"{server}{path}", tmp_path / "weights", sha256=SHA256, max_bytes=len(CONTENT) - 1)
    assert not (tmp_path / "weights").exists()
    assert all(file.stat().st_size == 0 for file in tmp_path.iterdir())


def test_a_partial_file_that_is_a_link_or_no_file_is_refused(server: str, tmp_path: Path) -> None:
    victim, partial = tmp_path / "victim", tmp_path / f".weights.{_digest(f'{server}/file')}.part"
    victim.write_bytes(b"precious")
    partial.symlink_to(victim)
    with pytest.raises(CheckpointError, match="is a link"):
        download(f"{server}/file", tmp_path / "weights", sha256=SHA256)
    assert victim.read_bytes() == b"precious"
    partial.unlink()
    os.mkfifo(partial)
    with pytest.raises(CheckpointError, match="no regular file"):
        download(f"{server}/file", tmp_path / "weights", sha256=SHA256)


def test_credentials_stay_with_host_port_and_scheme(server: str, tmp_path: Path) -> None:
    secret = {"Authorization": "Bearer secret"}
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as other:
        thread = threading.Thread(target=other.serve_forever)
        thread.start()
        _Handler.other_port = other.server_address[1]
        got = download(f"{server}/port", tmp_path / "weights", sha256=SHA256, headers=secret)
        other.shutdown()
        thread.join()
    assert got.sha256 == SHA256
    (_, first), (_, second) = _Handler.requests
    assert first["authorization"] == "Bearer secret"
    assert "authorization" not in second
    with pytest.raises(CheckpointError, match=r"leads to http://mirror\.invalid, which is not https: not followed"):
        download(f"{server}/leave", tmp_path / "other", sha256=SHA256, headers=secret)


def test_https_is_not_left_even_for_this_machine() -> None:
    redirects = downloads._Redirects(downloads._Stated(), "https://hub.example/x")
    request = urllib.request.Request("https://hub.example/x", headers={"Authorization": "Bearer secret"})
    for place in ("http://hub.example/x", "http://127.0.0.1/x", "ftp://hub.example/x", "file:///etc/passwd"):
        with pytest.raises(CheckpointError, match="not https"):
            redirects.redirect_request(request, None, 302, "Found", {}, place)
    same = redirects.redirect_request(request, None, 302, "Found", {}, "https://hub.example:443/y")
    assert same.get_header("Authorization") == "Bearer secret"
    for place in ("https://hub.example:8443/y", "https://cdn.example/y"):
        other = redirects.redirect_request(request, None, 302, "Found", {}, place)
        assert other.get_header("Authorization") is None


def test_several_at_once_make_one_whole_file(server: str, tmp_path: Path) -> None:
    target, failures = tmp_path / "weights", []

    def fetch() -> None:
        try:
            assert download(f"{server}/file", target, sha256=SHA256).path.read_bytes() == CONTENT
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=fetch) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert list(tmp_path.iterdir()) == [target]


def _wait_for(
    partial: Path, target: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[threading.Thread, list[Any], int]:
    """A thread that has opened ``partial`` for a download and cannot lock it: the handle that is returned does."""
    holder, found = os.open(partial, os.O_RDWR | os.O_CREAT), []
    fcntl.flock(holder, fcntl.LOCK_EX)
    opened, real = threading.Event(), downloads._open_partial

    def open_partial(path: Path) -> BufferedRandom:
        file = real(path)
        opened.set()
        return file

    monkeypatch.setattr(downloads, "_open_partial", open_partial)

    def fetch() -> None:
        try:
            found.append(download(url, target, sha256=SHA256))
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=fetch)
    thread.start()
    assert opened.wait(10)
    return thread, found, holder


def test_what_another_process_finished_is_not_written_to(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One finishes, a third begins anew, and only then the second gets the lock: on what is the target by now."""
    target = tmp_path / "weights"
    partial = tmp_path / f".weights.{_digest(f'{server}/file')}.part"
    thread, found, holder = _wait_for(partial, target, f"{server}/file", monkeypatch)
    partial.write_bytes(CONTENT)
    partial.rename(target)
    partial.write_bytes(CONTENT[:100])  # the third's, which it has not finished
    made = target.stat()
    os.close(holder)
    thread.join()
    assert [result.path for result in found] == [target]
    assert target.read_bytes() == CONTENT
    assert os.path.samestat(target.stat(), made)
    assert partial.read_bytes() == CONTENT[:100]


def test_a_partial_file_that_its_holder_gave_up_is_begun_anew(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    target, partial = folder / "weights", folder / f".weights.{_digest(f'{server}/file')}.part"
    thread, found, holder = _wait_for(partial, target, f"{server}/file", monkeypatch)
    partial.unlink()
    folder.rmdir()
    os.close(holder)
    thread.join()
    assert [result.path for result in found] == [target]
    assert list(folder.iterdir()) == [target]
    assert target.read_bytes() == CONTENT


def _digest(url: str) -> str:
    return hashlib.blake2b(url.encode(), digest_size=4).hexdigest()
