"""Lenses, undistortion and rectification, against OpenCV and against points that were projected by hand."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semkey.datasets import Calibration, Lens, open_sequence, read_calibration
from semkey.datasets.cameras.optics import make_optics
from semkey.errors import ConfigError, DatasetError
from semkey.geometry.transforms import inverse, make_transform, so3_exp, transform_points
from semkey.images import write_image

# The left and right cameras of EuRoC, and a fisheye of TUM-VI.
LEFT = Lens(
    model="radial-tangential",
    intrinsics=(458.654, 457.296, 367.215, 248.375),
    distortion=(-0.28340811, 0.07395907, 0.00019359, 1.76187114e-05),
    size=(752, 480),
)
RIGHT = Lens(
    model="radial-tangential",
    intrinsics=(457.587, 456.134, 379.999, 255.238),
    distortion=(-0.28368365, 0.07451284, -0.00010473, -3.55590700e-05),
    size=(752, 480),
)
RATIONAL = Lens(
    model="radial-tangential",
    intrinsics=(500.0, 505.0, 320.0, 240.0),
    distortion=(0.8, -0.4, 0.001, -0.002, 0.05, 1.1, -0.3, 0.02),
    size=(640, 480),
)
FISHEYE = Lens(
    model="fisheye",
    intrinsics=(190.97847715, 190.97330701, 254.93170606, 256.89744504),
    distortion=(0.003482389, 0.000715034, -0.002053236, 0.000202936),
    size=(512, 512),
)
T_LEFT_RIGHT = make_transform(so3_exp([0.01, -0.02, 0.015]), [0.11, 0.004, -0.006])


def rays(seed: int, count: int = 50) -> np.ndarray:
    points = np.random.default_rng(seed).uniform([-2.0, -1.5, 2.5], [2.0, 1.5, 6.0], (count, 3))
    return points


@pytest.mark.parametrize("lens", [LEFT, RATIONAL], ids=["euroc", "rational"])
def test_radial_tangential_projection_is_that_of_opencv(lens: Lens) -> None:
    expected, _ = cv2.projectPoints(rays(0), np.zeros(3), np.zeros(3), lens.pinhole.matrix, np.array(lens.distortion))
    np.testing.assert_allclose(lens.project(rays(0)), expected[:, 0], atol=1e-9)


def test_fisheye_projection_by_hand() -> None:
    lens = Lens(model="fisheye", intrinsics=(100.0, 110.0, 50.0, 40.0), distortion=(0.1, 0.0, 0.0, 0.0), size=(99, 99))
    # 45 degrees to the right: theta = pi / 4, theta_d = theta (1 + 0.1 theta^2).
    theta = np.pi / 4
    expected = [[50.0 + 100.0 * theta * (1 + 0.1 * theta**2), 40.0], [50.0, 40.0]]
    np.testing.assert_allclose(lens.project([[2.0, 0.0, 2.0], [0.0, 0.0, 1.0]]), expected, atol=1e-12)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from([LEFT, RATIONAL, FISHEYE]), st.integers(0, 2**31))
def test_unproject_inverts_project(lens: Lens, seed: int) -> None:
    directions = rays(seed)
    pixels = lens.project(directions)
    inside = lens.pinhole.contains(pixels)
    units = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    np.testing.assert_allclose(lens.unproject(pixels)[inside], units[inside], atol=1e-6)


def test_distortion_without_inverse_is_an_error() -> None:
    folding = Lens(model="radial-tangential", intrinsics=LEFT.intrinsics, distortion=(-5.0, 0, 0, 0), size=LEFT.size)
    assert np.isnan(folding.unproject([[0.0, 0.0]])).any()
    with pytest.raises(ConfigError, match="cannot be undone"):
        make_optics(Calibration(left=folding), stereo=False)


def gaussians(centres: np.ndarray, size: tuple[int, int], sigma: float = 2.0) -> np.ndarray:
    """An image with a bright spot at each centre (x, y)."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    image = np.zeros((size[1], size[0]))
    for cx, cy in centres:
        image += 200 * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * sigma**2))
    return np.repeat(np.clip(image, 0, 255).astype(np.uint8)[:, :, None], 3, axis=2)


