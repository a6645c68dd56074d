"""Sizes of image files from their headers, against what OpenCV wrote."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from semkey.images.headers import header_size, stored_size


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".ppm", ".pgm", ".webp", ".bmp", ".tif"])
@pytest.mark.parametrize("size", [(53, 37), (300, 2)])
def test_the_size_is_that_of_the_decoded_image(
    tmp_path: Path, suffix: str, size: tuple[int, int], rng: np.random.Generator
) -> None:
    shape = (size[1], size[0]) if suffix == ".pgm" else (size[1], size[0], 3)
    path = tmp_path / f"image{suffix}"
    assert cv2.imwrite(str(path), rng.integers(0, 255, shape, dtype=np.uint8))
    assert stored_size(path) == size
    assert header_size(path) == (None if suffix == ".tif" else size)


@pytest.mark.parametrize("quality", [80, 101])  # lossy, and lossless beyond 100
@pytest.mark.parametrize("channels", [3, 4])  # the extended format holds the alpha channel of lossy files
def test_the_kinds_of_webp(tmp_path: Path, quality: int, channels: int, rng: np.random.Generator) -> None:
    path = tmp_path / "image.webp"
    pixels = rng.integers(0, 255, (37, 53, channels), dtype=np.uint8)
    assert cv2.imwrite(str(path), pixels, [cv2.IMWRITE_WEBP_QUALITY, quality])
    expected = {(80, 3): b"VP8 ", (80, 4): b"VP8X"}.get((quality, channels), b"VP8L")
    assert path.read_bytes()[12:16] == expected
    assert header_size(path) == (53, 37)


def test_what_tells_no_size(tmp_path: Path) -> None:
    for number, data in enumerate([b"", b"no image", b"RIFF1234WEBP", b"BM12", b"P6\nten\n", b"\xff\xd8\xff\xe0"]):
        path = tmp_path / f"{number}.png"
        path.write_bytes(data)
        assert header_size(path) is None, data


def test_a_bmp_with_rows_that_run_down(tmp_path: Path) -> None:
    path = tmp_path / "image.bmp"
    path.write_bytes(b"BM" + bytes(12) + b"\x28\0\0\0" + (70).to_bytes(4, "little") + b"\xd8\xff\xff\xff" + bytes(28))
    assert header_size(path) == (70, 40)


@pytest.mark.parametrize("flags", [[cv2.IMWRITE_JPEG_PROGRESSIVE, 1], [cv2.IMWRITE_JPEG_RST_INTERVAL, 2]])
def test_the_size_of_other_kinds_of_jpeg(tmp_path: Path, flags: list[int]) -> None:
    path = tmp_path / "image.jpg"
    assert cv2.imwrite(str(path), np.zeros((40, 70, 3), np.uint8), flags)
    assert stored_size(path) == (70, 40)


def test_a_thumbnail_in_the_metadata_is_not_taken_for_the_image(tmp_path: Path) -> None:
    _, image = cv2.imencode(".jpg", np.zeros((40, 70, 3), np.uint8))
    _, thumbnail = cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))
    segment = b"Exif\x00\x00" + thumbnail.tobytes()
    data = image.tobytes()
    path = tmp_path / "image.jpg"
    path.write_bytes(data[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + data[2:])
    assert stored_size(path) == (70, 40)


def test_a_jpeg_whose_tables_come_before_the_frame(tmp_path: Path) -> None:
    _, image = cv2.imencode(".jpg", np.zeros((40, 70, 3), np.uint8))
    data = image.tobytes()
    path = tmp_path / "image.jpg"
    path.write_bytes(data[:2] + b"\xff\xc4" + (2 + 17).to_bytes(2, "big") + bytes([0, *[9] * 16]) + data[2:])
    assert stored_size(path) == (70, 40)


def test_a_comment_in_a_ppm_header(tmp_path: Path) -> None:
    path = tmp_path / "image.ppm"
    path.write_bytes(b"P6\n# by hand, 9 9\n3 2\n255\n" + bytes(18))
    assert stored_size(path) == (3, 2)
