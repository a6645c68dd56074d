"""ROS bags: topics by type, images in every encoding, depth in metres, stamps, camera_info, IMU; SLAM on them."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from bag_files import STAMP_0, Bag, png
from command_line import Run
from semkey.datasets import BrokenFrame, Frame, open_sequence
from semkey.errors import ConfigError, DatasetError

pytest.importorskip("rosbags", reason="rosbags comes with the extra bags")

SIZE = (32, 24)
CAMERA = (30.0, 31.0, 15.5, 11.5)
RGB, DEPTH, INFO = "/camera/color/image_raw", "/camera/aligned_depth/image_raw", "/camera/color/camera_info"


def picture(k: int = 0) -> np.ndarray:
    return np.random.default_rng(k).integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)


def millimetres(k: int = 0) -> np.ndarray:
    depth = np.random.default_rng(100 + k).integers(500, 4000, (SIZE[1], SIZE[0])).astype(np.uint16)
    depth[0, 0], depth[0, 1] = 0, 65535
    return depth


def rgbd(ros1: bool = False, frames: int = 5, imu: bool = True) -> Bag:
    bag = Bag(ros1=ros1)
    for k in range(frames):
        stamp = STAMP_0 + 0.1 * k
        bag.image(RGB, stamp, picture(k), "rgb8", recorded=stamp + 0.03)
        bag.image(DEPTH, stamp + 0.004, millimetres(k), "16UC1", recorded=stamp + 0.05)
        bag.info(INFO, stamp, SIZE, CAMERA)
        if imu:
            bag.imu("/imu", stamp + 0.02, (0.1 * k, 0.2, 0.3), (0.0, 9.8, k))
    bag.text("/rosout", STAMP_0, "hello")
    return bag


def check_rgbd(path: Path) -> None:
    sequence = open_sequence(path)
    assert (sequence.format, sequence.sensor, len(sequence)) == ("bag", "rgbd", 5)
    assert sequence.camera is not None
    assert (sequence.camera.fx, sequence.camera.fy, sequence.camera.cx, sequence.camera.cy) == CAMERA
    # Times of capture, not of recording.
    np.testing.assert_allclose(sequence.timestamps, STAMP_0 + 0.1 * np.arange(5), atol=1e-6)
    for k in (0, 1, 2, 4, 3, 0):  # forwards, over a gap, and back
        frame = sequence[k]
        np.testing.assert_array_equal(frame.image, picture(k))
        expected = np.where(millimetres(k) == 65535, 0, millimetres(k)) / 1000.0
        assert frame.depth is not None
        np.testing.assert_allclose(frame.depth, expected, atol=1e-6)
    assert sequence.imu is not None
    np.testing.assert_allclose(sequence.imu.timestamps, STAMP_0 + 0.02 + 0.1 * np.arange(5), atol=1e-6)
    np.testing.assert_allclose(sequence.imu.gyro[3], (0.3, 0.2, 0.3))
    np.testing.assert_allclose(sequence.imu.accel[3], (0.0, 9.8, 3.0))


@pytest.mark.parametrize("storage", ["mcap", "sqlite3"])
def test_ros2_folder_and_its_file(tmp_path: Path, storage: str) -> None:
    folder = rgbd().write(tmp_path / "run", storage)
    check_rgbd(folder)
    (file,) = [path for path in folder.iterdir() if path.suffix in (".mcap", ".db3")]
    check_rgbd(file)


def test_ros1_file_and_a_folder_of_them(tmp_path: Path) -> None:
    check_rgbd(rgbd(ros1=True).write(tmp_path / "run.bag"))
    parts = tmp_path / "parts"
    parts.mkdir()
    for name, part in (("a", range(2)), ("b", range(2, 5))):
        bag = Bag(ros1=True)
        for k in part:
            bag.image(RGB, STAMP_0 + 0.1 * k, picture(k), "rgb8")
        bag.write(parts / f"{name}.bag")
    sequence = open_sequence(parts)
    assert len(sequence) == 5
    np.testing.assert_array_equal(sequence[4].image, picture(4))


def encodings() -> dict[str, tuple[np.ndarray, str, np.ndarray]]:
    """Name: pixels as stored, encoding, and the RGB that they stand for."""
    rgb, grey = picture(), picture()[:, :, 0]
    grey_rgb = np.repeat(grey[:, :, None], 3, axis=2)
    alpha = np.full((*grey.shape, 1), 9, np.uint8)
    wide = rgb.astype(np.uint16) * 257
    return {
        "rgb8": (rgb, "rgb8", rgb),
        "bgr8": (rgb[..., ::-1], "bgr8", rgb),
        "rgba8": (np.concatenate([rgb, alpha], 2), "rgba8", rgb),
        "bgra8": (np.concatenate([rgb[..., ::-1], alpha], 2), "bgra8", rgb),
        "mono8": (grey, "mono8", grey_rgb),
        "mono16": (grey.astype(np.uint16) * 257, "mono16", grey_rgb),
        "rgb16": (wide, "rgb16", rgb),
        "rgb16 big endian": (wide.astype(">u2"), "rgb16", rgb),
    }


@pytest.mark.parametrize("name", encodings())
def test_every_raw_encoding_gives_the_same_rgb(tmp_path: Path, name: str) -> None:
    stored, encoding, expected = encodings()[name]
    bag = Bag()
    bag.image(RGB, STAMP_0, stored, encoding, pad=5)
    np.testing.assert_array_equal(open_sequence(bag.write(tmp_path / "run"))[0].image, expected)


@pytest.mark.parametrize(("encoding", "red", "blue"), [
    ("bayer_rggb8", (0, 0), (1, 1)), ("bayer_bggr8", (1, 1), (0, 0)),
    ("bayer_gbrg8", (1, 0), (0, 1)), ("bayer_grbg8", (0, 1), (1, 0)),
])  # fmt: skip
def test_mosaics_put_red_where_the_name_says(
    tmp_path: Path, encoding: str, red: tuple[int, int], blue: tuple[int, int]
) -> None:
    colour = (200, 120, 40)
    mosaic = np.full((SIZE[1], SIZE[0]), colour[1], np.uint8)
    mosaic[red[0] :: 2, red[1] :: 2] = colour[0]
    mosaic[blue[0] :: 2, blue[1] :: 2] = colour[2]
    bag = Bag()
    bag.image(RGB, STAMP_0, mosaic, encoding)
    image = open_sequence(bag.write(tmp_path / "run"))[0].image
    np.testing.assert_array_equal(image[4:-4, 4:-4], np.broadcast_to(colour, (SIZE[1] - 8, SIZE[0] - 8, 3)))


def test_yuv_keeps_brightness_and_hue(tmp_path: Path) -> None:
    flat = np.full((SIZE[1], SIZE[0], 3), (180, 60, 30), np.uint8)
    y, u, v = cv2.cvtColor(flat, cv2.COLOR_RGB2YUV)[0, 0].astype(int)
    video = [round(16 + y * 219 / 255), 128 + round((u - 128) * 0.9), 128 + round((v - 128) * 0.72)]
    uyvy = np.tile(np.array([[video[1], video[0]], [video[2], video[0]]], np.uint8), (SIZE[1], SIZE[0] // 2, 1))
    for encoding, stored in (("yuv422", uyvy), ("yuv422_yuy2", uyvy[..., ::-1])):
        bag = Bag()
        bag.image(RGB, STAMP_0, stored, encoding)
        image = open_sequence(bag.write(tmp_path / encoding))[0].image.reshape(-1, 3).mean(axis=0)
        assert image[0] > image[1] > image[2], encoding


def test_compressed_images_and_depth(tmp_path: Path) -> None:
    bag, metres = Bag(), millimetres().astype(np.float64) / 1000
    quant_a, quant_b = 100.0, 0.5
    inverse = np.where(millimetres() > 0, quant_a / np.maximum(metres, 1e-3) + quant_b, 0).astype(np.uint16)
    for k in range(3):
        stamp = STAMP_0 + 0.1 * k
        bag.compressed("/camera/color/image_raw/compressed", stamp, png(picture(k)), "rgb8; png compressed bgr8")
        header = struct.pack("<iff", 0, quant_a, quant_b)
        bag.compressed("/d16/compressedDepth", stamp, header + png(millimetres(k)), "16UC1; compressedDepth png")
        bag.compressed("/d32/compressedDepth", stamp, header + png(inverse), "32FC1; compressedDepth png")
    path = bag.write(tmp_path / "run")
    with pytest.raises(DatasetError, match=r"several topics hold depth .*/d16/compressedDepth, /d32/compressedDepth"):
        open_sequence(path)
    first = open_sequence(path, topics="depth=/d16/compressedDepth")[2]
    np.testing.assert_array_equal(first.image, picture(2))
    assert first.depth is not None
    known = (millimetres(2) > 0) & (millimetres(2) < 65535)
    np.testing.assert_allclose(first.depth[known], millimetres(2)[known] / 1000.0, atol=1e-6)
    assert not first.depth[~known].any()
    second = open_sequence(path, topics={"depth": "/d32/compressedDepth"})[0].depth
    assert second is not None
    known = (millimetres() > 0) & (millimetres() < 65535)
    np.testing.assert_allclose(second[known], metres[known], rtol=0.05)
    assert second[0, 0] == 0


def test_float_depth_is_metres_and_nan_unknown(tmp_path: Path) -> None:
    depth = np.full((SIZE[1], SIZE[0]), 1.25, np.float32)
    depth[0, :3] = (np.nan, np.inf, -1)
    bag = Bag()
    bag.image("/rgb", STAMP_0, picture(), "rgb8")
    bag.image("/depth", STAMP_0, depth, "32FC1")
    found = open_sequence(bag.write(tmp_path / "run"))[0].depth
    assert found is not None
    assert found[0, :4].tolist() == [0, 0, 0, 1.25]


def test_depth_of_another_frame_is_not_taken_silently(tmp_path: Path) -> None:
    bag = Bag()
    bag.image("/color", STAMP_0, picture(), "rgb8", frame="color_optical")
    bag.image("/depth", STAMP_0, millimetres(), "16UC1", frame="depth_optical")
    path = bag.write(tmp_path / "run")
    with pytest.raises(DatasetError, match=r"/depth is in frame 'depth_optical'.*'color_optical'.*registered"):
        open_sequence(path)
    assert open_sequence(path, topics="depth=/depth").sensor == "rgbd"
    assert open_sequence(path, topics="depth=none").sensor == "mono"


def test_several_pictures_are_asked_about_and_given_topics_checked(tmp_path: Path) -> None:
    bag = Bag()
    for name in ("/front/image", "/back/image"):
        bag.image(name, STAMP_0, picture(1 if "back" in name else 0), "rgb8")
    bag.text("/chat", STAMP_0, "hello")
    path = bag.write(tmp_path / "run")
    with pytest.raises(DatasetError, match=r"several topics hold pictures .*/back/image, /front/image.*--topics rgb="):
        open_sequence(path)
    np.testing.assert_array_equal(open_sequence(path, topics="rgb=/back/image")[0].image, picture(1))
    with pytest.raises(DatasetError, match=r"topic /side is not in the bag; it has .*/front/image"):
        open_sequence(path, topics="rgb=/side")
    with pytest.raises(DatasetError, match=r"/chat is of type std_msgs/msg/String"):
        open_sequence(path, topics="rgb=/chat")
    with pytest.raises(ConfigError, match=r"'rbg=/a': expected role=topic"):
        open_sequence(path, topics="rbg=/a")
    with pytest.raises(ConfigError, match="topics are of bags"):
        open_sequence(tmp_path, format="folder", topics="rgb=/a")


def test_other_clocks_are_told_and_empty_stamps_replaced(tmp_path: Path) -> None:
    bag = Bag()
    for k in range(4):
        bag.image("/rgb", STAMP_0 + k, picture(k), "rgb8")
        bag.image("/depth", 12.0 + k, millimetres(k), "16UC1", recorded=STAMP_0 + k)
    with pytest.raises(DatasetError, match=r"within 0\.02 s .*do their clocks differ"):
        open_sequence(bag.write(tmp_path / "clocks"))
    bag = Bag()
    for k in range(4):
        bag.image("/rgb", 0.0, picture(k), "rgb8", recorded=STAMP_0 + k)
    sequence = open_sequence(bag.write(tmp_path / "zero"))
    np.testing.assert_allclose(sequence.timestamps, STAMP_0 + np.arange(4), atol=1e-6)


def test_lost_depth_doubled_and_swapped_stamps_are_told(tmp_path: Path) -> None:
    bag = Bag()
    for place, k in enumerate((0, 2, 1, 3, 3, 4)):
        bag.image("/rgb", STAMP_0 + 0.1 * k, picture(place), "rgb8", recorded=STAMP_0 + place)
        if k != 4:
            bag.image("/depth", STAMP_0 + 0.1 * k, millimetres(place), "16UC1", recorded=STAMP_0 + place)
    sequence = open_sequence(bag.write(tmp_path / "run"))
    assert len(sequence) == 4
    kinds = [fault.kind for fault in sequence.faults]
    assert {"out-of-order", "duplicate", "unpaired"} <= set(kinds)
    np.testing.assert_array_equal(sequence[1].image, picture(2))
    np.testing.assert_array_equal(sequence[2].image, picture(1))


def test_messages_recorded_at_one_time_are_told_apart(tmp_path: Path) -> None:
    bag = Bag()
    for k in range(4):
        bag.image("/rgb", STAMP_0 + 0.1 * k, picture(k), "rgb8", recorded=STAMP_0)
    sequence = open_sequence(bag.write(tmp_path / "run"))
    for k in (3, 0, 2, 1):
        np.testing.assert_array_equal(sequence[k].image, picture(k))


def test_a_broken_message_is_a_broken_frame(tmp_path: Path) -> None:
    bag = Bag()
    for k in range(3):
        bag.compressed("/rgb/compressed", STAMP_0 + k, b"nothing" if k == 1 else png(picture(k)), "png")
    sequence = open_sequence(bag.write(tmp_path / "run"))
    broken = sequence.read(1)
    assert isinstance(broken, BrokenFrame)
    assert "/rgb/compressed message 1" in str(broken.error)
    assert isinstance(sequence.read(2), Frame)


def test_camera_info_lenses_and_what_it_cannot_say(tmp_path: Path) -> None:
    def opened(name: str, topic: str = "/cam/image_raw", **info: object):
        bag = Bag()
        bag.image(topic, STAMP_0, picture(), "rgb8")
        bag.info("/cam/camera_info", STAMP_0, SIZE, CAMERA, **info)  # ty: ignore[invalid-argument-type]
        return open_sequence(bag.write(tmp_path / name))

    straight = opened("plain")
    np.testing.assert_array_equal(straight[0].image, picture())
    bent = opened("bent", D=(0.1, 0.01, 0.001, 0.002, 0.0))
    assert not np.array_equal(bent[0].image, picture())
    fisheye = opened("fisheye", D=(0.0, 0.0, 0.0, 0.0), model="equidistant")
    assert not np.array_equal(fisheye[0].image, picture())  # an equidistant lens without coefficients is no pinhole
    rectified = opened("rect", topic="/cam/image_rect_color", D=(0.1, 0.01, 0.001, 0.002, 0.0))
    np.testing.assert_array_equal(rectified[0].image, picture())
    with pytest.raises(DatasetError, match="binned or cropped"):
        opened("binned", binning=2)
    with pytest.raises(DatasetError, match="distortion model 'magic' is unknown"):
        opened("magic", D=(0.1, 0.1, 0.1, 0.1), model="magic")
    bag = Bag()
    bag.image("/cam/image_raw", STAMP_0, picture(), "rgb8")
    bag.info("/cam/camera_info", STAMP_0, SIZE, (0.0, 0.0, 0.0, 0.0))
    with pytest.raises(DatasetError, match=r"/cam/camera_info: holds no calibration"):
        open_sequence(bag.write(tmp_path / "zero"))
    assert open_sequence(tmp_path / "zero", camera=(30, 30, 15, 11)).camera is not None


def test_bags_without_images_say_so(shared: Path) -> None:
    for name in ("mcap-wbag", "sqlite3-wbag", "mcap-talker", "sqlite3-talker"):
        with pytest.raises(DatasetError, match=r"no images in this bag; it has .*std_msgs/msg/String"):
            open_sequence(shared / "data/bags" / name)


def test_info_lists_topics(run: Run, tmp_path: Path) -> None:
    outcome = run("info", rgbd().write(tmp_path / "run"))
    assert outcome.code == 0
    rows = {row[0]: row[1:] for row in (line.split("\t") for line in outcome.out.splitlines())}
    assert rows[RGB] == ["sensor_msgs/msg/Image", "5", "rgb"]
    assert rows[DEPTH][-1] == "depth"
    assert rows["/imu"][-1] == "imu"
    assert rows["/rosout"] == ["std_msgs/msg/String", "1", "-"]


def test_a_cut_bag_ends_with_one_line(run: Run, tmp_path: Path) -> None:
    whole = rgbd(ros1=True).write(tmp_path / "run.bag")
    data = whole.read_bytes()
    cut = tmp_path / "cut.bag"
    cut.write_bytes(data[: len(data) // 2])
    outcome = run("slam", cut, "--out", tmp_path / "out")
    assert outcome.code == 2
    assert outcome.err.startswith("error: ")
    assert str(cut) in outcome.err
    assert "bag cannot be read" in outcome.err
    assert not (tmp_path / "out").exists()


def test_slam_on_a_bag_gives_what_its_frames_give(run: Run, tmp_path: Path, shared: Path) -> None:
    """Every 10th frame of redkitchen as a bag of PNGs and depth: the same trajectory as from the files."""
    source = open_sequence(shared / "data/7scenes/redkitchen/seq-01")
    bag = Bag()
    for frame in source.frames(every=2, max_frames=12):
        assert isinstance(frame, Frame)
        stamp = STAMP_0 + frame.timestamp
        assert frame.depth is not None
        bag.image(RGB, stamp, frame.image, "rgb8")
        bag.image(DEPTH, stamp, np.round(frame.depth * 1000).astype(np.uint16), "16UC1")
    bag.info(INFO, STAMP_0, (640, 480), (585.0, 585.0, 320.0, 240.0))
    path = bag.write(tmp_path / "bag")
    options = ["--features", "orb", "--max-keypoints", 500, "--autosave", 0]
    outcome = run("slam", path, "--out", tmp_path / "a", *options)
    assert outcome.code == 0, outcome.err
    outcome = run("slam", shared / "data/7scenes/redkitchen/seq-01", "--out", tmp_path / "b", *options,
                  "--every", 2, "--max-frames", 12)  # fmt: skip
    assert outcome.code == 0, outcome.err
    poses = [np.loadtxt(tmp_path / name / "trajectory.txt") for name in ("a", "b")]
    assert len(poses[0]) == len(poses[1]) == 12
    np.testing.assert_allclose(poses[0][:, 1:], poses[1][:, 1:], atol=1e-6)
    assert json.loads((tmp_path / "a/report.json").read_text())["tracked"] == 12


def test_stereo_bag_of_kitti(tmp_path: Path, shared: Path) -> None:
    source = open_sequence(shared / "data/kitti/sequences/01")
    camera, baseline = source.camera, source.baseline
    assert camera is not None
    assert baseline is not None
    bag = Bag()
    for frame in source.frames(max_frames=3):
        assert isinstance(frame, Frame)
        assert frame.right is not None
        for side, image in (("left", frame.image), ("right", frame.right)):
            bag.image(f"/stereo/{side}/image_rect", STAMP_0 + frame.timestamp, image[:, :, 0], "mono8")
    K = (camera.fx, camera.fy, camera.cx, camera.cy)
    size = (camera.width, camera.height)
    bag.info("/stereo/left/camera_info", STAMP_0, size, K, D=(0.1,) * 5)
    bag.info("/stereo/right/camera_info", STAMP_0, size, K, D=(0.1,) * 5, tx=-camera.fx * baseline)
    sequence = open_sequence(bag.write(tmp_path / "bag"))
    assert (sequence.sensor, sequence.camera) == ("stereo", camera)
    assert sequence.baseline == pytest.approx(baseline)
    first, expected = sequence[2], source[2]
    np.testing.assert_array_equal(first.image, expected.image)
    assert first.right is not None
    np.testing.assert_array_equal(first.right, expected.right)


def test_a_raw_pair_is_rectified_as_opencv_does(tmp_path: Path) -> None:
    """R and P of cv2.stereoRectify in camera_info give the relative pose that they were made from."""
    from semkey.datasets.cameras.ros import RosCamera, ros_pair

    K = np.array([[400.0, 0, 320], [0, 400.0, 240], [0, 0, 1]])
    R_right_left = cv2.Rodrigues(np.array([0.01, 0.03, -0.02]))[0]
    t = np.array([-0.12, 0.002, 0.004])
    R1, R2, P1, P2, *_ = cv2.stereoRectify(K, np.zeros(5), K, np.zeros(5), (640, 480), R_right_left, t[:, None])
    left, right = (
        RosCamera(
            size=(640, 480), model="plumb_bob", D=(), K=K, R=np.asarray(R, np.float64), P=np.asarray(P, np.float64)
        )
        for R, P in ((R1, P1), (R2, P2))
    )
    T_left_right = ros_pair(left, right, rectified=False).T_left_right
    assert T_left_right is not None
    np.testing.assert_allclose(T_left_right[:3, :3], R_right_left.T, atol=1e-9)
    np.testing.assert_allclose(T_left_right[:3, 3], -R_right_left.T @ t, atol=1e-9)
    with pytest.raises(ConfigError, match="has no baseline"):
        ros_pair(right, left, rectified=False)
