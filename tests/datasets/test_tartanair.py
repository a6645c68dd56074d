from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from semkey.datasets import BrokenFrame, Calibration, Lens, open_sequence
from semkey.errors import DatasetError, InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, make_transform, quaternion_xyzw_from_rotation, so3_exp
from semkey.images import write_image

FRAMES = 4


def pose_ned(index: int) -> np.ndarray:
    """A drone that flies ahead (+x) and climbs (-z) while it turns right (about +z, down)."""
    return make_transform(so3_exp([0.0, 0.0, 0.1 * index]), [2.0 * index, 0.0, -0.5 * index])


def write_poses(path: Path) -> None:
    rows = []
    for index in range(FRAMES):
        pose = pose_ned(index)
        rows.append(np.concatenate([pose[:3, 3], quaternion_xyzw_from_rotation(pose[:3, :3])]))
    np.savetxt(path, rows, fmt="%.9f")


def depth_of(index: int, size: tuple[int, int]) -> np.ndarray:
    depth = np.full((size[1], size[0]), 2.5 + index, np.float32)
    depth[0, 0], depth[0, 1], depth[0, 2] = 10000.0, np.inf, np.nan
    return depth


@pytest.fixture
def first(tmp_path: Path) -> Path:
    root = tmp_path / "office/Easy/P001"
    for index in range(FRAMES):
        write_image(root / f"image_left/{index:06d}_left.png", np.full((480, 640, 3), index, np.uint8))
        write_image(root / f"image_right/{index:06d}_right.png", np.full((480, 640, 3), 100 + index, np.uint8))
        (root / "depth_left").mkdir(exist_ok=True)
        np.save(root / f"depth_left/{index:06d}_left_depth.npy", depth_of(index, (640, 480)))
    write_poses(root / "pose_left.txt")
    return root


@pytest.fixture
def second(tmp_path: Path) -> Path:
    root = tmp_path / "Office/Data_easy/P000"
    for index in range(FRAMES):
        stem = f"{index:06d}_lcam_front"
        write_image(root / f"image_lcam_front/{stem}.png", np.full((640, 640, 3), index, np.uint8))
        (root / "depth_lcam_front").mkdir(exist_ok=True)
        stored = depth_of(index, (640, 640)).astype("<f4")[:, :, None].view(np.uint8)
        assert cv2.imwrite(str(root / f"depth_lcam_front/{stem}_depth.png"), stored)
    write_poses(root / "pose_lcam_front.txt")
    return root


def check_poses(truth: tuple[np.ndarray | None, ...]) -> None:
    """By hand: seen from the first camera, the drone goes forward (+z), up (-y), and turns right (about +y)."""
    for index, pose in enumerate(truth):
        assert pose is not None
        np.testing.assert_allclose(pose[:3, 3], [0.0, -0.5 * index, 2.0 * index], atol=1e-8)
        np.testing.assert_allclose(pose[:3, :3], so3_exp([0.0, 0.1 * index, 0.0]), atol=1e-8)


def test_first_version(first: Path) -> None:
    sequence = open_sequence(first)
    assert (sequence.format, sequence.name, len(sequence)) == ("tartanair", "office/Easy/P001", FRAMES)
    assert sequence.camera == PinholeCamera(fx=320, fy=320, cx=320, cy=240, width=640, height=480)
    assert (sequence.sensor, sequence.baseline) == ("rgbd", 0.25)
    check_poses(sequence.ground_truth)
    frame = sequence[2]
    assert frame.right is not None
    assert frame.depth is not None
    assert (int(frame.image[0, 0, 0]), int(frame.right[0, 0, 0]), float(frame.depth[9, 9])) == (2, 102, 4.5)
    assert frame.depth[0, :3].tolist() == [0.0, 0.0, 0.0]


def test_limited_to_what_is_used(first: Path) -> None:
    sequence = open_sequence(first)
    stereo = sequence.limited_to("stereo")
    assert (stereo.sensor, stereo.baseline, sequence.sensor) == ("stereo", 0.25, "rgbd")
    assert stereo[1].depth is None
    assert stereo[1].right is not None
    mono = sequence.limited_to("mono")
    assert mono.sensor == "mono"
    assert mono[1].depth is None
    assert mono[1].right is None
    (first / "image_right/000001_right.png").write_bytes(b"broken")
    assert isinstance(sequence.read(1), BrokenFrame)
    assert not isinstance(sequence.limited_to("mono").read(1), BrokenFrame)
    with pytest.raises(DatasetError, match="has no depth"):
        mono.limited_to("rgbd")
    with pytest.raises(DatasetError, match="has no calibrated right images"):
        mono.limited_to("stereo")


