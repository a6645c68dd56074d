"""Features and a matcher that end the process that runs them, once or always, as a lack of memory would."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

import semkey
from semkey.extractors import create_extractor
from semkey.matching import Matches, PairMatcher, create_matcher
from semkey.model.features import Features

# Where a fake leaves a file when it has ended its process for the first time.
MARKER = "SEMKEY_TEST_MARKER"
ONCE, ALWAYS = 11, 12


class Deadly:
    """ORB, but for pictures whose first pixel is ``ONCE`` (ends its process the first time) or ``ALWAYS``."""

    name = "deadly"

    def __init__(self, max_keypoints: int) -> None:
        self._orb = create_extractor("orb", max_keypoints=max_keypoints)
        self.settings: dict[str, Any] = {}

    def extract(self, image: Any) -> Any:
        first = int(image[0, 0, 0])
        if first == ALWAYS:
            os.kill(os.getpid(), signal.SIGKILL)
        if first == ONCE:
            marker = Path(os.environ[MARKER])
            if not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
        return self._orb.extract(image)


def deadly(*, max_keypoints: int, device: str) -> Deadly:
    return Deadly(max_keypoints)


def deadly_matcher() -> PairMatcher:
    """Nearest neighbours that end their process the first time, of all processes together."""
    matcher = create_matcher("mnn")

    def find(features0: Features, features1: Features) -> Matches:
        marker = Path(os.environ[MARKER] + "-matching")
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return matcher.find(features0, features1)

    return PairMatcher(name="deadly", find=find, settings={"matcher": "deadly"})


def for_ray(monkeypatch: pytest.MonkeyPatch, marker: Path) -> None:
    """Let workers of Ray import this file, or skip where Ray is not installed."""
    pytest.importorskip("ray", reason="ray comes with the extra ray")
    monkeypatch.setenv(MARKER, str(marker))
    paths = [str(Path(__file__).parent), str(Path(semkey.__file__).parent.parent), os.environ.get("PYTHONPATH", "")]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


def skip_where_ray_is_too_slow(error: Exception | str) -> None:
    """Ray waits for its own processes for some seconds only."""
    if "timed out during startup" in str(error):
        pytest.skip(f"the machine is too busy for Ray to start within its own limits: {error}")
