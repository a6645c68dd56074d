"""Masks of a sequence: by name or one for all, told before the run where one is missing, undistorted as images are."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from semkey.datasets import BrokenFrame, Calibration, Lens, open_sequence
from semkey.errors import InputError
from tum_folder import HEIGHT, WIDTH, write_tum

CAMERA = (300.0, 300.0, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)


@pytest.fixture
def wall(tmp_path: Path) -> Path:
    return write_tum(tmp_path / "wall", frames=3)


def write_masks(folder: Path, wall: Path, columns: list[int], size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """A mask per image that leaves out its first columns."""
    folder.mkdir()
    for image, count in zip(sorted((wall / "rgb").iterdir()), columns, strict=False):
        mask = np.full(size[::-1], 255, np.uint8)
        mask[:, :count] = 0
        cv2.imwrite(str(folder / f"{image.stem}.png"), mask)
    return folder


def test_each_frame_has_the_mask_of_its_name(wall: Path, tmp_path: Path) -> None:
    sequence = open_sequence(wall, camera=CAMERA)
    assert sequence[0].mask is None
    masked = sequence.with_masks(write_masks(tmp_path / "masks", wall, [10, 20, 30])).limited_to("mono")
    for frame, count in zip(masked, (10, 20, 30), strict=True):
        assert frame.mask is not None
        assert (frame.mask == 0).all(axis=0).sum() == count
    assert sequence[0].mask is None, "the sequence itself stays as it was"


def test_one_mask_for_all_frames(wall: Path, tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "masks", wall, [40])
    masked = open_sequence(wall, camera=CAMERA).with_masks(next(folder.iterdir()))
    assert [int((frame.mask == 0).all(axis=0).sum()) for frame in masked if frame.mask is not None] == [40] * 3


def test_what_is_missing_or_of_another_size_is_told_before_the_run(wall: Path, tmp_path: Path) -> None:
    sequence = open_sequence(wall, camera=CAMERA)
    with pytest.raises(InputError, match=r"masks: no mask for 100\.2000\.png"):
        sequence.with_masks(write_masks(tmp_path / "masks", wall, [1, 1]))
    with pytest.raises(InputError, match=r"100\.0000\.png has 100x90 pixels, its image 320x240"):
        sequence.with_masks(write_masks(tmp_path / "small", wall, [1, 1, 1], size=(100, 90)))
    with pytest.raises(InputError, match="no such mask or folder"):
        sequence.with_masks(tmp_path / "none")


def test_a_broken_mask_breaks_its_frame_alone(wall: Path, tmp_path: Path) -> None:
    folder = write_masks(tmp_path / "masks", wall, [1, 1, 1])
    sorted(folder.iterdir())[1].write_bytes(b"not an image")
    frames = list(open_sequence(wall, camera=CAMERA).with_masks(folder).frames())
    assert [isinstance(frame, BrokenFrame) for frame in frames] == [False, True, False]


def test_masks_are_undistorted_with_the_images(wall: Path, tmp_path: Path) -> None:
    lens = Lens(model="radial-tangential", intrinsics=CAMERA, distortion=(-0.3, 0.1, 0.0, 0.0), size=(WIDTH, HEIGHT))
    folder = tmp_path / "frames"
    folder.mkdir()
    image = np.full((HEIGHT, WIDTH), 255, np.uint8)
    image[100:140, 30:90] = 0
    cv2.imwrite(str(folder / "0.png"), image)
    cv2.imwrite(str(tmp_path / "mask.png"), image)
    masked = open_sequence(folder, camera=Calibration(left=lens)).with_masks(tmp_path / "mask.png")
    frame = masked[0]
    assert frame.mask is not None
    assert not np.array_equal(frame.mask, image), "the lens must move pixels"
    np.testing.assert_array_equal(frame.mask > 0, frame.image[..., 0] == 255)


def test_frames_of_videos_are_named_by_their_number(tmp_path: Path) -> None:
    writer = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10.0, (64, 48))
    for _ in range(2):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    (tmp_path / "masks").mkdir()
    for index in range(2):
        mask = np.full((48, 64), 255, np.uint8)
        mask[: index + 1] = 0
        cv2.imwrite(str(tmp_path / f"masks/{index:06d}.png"), mask)
    frames = list(open_sequence(tmp_path / "v.avi").with_masks(tmp_path / "masks"))
    assert [int((frame.mask == 0).all(axis=1).sum()) for frame in frames if frame.mask is not None] == [1, 2]
