from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from semkey.datasets import BrokenFrame, open_sequence
from semkey.errors import DatasetError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, make_transform, quaternion_xyzw_from_rotation, so3_exp
from semkey.images import write_image

FRAMES = 4
POINT = np.array([0.3, 0.4, 2.0, 1.0])  # in the renderer's world: y up


def published_pose(index: int) -> np.ndarray:
    """As in livingRoom*.gt.freiburg: the camera's y axis points up."""
    return make_transform(so3_exp([0.05 * index, 0.1 * index, 0.02 * index]), [0.1 * index, 0.05 * index, -2.25])


def write_ground_truth(path: Path) -> None:
    rows = []
    for index in range(1, FRAMES):
        pose = published_pose(index)
        numbers = [*pose[:3, 3], *quaternion_xyzw_from_rotation(pose[:3, :3])]
        rows.append(f"{index} " + " ".join(f"{value:.9f}" for value in numbers))
    path.write_text("\n".join(rows) + "\n")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "living_room_traj2_frei_png"
    rows = []
    for index in range(FRAMES):
        write_image(root / f"rgb/{index}.png", np.full((480, 640, 3), 10 * index, np.uint8))
        write_image(root / f"depth/{index}.png", np.full((480, 640), 5000 * (1 + index), np.uint16))
        rows.append(f"{index} depth/{index}.png {index} rgb/{index}.png")
    (root / "associations.txt").write_text("\n".join(rows) + "\n")
    write_ground_truth(root / "livingRoom2.gt.freiburg")
    return root


@pytest.fixture
def own(tmp_path: Path) -> Path:
    root = tmp_path / "living_room_traj2_loop"
    x, y = np.meshgrid((np.arange(640) - 319.5) / 481.2, (np.arange(480) - 239.5) / 480.0)
    for index in range(FRAMES):
        write_image(root / f"scene_00_{index:04d}.png", np.full((480, 640, 3), 10 * index, np.uint8))
        # A wall at z = 1 + index metres: distances along the rays.
        distances = (1.0 + index) * np.sqrt(1 + x**2 + y**2)
        (root / f"scene_00_{index:04d}.depth").write_text(" ".join(f"{value:.5f}" for value in distances.ravel()))
    return root


def test_tum_style(folder: Path) -> None:
    sequence = open_sequence(folder)
    assert (sequence.format, len(sequence), sequence.sensor) == ("icl-nuim", FRAMES, "rgbd")
    assert sequence.camera == PinholeCamera(fx=481.2, fy=480, cx=319.5, cy=239.5, width=640, height=480)
    np.testing.assert_allclose(sequence.timestamps, np.arange(FRAMES) / 30)
    # The first frame has no pose in the data set.
    assert [truth is not None for truth in sequence.ground_truth] == [False, True, True, True]
    for index, frame in enumerate(sequence):
        assert (frame.image == 10 * index).all()
        assert frame.depth is not None
        assert frame.depth[7, 7] == pytest.approx(1 + index)


def test_poses_show_a_point_where_the_published_camera_does(folder: Path) -> None:
    sequence = open_sequence(folder)
    assert sequence.camera is not None
    mirrored = POINT * [1, -1, 1, 1]
    for index in range(1, FRAMES):
        x, y, z, _ = inverse(published_pose(index)) @ POINT
        expected = [481.2 * x / z + 319.5, -480.0 * y / z + 239.5]  # the published matrix, fy = -480
        pose = sequence.ground_truth[index]
        assert pose is not None
        assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)
        np.testing.assert_allclose(sequence.camera.project((inverse(pose) @ mirrored)[:3])[0], expected, atol=1e-4)


def test_own_files(own: Path) -> None:
    write_ground_truth(own / "livingRoom2.gt.freiburg")
    sequence = open_sequence(own)
    assert (sequence.format, len(sequence), sequence.sensor) == ("icl-nuim", FRAMES, "rgbd")
    depth = sequence[2].depth
    assert depth is not None
    np.testing.assert_allclose(depth, 3.0, atol=1e-4)
    assert sequence.ground_truth[3] is not None


def test_damaged_depth_breaks_its_frame(own: Path) -> None:
    (own / "scene_00_0001.depth").write_text("1.0 2.0 3.0")
    (own / "scene_00_0002.depth").write_text("1.0 two 3.0")
    (own / "scene_00_0003.depth").unlink()
    sequence = open_sequence(own)
    frames = list(sequence.frames())
    assert [isinstance(frame, BrokenFrame) for frame in frames] == [False, True, True, True]
    messages = [str(frame.error) for frame in frames if isinstance(frame, BrokenFrame)]
    assert "scene_00_0001.depth has 3 numbers, expected 307200" in messages[0]
    assert "scene_00_0002.depth is not a depth map" in messages[1]
    assert "scene_00_0003.depth: file is missing" in messages[2]


def test_broken_lists_are_named(folder: Path) -> None:
    (folder / "livingRoom1.gt.freiburg").write_text("1 0 0 0 0 0 0 1\n")
    with pytest.raises(DatasetError, match=r"holds 2 files \*\.gt\.freiburg"):
        open_sequence(folder)
    (folder / "livingRoom1.gt.freiburg").unlink()
    (folder / "livingRoom2.gt.freiburg").write_text("1 0 0 0 0 0 1\n")
    with pytest.raises(DatasetError, match=r"livingRoom2\.gt\.freiburg:1: expected 8 columns"):
        open_sequence(folder)
    (folder / "livingRoom2.gt.freiburg").unlink()
    assert not open_sequence(folder).has_ground_truth
    (folder / "associations.txt").write_text("0 depth/0.png rgb/0.png\n")
    with pytest.raises(DatasetError, match=r"associations\.txt:1: expected 4 columns"):
        open_sequence(folder)
    (folder / "associations.txt").write_text("\n")
    with pytest.raises(DatasetError, match=r"associations\.txt: lists no files"):
        open_sequence(folder)


def test_order_of_the_columns_does_not_matter(folder: Path) -> None:
    rows = [f"{index} rgb/{index}.png {index} depth/{index}.png" for index in range(FRAMES)]
    (folder / "associations.txt").write_text("\n".join(rows))
    depth = open_sequence(folder)[3].depth
    assert depth is not None
    assert depth[0, 0] == pytest.approx(4.0)
