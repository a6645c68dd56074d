"""The page as it is served: through its HTTP interface and Gradio's client, and in Chromium where there is one."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from page import browser
from page.uploads import FRAMES, Uploads
from semkey.images import read_image

pytestmark = pytest.mark.slow
LIMIT_S = 50.0

# Runs in the served process: notes every name that is looked up and every address beyond this machine.
WATCH = """
import socket
def note(what):
    with open({file!r}, "a") as file:
        file.write(what + "\\n")
look_up, connect = socket.getaddrinfo, socket.socket.connect
def watched_look_up(host, *rest, **more):
    if host not in (None, "127.0.0.1", "localhost", b"127.0.0.1", b"localhost"):
        note(f"looked up {{host}}")
    return look_up(host, *rest, **more)
def watched_connect(self, address):
    if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
        note(f"connected to {{address}}")
    return connect(self, address)
socket.getaddrinfo, socket.socket.connect = watched_look_up, watched_connect
"""


@dataclass(frozen=True)
class Served:
    process: subprocess.Popen[str]
    port: int
    folder: Path
    noted: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    pytest.importorskip("gradio", reason="the page needs Gradio: pip install 'semkey[ui]'")
    folder = tmp_path_factory.mktemp("served")
    for name in ("temporary", "cwd", "watch"):
        (folder / name).mkdir()
    noted = folder / "noted"
    (folder / "watch" / "sitecustomize.py").write_text(WATCH.format(file=str(noted)))
    path = [str(folder / "watch"), *([os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else [])]
    data = {"SEMKEY_SHARED": os.environ.get("SEMKEY_SHARED", str(Path(__file__).resolve().parents[3] / "shared"))}
    environment = os.environ | data | {"TMPDIR": str(folder / "temporary"), "PYTHONPATH": os.pathsep.join(path)}
    command = [sys.executable, "-m", "semkey", "ui", "--port", "0", "--max-megabytes", "2"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder / "cwd", env=environment
    )
    limit = threading.Timer(2 * LIMIT_S, process.kill)
    limit.start()
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        limit.cancel()
        found = re.fullmatch(r"http://127\.0\.0\.1:(\d+) \(Ctrl-C ends it\)\n", line)
        assert found, line
        yield Served(process, int(found[1]), folder, noted)
    finally:
        limit.cancel()
        process.kill()
        process.wait(timeout=20)


def ask(
    served: Served, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=LIMIT_S)
    try:
        connection.request(method, path, body, {key.replace("_", "-"): value for key, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def show(served: Served, *files: Path, **changes: Any) -> tuple[Any, ...]:
    from gradio_client import Client, handle_file

    client = Client(served.url, verbose=False, download_files=str(served.folder / "got"))
    given: dict[str, Any] = {
        "features": "orb",
        "keypoints": 300,
        "matcher": "mnn",
        "refined": False,
        "camera": "",
        "degrees": 65,
    }
    given |= {"given": [handle_file(file) for file in files], "api_name": "/show"}
    job = client.submit(**given | changes)
    return job.result(timeout=LIMIT_S)


def test_only_this_machine_is_answered(served: Served) -> None:
    status, headers, page = ask(served, "GET", "/")
    assert status == 200
    assert b"semkey" in page
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "http" not in headers["content-security-policy"]  # nothing from elsewhere is allowed
    # Another address of this machine is not listened on, and a name of elsewhere that leads here is not answered.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", served.port), timeout=5)
    assert ask(served, "GET", "/", Host="attacker.example")[0] == 400
    assert ask(served, "GET", "/config", Host="attacker.example:80")[0] == 400


def test_two_images_through_the_client(served: Served, uploads: Uploads) -> None:
    found, first, second, matches, plain, *_ = show(served, *uploads.images)
    lines = found.splitlines()
    assert lines[0].startswith(f"{uploads.images[0].name}: ")
    assert re.match(r"\d+ matches, \d+ \(\d+%\) within 1 px", lines[2])
    original = read_image(uploads.images[0])
    assert np.array_equal(read_image(plain), original)
    assert not np.array_equal(read_image(first), original)
    assert read_image(second).shape == original.shape
    assert read_image(matches).size > 2 * original.size


def test_a_clip_through_the_client(served: Served, uploads: Uploads) -> None:
    found, *pictures, _, shown = show(served, uploads.clip, camera=uploads.camera, features="nano", keypoints=600)
    assert found.startswith(f"{FRAMES} of {FRAMES} frames tracked"), found
    assert pictures == [None] * 5
    assert 'sandbox="allow-scripts"' in shown
    assert "data:image/png;base64," in shown


def test_bad_input_gives_one_line(served: Served, uploads: Uploads, tmp_path: Path) -> None:
    from gradio_client.exceptions import AppError

    (tmp_path / "notes.png").write_text("no image, whatever its name says")
    (tmp_path / "<b>.txt").write_text("a name that is HTML")
    cases: list[tuple[list[Path], dict[str, Any], str]] = [
        ([], {}, "drop one or two images"),
        ([tmp_path / "notes.png"], {}, "notes.png does not say how large it is"),
        ([tmp_path / "<b>.txt"], {}, "&lt;b&gt;|b.txt"),
        ([uploads.clip], {"camera": "1,2"}, "expected fx,fy,cx,cy"),
    ]
    for files, changes, expected in cases:
        with pytest.raises(AppError) as told:
            show(served, *files, **changes)
        text = str(told.value)
        assert re.search(expected, text), text
        assert "\n" not in text
        assert "<b>" not in text
        assert str(served.folder) not in text


def test_large_files_are_refused_while_they_come(served: Served) -> None:
    boundary = "semkey"
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="big.png"\r\n\r\n'.encode()
    body = head + bytes(3_000_000) + f"\r\n--{boundary}--\r\n".encode()
    kind = f"multipart/form-data; boundary={boundary}"
    status, _, text = ask(served, "POST", "/gradio_api/upload", body, Content_Type=kind)
    assert status == 413, text


def test_files_of_this_machine_are_not_given_away(served: Served) -> None:
    for path in ("/etc/hostname", str(Path(__file__).resolve()), "../../../etc/hostname"):
        assert ask(served, "GET", f"/gradio_api/file={path}")[0] in (403, 404), path


def test_the_page_in_chromium(served: Served, uploads: Uploads, shared: Path, tmp_path: Path) -> None:
    """Images are dropped, drawn and clicked on; the browser asks nobody else for anything."""
    if not browser.is_there():
        pytest.skip("needs chromium and chromedriver (Debian: chromium-driver)")
    with browser.browser(tmp_path) as page:
        page.open(served.url)
        page.wait("return document.querySelector('#files input[type=file]') !== null")
        page.give_files("#files input[type=file]", *uploads.images)
        page.wait("return document.querySelector('#status textarea').value.includes('matches')")
        page.wait("return [0, 1].every(k => document.querySelector('#keypoints' + k + ' img')?.naturalWidth === 320)")
        page.run(_TAB.format("Similarity"))
        page.wait("return document.querySelector('#similarity0 img')?.naturalWidth === 320")
        if next((shared / "weights").glob("vit_tiny*"), None) is not None:
            page.click("#similarity0 img", 0.25, 0.5)
            said = page.wait(
                "const t = document.querySelector('#said textarea').value; return t.includes('cosine') && t"
            )
            found = re.match(rf"{re.escape(uploads.images[0].name)} at \((\d+), (\d+)\)", said)
            assert found, said
            assert abs(int(found[1]) - 80) <= 2
            assert abs(int(found[2]) - 120) <= 2
        page.run("document.querySelector('#files button[aria-label=\"Clear\"]').click()")
        page.wait("return document.querySelector('#files input[type=file]') !== null")
        page.give_files("#files input[type=file]", uploads.clip)
        page.wait("return document.querySelector('#status textarea').value.includes('frames tracked')")
        page.wait("return document.querySelector('#map iframe') !== null")
        assert len(page.screenshot()) > 10_000
        asked = {url.split("/")[2] for url in page.requested() if url.startswith(("http:", "https:", "ws"))}
        assert asked == {f"127.0.0.1:{served.port}"}
        assert page.complaints() == []


_TAB = "[...document.querySelectorAll('button[role=tab]')].find(tab => tab.textContent.includes('{}')).click()"


def test_at_the_end_nothing_is_left(served: Served) -> None:
    """Runs last: the page ends by a signal, its files are gone, and it has told nobody anything."""
    temporary = served.folder / "temporary"
    assert [path.name for path in temporary.iterdir() if path.name.startswith(".semkey-ui")]
    served.process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    _, err = served.process.communicate(timeout=LIMIT_S)
    assert time.monotonic() - start < 20
    assert served.process.returncode == 143
    assert err.strip() == "ended", err
    assert not [path.name for path in temporary.iterdir() if "semkey" in path.name]
    assert list((served.folder / "cwd").iterdir()) == []
    assert not served.noted.exists(), served.noted.read_text()


def test_a_port_in_use_and_a_missing_package(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        outcome = run("ui", "--port", port)
    assert outcome.code == 2
    assert f"cannot listen on 127.0.0.1:{port}" in outcome.err
    monkeypatch.setitem(sys.modules, "gradio", None)
    outcome = run("ui", "--port", 0)
    assert (outcome.code, outcome.err.strip()) == (2, "error: the page needs Gradio: pip install 'semkey[ui]'")
