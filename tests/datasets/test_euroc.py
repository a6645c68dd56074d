from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from semkey.datasets import BrokenFrame, Calibration, Lens, open_sequence
from semkey.errors import DatasetError
from semkey.geometry.transforms import inverse, make_transform, quaternion_xyzw_from_rotation, so3_exp
from semkey.images import write_image

START_NS = 1403715273262142976
STEP_NS = 50_000_000
FRAMES = 4
T_BODY_LEFT = make_transform(so3_exp([0.1, -0.2, 1.5]), [-0.02, -0.06, 0.01])
T_BODY_RIGHT = T_BODY_LEFT @ make_transform(so3_exp([0.01, -0.01, 0.005]), [0.11, 0.002, -0.001])
SIZE = (64, 48)
LENSES = {
    0: ((50.0, 50.5, 31.0, 24.0), (-0.2, 0.05, 1e-4, 2e-5)),
    1: ((50.2, 50.3, 32.0, 23.5), (-0.21, 0.06, -1e-4, -3e-5)),
}


def T_world_body(seconds: float) -> np.ndarray:
    return make_transform(so3_exp([0.3 * seconds, 0.0, 0.2]), [seconds, 0.5 * seconds, 1.0])


def sensor_yaml(camera: int, T_body_cam: np.ndarray) -> str:
    intrinsics, distortion = LENSES[camera]
    numbers = ",\n         ".join(", ".join(f"{value:.15g}" for value in row) for row in T_body_cam)
    return (
        "%YAML:1.0\n# General sensor definitions.\nsensor_type: camera\nT_BS:\n  cols: 4\n  rows: 4\n"
        f"  data: [{numbers}]\n\nrate_hz: 20\nresolution: [{SIZE[0]}, {SIZE[1]}]\ncamera_model: pinhole\n"
        f"intrinsics: {list(intrinsics)} #fu, fv, cu, cv\ndistortion_model: radial-tangential\n"
        f"distortion_coefficients: {list(distortion)}\n"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two cameras, four pairs; images of camera c in frame i are filled with 100 * c + 10 * i."""
    mav = tmp_path / "V9_01/mav0"
    for camera, T_body_cam in ((0, T_BODY_LEFT), (1, T_BODY_RIGHT)):
        rows = ["#timestamp [ns],filename"]
        for index in range(FRAMES):
            stamp = START_NS + index * STEP_NS
            write_image(mav / f"cam{camera}/data/{stamp}.png", np.full((48, 64), 100 * camera + 10 * index, np.uint8))
            rows.append(f"{stamp},{stamp}.png")
        (mav / f"cam{camera}/data.csv").write_text("\r\n".join(rows) + "\r\n")
        (mav / f"cam{camera}/sensor.yaml").write_text(sensor_yaml(camera, T_body_cam))
    rows = ["#timestamp, p_RS_R_x [m], p_RS_R_y [m], p_RS_R_z [m], q_RS_w [], q_RS_x [], q_RS_y [], q_RS_z [], v"]
    for stamp in range(START_NS - 12_500_000, START_NS + FRAMES * STEP_NS, 5_000_000):
        pose = T_world_body((stamp - START_NS) / 1e9)
        x, y, z, w = quaternion_xyzw_from_rotation(pose[:3, :3])
        rows.append(",".join([str(stamp), *(f"{value:.9f}" for value in (*pose[:3, 3], w, x, y, z)), "0", "0"]))
    truth = mav / "state_groundtruth_estimate0/data.csv"
    truth.parent.mkdir()
    truth.write_text("\n".join(rows) + "\n")
    return tmp_path / "V9_01"


def test_stereo_with_body_ground_truth(folder: Path) -> None:
    sequence = open_sequence(folder)
    assert (sequence.format, sequence.name, len(sequence), sequence.sensor) == ("euroc", "V9_01", FRAMES, "stereo")
    T_left_right = inverse(T_BODY_LEFT) @ T_BODY_RIGHT
    assert sequence.baseline == pytest.approx(np.linalg.norm(T_left_right[:3, 3]))
    np.testing.assert_allclose(sequence.timestamps - sequence.timestamps[0], 0.05 * np.arange(FRAMES), atol=1e-6)
    # The rotation of rectification, from OpenCV.
    matrices = [np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]) for (fx, fy, cx, cy), _ in LENSES.values()]
    T_right_left = inverse(T_left_right)
    R_rect_left = cv2.stereoRectify(
        matrices[0], np.zeros(4), matrices[1], np.zeros(4), SIZE, T_right_left[:3, :3], T_right_left[:3, 3:]
    )[0]
    for index, frame in enumerate(sequence):
        assert frame.right is not None
        assert (frame.image == 10 * index).all()
        assert (frame.right == 100 + 10 * index).all()
        assert frame.T_world_cam is not None
        expected = T_world_body(0.05 * index) @ T_BODY_LEFT @ make_transform(R_rect_left.T, np.zeros(3))
        np.testing.assert_allclose(frame.T_world_cam, expected, atol=1e-5)


def test_mav0_itself_and_a_single_camera(folder: Path) -> None:
    assert open_sequence(folder / "mav0").name == "V9_01"
    for file in sorted((folder / "mav0/cam1").rglob("*"), reverse=True):
        file.unlink() if file.is_file() else file.rmdir()
    (folder / "mav0/cam1").rmdir()
    sequence = open_sequence(folder)
    assert sequence.sensor == "mono"
    assert sequence[0].right is None
    assert sequence.ground_truth[2] is not None
    # Undistorted but not turned.
    np.testing.assert_allclose(sequence.ground_truth[2], T_world_body(0.1) @ T_BODY_LEFT, atol=1e-5)


def test_ground_truth_of_another_body_frame(folder: Path) -> None:
    """The motion capture's own sensor.yaml: T_BS maps what it measures into the body."""
    T_body_sensor = make_transform(so3_exp([0.0, 0.1, 0.0]), [0.1, 0.0, 0.0])
    text = "T_BS:\n  cols: 4\n  rows: 4\n  data: " + str([float(value) for value in T_body_sensor.ravel()])
    without = open_sequence(folder).ground_truth[1]
    (folder / "mav0/state_groundtruth_estimate0/sensor.yaml").write_text("%YAML:1.0\n" + text)
    found = open_sequence(folder).ground_truth[1]
    assert found is not None
    assert without is not None
    T_sensor_body = inverse(T_body_sensor)
    expected = T_world_body(0.05) @ T_sensor_body @ inverse(T_world_body(0.05)) @ without
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_ground_truth_that_starts_later(folder: Path) -> None:
    file = folder / "mav0/state_groundtruth_estimate0/data.csv"
    rows = file.read_text().splitlines()
    file.write_text("\n".join([rows[0], *rows[20:]]))
    assert [truth is not None for truth in open_sequence(folder).ground_truth] == [False, False, True, True]


def test_left_images_without_a_right_one_are_left_out(folder: Path) -> None:
    file = folder / "mav0/cam1/data.csv"
    rows = file.read_text().splitlines()
    del rows[2]
    file.write_text("\n".join(rows))
    sequence = open_sequence(folder)
    assert [int(frame.image[0, 0, 0]) for frame in sequence] == [0, 20, 30]
    assert [fault.kind for fault in sequence.faults] == ["unpaired"]


def test_a_missing_image_breaks_its_frame(folder: Path) -> None:
    (folder / f"mav0/cam0/data/{START_NS + STEP_NS}.png").unlink()
    sequence = open_sequence(folder)
    assert [isinstance(frame, BrokenFrame) for frame in sequence.frames()] == [False, True, False, False]
    with pytest.raises(DatasetError, match=r"file is missing \(listed in .*cam0/data\.csv:3\)"):
        open_sequence(folder, strict=True)


def test_an_own_calibration_beats_sensor_yaml(folder: Path) -> None:
    lens = Lens(model="pinhole", intrinsics=(40.0, 40.0, 31.5, 23.5), size=SIZE)
    sequence = open_sequence(folder, camera=Calibration(left=lens))
    assert sequence.sensor == "mono"
    assert sequence.camera == lens.pinhole
    assert open_sequence(folder, camera=(40.0, 40.0, 31.5, 23.5)).sensor == "mono"


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("cam0/data.csv", f"{START_NS},", "x,", "cam0/data.csv:2: 'x' is not a number"),
        ("cam0/data.csv", f"{START_NS},", f"{START_NS},1,", "cam0/data.csv:2: expected 2 columns"),
        ("cam0/sensor.yaml", "T_BS", "T_SB", "cam0/sensor.yaml:3: 'T_BS' is missing"),
        ("cam1/sensor.yaml", "radial-tangential", "fov", "sensor.yaml:16: distortion model 'fov' is unknown"),
        ("cam1/sensor.yaml", "[50.2,", "[-50.2,", "cam1/sensor.yaml:15: focal lengths must be positive"),
        ("cam1/sensor.yaml", "[-0.21, 0.06,", "[", "cam1/sensor.yaml:17: 'distortion_coefficients' has 2 numbers"),
        ("state_groundtruth_estimate0/data.csv", ",0,0", "", None),
        ("state_groundtruth_estimate0/data.csv", ",1.000000000,", ",", "data.csv:2: expected at least 8 columns"),
    ],
)
def test_broken_files_are_named(folder: Path, file: str, old: str, new: str, message: str | None) -> None:
    path = folder / "mav0" / file
    text = path.read_text()
    assert old in text
    if message == "data.csv:2: expected at least 8 columns":
        text = text.replace(",0,0\n", "\n")
    path.write_text(text.replace(old, new))
    if message is None:  # only the pose is needed
        assert open_sequence(folder).has_ground_truth
        return
    with pytest.raises(DatasetError) as caught:
        open_sequence(folder)
    assert message in str(caught.value)


