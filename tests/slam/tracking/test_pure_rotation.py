"""A single camera that only turns sees no depth: no map may start, however the keypoints jitter."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from semkey import run_slam
from semkey.datasets import open_sequence
from semkey.extractors import create_extractor
from semkey.geometry.transforms import make_transform, so3_exp
from semkey.rendering import RoomConfig, dataset, write_room

FRAMES = 14


@pytest.mark.slow
def test_a_camera_that_only_turns_starts_no_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All 14 frames had poses before keypoints were aligned to those of the first frame."""
    along = dataset.trajectory

    def on_the_spot(config: RoomConfig, size: tuple[float, float, float]) -> Callable[[float], NDArray[np.float64]]:
        start = along(config, size)(0.5)

        def pose(time: float) -> NDArray[np.float64]:
            slow = time * FRAMES / 45
            angles = [0.1 * np.sin(1.7 * slow), 0.3 * np.sin(1.1 * slow), 0.06 * np.sin(0.8 * slow)]
            return start @ make_transform(so3_exp(angles), np.zeros(3))

        return pose

    monkeypatch.setattr(dataset, "trajectory", on_the_spot)
    room = write_room(tmp_path / "room", RoomConfig(seed=22, frames=FRAMES, width=320, height=240, depth_noise=True))
    result = run_slam(open_sequence(room), create_extractor("nano", max_keypoints=1024), sensor="mono")
    assert result.tracked == 0
