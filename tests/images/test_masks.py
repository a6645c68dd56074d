"""Masks: reading, checking, shrinking, and which points and segments they leave."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from semkey.errors import InputError
from semkey.images.masks import MaskSource, check_mask, in_mask, read_mask, segments_in_mask, shrink_mask


def test_everything_but_black_is_used(tmp_path: Path) -> None:
    values = np.array([[0, 1, 255], [0, 128, 7]], np.uint8)
    cv2.imwrite(str(tmp_path / "gray.png"), values)
    assert read_mask(tmp_path / "gray.png").tolist() == [[0, 255, 255], [0, 255, 255]]
    color = np.zeros((2, 3, 3), np.uint8)
    color[0, 1] = (0, 0, 9)  # a label image: any colour is used
    cv2.imwrite(str(tmp_path / "color.png"), color)
    assert read_mask(tmp_path / "color.png").tolist() == [[0, 255, 0], [0, 0, 0]]


def test_jpeg_blurs_black_and_is_read_by_halves(tmp_path: Path) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[:, 31:] = 255
    cv2.imwrite(str(tmp_path / "m.jpg"), mask, [cv2.IMWRITE_JPEG_QUALITY, 60])
    stored = np.asarray(cv2.imread(str(tmp_path / "m.jpg"), 0))
    assert not np.array_equal(stored, mask), "the file must be impure"
    np.testing.assert_array_equal(read_mask(tmp_path / "m.jpg"), mask)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.zeros((30, 40), np.float32), r"mask is float32 of shape \(30, 40\): a mask is uint8"),
        (np.zeros((30, 40, 3), np.uint8), r"of shape \(30, 40, 3\)"),
        (np.zeros((40, 30), np.uint8), "mask has 30x40 pixels, its image 40x30"),
        ("nowhere.png", "image not found: nowhere.png"),
    ],
)
def test_what_is_no_mask_is_one_line(mask: object, words: str) -> None:
    with pytest.raises(InputError, match=words) as raised:
        check_mask(mask, (40, 30))
    assert "\n" not in str(raised.value)


def test_arrays_tensors_and_booleans_are_masks() -> None:
    mask = np.zeros((3, 4), np.uint8)
    mask[1, 2] = 7
    for kind in (mask, mask > 0, torch.from_numpy(mask)):
        assert np.argwhere(check_mask(kind, (4, 3))).tolist() == [[1, 2]]


@pytest.mark.parametrize("size", [(20, 15), (27, 19), (39, 29), (1, 1)])
def test_a_reduced_pixel_is_used_where_all_it_covers_is(size: tuple[int, int]) -> None:
    for x, y in ((0, 0), (17, 11), (39, 29)):
        usable = np.ones((30, 40), bool)
        usable[y, x] = False
        small = shrink_mask(usable, size)
        assert small.shape == size[::-1]
        for row in range(size[1]):
            for column in range(size[0]):
                covers_x = column * 40 / size[0] < x + 1 - 1e-9 and (column + 1) * 40 / size[0] > x + 1e-9
                covers_y = row * 30 / size[1] < y + 1 - 1e-9 and (row + 1) * 30 / size[1] > y + 1e-9
                assert small[row, column] == (not (covers_x and covers_y))


def test_points_belong_to_the_pixel_around_them() -> None:
    usable = np.zeros((3, 4), bool)
    usable[1, 2] = True
    points = np.array([[2.0, 1.0], [1.5, 0.5], [2.49, 1.49], [2.5, 1.0], [1.49, 1.0], [9.0, 9.0]])
    assert in_mask(points, usable).tolist() == [True, True, True, False, False, False]


def test_a_segment_is_refused_that_touches_or_runs_along_the_mask() -> None:
    usable = np.ones((60, 80), bool)
    usable[20:40, 30:50] = False
    segments = np.array(
        [
            [[5.0, 5.0], [70.0, 5.0]],  # far away
            [[5.0, 30.0], [70.0, 30.0]],  # through it, both ends outside
            [[10.0, 18.5], [70.0, 18.5]],  # its edge
            [[5.0, 16.0], [70.0, 16.0]],  # beside it
        ]
    )
    assert segments_in_mask(segments, usable).tolist() == [True, False, False, True]
    assert segments_in_mask(segments[:0], usable).shape == (0,)


def test_masks_of_a_folder_are_found_by_name(tmp_path: Path) -> None:
    for name in ("a.png", "b.jpg.png", "c_mask.png", "d.PNG"):
        cv2.imwrite(str(tmp_path / name), np.full((2, 2), 255, np.uint8))
    (tmp_path / "notes.txt").touch()
    source = MaskSource(tmp_path)
    found = [source.file(name).name for name in ("x/a.jpg", "b.jpg", "c.png", "d.png")]
    assert found == ["a.png", "b.jpg.png", "c_mask.png", "d.PNG"]
    with pytest.raises(InputError, match=r"no mask for e\.jpg \(it would be named e\.png\)"):
        source.mask("images/e.jpg")
    one = MaskSource(tmp_path / "a.png")
    assert one.mask("anything.jpg").shape == (2, 2)


def test_no_masks_are_told_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such mask or folder"):
        MaskSource(tmp_path / "none")
    with pytest.raises(InputError, match="holds no masks"):
        MaskSource(tmp_path)
