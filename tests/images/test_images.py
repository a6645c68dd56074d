from __future__ import annotations

import os
import resource
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semkey.errors import InputError
from semkey.images import read_depth, read_image, write_image
from semkey.images.writing import check_image_path


@pytest.fixture
def picture(rng: np.random.Generator) -> np.ndarray:
    return rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)


def encode(suffix: str, bgr: np.ndarray) -> bytes:
    return cv2.imencode(suffix, bgr)[1].tobytes()


def jpeg_with_thumbnail(picture: np.ndarray) -> bytes:
    """A JPEG whose EXIF segment holds a whole small JPEG, as cameras write them."""
    data = encode(".jpg", picture)
    payload = b"Exif\0\0" + encode(".jpg", picture[:8, :8])
    return data[:2] + b"\xff\xe1" + (len(payload) + 2).to_bytes(2) + payload + data[2:]


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif"])
def test_written_image_reads_back_unchanged(tmp_path: Path, picture: np.ndarray, suffix: str) -> None:
    write_image(tmp_path / f"a{suffix}", picture)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{suffix}"), picture)


@pytest.mark.parametrize("name", ["grün, größer.png", "图像 🖼.png", "with space.jpg", "UPPER.PNG"])
def test_any_file_name_works(tmp_path: Path, picture: np.ndarray, name: str) -> None:
    write_image(tmp_path / name, picture)
    assert read_image(tmp_path / name).shape == picture.shape
    assert read_image(str(tmp_path / name)).shape == picture.shape


def test_gray_is_repeated_into_three_channels(tmp_path: Path, picture: np.ndarray) -> None:
    write_image(tmp_path / "gray.png", picture[:, :, 0])
    np.testing.assert_array_equal(read_image(tmp_path / "gray.png"), np.repeat(picture[:, :, :1], 3, axis=2))


def test_alpha_is_dropped(tmp_path: Path, picture: np.ndarray) -> None:
    alpha = np.arange(48 * 64, dtype=np.uint8).reshape(48, 64, 1)
    (tmp_path / "a.png").write_bytes(encode(".png", np.concatenate([picture[:, :, ::-1], alpha], axis=2)))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), picture)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_are_scaled_to_eight(tmp_path: Path, channels: int) -> None:
    values = np.linspace(0, 65535, 256).round().astype(np.uint16).reshape(16, 16, 1)
    (tmp_path / "deep.png").write_bytes(encode(".png", np.repeat(values, channels, axis=2)))
    image = read_image(tmp_path / "deep.png")
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, np.repeat(np.arange(256, dtype=np.uint8).reshape(16, 16, 1), 3, axis=2))


def test_one_pixel_image(tmp_path: Path) -> None:
    write_image(tmp_path / "dot.png", np.array([[[10, 20, 30]]], dtype=np.uint8))
    np.testing.assert_array_equal(read_image(tmp_path / "dot.png"), [[[10, 20, 30]]])


def test_float_image_is_refused_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "f.tif").write_bytes(encode(".tif", np.zeros((4, 4), dtype=np.float32)))
    with pytest.raises(InputError, match=r"f\.tif has float32 pixels: convert"):
        read_image(tmp_path / "f.tif")


def test_what_is_wrong_with_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("hello, I am no picture")
    (tmp_path / "photo.heic").write_bytes(b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(200))
    for name, words in {
        "nowhere.png": "image not found",
        ".": "is a folder",
        "empty.png": r"empty \(0 bytes\)",
        "text.png": "not an image",
        "nul\0.png": "cannot read",
        "photo.heic": "is HEIC, which semkey does not read: convert it to JPEG",
    }.items():
        with pytest.raises(InputError, match=words) as caught:
            read_image(tmp_path / name)
        assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file_is_told(tmp_path: Path, picture: np.ndarray) -> None:
    write_image(tmp_path / "a.png", picture)
    (tmp_path / "a.png").chmod(0)
    with pytest.raises(InputError, match="cannot read"):
        read_image(tmp_path / "a.png")


@settings(deadline=None, max_examples=60)
@given(suffix=st.sampled_from([".png", ".jpg", ".webp", ".bmp", ".tif"]), kept=st.floats(0, 1, exclude_max=True))
def test_a_cut_file_is_always_an_error(tmp_path_factory: pytest.TempPathFactory, suffix: str, kept: float) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    data = encode(suffix, pixels)
    path = tmp_path_factory.mktemp("cut") / f"cut{suffix}"
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(InputError, match=r"cut\.") as caught:
        read_image(path)
    assert "\n" not in str(caught.value)


