from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from semkey.datasets import Frame, open_sequence, parse_camera
from semkey.datasets.opening import FORMATS
from semkey.datasets.readers.folder import list_images_below, natural_key, require_images
from semkey.errors import ConfigError, DatasetError
from semkey.images import write_image

FRAMES = 20


def level(frame: Frame) -> int:
    """Which frame of the test video this is, told from its brightness."""
    return round(float(frame.image.mean()) / 10)


def write_video(path: Path, codec: str = "MJPG", frames: int = FRAMES) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), 25.0, (64, 48))
    assert writer.isOpened()
    for index in range(frames):
        writer.write(np.full((48, 64, 3), 10 * index, np.uint8))
    writer.release()
    return path


@pytest.mark.parametrize(("name", "codec"), [("a.avi", "MJPG"), ("a.mp4", "mp4v"), ("a.mkv", "mp4v")])
def test_video_in_order_and_out_of_order(tmp_path: Path, name: str, codec: str) -> None:
    sequence = open_sequence(write_video(tmp_path / name, codec))
    assert (sequence.format, sequence.name, len(sequence)) == ("video", "a", FRAMES)
    assert sequence.camera is None
    assert not sequence.has_depth
    np.testing.assert_allclose(sequence.timestamps, np.arange(FRAMES) / 25.0)
    assert [level(frame) for frame in sequence] == list(range(FRAMES))
    for index in (7, 3, 3, 19, 0, -1):
        assert level(sequence[index]) == index % FRAMES
    # A second pass, and two passes at once, see the same frames.
    assert [(level(a), level(b)) for a, b in zip(sequence, sequence, strict=True)] == [(i, i) for i in range(FRAMES)]


def test_video_colours_are_rgb(tmp_path: Path) -> None:
    path = tmp_path / "red.avi"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (64, 48))
    writer.write(np.full((48, 64, 3), (0, 0, 255), np.uint8))
    writer.release()
    frame = open_sequence(path)[0]
    assert frame.image.dtype == np.uint8
    assert frame.image.flags.c_contiguous
    red, green, blue = frame.image.reshape(-1, 3).mean(axis=0)
    assert red > 240
    assert green < 20
    assert blue < 20


def test_video_camera(tmp_path: Path) -> None:
    sequence = open_sequence(write_video(tmp_path / "a.avi"), camera=parse_camera("60,61,31.5,23.5"))
    assert sequence.camera is not None
    assert (sequence.camera.width, sequence.camera.height, sequence.camera.fy) == (64, 48, 61.0)


