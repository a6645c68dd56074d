"""Sizes from headers; resizing and turning images together with the truth, checked on pixels."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from semkey.errors import ConfigError, DatasetError, InputError
from semkey.evaluation.data.image_sources import (
    file_source,
    parse_resize,
    resized_set,
    resized_size,
    resized_source,
    resizing_homography,
    turned_camera,
    turned_source,
)
from semkey.evaluation.data.pairs import HomographyTruth, ImagePair, ImageSource, PairSet, PoseTruth
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import make_transform, so3_exp, transform_points


def blob_image(size: tuple[int, int], centre: np.ndarray, sigma: float = 4.0) -> np.ndarray:
    """A bright Gaussian on black: its centroid tells where the point is after any resampling."""
    y, x = np.mgrid[: size[1], : size[0]]
    value = 250.0 * np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2) / (2 * sigma**2))
    return np.repeat(value.round().astype(np.uint8)[:, :, None], 3, axis=2)


def centroid(image: np.ndarray) -> np.ndarray:
    weight = image[:, :, 0].astype(np.float64)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


def source(image: np.ndarray, key: str = "image", sized: bool = True) -> ImageSource:
    return ImageSource(key=key, read=lambda: image, size=(image.shape[1], image.shape[0]) if sized else None)


# -- files ---------------------------------------------------------------------------------------------------------


def test_the_size_of_a_file_is_known_before_it_is_read(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "image.png"
    assert cv2.imwrite(str(path), rng.integers(0, 255, (37, 53, 3), dtype=np.uint8))
    read = file_source(path, "key")
    assert read.size == (53, 37)
    assert read.read().shape == (37, 53, 3)


def test_files_that_are_no_images(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"a\.png: file is missing \(listed in list\.txt:3\)"):
        file_source(tmp_path / "a.png", "a", "list.txt:3")
    (tmp_path / "empty.png").write_bytes(b"")
    with pytest.raises(DatasetError, match=r"empty\.png: file is empty"):
        file_source(tmp_path / "empty.png", "a")
    for name, data in {"text.png": b"hello", "cut.jpg": b"\xff\xd8\xff\xe0", "cut.ppm": b"P6\n3"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError, match=name):
            file_source(tmp_path / name, "a")


def test_a_file_that_changes_its_size_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    cv2.imwrite(str(path), np.zeros((20, 30, 3), np.uint8))
    image = file_source(path, "key")
    cv2.imwrite(str(path), np.zeros((20, 31, 3), np.uint8))
    with pytest.raises(DatasetError, match=r"image\.png: .*30x20.*31x20"):
        image.read()


# -- resizing ------------------------------------------------------------------------------------------------------


def test_resize_as_written_on_the_command_line() -> None:
    assert parse_resize("1600") == 1600
    assert parse_resize("640x480") == (640, 480)
    for text in ("", "x", "640x", "-3", "640x480x3", "12", "640x0", "1.5", "big"):
        with pytest.raises(ConfigError, match="resize"):
            parse_resize(text)


def test_the_longest_side_keeps_the_aspect_and_enlarges_too() -> None:
    assert resized_size((1296, 968), 640) == (640, 478)
    assert resized_size((968, 1296), 640) == (478, 640)
    assert resized_size((320, 240), 640) == (640, 480)
    assert resized_size((1296, 968), (640, 480)) == (640, 480)


def test_an_image_of_that_size_already_is_left_alone() -> None:
    image = source(np.zeros((48, 64, 3), np.uint8))
    assert resized_source(image, 64) is image
    assert resized_source(image, (64, 48)) is image


@pytest.mark.parametrize("resize", [(97, 61), (64, 48), (300, 260), 100, 250])
@pytest.mark.parametrize("sized", [True, False])
def test_a_resized_homography_maps_the_resized_pixels(resize: int | tuple[int, int], sized: bool) -> None:
    point0 = np.array([81.3, 57.8])
    H10 = np.array([[0.9, 0.1, 20.0], [-0.1, 1.1, 5.0], [1e-4, 0.0, 1.0]])
    point1, _ = HomographyTruth(H10=H10).project(point0[None], (250, 190))
    pair = ImagePair(
        name="pair",
        image0=source(blob_image((200, 150), point0), "0", sized),
        image1=source(blob_image((250, 190), point1[0]), "1", sized),
        truth=HomographyTruth(H10=H10),
        group="viewpoint",
    )
    result = resized_set(PairSet(name="set", pairs=[pair], description="a set"), resize)
    (resized,) = result.pairs
    assert (resized.name, resized.group, resized.image0.key) == ("pair", "viewpoint", "0")
    assert "resized to" in result.description
    image0, image1 = resized.image0.read(), resized.image1.read()
    assert resized.image0.size == (image0.shape[1], image0.shape[0])
    mapped, seen = resized.truth.project(centroid(image0)[None], (image1.shape[1], image1.shape[0]))
    assert seen.all()
    # Scaling without the half pixel would be off by up to 0.5 * |s - 1| px: 0.26 px at (97, 61).
    np.testing.assert_allclose(mapped[0], centroid(image1), atol=0.03)


@pytest.mark.parametrize("resize", [(97, 61), 100])
def test_a_resized_pose_truth_projects_to_the_resized_pixels(resize: int | tuple[int, int]) -> None:
    camera0 = PinholeCamera(fx=210.0, fy=200.0, cx=103.0, cy=71.0, width=200, height=150)
    camera1 = PinholeCamera(fx=190.0, fy=195.0, cx=120.0, cy=99.0, width=250, height=190)
    T = make_transform(so3_exp([0.02, -0.03, 0.05]), [0.05, 0.02, 0.1])
    X0 = np.array([[0.1, -0.05, 2.0]])
    pixel0, pixel1 = camera0.project(X0), camera1.project(transform_points(T, X0))
    depth0, depth1 = (np.full((c.height, c.width), z, np.float32) for c, z in ((camera0, 2.0), (camera1, 2.1)))
    pair = ImagePair(
        name="pair",
        image0=source(blob_image((200, 150), pixel0[0])),
        image1=source(blob_image((250, 190), pixel1[0])),
        truth=PoseTruth(
            T_cam1_cam0=T,
            camera0=camera0,
            camera1=camera1,
            read_depth0=lambda: depth0,
            read_depth1=lambda: depth1,
        ),
    )
    (resized,) = resized_set(PairSet(name="set", pairs=[pair], description="a set"), resize).pairs
    truth = resized.truth
    assert isinstance(truth, PoseTruth)
    size1 = (truth.camera1.width, truth.camera1.height)
    assert (truth.camera0.width, truth.camera0.height) == ((97, 61) if resize == (97, 61) else (100, 75))
    assert size1 == ((97, 61) if resize == (97, 61) else (100, 76))
    np.testing.assert_array_equal(truth.T_cam1_cam0, T)
    point0, point1 = centroid(resized.image0.read()), centroid(resized.image1.read())
    np.testing.assert_allclose(truth.camera0.project(X0)[0], point0, atol=0.03)
    np.testing.assert_allclose(truth.camera1.project(transform_points(T, X0))[0], point1, atol=0.03)
    mapped, seen = truth.project(point0[None], size1)
    assert seen.all()
    np.testing.assert_allclose(mapped[0], point1, atol=0.05)


def test_resized_depth_takes_the_nearest_value_and_makes_up_none() -> None:
    depth = np.zeros((40, 60), np.float32)
    depth[:, 31:] = 4.0
    depth[9:19, 11:21] = 1.0
    camera = PinholeCamera(fx=50.0, fy=50.0, cx=30.0, cy=20.0, width=60, height=40)
    pair = ImagePair(
        name="pair",
        image0=source(np.zeros((40, 60, 3), np.uint8)),
        image1=source(np.zeros((40, 60, 3), np.uint8)),
        truth=PoseTruth(T_cam1_cam0=np.eye(4), camera0=camera, camera1=camera, read_depth0=lambda: depth),
    )
    (resized,) = resized_set(PairSet(name="set", pairs=[pair], description="a set"), (30, 20)).pairs
    assert isinstance(resized.truth, PoseTruth)
    assert resized.truth.read_depth1 is None
    read = resized.truth.read_depth0
    assert read is not None
    small = read()
    assert small.dtype == np.float32
    np.testing.assert_array_equal(small[:, 16:], 4.0)
    np.testing.assert_array_equal(small[5:9, 6:10], 1.0)
    assert set(np.unique(small)) == {0.0, 1.0, 4.0}


def test_resizing_homography_moves_borders_to_borders() -> None:
    H = resizing_homography((640, 480), (320, 960))
    corners = HomographyTruth(H10=H).project(np.array([[-0.5, -0.5], [639.5, 479.5]]), (320, 960))[0]
    np.testing.assert_allclose(corners, [[-0.5, -0.5], [319.5, 959.5]])


# -- turning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_turned_camera_sees_points_where_the_turned_image_shows_them(turns: int) -> None:
    camera = PinholeCamera(fx=210.0, fy=190.0, cx=103.0, cy=71.0, width=200, height=150)
    X = np.array([[0.3, -0.15, 1.7]])
    turned = turned_source(source(blob_image((200, 150), camera.project(X)[0])), turns)
    image = turned.read()
    assert turned.size == (image.shape[1], image.shape[0])
    assert image.flags.c_contiguous
    turned_cam, T_turned_cam = turned_camera(camera, turns)
    assert (turned_cam.width, turned_cam.height) == turned.size
    assert np.linalg.det(T_turned_cam) == pytest.approx(1.0)
    np.testing.assert_allclose(turned_cam.project(transform_points(T_turned_cam, X))[0], centroid(image), atol=0.02)
