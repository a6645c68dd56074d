from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semkey.datasets import BrokenFrame, open_sequence
from semkey.errors import ConfigError, DatasetError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import make_transform, so3_exp
from semkey.images import write_image

NUMBERS = (0, 3, 12)


def pose(number: int) -> np.ndarray:
    return make_transform(so3_exp([0.0, 0.1 * number, 0.0]), [0.1 * number, 0.0, -1.0])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three frames, numbered 0, 3 and 12; depth number + 1 metres, with one pixel of each invalid value."""
    root = tmp_path / "scene/seq-07"
    for number in NUMBERS:
        stem = root / f"frame-{number:06d}"
        write_image(f"{stem}.color.png", np.full((24, 32, 3), number, np.uint8))
        depth = np.full((24, 32), 1000 * (number + 1), np.uint16)
        depth[0, 0], depth[0, 1] = 65535, 0
        write_image(f"{stem}.depth.png", depth)
        # Six digits, as float32 text: not orthonormal to float64.
        np.savetxt(f"{stem}.pose.txt", pose(number), fmt="%.6f", delimiter="\t")
    np.savetxt(root.parent / "camera-intrinsics.txt", [[50, 0, 15.5], [0, 51, 11.5], [0, 0, 1]])
    return root


def test_frames(folder: Path) -> None:
    sequence = open_sequence(folder)
    assert (sequence.format, sequence.name, len(sequence)) == ("7scenes", "scene/seq-07", 3)
    assert sequence.camera == PinholeCamera(fx=50, fy=51, cx=15.5, cy=11.5, width=32, height=24)
    # Left-out frames keep their time.
    np.testing.assert_allclose(sequence.timestamps, [0.0, 0.1, 0.4])
    for frame, number in zip(sequence, NUMBERS, strict=True):
        assert (frame.image == number).all()
        assert frame.depth is not None
        assert frame.depth[5, 5] == pytest.approx(number + 1)
        assert frame.depth[0, 0] == 0
        assert frame.depth[0, 1] == 0
        assert frame.T_world_cam is not None
        np.testing.assert_allclose(frame.T_world_cam, pose(number), atol=2e-6)
        np.testing.assert_allclose(frame.T_world_cam[:3, :3] @ frame.T_world_cam[:3, :3].T, np.eye(3), atol=1e-12)


def test_jpeg_images_are_found(folder: Path) -> None:
    for file in folder.glob("*.color.png"):
        write_image(file.with_suffix(".jpg"), np.full((24, 32, 3), 90, np.uint8))
        file.unlink()
    assert (open_sequence(folder)[2].image == 90).all()


def test_lost_poses_are_no_ground_truth(folder: Path) -> None:
    (folder / "frame-000003.pose.txt").write_text("nan nan nan nan\n" * 3 + "0 0 0 1\n")
    (folder / "frame-000012.pose.txt").write_text("-inf 0 0 0\n" * 4)
    assert [truth is not None for truth in open_sequence(folder).ground_truth] == [True, False, False]


def test_depth_or_poses_may_be_absent_as_a_whole(folder: Path) -> None:
    for file in [*folder.glob("*.depth.png"), *folder.glob("*.pose.txt")]:
        file.unlink()
    sequence = open_sequence(folder)
    assert not sequence.has_depth
    assert not sequence.has_ground_truth
    assert sequence[0].depth is None


def test_missing_depth_breaks_its_frame_and_a_missing_pose_is_no_ground_truth(folder: Path) -> None:
    (folder / "frame-000003.depth.png").unlink()
    (folder / "frame-000012.pose.txt").unlink()
    sequence = open_sequence(folder)
    assert sorted(fault.message.rsplit("/", 1)[1] for fault in sequence.faults) == [
        "frame-000003.depth.png: file is missing",
        "frame-000012.pose.txt: file is missing",
    ]
    assert [isinstance(frame, BrokenFrame) for frame in sequence.frames()] == [False, True, False]
    assert [truth is not None for truth in sequence.ground_truth] == [True, True, False]


@pytest.mark.parametrize("kind", ["depth.png", "pose.txt"])
def test_one_missing_file_is_named(folder: Path, kind: str) -> None:
    (folder / f"frame-000003.{kind}").unlink()
    with pytest.raises(DatasetError, match=rf"frame-000003\.{kind}: file is missing"):
        open_sequence(folder, strict=True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1 0 0 0\n0 1 0 0\n0 0 1 0\n", "expected 4 rows"),
        ("1 0 0 0\n0 1 0\n0 0 1 0\n0 0 0 1\n", r"pose\.txt:2: expected 4 columns, found 3"),
        ("1 0 0 0\n0 1 0 0\n0 0 z 0\n0 0 0 1\n", r"pose\.txt:3: a column is not a number"),
        ("2 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n", "not a rigid transform"),
        ("1 0 0 0\n0 1 0 0\n0 0 -1 0\n0 0 0 1\n", "not a rigid transform"),
        ("1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 2\n", "not a rigid transform"),
        ("", "expected 4 rows"),
    ],
)
def test_broken_pose_is_named(folder: Path, text: str, message: str) -> None:
    (folder / "frame-000003.pose.txt").write_text(text)
    with pytest.raises(DatasetError, match=message) as caught:
        open_sequence(folder)
    assert "frame-000003.pose.txt" in str(caught.value)


def test_depth_of_another_size(folder: Path) -> None:
    write_image(folder / "frame-000012.depth.png", np.zeros((24, 30), np.uint16))
    with pytest.raises(DatasetError, match=r"frame-000012\.depth\.png: depth is 30x24 but the images are 32x24"):
        open_sequence(folder, strict=True)


def test_scene_folder_points_to_a_sequence(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r"holds sequences; give one of them, such as .*seq-07"):
        open_sequence(folder.parent)
    with pytest.raises(DatasetError, match="give the folder of one sequence"):
        open_sequence(folder.parent, format="7scenes")


def test_without_intrinsics_the_image_size_must_be_the_published_one(folder: Path) -> None:
    (folder.parent / "camera-intrinsics.txt").unlink()
    with pytest.raises(DatasetError, match="--camera fx,fy,cx,cy"):
        open_sequence(folder)
    camera = open_sequence(folder, camera=(50.0, 50.0, 15.5, 11.5)).camera
    assert camera == PinholeCamera(fx=50, fy=50, cx=15.5, cy=11.5, width=32, height=24)
    with pytest.raises(ConfigError, match="focal lengths"):
        open_sequence(folder, camera=(-50.0, 50.0, 15.5, 11.5))


def test_real_sequence(shared: Path) -> None:
    sequence = open_sequence(shared / "data/7scenes/redkitchen/seq-01")
    assert len(sequence) == 334
    assert sequence.camera == PinholeCamera(fx=585, fy=585, cx=320, cy=240, width=640, height=480)
    assert all(truth is not None for truth in sequence.ground_truth)
    frame = sequence[100]
    assert frame.timestamp == pytest.approx(10.0)
    assert frame.depth is not None
    assert frame.image.shape[:2] == frame.depth.shape == (480, 640)
    assert float(frame.depth.max()) < 10.0


def test_real_depth_and_poses_agree(shared: Path) -> None:
    """Points seen in one frame, carried by the poses into the next, must lie at the depth that is measured there."""
    sequence = open_sequence(shared / "data/7scenes/redkitchen/seq-01")
    first, second = sequence[40], sequence[42]
    assert sequence.camera is not None
    assert first.depth is not None
    assert second.depth is not None
    assert first.T_world_cam is not None
    assert second.T_world_cam is not None
    y, x = (grid.ravel() for grid in np.mgrid[40:440:8, 40:600:8])
    valid = first.depth[y, x] > 0
    points = sequence.camera.backproject(np.stack([x, y], axis=1)[valid], first.depth[y, x][valid])
    motion = np.linalg.inv(second.T_world_cam) @ first.T_world_cam
    moved = points @ motion[:3, :3].T + motion[:3, 3]
    pixels = sequence.camera.project(moved)
    inside = sequence.camera.contains(pixels)
    u, v = np.rint(pixels[inside]).astype(int).T
    measured = second.depth[v, u]
    difference = np.abs(measured - moved[inside, 2])[measured > 0]
    assert np.median(difference) < 0.02