def spot_near(image: np.ndarray, centre: np.ndarray, radius: int = 8) -> np.ndarray:
    """The brightness centroid around ``centre``."""
    x0, y0 = np.round(centre).astype(int) - radius
    patch = image[y0 : y0 + 2 * radius + 1, x0 : x0 + 2 * radius + 1, 0].astype(np.float64)
    assert patch.max() > 50
    y, x = np.mgrid[y0 : y0 + patch.shape[0], x0 : x0 + patch.shape[1]]
    return np.array([(x * patch).sum(), (y * patch).sum()]) / patch.sum()


@pytest.mark.parametrize("lens", [LEFT, RATIONAL, FISHEYE], ids=["euroc", "rational", "fisheye"])
def test_undistorted_image_is_that_of_the_delivered_camera(lens: Lens) -> None:
    optics = make_optics(Calibration(left=lens), stereo=False)
    assert optics.camera is not None
    assert optics.left is not None
    assert (optics.camera.width, optics.camera.height) == lens.size
    points = np.array([[0.0, 0.0, 1.0], [0.3, 0.2, 1.0], [-0.4, -0.25, 1.0], [0.45, -0.3, 1.0]])
    image = optics.left(gaussians(lens.project(points), lens.size))
    for expected in optics.camera.project(points):
        # A spot is a little skewed by the lens: its centroid moves by some hundredths of a pixel.
        np.testing.assert_allclose(spot_near(image, expected), expected, atol=0.12)


@pytest.mark.parametrize("lens", [LEFT, RATIONAL, FISHEYE], ids=["euroc", "rational", "fisheye"])
def test_delivered_image_has_no_pixel_that_the_camera_did_not_see(lens: Lens) -> None:
    optics = make_optics(Calibration(left=lens), stereo=False)
    assert optics.left is not None
    white = np.full((lens.size[1], lens.size[0], 3), 255, np.uint8)
    assert optics.left(white).min() == 255
    # ... and is not much narrower than it could be: a border in the stored image shows up in the delivered one.
    assert optics.camera is not None
    half_width = np.degrees(np.arctan((lens.size[0] - 1) / 2 / optics.camera.fx))
    assert half_width > (45 if lens is FISHEYE else 30)


def test_depth_is_sampled_without_mixing_values() -> None:
    optics = make_optics(Calibration(left=LEFT), stereo=False)
    assert optics.depth is not None
    depth = np.zeros((480, 752), np.float32)
    depth[:, :376], depth[:, 400:] = 1.0, 5.0
    assert set(np.unique(optics.depth(depth)).tolist()) == {0.0, 1.0, 5.0}
    # Nearest means nearest: a ramp is off by at most half a pixel.
    ramp = np.tile(np.arange(752, dtype=np.float32), (480, 1))
    assert optics.camera is not None
    x, y = np.meshgrid(np.arange(752), np.arange(480))
    stored = LEFT.project(optics.camera.backproject(np.stack([x, y], axis=2), np.ones(x.size)))[:, 0].reshape(480, 752)
    assert np.abs(optics.depth(ramp) - stored).max() < 0.53


def test_a_straight_lens_is_delivered_as_it_is() -> None:
    lens = Lens(model="radial-tangential", intrinsics=LEFT.intrinsics, distortion=(0.0,) * 4, size=LEFT.size)
    optics = make_optics(Calibration(left=lens), stereo=False)
    assert optics.left is None
    assert optics.camera == lens.pinhole
    pair = make_optics(
        Calibration(left=lens, right=lens, T_left_right=make_transform(np.eye(3), [0.2, 0, 0])), stereo=True
    )
    assert pair.left is None
    assert pair.right is None
    assert pair.baseline == pytest.approx(0.2)


def test_rectified_points_share_a_row_and_their_disparity_is_depth() -> None:
    optics = make_optics(Calibration(left=LEFT, right=RIGHT, T_left_right=T_LEFT_RIGHT), stereo=True)
    assert optics.camera is not None
    assert optics.baseline is not None
    assert optics.baseline == pytest.approx(float(np.linalg.norm(T_LEFT_RIGHT[:3, 3])))
    assert optics.left is not None
    assert optics.right is not None
    points_left = np.array([[0.1, 0.0, 2.0], [-0.6, 0.4, 2.5], [1.0, -0.5, 4.0], [0.5, 0.5, 1.5]])
    left = optics.left(gaussians(LEFT.project(points_left), LEFT.size))
    right = optics.right(gaussians(RIGHT.project(transform_points(inverse(T_LEFT_RIGHT), points_left)), RIGHT.size))
    points = transform_points(inverse(optics.T_stored_cam), points_left)
    expected = optics.camera.project(points)
    for pixel, z in zip(expected, points[:, 2], strict=True):
        in_left = spot_near(left, pixel)
        np.testing.assert_allclose(in_left, pixel, atol=0.12)
        in_right = spot_near(right, pixel - [optics.camera.fx * optics.baseline / z, 0.0])
        assert in_right[1] == pytest.approx(in_left[1], abs=0.12)
        assert in_left[0] - in_right[0] == pytest.approx(optics.camera.fx * optics.baseline / z, abs=0.2)