def test_cut_video_gives_the_frames_that_are_left(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write_video(tmp_path / "a.mkv", "mp4v", frames=25)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    sequence = open_sequence(path)
    assert 0 < len(sequence) < 25
    assert "truncated" in caplog.text
    assert [level(frame) for frame in sequence] == list(range(len(sequence)))


def test_video_that_ends_while_it_is_read(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mkv", "mp4v", frames=25)
    sequence = open_sequence(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert level(sequence[3]) == 3
    with pytest.raises(DatasetError, match=r"a\.mkv: video cannot be decoded from frame \d+ of 25 on"):
        list(sequence)


@pytest.mark.parametrize("content", [b"no video at all", b"\x00\x00\x00\x18ftypmp42" + bytes(2000)])
def test_not_a_video(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.mp4: not a video"):
        open_sequence(path)


def test_decoder_keeps_quiet_about_a_broken_video(tmp_path: Path) -> None:
    # In a process of its own: FFmpeg takes its log level once, and other tests may have used it before.
    path = tmp_path / "a.mp4"
    path.write_bytes(b"no video at all")
    code = (
        "import sys\nfrom semkey.datasets import open_sequence\nfrom semkey.errors import DatasetError\n"
        "try:\n    open_sequence(sys.argv[1])\nexcept DatasetError:\n    sys.exit(7)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (7, "")


def test_empty_and_missing_video(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"a\.mp4: file is empty"):
        open_sequence(tmp_path / "a.mp4")
    with pytest.raises(DatasetError, match=r"b\.mp4: no such file or folder"):
        open_sequence(tmp_path / "b.mp4")


def test_folder_in_natural_order(tmp_path: Path) -> None:
    for number in (10, 9, 1, 2):
        write_image(tmp_path / f"img{number}.png", np.full((8, 9, 3), number, np.uint8))
    write_image(tmp_path / ".img3.png", np.zeros((8, 9, 3), np.uint8))
    (tmp_path / "notes.md").write_text("no image")
    sequence = open_sequence(tmp_path)
    assert sequence.format == "folder"
    assert [int(frame.image[0, 0, 0]) for frame in sequence] == [1, 2, 9, 10]
    assert sequence.camera is None
    assert (np.diff(sequence.timestamps) > 0).all()
    (tmp_path / "camera.txt").write_text("9 9 4 3.5")
    camera = open_sequence(tmp_path).camera
    assert camera is not None
    assert (camera.width, camera.height, camera.cy) == (9, 8, 3.5)


def test_pictures_of_other_kinds_are_not_passed_over_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A telephone's photos, of which half are HEIC."""
    for name in ("1.HEIC", "2.heic", "3.avif", "._4.heic"):
        (tmp_path / name).write_bytes(b"photo")
    with pytest.raises(DatasetError, match=r"no images in this folder \(2 \.heic, 1 \.avif left out: convert them"):
        open_sequence(tmp_path)
    with pytest.raises(DatasetError, match=r"2 \.heic, 1 \.avif left out"):
        list_images_below(tmp_path)
    with pytest.raises(DatasetError, match=r"2 \.heic, 1 \.avif left out"):
        require_images(tmp_path)
    (tmp_path / ".trash").mkdir()
    (tmp_path / ".trash" / "6.heic").write_bytes(b"photo")
    (tmp_path / "below").mkdir()
    write_image(tmp_path / "below" / "4.png", np.zeros((8, 9, 3), np.uint8))
    assert list_images_below(tmp_path) == [tmp_path / "below" / "4.png"]
    assert "2 .heic, 1 .avif left out: convert them to JPEG or PNG" in caplog.text
    write_image(tmp_path / "5.png", np.zeros((8, 9, 3), np.uint8))
    caplog.clear()
    assert require_images(tmp_path) == [tmp_path / "5.png"]
    assert "2 .heic, 1 .avif left out: convert them to JPEG or PNG" in caplog.text
    notes = open_sequence(tmp_path).notes
    assert notes == (f"{tmp_path}: 2 .heic, 1 .avif left out: convert them to JPEG or PNG",)


def test_natural_key_compares_numbers_by_value() -> None:
    names = ["b1", "a10", "a2", "a02", "A1", "a", "1", "10", "9", "²", "a2b", "a2.5"]
    ordered = sorted(names, key=natural_key)
    assert [name for name in ordered if name in ("1", "9", "10")] == ["1", "9", "10"]
    assert [name for name in ordered if name in ("A1", "a2", "a10")] == ["A1", "a2", "a10"]


def test_folder_errors(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no images in this folder"):
        open_sequence(tmp_path)
    (tmp_path / "rgb").mkdir()
    with pytest.raises(DatasetError, match=r"rgb\.txt: file is missing"):
        open_sequence(tmp_path)
    write_image(tmp_path / "a.png", np.zeros((8, 9, 3), np.uint8))
    (tmp_path / "b.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"b\.png: file is empty"):
        open_sequence(tmp_path, strict=True)


def test_wrong_kind_of_input(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png", np.zeros((8, 9, 3), np.uint8))
    with pytest.raises(DatasetError, match="single image"):
        open_sequence(tmp_path / "a.png")
    (tmp_path / "a.xyz").write_text("?")
    with pytest.raises(DatasetError, match="unknown kind of file"):
        open_sequence(tmp_path / "a.xyz")
    with pytest.raises(DatasetError, match="'video' needs a file"):
        open_sequence(tmp_path, format="video")
    for name in ("tum", "7scenes", "folder"):
        assert name in FORMATS
        with pytest.raises(DatasetError, match="needs a folder"):
            open_sequence(tmp_path / "a.png", format=name)
    with pytest.raises(ConfigError, match="choose one of auto, tum, euroc, kitti, "):
        open_sequence(tmp_path, format="kitty")


@pytest.mark.parametrize("text", ["", "1,2,3", "1,2,3,x", "0,1,2,3", "nan,1,2,3", "1,2,3,4,5"])
def test_parse_camera_refuses(text: str) -> None:
    with pytest.raises(ConfigError, match="expected fx,fy,cx,cy"):
        parse_camera(text)


def test_real_images(shared: Path) -> None:
    sequence = open_sequence(shared / "data/planar/graf")
    assert len(sequence) == 6
    assert sequence[0].image.shape == (640, 800, 3)
