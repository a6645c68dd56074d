"""A webcam, played by a fake of OpenCV's capture."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from semkey.datasets import Frame, open_sequence
from semkey.errors import DatasetError


class FakeCapture:
    """Camera 0 gives six images, image i filled with 10 * i in its blue channel; there is no other camera."""

    def __init__(self, index: int) -> None:
        self._opened = index == 0
        self._next = 0

    def isOpened(self) -> bool:
        return self._opened

    def set(self, name: int, value: float) -> bool:
        return True

    def read(self) -> tuple[bool, np.ndarray | None]:
        if not self._opened or self._next == 6:
            return False, None
        image = np.zeros((48, 64, 3), np.uint8)
        image[..., 0] = 10 * self._next
        self._next += 1
        return True, image

    def release(self) -> None:
        self._opened = False


@pytest.fixture(autouse=True)
def _fake_camera(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)


@pytest.mark.parametrize("name", ["0", "webcam:0"])
def test_frames_come_in_order_until_the_camera_ends(name: str) -> None:
    sequence = open_sequence(name, camera=(50.0, 50.0, 31.5, 23.5))
    assert (sequence.format, sequence.name, sequence.sensor) == ("webcam", "webcam-0", "mono")
    assert sequence.is_live
    assert sequence.camera is not None
    assert sequence.camera.width == 64
    frames = list(sequence.frames())
    assert [int(frame.image[0, 0, 2]) for frame in frames if isinstance(frame, Frame)] == [0, 10, 20, 30, 40, 50]
    stamps = np.array([frame.timestamp for frame in frames])
    assert (np.diff(stamps) > 0).all()
    np.testing.assert_array_equal(sequence.timestamps[:6], stamps)
    assert np.isnan(sequence.timestamps[6])


def test_skipping_and_limits() -> None:
    sequence = open_sequence("0")
    frames = list(sequence.frames(every=2, max_frames=2))
    assert [(frame.index, int(frame.image[0, 0, 2])) for frame in frames if isinstance(frame, Frame)] == [
        (0, 0),
        (2, 20),
    ]
    with pytest.raises(DatasetError, match="frame 1 is gone"):
        sequence[1]


def test_no_such_camera() -> None:
    with pytest.raises(DatasetError, match="webcam 3: gives no image"):
        open_sequence("webcam:3")
    with pytest.raises(DatasetError, match="format 'webcam' needs a camera, such as 0"):
        open_sequence("camera", format="webcam")


def test_a_folder_called_0_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0").mkdir()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DatasetError, match="no images in this folder"):
        open_sequence("0")
