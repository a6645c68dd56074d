"""Matches aligned in the images: exact corners through known homographies, when not to move, covariances, bad input."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import data

import semkey
from command_line import Run
from pictures import NEAR, SIZE, drawing, mapped, turned
from semkey.errors import ConfigError, InputError
from semkey.images import write_image
from semkey.matching import AlignmentConfig, Matches, refine
from semkey.matching.alignment.lucas_kanade import Alignment, align
from semkey.matching.alignment.patches import local_deformations
from semkey.model.features import Features

Array = NDArray[np.float64]


def aligned(H: Array, noise: float, **changes: object) -> tuple[Alignment, Array, Array]:
    """The alignment of corners whose second places are off, those places, and the true ones."""
    rng = np.random.default_rng(1)
    (image0, corners), (image1, _) = drawing(np.eye(3)), drawing(H)
    truth = mapped(H, corners)
    inside = ((truth > 12) & (truth < np.array(SIZE) - 13)).all(axis=1)
    start = truth[inside] + rng.normal(0, noise, (int(inside.sum()), 2))
    config = replace(AlignmentConfig(), **changes)
    return align(image0, image1, corners[inside], start, config), start, truth[inside]


def errors(points: Array, truth: Array) -> Array:
    return np.linalg.norm(points - truth, axis=1)


@pytest.mark.parametrize(
    "H", [np.eye(3), NEAR, turned(25, 1.0), turned(-40, 0.8)], ids=["same", "near", "turned", "turned and smaller"]
)
def test_corners_are_found_to_a_fraction_of_a_pixel(H: Array) -> None:
    found, start, truth = aligned(H, 0.7)
    assert len(truth) > 100
    assert np.median(errors(start, truth)) > 0.6
    assert found.moved.mean() > 0.85
    assert np.median(errors(found.points1, truth)[found.moved]) < 0.15


def test_without_the_deformation_turned_patches_do_not_fit() -> None:
    followed, start, truth = aligned(turned(-40, 0.8), 0.7)
    plain, _, _ = aligned(turned(-40, 0.8), 0.7, deformed=False)
    assert followed.moved.mean() > plain.moved.mean() + 0.3
    assert np.median(errors(plain.points1, truth)) <= 1.1 * np.median(errors(start, truth)), "it must not get worse"


def test_what_does_not_fit_stays_where_it_is() -> None:
    (image0, corners), (other, _) = drawing(np.eye(3)), drawing(np.eye(3), seed=7)
    noise = np.random.default_rng(0).integers(0, 256, image0.shape, dtype=np.uint8)
    for image1 in (noise, np.full_like(image0, 90)):
        found = align(image0, image1, corners, corners, AlignmentConfig())
        assert found.moved.mean() < 0.02
        np.testing.assert_array_equal(found.points1[~found.moved], corners[~found.moved])
    blank = align(np.full_like(image0, 90), image0, corners, corners, AlignmentConfig())
    assert not blank.moved.any()
    far = align(image0, image0, corners, corners + np.array([6.0, 0.0]), AlignmentConfig())
    assert errors(far.points1, corners + np.array([6.0, 0.0])).max() <= 3.0
    wrong = align(image0, other, corners, corners[::-1], AlignmentConfig())
    assert wrong.moved.mean() < 0.3


def test_the_covariance_is_long_along_an_edge_and_as_large_as_the_errors() -> None:
    image = np.zeros((100, 100), np.uint8)
    image[:, 50:] = 200
    image = np.asarray(cv2.GaussianBlur(image, (0, 0), 1.0), np.uint8)
    start = np.array([[50.3, 50.0]])
    found = align(image, image, np.array([[49.5, 50.0]]), start, AlignmentConfig())
    assert found.moved.all()
    assert abs(found.points1[0, 0] - 49.5) < 0.05, "across the edge it moves"
    assert abs(found.points1[0, 1] - 50.0) < 0.05, "along it, nothing tells"
    assert found.covariances[0, 1, 1] > 0.5
    assert found.covariances[0, 0, 0] < 0.02

    noisy, _, truth = aligned(NEAR, 0.7)
    deviations = (noisy.points1 - truth)[noisy.moved]
    squares = np.einsum("mi,mij,mj->m", deviations, np.linalg.inv(noisy.covariances[noisy.moved]), deviations)
    assert 0.2 < np.median(squares) < 4.0  # 1.39 for two degrees of freedom


def test_noise_does_not_drag_matches_along_an_edge() -> None:
    rng = np.random.default_rng(0)
    edge = np.zeros((600, 60), np.float64)
    edge[:, 30:] = 120
    edge = cv2.GaussianBlur(edge, (0, 0), 1.0) + 60
    image0, image1 = (np.clip(edge + rng.normal(0, 4, edge.shape), 0, 255).astype(np.uint8) for _ in range(2))
    places = np.stack([np.full(40, 29.5), np.linspace(20, 580, 40)], axis=1)
    found = align(image0, image1, places, places + np.array([0.6, 0.0]), AlignmentConfig())
    assert found.moved.mean() > 0.9
    miss = (found.points1 - places)[found.moved]
    assert np.sqrt(np.mean(miss[:, 0] ** 2)) < 0.1
    assert np.sqrt(np.mean(miss[:, 1] ** 2)) < 0.5, "a prior of 1 px holds them"


def test_matches_together_and_one_by_one_give_the_same() -> None:
    rng = np.random.default_rng(0)
    (image0, corners), (image1, _) = drawing(np.eye(3)), drawing(NEAR)
    start = mapped(NEAR, corners) + rng.normal(0, 0.7, corners.shape)
    config = AlignmentConfig(deformed=False)  # the deformation is of all matches around
    together = align(image0, image1, corners, start, config)
    for k in range(0, len(corners), 17):
        alone = align(image0, image1, corners[k : k + 1], start[k : k + 1], config)
        np.testing.assert_allclose(alone.points1[0], together.points1[k], atol=1e-6)
        np.testing.assert_allclose(alone.covariances[0], together.covariances[k], atol=1e-6)


def test_deformations_are_those_of_the_homography_and_outliers_do_not_bend_them() -> None:
    rng = np.random.default_rng(0)
    points0 = rng.uniform([0, 0], SIZE, (300, 2))
    H = turned(30, 0.7)
    points1 = mapped(H, points0)
    outliers = rng.choice(300, 90, replace=False)
    points1[outliers] = rng.uniform([0, 0], SIZE, (90, 2))
    found, known = local_deformations(points0, points1)
    right = np.setdiff1d(np.arange(300), outliers)
    assert known[right].mean() > 0.9
    miss = np.abs(found[right] - H[:2, :2]).max(axis=(1, 2))[known[right]]
    assert np.median(miss) < 0.1
    assert known[outliers].mean() < 0.5
    few, none = local_deformations(points0[:3], points1[:3])
    np.testing.assert_array_equal(few, np.tile(np.eye(2), (3, 1, 1)))
    assert not none.any()


# -- semkey.refine -------------------------------------------------------------------------------------------------


def two_views() -> tuple[NDArray[np.uint8], NDArray[np.uint8], Features, Features, Matches]:
    photo = data.astronaut()
    view = np.asarray(cv2.warpPerspective(photo, NEAR, (512, 512), flags=cv2.INTER_AREA), np.uint8)
    detector = semkey.load("orb", max_keypoints=300)
    features0, features1 = detector.extract(photo), detector.extract(view)
    return photo, view, features0, features1, semkey.match(features0, features1, ratio=0.9)


def test_refine_moves_keypoints_of_image_1_nearer_to_the_truth_and_changes_nothing_given() -> None:
    photo, view, features0, features1, matches = two_views()
    before = features1.keypoints.clone()
    refined = refine(features0, features1, matches, photo, view)
    torch.testing.assert_close(features1.keypoints, before, rtol=0, atol=0)
    assert refined.features0 is features0
    truth = mapped(NEAR, refined.points0.double().numpy())
    old = errors(before[matches.indices[:, 1]].double().numpy(), truth)
    new = errors(refined.points1.double().numpy(), truth)
    right = old < 3
    assert right.sum() > 50
    assert np.median(new[right]) < 0.5 * np.median(old[right])
    unmatched = np.setdiff1d(np.arange(len(before)), matches.indices[:, 1].numpy())
    assert refined.features1 is not None
    torch.testing.assert_close(refined.features1.keypoints[unmatched], before[unmatched], rtol=0, atol=0)


def test_paths_grey_and_float_images_give_the_same(tmp_path: Path) -> None:
    photo, view, features0, features1, matches = two_views()
    write_image(tmp_path / "a.png", photo)
    as_tensor = torch.from_numpy(view).permute(2, 0, 1).float() / 255
    plain = refine(features0, features1, matches, photo, view)
    other = refine(features0, features1, matches, tmp_path / "a.png", as_tensor)
    torch.testing.assert_close(plain.points1, other.points1, rtol=0, atol=1e-4)


def test_no_matches_give_none() -> None:
    photo, view, features0, features1, _ = two_views()
    none = Matches(indices=torch.zeros((0, 2), dtype=torch.int64), scores=torch.zeros(0))
    refined = refine(features0, features1, none, photo, view)
    assert len(refined) == 0
    assert refined.covariances.shape == (0, 2, 2)


def test_bad_input_is_one_clear_error() -> None:
    photo, view, features0, features1, matches = two_views()
    with pytest.raises(InputError, match="image1 has 500x400 pixels, its features are of an image of 512x512"):
        refine(features0, features1, matches, photo, view[:400, :500])
    beyond = Matches(indices=torch.tensor([[0, 5000]]), scores=torch.ones(1))
    with pytest.raises(InputError, match="keypoint 5000 of image 1, which has"):
        refine(features0, features1, beyond, photo, view)
    twice = Matches(indices=torch.tensor([[0, 1], [2, 1]]), scores=torch.ones(2))
    with pytest.raises(InputError, match="keypoint of image 1 twice"):
        refine(features0, features1, twice, photo, view)
    spoilt = features1.keypoints.clone()
    spoilt[matches.indices[0, 1]] = torch.nan
    with pytest.raises(InputError, match="NaN"):
        refine(features0, replace(features1, keypoints=spoilt), matches, photo, view)
    with pytest.raises(ConfigError, match="iterations"):
        AlignmentConfig(iterations=0)


def test_the_command_line_refines(tmp_path: Path, run: Run) -> None:
    photo, view, *_ = two_views()
    write_image(tmp_path / "a.png", photo)
    write_image(tmp_path / "b.png", view)
    arguments = ("match", tmp_path / "a.png", tmp_path / "b.png", "-f", "orb", "-n", "300", "--json", "-")
    plain, refined = run(*arguments), run(*arguments, "--refine")
    assert (plain.code, refined.code) == (0, 0)
    import json

    before, after = json.loads(plain.out), json.loads(refined.out)
    assert "covariance" not in before["matches"][0]
    assert all(len(match["covariance"]) == 2 for match in after["matches"])
    moved = [match["moved"] for match in after["matches"]]
    assert sum(moved) > 0.5 * len(moved)
    assert [m["index1"] for m in before["matches"]] == [m["index1"] for m in after["matches"]]
    assert before["matches"][moved.index(True)]["point1"] != after["matches"][moved.index(True)]["point1"]
