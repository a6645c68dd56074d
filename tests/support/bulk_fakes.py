"""Features that end the process that extracts them, once or always, as a lack of memory would."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from semkey.extractors import create_extractor

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