def test_rectifying_rotation_is_that_of_opencv() -> None:
    optics = make_optics(Calibration(left=LEFT, right=RIGHT, T_left_right=T_LEFT_RIGHT), stereo=True)
    T_right_left = inverse(T_LEFT_RIGHT)
    found = cv2.stereoRectify(
        LEFT.pinhole.matrix,
        np.array(LEFT.distortion),
        RIGHT.pinhole.matrix,
        np.array(RIGHT.distortion),
        LEFT.size,
        T_right_left[:3, :3],
        T_right_left[:3, 3:],
        alpha=0,
    )
    R_rect_left, P_right = found[0], found[3]
    np.testing.assert_allclose(optics.T_stored_cam[:3, :3], R_rect_left.T, atol=1e-9)
    assert optics.baseline == pytest.approx(-P_right[0, 3] / P_right[0, 0])
    assert optics.camera is not None
    assert optics.camera.fx == pytest.approx(P_right[0, 0], rel=0.05)


@pytest.mark.parametrize("translation", [(-0.11, 0.0, 0.0), (0.0, 0.1, 0.0), (0.0, 0.0, 0.0)])
def test_a_right_camera_that_is_not_to_the_right(translation: tuple[float, float, float]) -> None:
    calibration = Calibration(left=LEFT, right=RIGHT, T_left_right=make_transform(np.eye(3), translation))
    with pytest.raises(ConfigError, match="must lie to its right"):
        make_optics(calibration, stereo=True)


CALIBRATION = """\
# A pair with lenses.
model: radial-tangential
size: [752, 480]
intrinsics: [458.654, 457.296, 367.215, 248.375]
distortion: [-0.28340811, 0.07395907, 1e-5, 2e-5]
right:
  intrinsics: [457.587, 456.134, 379.999, 255.238]
  distortion: [-0.28368365, 0.07451284, -0.00010473, -3.55590700e-05]
  T_left_right:
    - [1, 0, 0, 0.11]
    - [0, 1, 0, 0]
    - [0, 0, 1, 0]
    - [0, 0, 0, 1]
"""


def test_calibration_file_of_a_pair(tmp_path: Path) -> None:
    file = tmp_path / "camera.yaml"
    file.write_text(CALIBRATION)
    calibration = read_calibration(file)
    assert calibration.left.distortion == (-0.28340811, 0.07395907, 1e-5, 2e-5)
    assert calibration.right == RIGHT
    assert calibration.T_left_right is not None
    np.testing.assert_allclose(calibration.T_left_right, make_transform(np.eye(3), [0.11, 0, 0]))