def test_second_version(second: Path) -> None:
    sequence = open_sequence(second)
    assert (sequence.format, sequence.sensor, sequence.baseline) == ("tartanair", "rgbd", None)
    assert sequence.camera == PinholeCamera(fx=320, fy=320, cx=320, cy=320, width=640, height=640)
    check_poses(sequence.ground_truth)
    depth = sequence[3].depth
    assert depth is not None
    assert depth.dtype == np.float32
    assert float(depth[100, 100]) == 5.5
    assert depth[0, :3].tolist() == [0.0, 0.0, 0.0]


def test_depth_right_and_poses_are_optional(first: Path) -> None:
    for name in ("depth_left", "image_right"):
        for file in (first / name).iterdir():
            file.unlink()
        (first / name).rmdir()
    (first / "pose_left.txt").unlink()
    sequence = open_sequence(first)
    assert sequence.sensor == "mono"
    assert not sequence.has_ground_truth


def test_a_calibration_for_the_left_images_alone(first: Path) -> None:
    lens = Lens(model="pinhole", intrinsics=(300.0, 300.0, 319.5, 239.5), size=(640, 480))
    sequence = open_sequence(first, camera=Calibration(left=lens))
    assert (sequence.baseline, sequence[0].right) == (None, None)
    pair = Calibration(left=lens, right=lens, T_left_right=make_transform(np.eye(3), [0.3, 0, 0]))
    assert open_sequence(first, camera=pair).baseline == pytest.approx(0.3)


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00"])
def test_broken_depth(first: Path, content: bytes) -> None:
    (first / "depth_left/000001_left_depth.npy").write_bytes(content)
    sequence = open_sequence(first)
    broken = sequence.read(1)
    assert isinstance(broken, BrokenFrame)
    assert "000001_left_depth.npy" in str(broken.error)


def test_depth_that_would_run_code_is_not_read(first: Path) -> None:
    np.save(first / "depth_left/000001_left_depth.npy", np.array([[{"a": 1}]], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="000001_left_depth"):
        open_sequence(first)[1]


def test_broken_png_depth(second: Path) -> None:
    write_image(second / "depth_lcam_front/000001_lcam_front_depth.png", np.zeros((640, 640), np.uint16))
    with pytest.raises(InputError, match="expected four 8-bit channels"):
        open_sequence(second)[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 0 0 0 0 1\n", "pose_left.txt:1: expected 7 columns"),
        ("0 0 0 0 0 0 1\n0 0 x 0 0 0 1\n", "pose_left.txt:2: 'x' is not a number"),
        ("0 0 0 0 0 0 0\n", "pose_left.txt:1: not a quaternion"),
        ("0 0 0 0 0 0 1\n", "pose_left.txt: has 1 rows, but the last frame is number 3"),
    ],
)
def test_broken_poses_are_named(first: Path, text: str, message: str) -> None:
    (first / "pose_left.txt").write_text(text)
    with pytest.raises(DatasetError) as caught:
        open_sequence(first)
    assert message in str(caught.value)


def test_the_folder_above(first: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds sequences; give one of them, such as .*P001"):
        open_sequence(first.parent)


def test_geometry_of_pose_depth_and_camera_agree(tmp_path: Path) -> None:
    """A point fixed in the NED world is seen where its converted pose says, by a projection written out in NED."""
    point_ned = np.array([10.0, 1.0, -2.0])
    for index in range(FRAMES):
        in_body = inverse(pose_ned(index)) @ [*point_ned, 1.0]  # x forward, y right, z down
        pixel = [320.0 + 320.0 * in_body[1] / in_body[0], 240.0 + 320.0 * in_body[2] / in_body[0]]
        root = tmp_path / "P002"
        write_image(root / f"image_left/{index:06d}_left.png", np.zeros((480, 640, 3), np.uint8))
        if index == 0:
            write_poses(root / "pose_left.txt")
        camera = PinholeCamera(fx=320, fy=320, cx=320, cy=240, width=640, height=480)
        T_world_cam = open_sequence(root).ground_truth[index]
        assert T_world_cam is not None
        point = np.array([point_ned[1], point_ned[2], point_ned[0], 1.0])  # the world's axes as a camera's
        np.testing.assert_allclose(camera.project((inverse(T_world_cam) @ point)[:3])[0], pixel, atol=1e-6)
