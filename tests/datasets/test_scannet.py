from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semkey.datasets import BrokenFrame, Calibration, Lens, open_sequence
from semkey.errors import ConfigError, DatasetError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import make_transform, so3_exp
from semkey.images import write_image

# Twice the size of depth and a bit, with another principal point: as in ScanNet.
COLOR = PinholeCamera(fx=117.0, fy=116.7, cx=64.6, cy=49.0, width=130, height=97)
DEPTH = PinholeCamera(fx=57.8, fy=57.8, cx=31.5, cy=23.5, width=64, height=48)
NUMBERS = (0, 20, 100)


def pose(number: int) -> np.ndarray:
    return make_transform(so3_exp([0.0, 0.0, 0.01 * number]), [0.02 * number, 1.0, 1.5])


def color_image(number: int) -> np.ndarray:
    """Brightness is linear in the viewing ray: 128 + 150 x along the columns' rays, red the number."""
    x = (np.arange(COLOR.width) - COLOR.cx) / COLOR.fx
    y = (np.arange(COLOR.height) - COLOR.cy) / COLOR.fy
    image = np.zeros((COLOR.height, COLOR.width, 3), np.uint8)
    image[..., 0] = number
    image[..., 1] = np.round(128 + 150 * x)[None, :]
    image[..., 2] = np.round(128 + 150 * y)[:, None]
    return image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "scene0000_00"
    for number in NUMBERS:
        write_image(root / f"color/{number}.png", color_image(number))
        write_image(root / f"depth/{number}.png", np.full((48, 64), 1000 + number, np.uint16))
        (root / "pose").mkdir(exist_ok=True)
        np.savetxt(root / f"pose/{number}.txt", pose(number), fmt="%.6f")
    (root / "intrinsic").mkdir()
    for name, camera in (("color", COLOR), ("depth", DEPTH)):
        K = np.eye(4)
        K[:3, :3] = camera.matrix
        np.savetxt(root / f"intrinsic/intrinsic_{name}.txt", K, fmt="%.6f")
    return root


def test_frames_are_those_of_the_depth_camera(folder: Path) -> None:
    sequence = open_sequence(folder)
    assert (sequence.format, sequence.name, len(sequence)) == ("scannet", "scene0000_00", 3)
    assert sequence.sensor == "rgbd"
    assert sequence.camera == DEPTH
    np.testing.assert_allclose(sequence.timestamps, np.array(NUMBERS) / 30)
    for frame, number in zip(sequence, NUMBERS, strict=True):
        assert frame.image.shape == (48, 64, 3)
        assert (frame.image[..., 0] == number).all()
        assert frame.depth is not None
        assert frame.depth[0, 0] == pytest.approx(1.0 + number / 1000)
        assert frame.T_world_cam is not None
        np.testing.assert_allclose(frame.T_world_cam, pose(number), atol=2e-6)
    # Colour lies where the depth camera's rays say: a column that was off by one would be off by 150 / 57.8 = 2.6.
    x = (np.arange(64) - DEPTH.cx) / DEPTH.fx
    y = (np.arange(48) - DEPTH.cy) / DEPTH.fy
    inner = sequence[0].image[4:-4, 4:-4].astype(float)
    assert np.abs(inner[..., 1] - (128 + 150 * x)[None, 4:-4]).max() < 1.3
    assert np.abs(inner[..., 2] - (128 + 150 * y)[4:-4, None]).max() < 1.3


def test_equal_cameras_are_not_resampled(folder: Path) -> None:
    for number in NUMBERS:
        write_image(
            folder / f"color/{number}.png", np.random.default_rng(number).integers(0, 255, (48, 64, 3), np.uint8)
        )
    (folder / "intrinsic/intrinsic_color.txt").write_text((folder / "intrinsic/intrinsic_depth.txt").read_text())
    expected = np.random.default_rng(20).integers(0, 255, (48, 64, 3), np.uint8)
    np.testing.assert_array_equal(open_sequence(folder)[1].image, expected)


def test_camera_without_depth_intrinsics(folder: Path) -> None:
    (folder / "intrinsic/intrinsic_depth.txt").unlink()
    assert open_sequence(folder).camera == COLOR.resized(64, 48)
    assert open_sequence(folder, camera=(100.0, 100.0, 64.5, 48.0)).camera == PinholeCamera(
        fx=100.0, fy=100.0, cx=64.5, cy=48.0, width=130, height=97
    ).resized(64, 48)
    lens = Lens(model="pinhole", intrinsics=(50.0, 50.0, 31.5, 23.5), size=(64, 48))
    with pytest.raises(ConfigError, match="come undistorted"):
        open_sequence(folder, camera=Calibration(left=lens))


def test_lost_and_missing_files(folder: Path) -> None:
    (folder / "pose/0.txt").write_text("-inf -inf -inf -inf\n" * 4)
    (folder / "pose/20.txt").unlink()
    (folder / "depth/100.png").unlink()
    sequence = open_sequence(folder)
    assert [truth is not None for truth in sequence.ground_truth] == [False, False, True]
    assert [isinstance(frame, BrokenFrame) for frame in sequence.frames()] == [False, False, True]
    assert [fault.kind for fault in sequence.faults] == ["missing", "missing"]
    with pytest.raises(DatasetError, match=r"pose/20\.txt: file is missing"):
        open_sequence(folder, strict=True)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("intrinsic/intrinsic_color.txt", "1 2 3\n", "intrinsic_color.txt: expected a 4x4 matrix, found rows of"),
        ("intrinsic/intrinsic_depth.txt", "1 0 x 0\n", "intrinsic_depth.txt:1: 'x' is not a number"),
        ("intrinsic/intrinsic_depth.txt", "-1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "focal lengths must be positive"),
        ("pose/20.txt", "1 0 0\n", "pose/20.txt:1: expected 4 columns"),
    ],
)
def test_broken_files_are_named(folder: Path, file: str, text: str, message: str) -> None:
    (folder / file).write_text(text)
    with pytest.raises(DatasetError) as caught:
        open_sequence(folder)
    assert message in str(caught.value)
