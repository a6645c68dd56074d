from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semkey.datasets import BrokenFrame, Calibration, Lens, open_sequence
from semkey.errors import DatasetError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import make_transform, so3_exp
from semkey.images import write_image

CAMERA = PinholeCamera(fx=70, fy=70, cx=31.5, cy=11.5, width=64, height=24)
#: Positions of the four cameras in the frame of camera 0, metres.
POSITIONS = {0: (0.0, 0.0, 0.0), 1: (0.54, 0.0, 0.0), 2: (-0.06, 0.001, -0.006), 3: (0.47, 0.002, -0.003)}
FRAMES = 5


def pose(index: int) -> np.ndarray:
    return make_transform(so3_exp([0.0, 0.05 * index, 0.0]), [0.1 * index, 0.0, 0.9 * index])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four cameras, five frames; the image of camera c in frame i is filled with 20 * c + i."""
    root = tmp_path / "sequences/03"
    for camera in POSITIONS:
        for index in range(FRAMES):
            image = np.full((24, 64, 3), 20 * camera + index, np.uint8)
            write_image(root / f"image_{camera}/{index:06d}.png", image)
    rows = []
    for camera, position in POSITIONS.items():
        P = CAMERA.matrix @ np.concatenate([np.eye(3), -np.reshape(position, (3, 1))], axis=1)
        rows.append(f"P{camera}: " + " ".join(f"{value:.12e}" for value in P.ravel()))
    (root / "calib.txt").write_text("\n".join([*rows, "Tr: " + "0 " * 12]) + "\n")
    (root / "times.txt").write_text("".join(f"{0.1 * index:e}\n" for index in range(FRAMES)))
    poses = tmp_path / "poses/03.txt"
    poses.parent.mkdir()
    np.savetxt(poses, [pose(index)[:3].ravel() for index in range(FRAMES)], fmt="%.7e")
    return root


def test_grey_pair(folder: Path) -> None:
    sequence = open_sequence(folder)
    assert (sequence.format, sequence.name, len(sequence), sequence.sensor) == ("kitti", "03", FRAMES, "stereo")
    assert sequence.camera == CAMERA
    assert sequence.baseline == pytest.approx(0.54)
    np.testing.assert_allclose(sequence.timestamps, 0.1 * np.arange(FRAMES), atol=1e-6)
    assert sequence.faults == ()
    for index, frame in enumerate(sequence):
        assert frame.right is not None
        assert (int(frame.image[0, 0, 0]), int(frame.right[0, 0, 0])) == (index, 20 + index)
        assert frame.T_world_cam is not None
        np.testing.assert_allclose(frame.T_world_cam, pose(index), atol=1e-6)


def test_colour_pair_by_its_folder_has_the_pose_of_its_left_camera(folder: Path) -> None:
    sequence = open_sequence(folder / "image_2")
    assert sequence.sensor == "stereo"
    assert sequence.baseline == pytest.approx(POSITIONS[3][0] - POSITIONS[2][0])
    frame = sequence[4]
    assert frame.right is not None
    assert (int(frame.image[0, 0, 0]), int(frame.right[0, 0, 0])) == (44, 64)
    assert frame.T_world_cam is not None
    expected = pose(4) @ make_transform(np.eye(3), POSITIONS[2])
    np.testing.assert_allclose(frame.T_world_cam, expected, atol=1e-6)


def remove(folder: Path, *cameras: int) -> None:
    for camera in cameras:
        for file in (folder / f"image_{camera}").iterdir():
            file.unlink()
        (folder / f"image_{camera}").rmdir()


def test_what_is_there_is_used(folder: Path) -> None:
    remove(folder, 1)
    assert int(open_sequence(folder)[0].image[0, 0, 0]) == 40  # the colour pair beats a single grey camera
    remove(folder, 3)
    sequence = open_sequence(folder)
    assert (sequence.sensor, int(sequence[0].image[0, 0, 0])) == ("mono", 0)
    assert open_sequence(folder / "image_2").sensor == "mono"


def test_times_and_poses_are_optional(folder: Path) -> None:
    (folder / "times.txt").unlink()
    (folder.parent.parent / "poses/03.txt").unlink()
    sequence = open_sequence(folder)
    np.testing.assert_allclose(sequence.timestamps, 0.1 * np.arange(FRAMES))
    assert not sequence.has_ground_truth


def test_a_dropped_frame_keeps_the_time_of_the_others(folder: Path) -> None:
    (folder / "image_0/000002.png").unlink()
    sequence = open_sequence(folder)
    np.testing.assert_allclose(sequence.timestamps, [0.0, 0.1, 0.3, 0.4], atol=1e-6)
    assert [fault.kind for fault in sequence.faults] == ["missing"]
    assert "1 frames are missing, first 000002" in sequence.faults[0].message
    truth = sequence.ground_truth[2]
    assert truth is not None
    np.testing.assert_allclose(truth, pose(3), atol=1e-6)


def test_a_missing_right_image_breaks_its_frame(folder: Path) -> None:
    (folder / "image_1/000002.png").unlink()
    sequence = open_sequence(folder)
    assert [isinstance(frame, BrokenFrame) for frame in sequence.frames()] == [False, False, True, False, False]
    with pytest.raises(DatasetError, match=r"image_1/000002\.png: file is missing"):
        open_sequence(folder, strict=True)


def test_a_clock_that_jumps_back_for_good_is_an_error(folder: Path) -> None:
    (folder / "times.txt").write_text("0\n0.1\n0.2\n0.05\n0.15\n")
    with pytest.raises(DatasetError, match=r"times\.txt: time does not increase at frame 3 .*: 2 of 5 frames would be"):
        open_sequence(folder)


def test_time_that_does_not_increase(folder: Path) -> None:
    (folder / "times.txt").write_text("0\n0.1\n0.1\n0.05\n0.4\n")
    sequence = open_sequence(folder)
    np.testing.assert_allclose(sequence.timestamps, [0.0, 0.1, 0.4])
    assert [fault.kind for fault in sequence.faults] == ["duplicate", "out-of-order"]
    assert [int(frame.image[0, 0, 0]) for frame in sequence] == [0, 1, 4]
    with pytest.raises(DatasetError, match="time does not increase at frame 2"):
        open_sequence(folder, strict=True)


def test_camera_arguments(folder: Path) -> None:
    sequence = open_sequence(folder, camera=(60.0, 60.0, 30.0, 10.0))
    assert sequence.camera is not None
    assert sequence.camera.fx == 60.0
    assert sequence.baseline == pytest.approx(0.54)
    lens = Lens(model="pinhole", intrinsics=(61.0, 61.0, 30.0, 10.0), size=(64, 24))
    assert open_sequence(folder, camera=Calibration(left=lens)).sensor == "mono"
    pair = Calibration(left=lens, right=lens, T_left_right=make_transform(np.eye(3), [0.5, 0, 0]))
    assert open_sequence(folder, camera=pair).baseline == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("times.txt", "0\n0.1\n", "times.txt: has 2 rows, but the last frame is number 4"),
        ("times.txt", "0\nx\n", "times.txt:2: 'x' is not a number"),
        ("times.txt", "0 1\n", "times.txt:1: expected 1 column"),
        ("calib.txt", "P0: 1 2 3\n", "calib.txt:1: expected P0: and 12 numbers"),
        ("calib.txt", "P0: " + "0 " * 12, "calib.txt:1: P0 is not the projection"),
        ("calib.txt", "P2: 1 0 0 0 0 1 0 0 0 0 1 0\n", "calib.txt: has no P0"),
        ("../../poses/03.txt", "1 2 3\n", "03.txt:1: expected 12 columns"),
        ("../../poses/03.txt", "1 0 0 0 0 1 0 0 0 0 1 0\n", "03.txt: has 1 rows, but the last frame is number 4"),
        ("../../poses/03.txt", "2 0 0 0 0 1 0 0 0 0 1 0\n", "03.txt:1: pose is not a rigid transform"),
    ],
)
def test_broken_files_are_named(folder: Path, file: str, text: str, message: str) -> None:
    (folder / file).write_text(text)
    with pytest.raises(DatasetError) as caught:
        open_sequence(folder)
    assert message in str(caught.value)


def test_folders_that_are_no_sequence(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds sequences; give one of them, such as .*03"):
        open_sequence(folder.parent)
    remove(folder, 0, 1, 2, 3)
    (folder / "image_2").mkdir()
    with pytest.raises(DatasetError, match=r"image_2: no images with numbers as names"):
        open_sequence(folder)


def test_real_sequence(shared: Path) -> None:
    sequence = open_sequence(shared / "data/kitti/sequences/07")
    assert (sequence.format, len(sequence), sequence.sensor) == ("kitti", 120, "mono")
    assert sequence.camera == PinholeCamera(fx=707.0912, fy=707.0912, cx=601.8873, cy=183.1104, width=1226, height=370)
    positions = np.array([truth[:3, 3] for truth in sequence.ground_truth if truth is not None])
    assert len(positions) == 120
    # The car drives forward, +z of the first camera, at the speed of a car.
    speed = np.linalg.norm(np.diff(positions, axis=0), axis=1) / np.diff(sequence.timestamps)
    assert 0 <= speed.min() <= speed.max() < 20
    assert positions[60, 2] > 4
    assert sequence[100].image.shape == (370, 1226, 3)