def test_cut_jpeg_with_whole_thumbnail_is_truncated(tmp_path: Path, picture: np.ndarray) -> None:
    data = jpeg_with_thumbnail(picture)
    (tmp_path / "whole.jpg").write_bytes(data)
    assert read_image(tmp_path / "whole.jpg").shape == picture.shape
    (tmp_path / "cut.jpg").write_bytes(data[:-100])
    with pytest.raises(InputError, match="truncated JPEG"):
        read_image(tmp_path / "cut.jpg")


def test_progressive_jpeg_and_trailing_bytes_are_fine(tmp_path: Path, picture: np.ndarray) -> None:
    data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
    (tmp_path / "p.jpg").write_bytes(data + b"\0" * 37)
    assert read_image(tmp_path / "p.jpg").shape == picture.shape


def test_a_flipped_byte_in_a_png_is_an_error(tmp_path: Path, picture: np.ndarray) -> None:
    data = bytearray(encode(".png", picture))
    data[len(data) // 2] ^= 0xFF
    (tmp_path / "bad.png").write_bytes(data)
    with pytest.raises(InputError, match="damaged PNG"):
        read_image(tmp_path / "bad.png")


def test_opencv_prints_nothing_about_bad_files(
    tmp_path: Path, picture: np.ndarray, capfd: pytest.CaptureFixture[str]
) -> None:
    level = cv2.utils.logging.getLogLevel()
    for suffix in (".png", ".jpg", ".webp", ".bmp", ".tif"):
        data = encode(suffix, picture)
        for size in (3, 20, len(data) // 2, len(data) - 1):
            (tmp_path / f"cut{suffix}").write_bytes(data[:size])
            with pytest.raises(InputError):
                read_image(tmp_path / f"cut{suffix}")
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
    assert cv2.utils.logging.getLogLevel() == level


def test_log_level_survives_threads(tmp_path: Path, picture: np.ndarray) -> None:
    level = cv2.utils.logging.getLogLevel()
    write_image(tmp_path / "a.png", picture)
    threads = [threading.Thread(target=lambda: [read_image(tmp_path / "a.png") for _ in range(50)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cv2.utils.logging.getLogLevel() == level


@pytest.mark.slow
def test_a_hundred_megapixels_fit_into_sane_memory(tmp_path: Path) -> None:
    row = np.arange(12000, dtype=np.uint16).astype(np.uint8)
    write_image(tmp_path / "huge.png", np.broadcast_to(row[None, :, None], (9000, 12000, 3)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    image = read_image(tmp_path / "huge.png")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert image.shape == (9000, 12000, 3)
    np.testing.assert_array_equal(image[4321, :, 1], row)
    assert grown < 3 * image.nbytes


def test_depth_in_metres_with_invalid_pixels_zero(tmp_path: Path) -> None:
    stored = np.array([[0, 1, 5000], [12345, 65534, 65535]], dtype=np.uint16)
    write_image(tmp_path / "d.png", stored)
    depth = read_depth(tmp_path / "d.png", 5000)
    assert depth.dtype == np.float32
    np.testing.assert_allclose(depth, [[0, 0.0002, 1], [2.469, 13.1068, 0]], rtol=1e-6)


@pytest.mark.parametrize("pixels", [np.ones((4, 4), np.uint8), np.ones((4, 4, 3), np.uint16)])
def test_depth_must_be_one_sixteen_bit_channel(tmp_path: Path, pixels: np.ndarray) -> None:
    (tmp_path / "d.png").write_bytes(encode(".png", pixels))
    with pytest.raises(InputError, match=r"d\.png is not a depth map"):
        read_depth(tmp_path / "d.png", 1000)


@pytest.mark.parametrize("scale", [0, -1, float("nan"), float("inf")])
def test_depth_scale_must_be_positive(tmp_path: Path, scale: float) -> None:
    with pytest.raises(InputError, match="depth scale"):
        read_depth(tmp_path / "d.png", scale)


def test_an_image_path_that_cannot_be_written_is_told(tmp_path: Path, picture: np.ndarray) -> None:
    with pytest.raises(InputError, match="an image name ends in"):
        write_image(tmp_path / "a.xyz", picture)
    with pytest.raises(InputError, match="an image name ends in"):
        check_image_path(tmp_path / "noending")


@pytest.mark.parametrize(
    ("name", "pixels"),
    [
        ("a.png", np.zeros((4, 4, 3), np.float32)),
        ("a.png", np.zeros((4, 4, 4), np.uint8)),
        ("a.png", np.zeros((0, 4, 3), np.uint8)),
        ("a.jpg", np.zeros((4, 4), np.uint16)),
    ],
)
def test_pixels_that_are_no_image_are_refused(tmp_path: Path, name: str, pixels: np.ndarray) -> None:
    with pytest.raises(InputError, match="pixels of shape"):
        write_image(tmp_path / name, pixels)
    assert list(tmp_path.iterdir()) == []
