"""What a sequence hands over for frames that cannot be loaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semkey.datasets import BrokenFrame, EndOfSequence, Frame, FrameSequence, open_sequence
from semkey.errors import InputError
from semkey.images import write_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for index in range(6):
        write_image(tmp_path / f"{index}.png", np.full((12, 16, 3), 10 * index, np.uint8))
    return tmp_path


def test_a_truncated_image_is_a_broken_frame(folder: Path) -> None:
    file = folder / "2.png"
    file.write_bytes(file.read_bytes()[:-20])
    sequence = open_sequence(folder)
    with pytest.raises(InputError, match=r"2\.png"):
        sequence[2]
    broken = sequence.read(2)
    assert isinstance(broken, BrokenFrame)
    assert (broken.index, broken.timestamp) == (2, sequence.timestamps[2])
    assert "2.png" in str(broken.error)
    assert broken.T_world_cam is None
    assert isinstance(sequence.read(3), Frame)
    assert sequence.read(-4).index == 2
    with pytest.raises(IndexError):
        sequence.read(6)


def test_frames_go_on_behind_a_broken_one(folder: Path) -> None:
    (folder / "2.png").write_bytes(b"no image")
    sequence = open_sequence(folder)
    assert [(frame.index, isinstance(frame, Frame)) for frame in sequence.frames(every=2)] == [
        (0, True),
        (2, False),
        (4, True),
    ]
    assert [frame.index for frame in sequence.frames(max_frames=2)] == [0, 1]


class Ending(FrameSequence):
    """Promises ten frames and ends after three, as a webcam that is unplugged."""

    is_live = True

    def __init__(self) -> None:
        super().__init__(
            name="ending", format="webcam", camera=None, has_depth=False, timestamps=np.arange(10.0), ground_truth=()
        )

    def _load(self, index: int) -> Frame:
        if index == 3:
            raise EndOfSequence("webcam 0: no more images")
        return Frame(index=index, timestamp=float(index), image=np.zeros((4, 5, 3), np.uint8))


def test_a_live_source_ends_the_iteration() -> None:
    sequence = Ending()
    assert [frame.index for frame in sequence.frames()] == [0, 1, 2]
    with pytest.raises(EndOfSequence):
        sequence.read(3)
    assert not sequence.has_ground_truth


def test_sensor_is_the_best_that_the_frames_offer() -> None:
    sequence = Ending()
    assert sequence.sensor == "mono"
    sequence.baseline = 0.1
    assert sequence.sensor == "stereo"
    sequence.has_depth = True
    assert sequence.sensor == "rgbd"
