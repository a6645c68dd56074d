"""Calibration files of other tools: the same points fall on the same pixels as there."""

from __future__ import annotations

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from semkey.datasets import Calibration, Lens, open_sequence, parse_camera, read_calibration
from semkey.datasets.cameras.optics import make_optics
from semkey.errors import ConfigError, DatasetError
from semkey.images import write_image

SIZE = (640, 480)
K = np.array([[500.0, 0, 310.5], [0, 510.0, 245.25], [0, 0, 1]])
D5 = np.array([-0.2, 0.05, 0.001, -0.002, 0.01])
D4_FISHEYE = np.array([-0.03, 0.01, -0.005, 0.001])
POINTS = np.random.default_rng(0).uniform([-1, -0.8, 2], [1, 0.8, 5], (40, 3))


def by_opencv(matrix: np.ndarray = K, distortion: np.ndarray = D5) -> np.ndarray:
    return cv2.projectPoints(POINTS, np.zeros(3), np.zeros(3), matrix, distortion)[0][:, 0]


def by_opencv_fisheye(matrix: np.ndarray = K) -> np.ndarray:
    return cv2.fisheye.projectPoints(POINTS[:, None], np.zeros(3), np.zeros(3), matrix, D4_FISHEYE)[0][:, 0]


def left(path: Path) -> Lens:
    calibration = read_calibration(path)
    assert calibration.left.size == SIZE
    return calibration.left


# -- OpenCV --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["yaml", "xml"])
@pytest.mark.parametrize("names", [("camera_matrix", "distortion_coefficients"), ("cameraMatrix", "distCoeffs")])
def test_opencv_files_project_as_opencv(tmp_path: Path, suffix: str, names: tuple[str, str]) -> None:
    path = tmp_path / f"camera.{suffix}"
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write("image_width", SIZE[0])
    storage.write("image_height", SIZE[1])
    storage.write(names[0], K)
    storage.write(names[1], np.concatenate([D5, np.zeros(9)])[:, None])  # newer versions write fourteen
    storage.release()
    np.testing.assert_allclose(left(path).project(POINTS), by_opencv(), atol=1e-6)