def test_real_pairs_are_rectified(shared: Path) -> None:
    """Corners of the checkerboard in the real pairs lie in the same row of both rectified images."""
    sequence = open_sequence(shared / "data/euroc/V1_01_easy_start")
    assert (sequence.format, len(sequence), sequence.sensor) == ("euroc", 12, "stereo")
    assert sequence.baseline is not None
    assert sequence.baseline == pytest.approx(0.110078, abs=1e-5)
    assert sequence.camera is not None
    assert sequence.camera.fx == pytest.approx(435.2, rel=0.01)  # ORB-SLAM2's rectified camera
    frame = sequence[5]
    assert frame.right is not None
    detector = cv2.SIFT.create(2000)
    points0, descriptors0 = detector.detectAndCompute(frame.image, None)
    points1, descriptors1 = detector.detectAndCompute(frame.right, None)
    matches = cv2.BFMatcher(cv2.NORM_L2, crossCheck=False).knnMatch(descriptors0, descriptors1, k=2)
    good = [first for first, second in matches if first.distance < 0.6 * second.distance]
    assert len(good) > 80
    rows = np.array([points0[m.queryIdx].pt[1] - points1[m.trainIdx].pt[1] for m in good])
    shifts = np.array([points0[m.queryIdx].pt[0] - points1[m.trainIdx].pt[0] for m in good])
    assert abs(np.median(rows)) < 0.3
    assert np.median(np.abs(rows)) < 0.5
    inliers = np.abs(rows) < 1.5
    assert inliers.mean() > 0.8
    # The room is between one and twelve metres away.
    depth = sequence.camera.fx * sequence.baseline / shifts[inliers & (shifts > 1)]
    assert 1.0 < np.median(depth) < 12.0


def test_imu_rows_are_kept(shared: Path) -> None:
    imu = open_sequence(shared / "data/euroc/V1_01_easy_start").imu
    assert imu is not None
    assert (len(imu), imu.gyro.shape, imu.accel.shape) == (199, (199, 3), (199, 3))
    assert np.median(np.diff(imu.timestamps)) == pytest.approx(0.005, abs=1e-4)
    assert np.linalg.norm(imu.accel, axis=1).mean() == pytest.approx(9.8, abs=0.5)  # gravity: it hardly moves
    assert np.abs(imu.gyro).max() < 1.0
