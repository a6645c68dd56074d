"""Pair lists as published: columns, turned and resized images, checked on points drawn into the images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semkey.errors import DatasetError
from semkey.evaluation.data.pair_lists import pair_list_sets, read_pair_list
from semkey.evaluation.data.pairs import ImagePair, PoseTruth
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, make_transform, rotation_angle_deg, so3_exp, transform_points
from semkey.images.writing import write_image

CAMERA0 = PinholeCamera(fx=240.0, fy=238.0, cx=131.0, cy=94.0, width=260, height=194)
CAMERA1 = PinholeCamera(fx=300.0, fy=305.0, cx=140.0, cy=120.0, width=300, height=220)
T_CAM1_CAM0 = make_transform(so3_exp([0.03, -0.1, 0.05]), [0.2, -0.05, 0.1])
X0 = np.array([[0.2, -0.1, 2.0]])
X1 = transform_points(T_CAM1_CAM0, X0)


def words(values: np.ndarray) -> str:
    return " ".join(f"{value:.5f}" for value in np.asarray(values).reshape(-1))


def line(rotations: str = "0 0 ", pose: np.ndarray = T_CAM1_CAM0, names: str = "a/0.png 1.png") -> str:
    return f"{names} {rotations}{words(CAMERA0.matrix)} {words(CAMERA1.matrix)} {words(pose)}"


def blob(camera: PinholeCamera, point: np.ndarray) -> np.ndarray:
    x, y = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    centre = camera.project(point)[0]
    value = 250.0 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / 32.0)
    return np.repeat(value.round().astype(np.uint8)[:, :, None], 3, axis=2)


def centroid(image: np.ndarray) -> np.ndarray:
    weight = image[:, :, 0].astype(np.float64)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


@pytest.fixture
def images(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    write_image(root / "a" / "0.png", blob(CAMERA0, X0))
    write_image(root / "1.png", blob(CAMERA1, X1))
    return root


def write_list(folder: Path, text: str) -> Path:
    path = folder / "pairs_with_gt.txt"
    path.write_text(text)
    return path


def pose_truth(pair: ImagePair) -> PoseTruth:
    assert isinstance(pair.truth, PoseTruth)
    return pair.truth


@pytest.mark.parametrize("turns0", [0, 1, 2, 3])
@pytest.mark.parametrize("turns1", [0, 3])
@pytest.mark.parametrize("resize", [None, 120, (128, 96), (320, 300)])
def test_the_truth_fits_the_images_that_are_read(
    images: Path, tmp_path: Path, turns0: int, turns1: int, resize: int | tuple[int, int] | None
) -> None:
    """A point in space is drawn into both images; the turned, resized cameras and pose must see it where it shows."""
    path = write_list(tmp_path, line(f"{turns0} {turns1} ") + "\n")
    (found,) = pair_list_sets(path, images, resize=resize)
    assert found.name == "pairs_with_gt"
    (pair,) = found.pairs
    truth = pose_truth(pair)
    image0, image1 = pair.image0.read(), pair.image1.read()
    point0, point1 = centroid(image0), centroid(image1)
    for camera, image in ((truth.camera0, image0), (truth.camera1, image1)):
        assert (camera.height, camera.width) == image.shape[:2]
    # The depth along the optical axis does not change by turning or resizing.
    back = truth.camera0.backproject(point0[None], X0[:, 2])
    projected = truth.camera1.project(transform_points(truth.T_cam1_cam0, back))[0]
    np.testing.assert_allclose(projected, point1, atol=0.05)
    if resize == (128, 96) and turns0 == 0:
        assert image0.shape == (96, 128, 3)
    if resize == (128, 96) and turns0 == 1:  # resized as stored, then turned
        assert image0.shape == (128, 96, 3)


def test_turning_both_images_alike_turns_the_pose(images: Path, tmp_path: Path) -> None:
    path = write_list(tmp_path, line("2 2 ") + "\n")
    truth = pose_truth(pair_list_sets(path, images)[0].pairs[0])
    half_turn = make_transform(np.diag([-1.0, -1.0, 1.0]), np.zeros(3))
    np.testing.assert_allclose(truth.T_cam1_cam0, half_turn @ T_CAM1_CAM0 @ inverse(half_turn), atol=1e-5)


def test_the_other_published_columns(images: Path, tmp_path: Path) -> None:
    without_turns = line("") + "\n"
    R_and_t = line("", pose=np.concatenate([T_CAM1_CAM0[:3, :3].reshape(-1), T_CAM1_CAM0[:3, 3]])) + "\n"
    for text in (line() + "\n", without_turns, R_and_t):
        truth = pose_truth(pair_list_sets(write_list(tmp_path, text), images)[0].pairs[0])
        np.testing.assert_allclose(truth.T_cam1_cam0, T_CAM1_CAM0, atol=2e-5)
        assert not truth.has_depth
        assert (truth.camera0.fx, truth.camera1.cy) == (240.0, 120.0)


def test_rotations_of_five_decimals_become_exact(images: Path, tmp_path: Path) -> None:
    rough = np.round(T_CAM1_CAM0, 3)
    truth = pose_truth(pair_list_sets(write_list(tmp_path, line(pose=rough)), images)[0].pairs[0])
    rotation = truth.T_cam1_cam0[:3, :3]
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-14)
    assert rotation_angle_deg(rotation.T @ T_CAM1_CAM0[:3, :3]) < 0.1


def test_several_lines_comments_and_pairs_that_come_twice(images: Path, tmp_path: Path) -> None:
    path = write_list(tmp_path, f"# a comment\n{line()}\n\n{line(names='1.png a/0.png')}\n{line()}\n")
    (found,) = pair_list_sets(path, images)
    assert [pair.name for pair in found.pairs] == ["a/0.png - 1.png", "1.png - a/0.png", "a/0.png - 1.png (2)"]
    assert [listed.line for listed in read_pair_list(path)] == [2, 4, 5]
    assert found.pairs[0].image0.key == found.pairs[1].image1.key == "a/0.png"


def test_scannet_images_in_folders_of_scenes(tmp_path: Path) -> None:
    for name, folder in (("scene0707_00_frame-000015.jpg", "flat"), ("scene0707_00/color/15.jpg", "scans")):
        write_image(tmp_path / folder / name, blob(CAMERA0, X0))
    names = "scene0707_00_frame-000015.jpg scene0707_00_frame-000015.jpg"
    path = write_list(tmp_path, line(names=names).replace(words(CAMERA1.matrix), words(CAMERA0.matrix)))
    for folder in ("flat", "scans"):
        (pair,) = pair_list_sets(path, tmp_path / folder)[0].pairs
        assert pair.image0.read().shape == (194, 260, 3)
    (tmp_path / "none").mkdir()
    with pytest.raises(DatasetError, match=r"scene0707_00_frame-000015\.jpg: file is missing \(listed in .*txt:1\)"):
        pair_list_sets(path, tmp_path / "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no pairs"),
        ("# only a comment\n", "lists no pairs"),
        ("a/0.png 1.png\n", r"txt:1: has no ground truth"),
        (line() + "\n" + line() + " 1\n", r"txt:2: expected 38 columns .* found 39"),
        (line("0 4 "), r"txt:1: rot0 and rot1 are quarter turns 0 to 3, found 0 4"),
        (line("0.5 0 "), r"txt:1: rot0 and rot1"),
        (line().replace("240.00000", "wide"), r"txt:1: 'wide' is not a number"),
        (line().replace("240.00000", "nan"), r"txt:1: 'nan' is not a finite number"),
        (line().replace("240.00000", "-240"), r"txt:1: K0 is no calibration matrix"),
        (line().replace("240.00000 0.00000", "240 3.0"), r"txt:1: K0 is no calibration matrix .* without skew"),
        (line(pose=2 * T_CAM1_CAM0), r"txt:1: T_0to1 is not a rigid transform"),
        (line(pose=np.diag([1.0, 1.0, -1.0, 1.0])), r"txt:1: T_0to1 is not a rigid transform"),
        (line(names="a/0.png 2.png"), r"2\.png: file is missing \(listed in .*txt:1\)"),
        (
            line(names="1.png a/0.png").replace("131.00", "299.50"),
            r"txt:1: principal point \(299\.5, 94\) lies outside",
        ),
    ],
)
def test_broken_lists_are_named_with_their_line(images: Path, tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        pair_list_sets(write_list(tmp_path, text), images)


def test_missing_list_or_images(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"none\.txt: file is missing"):
        pair_list_sets(tmp_path / "none.txt", tmp_path)
    with pytest.raises(DatasetError, match="no such folder"):
        pair_list_sets(write_list(tmp_path, line()), tmp_path / "images")
