"""Photos as they are shown: EXIF orientation and focal length, against OpenCV's own reading."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from exif_files import INVERSE, exif_block, with_exif, write_turned
from pictures import blocks
from semkey.images.exif import Exif, parse_exif
from semkey.images.masks import read_mask
from semkey.images.orientation import shown_size, turn_points, turn_upright
from semkey.images.reading import read_exif, read_image

CODES = range(1, 9)


@pytest.mark.parametrize("code", CODES)
def test_photos_are_read_as_they_are_shown(tmp_path: Path, code: int) -> None:
    shown = blocks(48, 64, size=16)
    write_turned(tmp_path / "a.jpg", shown, code)
    by_opencv = cv2.imread(str(tmp_path / "a.jpg"))
    assert by_opencv is not None
    image = read_image(tmp_path / "a.jpg")
    np.testing.assert_array_equal(image, by_opencv[..., ::-1])
    assert np.abs(image.astype(int) - shown).mean() < 8
    stored = read_image(tmp_path / "a.jpg", orientation=1)
    np.testing.assert_array_equal(turn_upright(stored, code), image)


@pytest.mark.parametrize("code", CODES)
def test_points_turn_as_pixels_do(code: int) -> None:
    stored = np.zeros((5, 7), dtype=np.uint8)
    stored[1, 4] = 255
    shown = turn_upright(stored, code)
    y, x = np.argwhere(shown)[0].tolist()
    assert turn_points((4, 1), (7, 5), code).tolist() == [x, y]
    assert shown_size((7, 5), code) == shown.shape[::-1]
    np.testing.assert_array_equal(turn_upright(shown, INVERSE[code]), stored)


@pytest.mark.parametrize("ending", [".png", ".webp"])
def test_other_formats_tell_their_orientation(tmp_path: Path, ending: str) -> None:
    shown = blocks(48, 64, size=16)
    _, data = cv2.imencode(
        ending, np.ascontiguousarray(turn_upright(shown, 8)[..., ::-1]), [cv2.IMWRITE_WEBP_QUALITY, 101]
    )
    block = exif_block({0x0112: 6}, big=False)
    raw = data.tobytes()
    if ending == ".png":
        at = raw.index(b"IDAT") - 4
        raw = raw[:at] + len(block).to_bytes(4) + b"eXIf" + block + _crc(b"eXIf" + block) + raw[at:]
    else:
        chunk = b"EXIF" + len(block).to_bytes(4, "little") + block + b"\0" * (len(block) % 2)
        extended = b"VP8X" + (10).to_bytes(4, "little") + bytes([8, 0, 0, 0, 47, 0, 0, 63, 0, 0])
        inside = b"WEBP" + extended + raw[12:] + chunk
        raw = b"RIFF" + len(inside).to_bytes(4, "little") + inside
    (tmp_path / f"a{ending}").write_bytes(raw)
    np.testing.assert_array_equal(read_image(tmp_path / f"a{ending}"), shown)


def _crc(data: bytes) -> bytes:
    import zlib

    return zlib.crc32(data).to_bytes(4)


def test_focal_length_in_pixels() -> None:
    """26 mm of 35 mm film on a 4:3 picture, and a 50 mm lens on a sensor of 250 pixels per millimetre."""
    assert parse_exif(with_exif(b"\xff\xd8\xff\xd9", {0xA405: 26})).focal_px(4000, 3000) == pytest.approx(
        26 * 5000 / np.hypot(36, 24)
    )
    notes = {0x920A: 50.0, 0xA20E: 2500.0, 0xA210: 3, 0xA002: 6000}
    assert parse_exif(with_exif(b"\xff\xd8\xff\xd9", notes)).focal_px(6000, 4000) == pytest.approx(12500)
    assert parse_exif(with_exif(b"\xff\xd8\xff\xd9", notes)).focal_px(2000, 3000) == pytest.approx(6250)
    assert Exif().focal_px(4000, 3000) is None


def test_damaged_notes_count_as_none() -> None:
    whole = with_exif(b"\xff\xd8\xff\xd9", {0x0112: 6, 0xA405: 26})
    assert parse_exif(whole).orientation == 6
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(whole)
        broken[int(rng.integers(len(broken)))] = int(rng.integers(256))
        assert parse_exif(bytes(broken)[: int(rng.integers(4, len(broken) + 1))]).orientation in CODES
    assert parse_exif(with_exif(b"\xff\xd8\xff\xd9", {0x0112: 9})).orientation == 1


def test_notes_of_a_file(tmp_path: Path) -> None:
    write_turned(tmp_path / "a.jpg", blocks(48, 64), 6, {0xA405: 26})
    assert (read_exif(tmp_path / "a.jpg").orientation, read_exif(tmp_path / "a.jpg").focal_35mm) == (6, 26)


def test_a_mask_of_16_bits_leaves_out_black_only(tmp_path: Path) -> None:
    labels = np.zeros((4, 6), dtype=np.uint16)
    labels[:, 3:] = [1, 300, 40000]
    cv2.imwrite(str(tmp_path / "m.png"), labels)
    assert read_mask(tmp_path / "m.png")[0].tolist() == [0, 0, 0, 255, 255, 255]