def test_the_calibration_in_the_documentation_is_one(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs/datasets.md").read_text()
    file = tmp_path / "camera.yaml"
    file.write_text(page.split("```yaml\n")[1].split("```")[0])
    optics = make_optics(read_calibration(file), stereo=True)
    assert optics.baseline == pytest.approx(0.1101, abs=1e-4)
    assert optics.camera is not None
    assert optics.camera.fx == pytest.approx(432.6, abs=1.0)  # that of EuRoC


def test_calibration_file_of_one_camera_and_of_a_rectified_pair(tmp_path: Path) -> None:
    file = tmp_path / "camera.yaml"
    file.write_text("size: [64, 48]\nintrinsics: [50, 50, 31.5, 23.5]\n")
    calibration = read_calibration(file)
    assert calibration.left == Lens(model="pinhole", intrinsics=(50, 50, 31.5, 23.5), size=(64, 48))
    assert calibration.right is None
    file.write_text("size: [64, 48]\nintrinsics: [50, 50, 31.5, 23.5]\nright: {baseline: 0.12}\n")
    calibration = read_calibration(file)
    assert calibration.right == calibration.left
    assert make_optics(calibration, stereo=True).baseline == pytest.approx(0.12)
    file.write_text("model: equidistant\nsize: [64, 48]\nintrinsics: [30, 30, 31.5, 23.5]\ndistortion: [0, 0, 0, 0]\n")
    assert read_calibration(file).left.model == "fisheye"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("size: [752, 480]\n", "", "camera.yaml:2: 'size' is missing"),
        ("[752, 480]", "[752]", "camera.yaml:3: 'size' has 1 numbers, expected 2"),
        ("[752, 480]", "[752, 0]", "camera.yaml:3: 'size' must be two whole numbers"),
        ("intrinsics: [458", "intrinsic: [458", "camera.yaml:4: 'intrinsic' is unknown; did you mean 'intrinsics'?"),
        ("[458.654,", "[x,", "camera.yaml:4: 'intrinsics' must be made of numbers"),
        ("[458.654,", "[-1,", "camera.yaml:4: focal lengths must be positive"),
        ("[458.654,", "[.nan,", "camera.yaml:4: 'intrinsics' must be made of numbers"),
        ("[458.654,", "[nan,", "camera.yaml:4: 'intrinsics' holds a number that is not finite"),
        ("radial-tangential", "radial", "camera.yaml:2: model 'radial' is unknown; choose one of pinhole, "),
        ("1e-5, 2e-5]", "1e-5]", "camera.yaml:5: 'distortion' has 3 numbers, expected 4 or 5 or 8"),
        ("    - [0, 0, 0, 1]\n", "", "camera.yaml:10: 'right.T_left_right' has 12 numbers, expected 16"),
        ("[1, 0, 0, 0.11]", "[2, 0, 0, 0.11]", "camera.yaml:10: T_left_right is not a rigid transform"),
        ("  T_left", "  baseline: 0.1\n  T_left", "camera.yaml:9: right: give either T_left_right"),
        ("size: [", "size: [[", "camera.yaml:"),
        ("size:", "model: pinhole\nsize:", "camera.yaml:3: 'model' is given twice"),
    ],
)
def test_broken_calibration_is_named_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "camera.yaml"
    assert old in CALIBRATION
    file.write_text(CALIBRATION.replace(old, new, 1))
    with pytest.raises(DatasetError) as caught:
        read_calibration(file)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00",
        b"- 1\n- 2\n",
        b"just text",
        b"size: &a [*a]\n",
        b"size: " + b"[" * 5000,
        b"size: [1, [2, [3]]]",
    ],
)
def test_a_file_that_is_no_calibration(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "camera.yaml"
    file.write_bytes(content)
    with pytest.raises(DatasetError, match=r"camera\.yaml"):
        read_calibration(file)
    with pytest.raises(DatasetError, match=r"nothing\.yaml: file is missing"):
        read_calibration(tmp_path / "nothing.yaml")


def test_a_folder_of_images_is_undistorted(tmp_path: Path) -> None:
    points = np.array([[0.2, 0.1, 1.0]])
    for index in range(2):
        write_image(tmp_path / f"{index}.png", gaussians(LEFT.project(points), LEFT.size))
    sequence = open_sequence(tmp_path, camera=Calibration(left=LEFT))
    assert sequence.camera is not None
    (expected,) = sequence.camera.project(points)
    np.testing.assert_allclose(spot_near(sequence[1].image, expected), expected, atol=0.12)
    with pytest.raises(ConfigError, match="camera is for 640x480 images but the sequence has 752x480"):
        open_sequence(tmp_path, camera=Calibration(left=RATIONAL))


def test_folders_left_and_right_are_a_pair_with_a_stereo_calibration(tmp_path: Path) -> None:
    for index in range(3):
        for side in ("left", "right"):
            write_image(
                tmp_path / f"{side}/{index}.png", np.full((480, 752, 3), 10 * index + (side == "right"), np.uint8)
            )
    calibration = Calibration(left=LEFT, right=RIGHT, T_left_right=T_LEFT_RIGHT)
    sequence = open_sequence(tmp_path, camera=calibration)
    assert (sequence.format, sequence.sensor) == ("folder", "stereo")
    frame = sequence[2]
    assert frame.right is not None
    assert (int(frame.image[200, 300, 0]), int(frame.right[200, 300, 0])) == (20, 21)
    assert open_sequence(tmp_path).sensor == "mono"
    assert open_sequence(tmp_path, camera=Calibration(left=LEFT)).sensor == "mono"
    (tmp_path / "right/2.png").unlink()
    assert [int(frame.image[200, 300, 0]) for frame in open_sequence(tmp_path, camera=calibration)] == [0, 10]