@pytest.mark.parametrize("suffix", ["yaml", "xml"])
def test_opencv_fisheye_pair_and_what_is_missing(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"camera.{suffix}"
    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write("camera_matrix", K)
    storage.write("distortion_coefficients", D4_FISHEYE)
    storage.write("fisheye_model", 1)
    storage.write("imageSize", np.array(SIZE))
    storage.release()
    np.testing.assert_allclose(left(path).project(POINTS), by_opencv_fisheye(), atol=1e-6)

    R, T = cv2.Rodrigues(np.array([0.01, 0.02, 0.0]))[0], np.array([-0.12, 0.001, 0.002])
    for scale, name in ((1.0, "pair"), (1000.0, "millimetres")):
        storage = cv2.FileStorage(str(tmp_path / f"{name}.{suffix}"), cv2.FILE_STORAGE_WRITE)
        for key, value in (("M1", K), ("D1", D5), ("M2", K + 1), ("D2", D5), ("R", R), ("T", T * scale)):
            storage.write(key, value)
        storage.write("image_width", SIZE[0])
        storage.write("image_height", SIZE[1])
        storage.release()
    pair = read_calibration(tmp_path / f"pair.{suffix}")
    assert pair.T_left_right is not None
    assert pair.right is not None
    in_right = (POINTS @ R.T) + T
    np.testing.assert_allclose(in_right @ pair.T_left_right[:3, :3].T + pair.T_left_right[:3, 3], POINTS, atol=1e-9)
    with pytest.raises(DatasetError, match=r"120\..* long; semkey takes metres"):
        read_calibration(tmp_path / f"millimetres.{suffix}")

    storage = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    storage.write("camera_matrix", K)
    storage.release()
    with pytest.raises(DatasetError, match="image size is missing"):
        read_calibration(path)
    (tmp_path / "bad.xml").write_text("<opencv_storage><a")
    with pytest.raises(DatasetError, match="cannot be read as XML"):
        read_calibration(tmp_path / "bad.xml")


# -- ROS -----------------------------------------------------------------------------------------------------------


def ros_yaml(model: str, coefficients: np.ndarray, matrix: np.ndarray = K) -> str:
    def block(name: str, rows: int, values: np.ndarray) -> str:
        data = ", ".join(f"{value:.9g}" for value in np.ravel(values))
        return f"{name}:\n  rows: {rows}\n  cols: {np.size(values) // rows}\n  data: [{data}]\n"

    return (
        f"image_width: {SIZE[0]}\nimage_height: {SIZE[1]}\ncamera_name: head\n"
        + block("camera_matrix", 3, matrix)
        + f"distortion_model: {model}\n"
        + block("distortion_coefficients", 1, coefficients)
        + block("rectification_matrix", 3, np.eye(3))
        + block("projection_matrix", 3, np.hstack([K, np.zeros((3, 1))]))
    )


def test_ros_camera_info_files(tmp_path: Path) -> None:
    path = tmp_path / "head.yaml"
    path.write_text(ros_yaml("plumb_bob", D5))
    np.testing.assert_allclose(left(path).project(POINTS), by_opencv(), atol=1e-5)
    path.write_text(ros_yaml("equidistant", D4_FISHEYE))
    np.testing.assert_allclose(left(path).project(POINTS), by_opencv_fisheye(), atol=1e-5)
    rational = np.array([0.8, -0.4, 0.001, -0.002, 0.05, 1.1, -0.3, 0.02])
    path.write_text(ros_yaml("rational_polynomial", rational))
    np.testing.assert_allclose(left(path).project(POINTS), by_opencv(distortion=rational), atol=1e-5)
    path.write_text(ros_yaml("plumb_bob", D5, np.zeros((3, 3))))
    with pytest.raises(DatasetError, match=r"head\.yaml:5: holds no calibration"):
        read_calibration(path)
    path.write_text(ros_yaml("thin_prism", D5))
    with pytest.raises(DatasetError, match="'thin_prism' is unknown"):
        read_calibration(path)


# -- Kalibr, EuRoC -------------------------------------------------------------------------------------------------


def test_kalibr_chains(shared: Path) -> None:
    folder = shared / "data/calibrations/kalibr"
    pair = read_calibration(folder / "calib_3_cam0-1-camchain-imucam.yaml")
    assert (pair.left.model, pair.left.size) == ("fisheye", (720, 540))
    matrix = pair.left.pinhole.matrix
    expected = cv2.fisheye.projectPoints(
        POINTS[:, None], np.zeros(3), np.zeros(3), matrix, np.array(pair.left.distortion)
    )[0][:, 0]
    np.testing.assert_allclose(pair.left.project(POINTS), expected, atol=1e-6)
    assert pair.T_left_right is not None
    # The IMU's place as seen from both cameras says the same relative pose.
    stored = yaml.safe_load((folder / "calib_3_cam0-1-camchain-imucam.yaml").read_text())
    T = [np.array(stored[name]["T_cam_imu"]) for name in ("cam0", "cam1")]
    np.testing.assert_allclose(pair.T_left_right, T[0] @ np.linalg.inv(T[1]), atol=1e-6)
    assert 0.10 < np.linalg.norm(pair.T_left_right[:3, 3]) < 0.12
    # This rig's cam1 is the left one: no silent half of a pair.
    with pytest.raises(ConfigError, match="must lie to its right"):
        make_optics(pair, stereo=True)
    sequence = open_sequence(folder / "images", camera=folder / "calib_3_cam0-1-camchain-imucam.yaml")
    assert sequence.camera is not None
    assert sequence.camera.fx != pair.left.intrinsics[0]
    single = read_calibration(folder / "calib_3_cam2-camchain-imucam.yaml")
    assert single.right is None
    with pytest.raises(DatasetError, match="no calibration of a known kind"):
        read_calibration(folder / "lidar_calibration.yaml")


def test_a_kalibr_model_that_is_not_known(tmp_path: Path) -> None:
    omni = tmp_path / "omni.yaml"
    omni.write_text("cam0:\n  camera_model: omni\n  intrinsics: [1, 1, 1, 1, 1]\n  resolution: [720, 540]\n")
    with pytest.raises(DatasetError, match=r"omni\.yaml:2: camera model 'omni' is not supported"):
        read_calibration(omni)


def test_euroc_sensor_yaml(shared: Path) -> None:
    lens = read_calibration(shared / "data/euroc/V1_01_easy_start/mav0/cam0/sensor.yaml").left
    assert (lens.model, lens.size, lens.intrinsics[0]) == ("radial-tangential", (752, 480), 458.654)


# -- ORB-SLAM ------------------------------------------------------------------------------------------------------


def orb_yaml(**extra: object) -> str:
    values: dict[str, object] = {"Camera.width": SIZE[0], "Camera.height": SIZE[1]}
    values |= dict(
        zip((f"Camera.{n}" for n in ("fx", "fy", "cx", "cy")), (K[0, 0], K[1, 1], K[0, 2], K[1, 2]), strict=True)
    )
    values |= dict(zip((f"Camera.{n}" for n in ("k1", "k2", "p1", "p2", "k3")), D5.tolist(), strict=True))
    return "%YAML:1.0\n\n# Camera Parameters\n" + "".join(
        f"{name}: {value}\n" for name, value in (values | extra).items() if value is not None
    )


def test_orbslam_settings(tmp_path: Path) -> None:
    path = tmp_path / "TUM1.yaml"
    path.write_text(orb_yaml(**{"Camera.bf": 40.0, "DepthMapFactor": 5000.0, "ORBextractor.nFeatures": 1000}))
    calibration = read_calibration(path)
    np.testing.assert_allclose(calibration.left.project(POINTS), by_opencv(), atol=1e-9)
    assert calibration.T_left_right is not None
    assert calibration.T_left_right[0, 3] == pytest.approx(40.0 / 500.0)
    path.write_text(orb_yaml(**{"Camera.width": None}))
    with pytest.raises(DatasetError, match=r"TUM1\.yaml:\d+: the image size is missing; add Camera\.width"):
        read_calibration(path)
    fisheye = {"Camera.type": '"KannalaBrandt8"', "Camera.p1": None, "Camera.p2": None}
    path.write_text(orb_yaml(**fisheye, **{f"Camera.k{k + 1}": value for k, value in enumerate(D4_FISHEYE)}))
    np.testing.assert_allclose(left(path).project(POINTS), by_opencv_fisheye(), atol=1e-9)


def test_orbslam3_pair_and_orbslam2_raw_pair(tmp_path: Path) -> None:
    numbers = "[0.9999, 0.01, 0.0, 0.11, -0.01, 0.9999, 0.0, 0.001, 0.0, 0.0, 1.0, 0.002, 0, 0, 0, 1]"
    text = orb_yaml(**{"Camera.type": '"PinHole"'}).replace("Camera.", "Camera1.")
    text = text.replace("Camera1.width", "Camera.width").replace("Camera1.height", "Camera.height")
    text = text.replace("Camera1.type", "Camera.type")
    second = "".join(
        f"Camera2.{name}: {value}\n" for name, value in (("fx", 501), ("fy", 502), ("cx", 300), ("cy", 200))
    )
    path = tmp_path / "stereo.yaml"
    path.write_text(
        f"{text}{second}Stereo.T_c1_c2: !!opencv-matrix\n  rows: 4\n  cols: 4\n  dt: f\n  data: {numbers}\n"
    )
    pair = read_calibration(path)
    assert pair.right is not None
    assert pair.T_left_right is not None
    assert pair.right.intrinsics == (501, 502, 300, 200)
    assert pair.T_left_right[:3, 3].tolist() == [0.11, 0.001, 0.002]

    R_right_left, t = cv2.Rodrigues(np.array([0.01, 0.03, -0.02]))[0], np.array([[-0.12], [0.002], [0.004]])
    R1, R2, P1, P2, *_ = cv2.stereoRectify(K, D5, K, D5, SIZE, R_right_left, t)
    text = "%YAML:1.0\nCamera.fx: 435\nCamera.bf: 47\n"
    for side, R, P in (("LEFT", R1, P1), ("RIGHT", R2, P2)):
        text += f"{side}.height: {SIZE[1]}\n{side}.width: {SIZE[0]}\n"
        for name, matrix in (("D", D5), ("K", K), ("R", R), ("P", P)):
            data = ", ".join(f"{value:.15g}" for value in np.ravel(matrix))
            text += f"{side}.{name}: !!opencv-matrix\n   rows: 3\n   cols: 3\n   dt: d\n   data: [{data}]\n"
    path.write_text(text)
    pair = read_calibration(path)
    assert pair.T_left_right is not None
    np.testing.assert_allclose(pair.left.project(POINTS), by_opencv(), atol=1e-6)
    np.testing.assert_allclose(pair.T_left_right[:3, 3], -R_right_left.T @ t[:, 0], atol=1e-9)


# -- COLMAP, nerfstudio --------------------------------------------------------------------------------------------

COLMAP = {
    "SIMPLE_PINHOLE": [500, 310.5, 245.25],
    "PINHOLE": [500, 510, 310.5, 245.25],
    "SIMPLE_RADIAL": [500, 310.5, 245.25, -0.1],
    "RADIAL": [500, 310.5, 245.25, -0.1, 0.02],
    "OPENCV": [500, 510, 310.5, 245.25, -0.1, 0.02, 0.001, -0.002],
    "OPENCV_FISHEYE": [500, 510, 310.5, 245.25, *D4_FISHEYE],
    "FULL_OPENCV": [500, 510, 310.5, 245.25, 0.8, -0.4, 0.001, -0.002, 0.05, 1.1, -0.3, 0.02],
    "SIMPLE_RADIAL_FISHEYE": [500, 310.5, 245.25, -0.03],
    "RADIAL_FISHEYE": [500, 310.5, 245.25, -0.03, 0.01],
}


@pytest.mark.parametrize("model", COLMAP)
@pytest.mark.parametrize("form", ["text", "binary"])
def test_colmap_cameras_project_as_pycolmap(tmp_path: Path, model: str, form: str) -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap comes with the extra colmap")
    camera = pycolmap.Camera(camera_id=7, model=model, width=SIZE[0], height=SIZE[1], params=COLMAP[model])
    reconstruction = pycolmap.Reconstruction()
    reconstruction.add_camera(camera)
    getattr(reconstruction, f"write_{form}")(str(tmp_path))
    lens = left(tmp_path / ("cameras.txt" if form == "text" else "cameras.bin"))
    # COLMAP's pixel centres are at 0.5.
    np.testing.assert_allclose(lens.project(POINTS), np.array(camera.img_from_cam(POINTS)) - 0.5, atol=1e-6)


def test_colmap_files_that_cannot_be_used(tmp_path: Path) -> None:
    path = tmp_path / "cameras.txt"
    path.write_text("# cameras\n1 PINHOLE 640 480 500 500 320 240\n2 PINHOLE 640 480 600 600 320 240\n")
    with pytest.raises(DatasetError, match="holds 2 different cameras"):
        read_calibration(path)
    path.write_text("1 FOV 640 480 500 500 320 240 0.1\n")
    with pytest.raises(DatasetError, match=r"cameras\.txt:1: camera model 'FOV' is not supported"):
        read_calibration(path)
    (tmp_path / "cameras.bin").write_bytes(struct.pack("<QIiQQd", 1, 1, 1, 640, 480, 500.0))
    with pytest.raises(DatasetError, match="is cut off"):
        read_calibration(tmp_path / "cameras.bin")


def test_transforms_json_as_a_camera(shared: Path, tmp_path: Path) -> None:
    import json

    file = shared / "data/posed-photos/desk/transforms.json"
    stored = json.loads(file.read_text())
    lens = read_calibration(file).left
    matrix = np.array([[stored["fl_x"], 0, stored["cx"]], [0, stored["fl_y"], stored["cy"]], [0, 0, 1]])
    distortion = np.array([stored[name] for name in ("k1", "k2", "p1", "p2")])
    np.testing.assert_allclose(lens.project(POINTS), by_opencv(matrix, distortion) - 0.5, atol=1e-6)
    blender = tmp_path / "transforms.json"
    blender.write_text(json.dumps({"camera_angle_x": 1.0, "w": 640, "h": 480, "frames": [{"file_path": "a.png"}]}))
    lens = read_calibration(blender).left
    assert lens.intrinsics == pytest.approx((320 / np.tan(0.5), 320 / np.tan(0.5), 319.5, 239.5))


# -- as --camera ---------------------------------------------------------------------------------------------------


def test_camera_takes_numbers_and_files(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    write_image(images / "a.png", np.full((SIZE[1], SIZE[0], 3), 90, np.uint8))
    (tmp_path / "head.yaml").write_text(ros_yaml("plumb_bob", D5))
    (tmp_path / "numbers.txt").write_text("500 510 310.5 245.25\n")
    assert parse_camera(str(tmp_path / "numbers.txt")) == (500, 510, 310.5, 245.25)
    assert isinstance(parse_camera(str(tmp_path / "head.yaml")), Calibration)
    as_text = open_sequence(images, camera="500,510,310.5,245.25").camera
    assert as_text == open_sequence(images, camera=(500, 510, 310.5, 245.25)).camera
    assert as_text is not None
    assert as_text.fy == 510
    with pytest.raises(ConfigError, match="camera '500;510': expected fx,fy,cx,cy in pixels"):
        open_sequence(images, camera="500;510")
    by_path = open_sequence(images, camera=tmp_path / "head.yaml").camera
    by_text = open_sequence(images, camera=parse_camera(str(tmp_path / "head.yaml"))).camera
    assert by_path == by_text
    assert by_path is not None
    assert by_path.fx != 500  # the delivered view of the undistorted image
    with pytest.raises(DatasetError, match="file is missing"):
        open_sequence(images, camera=tmp_path / "nothing.yaml")
