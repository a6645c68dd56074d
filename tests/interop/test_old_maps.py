"""A map that semkey 0.1.0 wrote opens, localises, is continued, merged and cut.

``maps/wall-0.1.0.semkey.xz`` is what the code of 0.1.0 made of ``write_tum(folder, frames=10)``:
``semkey slam wall --out run --save-map wall.semkey --features orb -n 150 --camera 300,300,159.5,119.5``.
"""

from __future__ import annotations

import lzma
import re
from pathlib import Path

import numpy as np
import pytest

from command_line import Run
from semkey.geometry.trajectories import read_tum_trajectory
from semkey.slam.output.session import load_session
from tum_folder import CAMERA, DISTANCE, FOCAL, write_tum

FRAMES = 10
STEP = 9 * DISTANCE / FOCAL
ORB = ("--features", "orb", "-n", 150, *CAMERA, "--autosave", 0)


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tum(tmp_path_factory.mktemp("old") / "wall", frames=FRAMES)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    packed = Path(__file__).parent / "maps" / "wall-0.1.0.semkey.xz"
    (tmp_path / "old.semkey").write_bytes(lzma.decompress(packed.read_bytes()))
    return tmp_path / "old.semkey"


def assert_along_the_wall(trajectory: Path, count: int) -> None:
    """Poses in the world of the old map, whose first camera was that of frame 0."""
    found = read_tum_trajectory(trajectory)
    assert len(found.timestamps) == count
    x = (found.timestamps - 100.0) / 0.1 * STEP
    np.testing.assert_allclose(found.poses[:, :3, 3], np.stack([x, 0 * x, 0 * x], axis=1), atol=0.01)


def test_it_is_read(run: Run, old: Path) -> None:
    session = load_session(old)
    slam_map = session.result.slam_map
    assert slam_map is not None
    assert (session.result.features, session.result.sensor) == ("orb", "rgbd")
    assert len(slam_map.keyframes) == 4
    assert len(slam_map.landmarks.ids) == 247
    positions = slam_map.landmarks.positions[slam_map.landmarks.ids]
    np.testing.assert_allclose(positions[:, 2], DISTANCE, atol=0.02)
    poses = np.stack([one.T_world_cam for one in slam_map.keyframes.values()])
    np.testing.assert_allclose(poses[:, 0, 3] / STEP, np.round(poses[:, 0, 3] / STEP), atol=0.05)
    outcome = run("map", "info", old)
    assert outcome.code == 0, outcome.err
    assert re.search(r"^features\torb$", outcome.out, re.MULTILINE)
    assert re.search(r"^0\t4\t247\t", outcome.out, re.MULTILINE), "the submap's keyframes and landmarks"


def test_frames_are_found_in_it(run: Run, old: Path, wall: Path, tmp_path: Path) -> None:
    before = old.read_bytes()
    outcome = run("slam", wall, "--out", tmp_path / "out", *ORB, "--load-map", old, "--localize-only")
    assert outcome.code == 0, outcome.err
    assert old.read_bytes() == before
    assert_along_the_wall(tmp_path / "out/trajectory.txt", FRAMES)


def test_it_is_continued(run: Run, old: Path, wall: Path, tmp_path: Path) -> None:
    new = tmp_path / "new.semkey"
    outcome = run("slam", wall, "--out", tmp_path / "out", *ORB, "--load-map", old, "--save-map", new)
    assert outcome.code == 0, outcome.err
    assert_along_the_wall(tmp_path / "out/trajectory.txt", FRAMES)
    slam_map = load_session(new).result.slam_map
    assert slam_map is not None
    assert len(slam_map.keyframes) >= 4
    assert len({one.submap for one in slam_map.keyframes.values()}) == 1


def test_it_is_merged_with_a_map_of_today_and_cut(run: Run, old: Path, wall: Path, tmp_path: Path) -> None:
    today, both, cut = (tmp_path / f"{name}.semkey" for name in ("today", "both", "cut"))
    assert run("slam", wall, "--out", tmp_path / "out", *ORB, "--save-map", today).code == 0
    outcome = run("map", "merge", old, today, "--out", both)
    assert outcome.code == 0, outcome.err
    merged = load_session(both).result.slam_map
    assert merged is not None
    assert len({one.submap for one in merged.keyframes.values()}) == 1
    # The world is the old map's: every camera lies on the wall's line there.
    places = np.stack([one.T_world_cam[:3, 3] for one in merged.keyframes.values()])
    np.testing.assert_allclose(places[:, 1:], 0, atol=0.01)
    outcome = run("map", "crop", both, "--out", cut, "--box", "-2,0,-1,1,1,3")
    assert outcome.code == 0, outcome.err
    kept = load_session(cut).result.slam_map
    assert kept is not None
    assert 15 <= len(kept.landmarks.ids) < len(merged.landmarks.ids)
    assert kept.landmarks.positions[kept.landmarks.ids, 0].max() <= 0
