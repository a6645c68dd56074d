"""16-bit pictures as 8 bits."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from pictures import blocks
from semkey.datasets import open_sequence
from semkey.images.reading import read_depth, read_image
from semkey.images.tones import Tone, tone_of


def test_sixteen_bits_that_are_used_are_divided_by_257(tmp_path: Path) -> None:
    picture = blocks(48, 64)[..., 0]
    cv2.imwrite(str(tmp_path / "a.png"), picture.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 0], picture)


def test_twelve_bits_are_stretched(tmp_path: Path) -> None:
    """The picture of a 12-bit camera looks as that of an 8-bit one, glare left out."""
    picture = blocks(96, 128)[..., 0]
    raw = picture.astype(np.uint16) * 16
    raw[0, 0] = 65535
    cv2.imwrite(str(tmp_path / "a.png"), raw)
    read = read_image(tmp_path / "a.png")[..., 0].astype(int)
    assert np.abs(read - picture)[1:].max() <= 2


def test_a_thermal_picture_uses_the_whole_range() -> None:
    rng = np.random.default_rng(0)
    raw = rng.integers(29500, 30500, (96, 128)).astype(np.uint16)
    tone = tone_of([raw])
    assert 29490 <= tone.low <= 29510
    assert 30490 <= tone.high <= 30510
    assert np.ptp(tone.apply(raw)) == 255
    assert Tone().apply(np.array([[0, 257, 65535]], dtype=np.uint16)).tolist() == [[0, 1, 255]]
    assert tone_of([np.full((8, 8), 700, np.uint16)]).apply(np.array([[700, 701]], np.uint16)).tolist() == [[0, 255]]


def test_a_sequence_has_one_tone(tmp_path: Path) -> None:
    """A frame that is darker than the others stays darker, and the sequence says what it did."""
    for k, level in enumerate((4, 8, 16)):
        cv2.imwrite(str(tmp_path / f"{k}.png"), blocks(48, 64)[..., 0].astype(np.uint16) * level)
    sequence = open_sequence(tmp_path)
    means = [float(frame.image.mean()) for frame in sequence]
    np.testing.assert_allclose(np.array(means) / means[2], (0.25, 0.5, 1.0), atol=0.02)
    assert [note for note in sequence.notes if "16-bit values 0 to" in note]
    assert open_sequence(Path(tmp_path)).notes == sequence.notes


def test_depth_in_floats_is_metres(tmp_path: Path) -> None:
    depth = np.array([[1.5, np.nan, -1.0], [0.0, np.inf, 7.25]], dtype=np.float32)
    cv2.imwrite(str(tmp_path / "d.tif"), depth)
    assert read_depth(tmp_path / "d.tif", 5000).tolist() == [[1.5, 0, 0], [0, 0, 7.25]]
    assert read_depth(tmp_path / "d.tif", 5000, scale_of_floats=2.0)[1, 2] == 3.625
