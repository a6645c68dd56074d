"""Chromium without a screen, driven by chromedriver over its HTTP interface (W3C WebDriver); every wait has a limit."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_LIMIT_S = 60.0


def is_there() -> bool:
    return shutil.which("chromedriver") is not None and shutil.which("chromium") is not None


class Browser:
    def __init__(self, address: str) -> None:
        self._address = address

    def ask(self, path: str, body: dict[str, Any] | None = None, method: str = "") -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(
            f"{self._address}{path}", data, method=method or ("GET" if body is None else "POST")
        )
        with urllib.request.urlopen(request, timeout=_LIMIT_S) as answer:
            return json.load(answer)["value"]

    def open(self, url: str) -> None:
        self.ask("/url", {"url": url})

    def find(self, css: str) -> str:
        return self.ask("/element", {"using": "css selector", "value": css})[_ELEMENT]

    def run(self, script: str) -> Any:
        return self.ask("/execute/sync", {"script": script, "args": []})

    def wait(self, script: str, limit_s: float = _LIMIT_S) -> Any:
        """What a script returns, as soon as that is something."""
        end = time.monotonic() + limit_s
        while not (value := self.run(script)):
            if time.monotonic() > end:
                raise TimeoutError(f"not within {limit_s:g} s: {script}")
            time.sleep(0.2)
        return value

    def give_files(self, css: str, *paths: Path) -> None:
        self.ask(f"/element/{self.find(css)}/value", {"text": "\n".join(str(path.resolve()) for path in paths)})

    def click(self, css: str, across: float = 0.5, down: float = 0.5) -> None:
        """Click into an element, at a share of its width and height."""
        element = self.find(css)
        self.run(f"document.querySelector({css!r}).scrollIntoView({{block: 'center'}})")
        rect = self.ask(f"/element/{element}/rect")
        move = {
            "type": "pointerMove",
            "duration": 0,
            "origin": {_ELEMENT: element},
            "x": round((across - 0.5) * rect["width"]),
            "y": round((down - 0.5) * rect["height"]),
        }
        press = [{"type": "pointerDown", "button": 0}, {"type": "pointerUp", "button": 0}]
        self.ask("/actions", {"actions": [{"type": "pointer", "id": "mouse", "actions": [move, *press]}]})

    def screenshot(self) -> bytes:
        return base64.b64decode(self.ask("/screenshot"))

    def requested(self) -> list[str]:
        """Addresses that the page asked for since the last call."""
        rows = self.ask("/se/log", {"type": "performance"})
        events = [json.loads(row["message"])["message"] for row in rows]
        return [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]

    def complaints(self) -> list[str]:
        """What the console says of errors since the last call."""
        return [row["message"] for row in self.ask("/se/log", {"type": "browser"}) if row["level"] == "SEVERE"]


@contextmanager
def browser(folder: Path, size: tuple[int, int] = (1500, 1100)) -> Generator[Browser]:
    """A browser whose profile lies in a folder."""
    driver = subprocess.Popen(
        ["chromedriver", "--port=0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=folder
    )
    assert driver.stdout is not None
    try:
        line = next(line for line in driver.stdout if "started successfully on port" in line)
        address = f"http://127.0.0.1:{line.rsplit(' ', 1)[1].strip().rstrip('.')}"
        arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            f"--window-size={size[0]},{size[1]}",
            f"--user-data-dir={folder / 'profile'}",
        ]
        wanted = {
            "goog:chromeOptions": {"args": arguments, "binary": shutil.which("chromium")},
            "goog:loggingPrefs": {"performance": "ALL", "browser": "ALL"},
        }
        session = Browser(address).ask("/session", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
        page = Browser(f"{address}/session/{session}")
        try:
            yield page
        finally:
            page.ask("", method="DELETE")
    finally:
        driver.terminate()
        driver.wait(timeout=20)
