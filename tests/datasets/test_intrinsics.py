"""Intrinsics that cannot be those of the images, and what was probably meant."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from semkey.datasets import open_sequence
from semkey.datasets.cameras.intrinsics import check_intrinsics
from semkey.errors import ConfigError

GOOD = [
    ((525, 525, 319.5, 239.5), (640, 480)),
    ((535.4, 539.2, 320.1, 247.6), (640, 480)),
    ((707.1, 707.1, 601.9, 183.1), (1226, 370)),  # KITTI
    ((481.2, 480, 319.5, 239.5), (640, 480)),
    ((320, 320, 320, 240), (640, 480)),  # TartanAir
    ((190.98, 190.97, 254.93, 256.9), (512, 512)),  # a fisheye of TUM-VI
    ((458.654, 457.296, 367.215, 248.375), (752, 480)),
    ((3000, 3000, 2000, 1500), (4000, 3000)),
    ((260, 260, 170, 120), (320, 240)),
]


@pytest.mark.parametrize(("parameters", "size"), GOOD)
def test_real_cameras_pass(parameters: tuple[float, ...], size: tuple[int, int]) -> None:
    check_intrinsics(parameters, size)
    width, height = size
    fx, fy, cx, cy = parameters
    check_intrinsics((fy, fx, height - 1 - cy, cx), (height, width))


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ((0.82, 1.09, 0.5, 0.5), "divided by width and height; 524.8,523.2,319.5,239.5 was probably meant"),
        ((262.5, 262.5, 159.5, 119.5), "images of 320x240; 525,525,319.5,239.5 was probably meant"),
        ((1050, 1050, 639.5, 479.5), "images of 1280x960; 525,525,319.5,239.5 was probably meant"),
        ((525, 319.5, 525, 239.5), "look like fx,cx,fy,cy; 525,525,319.5,239.5 was probably meant"),
        ((319.5, 239.5, 525, 525), "look like cx,cy,fx,fy; 525,525,319.5,239.5 was probably meant"),
        ((262.5, 262.5, 160, 120), "images of 320x240; 525,525,319.5,239.5 was probably meant"),
        ((525, 525, 0, 0), "nobody has filled in; 525,525,319.5,239.5 was probably meant"),
        ((525, 525, 0, 239.5), "nobody has filled in; 525,525,319.5,239.5 was probably meant"),
        ((525, 525, 239.5, 319.5), "turned by 90 degrees, 480x640"),
        ((525, 525, 700, 239.5), "principal point 700, 239.5 is outside"),
        ((525, 525, -5, 239.5), "is outside"),
        ((525, 525, 319.5, 100), "far from the middle"),
        ((20000, 20000, 319.5, 239.5), "no lens has focal lengths of 20000"),
        ((525, 52.5, 319.5, 239.5), "differ too much"),
        ((525, 525, 319.5, 1e308), "is outside"),
    ],
)
def test_what_was_probably_meant(parameters: tuple[float, ...], words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_intrinsics(parameters, (640, 480))
    assert words in str(caught.value)
    assert "does not fit 640x480 images" in str(caught.value)


def test_cropped_images_are_allowed_with_their_size() -> None:
    with pytest.raises(ConfigError):
        check_intrinsics((525, 525, 100, 239.5), (640, 480))
    check_intrinsics((525, 525, 100, 239.5), (640, 480), is_sized=True)
    with pytest.raises(ConfigError, match="outside"):
        check_intrinsics((525, 525, -100, 239.5), (640, 480), is_sized=True)


def test_a_sequence_is_not_opened_with_them(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((480, 640), np.uint8))
    with pytest.raises(ConfigError, match="was probably meant"):
        open_sequence(tmp_path, camera=(0.82, 1.09, 0.5, 0.5))
    (tmp_path / "camera.txt").write_text("262.5 262.5 159.5 119.5\n")
    with pytest.raises(ConfigError, match="320x240"):
        open_sequence(tmp_path)
