"""Lines at an image's edge that are not of the picture are not seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import semkey
from pictures import blocks
from semkey.images import read_image
from semkey.model.preprocess import without_frame

SIDES = {"top": (0, 1), "bottom": (0, -1), "left": (1, 1), "right": (1, -1)}


def picture(size: tuple[int, int] = (64, 96)) -> torch.Tensor:
    """Smooth waves (H, W) in [0, 1] that change by less than a hundredth from pixel to pixel."""
    y, x = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    return 0.5 + 0.2 * torch.sin(x / 25.0) * torch.cos(y / 30.0)


def framed(image: torch.Tensor, side: str, thickness: int, value: float = 0.0) -> torch.Tensor:
    axis, sign = SIDES[side]
    turned = image.clone() if axis == 0 else image.T.clone()
    turned[slice(0, thickness) if sign > 0 else slice(-thickness, None)] = value
    return turned if axis == 0 else turned.T


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("thickness", [1, 2, 4])
def test_a_frame_repeats_the_first_line_inside_and_all_else_stays(side: str, thickness: int) -> None:
    image = picture()
    mended = without_frame(framed(image, side, thickness))
    axis, sign = SIDES[side]
    found, expected = (mended, image) if axis == 0 else (mended.T, image.T)
    if sign < 0:
        found, expected = found.flip(0), expected.flip(0)
    assert torch.equal(found[thickness:], expected[thickness:])
    assert torch.equal(found[:thickness], expected[thickness : thickness + 1].expand(thickness, -1))


def test_all_sides_at_once_in_batches_and_only_where_there_is_one() -> None:
    image = picture()
    both = torch.stack([framed(framed(image, "right", 1), "bottom", 2, 1.0), image])[:, None]
    mended = without_frame(both)
    assert torch.equal(mended[1, 0], image)
    assert (mended[0, 0] - image).abs().max() < 0.05


def test_pictures_bars_edges_and_small_images_stay() -> None:
    rng = np.random.default_rng(3)
    noisy = torch.from_numpy(rng.random((64, 96)).astype(np.float32))
    step = picture()
    step[:8] = 0.0  # a bar, or the shadow of something: not a line
    pattern = torch.from_numpy(blocks(63, 96)[..., 0]).float() / 255.0  # blocks of three pixels
    for image in (picture(), noisy, step, pattern, torch.zeros(64, 96), torch.rand(15, 96)):
        assert torch.equal(without_frame(image), image)


def test_traced_it_computes_the_same() -> None:
    traced = torch.jit.trace(without_frame, framed(picture(), "bottom", 1))
    for image in (picture(), framed(picture(), "left", 2), framed(picture((80, 48)), "top", 3)):
        assert torch.equal(traced(image), without_frame(image))


@pytest.mark.parametrize("name", ["compact", "nano"])
def test_features_are_those_of_the_picture_without_its_frame(name: str) -> None:
    image = blocks(240, 320, seed=8, size=24)
    with_line, repeated = image.copy(), image.copy()
    with_line[-1], with_line[:, -1] = with_line[-1] // 2, with_line[:, -1] // 2
    repeated[-1], repeated[:, -1] = repeated[-2], repeated[:, -2]
    detector = semkey.load(name)
    first, second = detector.extract(with_line), detector.extract(repeated)
    assert len(first) == len(second) > 100
    assert torch.equal(first.descriptors, second.descriptors)
    assert (first.keypoints - second.keypoints).abs().max() == 0.0


def test_no_row_of_keypoints_stands_still_along_a_dark_edge(shared: Path) -> None:
    folder = shared / "data" / "tum" / "rgbd_dataset_freiburg3_cabinet_subsampled" / "rgb"
    detector = semkey.load("compact")
    for path in sorted(folder.iterdir())[10:50:15]:
        assert read_image(path)[-1].mean() < 100  # the last line is half black
        keypoints = detector.extract(path).keypoints
        assert ((keypoints[:, 1] > 466) | (keypoints[:, 0] > 626)).sum() < 30
