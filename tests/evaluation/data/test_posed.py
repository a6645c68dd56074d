"""Pairs of posed sequences: which are taken, their overlap on a scene with a known one, their truth on a rendering."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from semkey.errors import ConfigError, DatasetError
from semkey.evaluation.data.pairs import PoseTruth
from semkey.evaluation.data.posed import overlap, posed_sequence_sets
from semkey.geometry.transforms import inverse
from semkey.images.writing import write_image
from semkey.rendering.config import RoomConfig
from semkey.rendering.dataset import write_room

WIDTH, HEIGHT, FOCAL, WALL_M = 320, 160, 200.0, 2.0
STEP_M = 0.32  # moves the wall by 200 * 0.32 / 2 = 32 px, a tenth of the width


def make_wall(folder: Path, count: int = 6, *, depth: bool = True, poses: bool = True) -> Path:
    """A 7-Scenes folder: the camera moves to the right along a wall 2 m away, a tenth of the image per frame."""
    folder.mkdir(parents=True)
    (folder / "camera.txt").write_text(f"{FOCAL} {FOCAL} {(WIDTH - 1) / 2} {(HEIGHT - 1) / 2}\n")
    for k in range(count):
        write_image(folder / f"frame-{k:06d}.color.png", np.full((HEIGHT, WIDTH, 3), k, np.uint8))
        if depth:
            write_image(folder / f"frame-{k:06d}.depth.png", np.full((HEIGHT, WIDTH), 1000 * WALL_M, np.uint16))
        if poses:
            pose = np.eye(4)
            pose[0, 3] = k * STEP_M
            np.savetxt(folder / f"frame-{k:06d}.pose.txt", pose)
    return folder


def truth_of(pair: object) -> PoseTruth:
    truth = getattr(pair, "truth", None)
    assert isinstance(truth, PoseTruth)
    return truth


def test_pairs_by_gap_and_stride(tmp_path: Path) -> None:
    folder = make_wall(tmp_path / "wall" / "seq-01", count=9)
    near, far = posed_sequence_sets(folder, gaps=[2, 5], stride=3, use_depth=True)
    assert (near.name, far.name) == ("wall-seq-01-gap-2", "wall-seq-01-gap-5")
    assert [pair.name for pair in near.pairs] == ["000000-000002", "000003-000005", "000006-000008"]
    assert [pair.name for pair in far.pairs] == ["000000-000005", "000003-000008"]
    pair = near.pairs[1]
    assert pair.image0.read()[0, 0].tolist() == [3, 3, 3]
    assert pair.image1.read()[0, 0].tolist() == [5, 5, 5]
    assert pair.image0.size == (WIDTH, HEIGHT)
    assert near.pairs[1].image1.key == far.pairs[0].image1.key  # frame 5 is one image in all sets
    np.testing.assert_allclose(truth_of(pair).T_cam1_cam0[:3, 3], [-2 * STEP_M, 0, 0], atol=1e-12)
    mapped, seen = pair.truth.project(np.array([[200.0, 50.0], [10.0, 50.0]]), (WIDTH, HEIGHT))
    np.testing.assert_allclose(mapped, [[136.0, 50.0], [-54.0, 50.0]], atol=1e-4)
    assert seen.tolist() == [True, False]


def test_overlap_of_a_wall_is_what_geometry_says(tmp_path: Path) -> None:
    sets = posed_sequence_sets(make_wall(tmp_path / "seq-01"), gaps=[1, 3, 5], use_depth=True)
    for found, gap in zip(sets, (1, 3, 5), strict=True):
        for pair in found.pairs:
            assert overlap(truth_of(pair)) == pytest.approx(1.0 - 0.1 * gap, abs=1e-9)


def test_pairs_with_less_overlap_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = make_wall(tmp_path / "seq-01", count=8)
    # An obstacle at 1 m fills frame 7: nothing of the wall is seen there.
    write_image(folder / "frame-000007.depth.png", np.full((HEIGHT, WIDTH), 1000, np.uint16))
    (found,) = posed_sequence_sets(folder, gaps=[3], min_overlap=0.65)
    assert [pair.name for pair in found.pairs] == ["000000-000003", "000001-000004", "000002-000005", "000003-000006"]
    assert "1 with overlap under 0.65" in found.description
    with pytest.raises(DatasetError, match=r"no pair 3 apart remains \(5 with overlap under 0\.75"):
        posed_sequence_sets(folder, gaps=[3], min_overlap=0.75)


def test_overlap_is_the_smaller_of_both_ways_and_counts_known_depth_only(tmp_path: Path) -> None:
    folder = make_wall(tmp_path / "seq-01", count=2)
    half = np.full((HEIGHT, WIDTH), 2000, np.uint16)
    half[: HEIGHT // 2] = 0
    write_image(folder / "frame-000000.depth.png", half)
    truth = truth_of(posed_sequence_sets(folder, gaps=[1], use_depth=True)[0].pairs[0])
    # Of the known lower half of frame 0, 0.9 are seen in frame 1; of frame 1, 0.9 * 0.5 land on known depth.
    assert overlap(truth) == pytest.approx(0.45, abs=1e-9)
    assert overlap(truth.swapped()) == overlap(truth)
    # With the same half unknown in both, the known halves overlap by 0.9.
    write_image(folder / "frame-000001.depth.png", half)
    assert overlap(truth_of(posed_sequence_sets(folder, gaps=[1], use_depth=True)[0].pairs[0])) == pytest.approx(
        0.9, abs=1e-9
    )
    write_image(folder / "frame-000000.depth.png", np.zeros((HEIGHT, WIDTH), np.uint16))
    assert overlap(truth_of(posed_sequence_sets(folder, gaps=[1], use_depth=True)[0].pairs[0])) == 0.0


def test_frames_without_pose_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = make_wall(tmp_path / "seq-01", count=6)
    np.savetxt(folder / "frame-000002.pose.txt", np.full((4, 4), np.nan))
    (found,) = posed_sequence_sets(folder, gaps=[1])
    assert [pair.name for pair in found.pairs] == ["000000-000001", "000003-000004", "000004-000005"]
    assert "2 without pose" in found.description


def test_a_sequence_without_depth(tmp_path: Path) -> None:
    folder = make_wall(tmp_path / "seq-01", depth=False)
    (found,) = posed_sequence_sets(folder, gaps=[1])
    assert not truth_of(found.pairs[0]).has_depth
    with pytest.raises(ConfigError, match="no depth"):
        posed_sequence_sets(folder, gaps=[1], min_overlap=0.1)


def test_the_camera_may_be_given(tmp_path: Path) -> None:
    (found,) = posed_sequence_sets(make_wall(tmp_path / "seq-01"), gaps=[1], camera=(250.0, 251.0, 160.0, 80.0))
    camera = truth_of(found.pairs[0]).camera1
    assert (camera.fx, camera.fy, camera.cx, camera.cy) == (250.0, 251.0, 160.0, 80.0)


def test_what_is_no_posed_sequence(tmp_path: Path) -> None:
    folder = make_wall(tmp_path / "seq-01", poses=False)
    with pytest.raises(DatasetError, match="no ground-truth poses"):
        posed_sequence_sets(folder, gaps=[1])
    posed = make_wall(tmp_path / "seq-02")
    with pytest.raises(DatasetError, match="of 6 frames no pair 6 apart"):
        posed_sequence_sets(posed, gaps=[1, 6])
    for gaps in ([], [0], [1, 1]):
        with pytest.raises(ConfigError, match="gaps"):
            posed_sequence_sets(posed, gaps=gaps)
    with pytest.raises(ConfigError, match="stride"):
        posed_sequence_sets(posed, gaps=[1], stride=0)
    for share in (1.0, -0.1):
        with pytest.raises(ConfigError, match="min_overlap"):
            posed_sequence_sets(posed, gaps=[1], min_overlap=share)


def test_truth_of_a_rendered_room_maps_pixels_to_the_same_colours(tmp_path: Path) -> None:
    """Depth, poses and intrinsics together, half pixels included: view 1 looked up by the truth gives view 0."""
    room = RoomConfig(seed=3, frames=8, width=320, height=240, noise=False, blur=False, depth_noise=False)
    write_room(tmp_path / "room", room)
    (found,) = posed_sequence_sets(tmp_path / "room", gaps=[7], min_overlap=0.1)
    pair = found.pairs[0]
    image0, image1 = (cv2.GaussianBlur(image.read(), (0, 0), 1.0).astype(float) for image in (pair.image0, pair.image1))
    x, y = np.meshgrid(np.arange(4, 316), np.arange(4, 236))
    points = np.stack([x, y], -1).reshape(-1, 2)
    mapped, seen = pair.truth.project(points, (320, 240))
    assert np.linalg.norm((mapped - points)[seen], axis=1).mean() > 2.0  # the camera has moved

    def difference(shift: tuple[float, float]) -> float:
        where = (np.nan_to_num(mapped) + shift).astype(np.float32).reshape(*x.shape, 2)
        colours = cv2.remap(image1, where, np.empty(0), cv2.INTER_LINEAR)
        return float(np.abs(colours - image0[4:236, 4:316]).reshape(-1, 3)[seen].mean())

    here = difference((0.0, 0.0))
    for shift in ((0.5, 0.0), (-0.5, 0.0), (0.0, 0.5), (0.0, -0.5)):
        assert difference(shift) > 1.3 * here


def test_redkitchen(shared: Path) -> None:
    folder = shared / "data" / "7scenes" / "redkitchen" / "seq-01"
    near, far = posed_sequence_sets(folder, gaps=[10, 20], stride=60, min_overlap=0.1, use_depth=True)
    shares = [np.mean([overlap(truth_of(pair)) for pair in found.pairs]) for found in (near, far)]
    assert 0.95 > shares[0] > shares[1] > 0.1
    for pair in near.pairs:
        truth = truth_of(pair)
        np.testing.assert_allclose(truth.T_cam1_cam0 @ inverse(truth.T_cam1_cam0), np.eye(4), atol=1e-12)


def test_unregistered_depth_is_no_truth_but_measures_overlap(shared: Path) -> None:
    folder = shared / "data" / "7scenes" / "redkitchen" / "seq-01"
    (found,) = posed_sequence_sets(folder, gaps=[20], stride=60, min_overlap=0.1)
    (with_depth,) = posed_sequence_sets(folder, gaps=[20], stride=60, min_overlap=0.1, use_depth=True)
    assert not any(truth_of(pair).has_depth for pair in found.pairs)
    assert all(truth_of(pair).has_depth for pair in with_depth.pairs)
    assert [pair.name for pair in found.pairs] == [pair.name for pair in with_depth.pairs]
    assert "not used as truth" in found.description
    assert "not used as truth" not in with_depth.description
