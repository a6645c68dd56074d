from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from semkey.errors import InputError
from semkey.images import read_image, write_image
from semkey.matching import Matches
from semkey.model.features import Features
from semkey.visualization import draw_keypoints, draw_matches
from semkey.visualization.draw import BACKGROUND, IMAGE_GAP, with_caption


def make_features(keypoints: list[list[float]], size: tuple[int, int], reliability: float = 0.0) -> Features:
    count = len(keypoints)
    return Features(
        keypoints=torch.tensor(keypoints, dtype=torch.float32).reshape(-1, 2),
        scores=torch.ones(count),
        reliability=torch.full((count,), reliability),
        descriptors=torch.ones((count, 1)),
        global_descriptor=torch.zeros(0),
        image_size=size,
    )


def make_matches(pairs: list[list[int]]) -> Matches:
    return Matches(indices=torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2), scores=torch.ones(len(pairs)))


def gray(width: int, height: int, value: int = 100) -> np.ndarray:
    return np.full((height, width, 3), value, dtype=np.uint8)


def test_circle_is_centred_on_the_sub_pixel_position() -> None:
    for x, y in [(60.0, 40.0), (60.25, 40.5), (59.75, 40.125)]:
        image = gray(120, 80)
        drawn = draw_keypoints(image, make_features([[x, y]], (120, 80))).pixels
        changed = np.abs(drawn.astype(float) - image).sum(axis=2)
        rows, columns = np.mgrid[:80, :120]
        assert (columns * changed).sum() / changed.sum() == pytest.approx(x, abs=0.1)
        assert (rows * changed).sum() / changed.sum() == pytest.approx(y, abs=0.1)
        assert (image == 100).all(), "the given image must stay as it is"


def test_colour_tells_score_or_reliability() -> None:
    features = make_features([[60, 40]], (120, 80), reliability=0.0)
    by_score = draw_keypoints(gray(120, 80), features).pixels
    by_reliability = draw_keypoints(gray(120, 80), features, color_by="reliability").pixels
    red, blue = by_score.astype(int)[..., 0].max(), by_reliability.astype(int)[..., 2].max()
    assert red > by_score[..., 2].max(), "score 1 is red"
    assert blue > by_reliability[..., 0].max() - 50
    assert not np.array_equal(by_score, by_reliability)


def test_a_covariance_is_an_ellipse_along_its_longer_axis() -> None:
    """Eight standard deviations: 16 px to each side along (1, 1), next to nothing across."""
    along, across = np.array([1.0, 1.0]) / np.sqrt(2), np.array([1.0, -1.0]) / np.sqrt(2)
    covariance = 4.0 * np.outer(along, along) + 0.01 * np.outer(across, across)
    features = make_features([[60, 40]], (120, 80))
    features = dataclasses.replace(features, covariances=torch.tensor(covariance[None], dtype=torch.float32))
    drawn = draw_keypoints(gray(120, 80), features).pixels
    rows, columns = np.nonzero((drawn != 100).any(axis=2))
    offsets = np.stack([columns - 60, rows - 40], axis=1)
    assert np.abs(offsets @ along).max() == pytest.approx(16, abs=2.5)
    assert np.abs(offsets @ across).max() < 5


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (640, 480)])
def test_no_keypoints_give_the_image_itself(size: tuple[int, int]) -> None:
    np.testing.assert_array_equal(draw_keypoints(gray(*size), make_features([], size)), gray(*size))


def test_keypoints_at_the_border_are_fine() -> None:
    drawn = draw_keypoints(gray(50, 40), make_features([[0, 0], [49, 39]], (50, 40))).pixels
    assert drawn.shape == (40, 50, 3)


def test_inliers_are_green_and_outliers_red() -> None:
    features0 = make_features([[10, 50], [10, 150]], (400, 200))
    features1 = make_features([[390, 50], [390, 150]], (400, 200))
    matches = make_matches([[0, 0], [1, 1]])
    drawn = draw_matches(
        gray(400, 200), gray(400, 200), features0, features1, matches, [True, False], layout="horizontal"
    )
    drawn = drawn.pixels.astype(int)
    assert drawn.shape[1] == 800 + IMAGE_GAP
    good, bad = drawn[50, 300], drawn[150, 300]
    assert good[1] > good[0] + 50
    assert bad[0] > bad[1] + 20
    assert drawn[50, 600].tolist() == good.tolist(), "the line goes on in the second image"
    assert drawn[100, 300].tolist() == [60, 60, 60], "images are dimmed where no line is"


def test_errors_colour_inliers_and_leave_the_others_grey() -> None:
    features0 = make_features([[10, 50], [10, 100], [10, 150]], (400, 200))
    features1 = make_features([[390, 50], [390, 100], [390, 150]], (400, 200))
    matches = make_matches([[0, 0], [1, 1], [2, 2]])
    drawn = draw_matches(
        gray(400, 200), gray(400, 200), features0, features1, matches, [True, True, False], errors=[0.0, 2.0, 9.0],
        layout="horizontal",
    ).pixels.astype(int)  # fmt: skip
    exact, worst, wrong = drawn[50, 300], drawn[100, 300], drawn[150, 300]
    assert exact[2] > exact[0] + 20, "an error of 0 is blue"
    assert worst[0] > worst[2] + 50, "the largest is red"
    assert wrong.max() - wrong.min() < 5
    with pytest.raises(InputError, match=r"errors have shape \(2,\)"):
        draw_matches(gray(400, 200), gray(400, 200), features0, features1, matches, errors=[0.0, 1.0])


def test_layouts_and_a_caption_of_ones_own() -> None:
    features = make_features([[10, 50]] * 200, (400, 200))
    matches = make_matches([[k, k] for k in range(200)])
    image = gray(400, 200)
    beside = draw_matches(image, image, features, features, matches, layout="horizontal")
    above = draw_matches(image, image, features, features, matches, layout="vertical")
    assert beside.pixels.shape[1] == 800 + IMAGE_GAP
    assert above.pixels.shape[0] > 400 + IMAGE_GAP
    assert above.pixels.shape[1] == 480
    bare = draw_matches(image, image, features, features, matches, layout="horizontal", caption="")
    assert (bare.pixels[200:] == BACKGROUND).all(), "a caption replaces what is said of the sample too"


def test_a_caption_that_is_too_long_for_a_line_goes_on_in_the_next() -> None:
    short = with_caption(gray(600, 10), "some words")
    long = with_caption(gray(600, 10), "some words " * 12)
    assert long.shape[0] - 10 > 1.5 * (short.shape[0] - 10)
    assert long[:, 590:].max() <= BACKGROUND + 100, "no word is cut off"
    assert (long[10:] > 200).any(axis=(1, 2)).sum() >= 2 * (short[10:] > 200).any(axis=(1, 2)).sum()


def test_images_of_different_sizes_and_no_matches() -> None:
    drawn = draw_matches(
        gray(600, 100),
        gray(1, 1),
        make_features([], (600, 100)),
        make_features([], (1, 1)),
        make_matches([]),
        layout="horizontal",
    ).pixels
    assert drawn.shape[1] == 600 + IMAGE_GAP + 1
    assert (drawn[50, -1] == BACKGROUND).all()
    assert drawn[100:].max() > 200, "the caption is there"


def test_large_images_are_reduced_with_their_keypoints() -> None:
    features0 = make_features([[3000, 1000]], (4000, 2000))
    features1 = make_features([[100, 400]], (800, 800))
    drawn = draw_matches(
        gray(4000, 2000),
        gray(800, 800),
        features0,
        features1,
        make_matches([[0, 0]]),
        np.array([True]),
        layout="horizontal",
    ).pixels.astype(int)
    assert drawn.shape[1] == 1600 + IMAGE_GAP + 800
    assert drawn[400, 1250, 1] > drawn[400, 1250, 0] + 50, "the line starts at x = 3000 * 0.4"
    assert drawn[400, 1150, 1] == drawn[400, 1150, 0]


def test_what_does_not_belong_together_is_refused() -> None:
    features, image = make_features([[1, 1]], (50, 40)), gray(50, 40)
    with pytest.raises(InputError, match="50x40, the image is 40x50"):
        draw_keypoints(gray(40, 50), features)
    with pytest.raises(InputError, match="uint8"):
        draw_keypoints(image.astype(np.float32), features)
    with pytest.raises(InputError, match="matches are of other features"):
        draw_matches(image, image, features, features, make_matches([[0, 1]]))
    with pytest.raises(InputError, match="inliers have shape"):
        draw_matches(image, image, features, features, make_matches([[0, 0]]), [True, False])


def test_a_picture_is_saved_shown_and_an_array(tmp_path: Path) -> None:
    from PIL import Image

    image = np.arange(50 * 40 * 3, dtype=np.uint8).reshape(40, 50, 3)
    picture = draw_keypoints(image, make_features([], (50, 40)))
    assert repr(picture) == "Picture(50x40)"
    np.testing.assert_array_equal(np.asarray(picture), image)
    np.testing.assert_array_equal(np.asarray(Image.fromarray(picture)), image)  # ty: ignore[invalid-argument-type] (no len: NumPy asks its interface only)
    picture.save(tmp_path / "new" / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "new" / "a.png"), image)
    assert picture._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(InputError, match="an image name ends in"):
        picture.save(tmp_path / "a.txt")


def test_images_are_paths_arrays_or_tensors(tmp_path: Path) -> None:
    features = make_features([[20, 20]], (50, 40))
    write_image(tmp_path / "a.png", gray(50, 40))
    expected = draw_keypoints(gray(50, 40), features).pixels
    tensor = torch.from_numpy(gray(50, 40)).permute(2, 0, 1).float() / 255
    for image in (tmp_path / "a.png", str(tmp_path / "a.png"), gray(50, 40)[..., 0], tensor):
        np.testing.assert_array_equal(draw_keypoints(image, features).pixels, expected)
