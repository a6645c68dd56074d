"""Trajectories and their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semkey.errors import DatasetError, InputError
from semkey.geometry.trajectories import Trajectory, read_tum_trajectory, write_tum_trajectory
from synthetic_world import random_trajectory


def test_file_is_read_by_evo(tmp_path: Path, rng: np.random.Generator) -> None:
    pytest.importorskip("evo", reason="evo is a development dependency (GPL), used as an oracle only")
    from evo.tools import file_interface

    trajectory = random_trajectory(rng)
    write_tum_trajectory(tmp_path / "t.txt", trajectory)
    read = file_interface.read_tum_trajectory_file(tmp_path / "t.txt")
    np.testing.assert_allclose(read.timestamps, trajectory.timestamps, atol=1e-6)
    np.testing.assert_allclose(np.stack(read.poses_se3), trajectory.poses, atol=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), start=st.floats(0, 2e9))
def test_file_round_trip(tmp_path_factory: pytest.TempPathFactory, seed: int, start: float) -> None:
    path = tmp_path_factory.mktemp("trajectory") / "t.txt"
    walk = random_trajectory(np.random.default_rng(seed), count=8)
    trajectory = Trajectory(walk.timestamps + start, walk.poses)
    write_tum_trajectory(path, trajectory)
    read = read_tum_trajectory(path)
    np.testing.assert_allclose(read.timestamps, trajectory.timestamps, rtol=0, atol=1e-6)
    np.testing.assert_allclose(read.poses, trajectory.poses, atol=1e-9)


def test_quaternion_order_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_text("1.5 1 2 3 0 0 0.70711 0.70711\n")
    pose = read_tum_trajectory(tmp_path / "t.txt").poses[0]
    np.testing.assert_allclose(pose @ [1, 0, 0, 1], [1, 3, 3, 1], atol=1e-9)  # a quarter turn about z


def test_repeated_stamps_keep_the_first_row(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t.txt").write_text("2 5 0 0 0 0 0 1\n1 6 0 0 0 0 0 1\n2 7 0 0 0 0 0 1\n")
    trajectory = read_tum_trajectory(tmp_path / "t.txt")
    np.testing.assert_array_equal(trajectory.positions[:, 0], [6.0, 5.0])
    assert "repeat a timestamp" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("# only a comment\n", "holds no poses"),
        ("\n1 0 0 0 0 0 0\n", r"t\.txt:2: expected 8 columns .* found 7"),
        ("1 0 0 0 0 0 0 1\n2 0 0 0 0 0 0 nan\n", r"t\.txt:2: 'nan' is not a finite number"),
        ("1 0 0 0 0 0 0 one\n", r"t\.txt:1: 'one' is not a number"),
        ("1 0 0 1e200 0 0 0 1\n", r"t\.txt:1: position is more than 1e\+12 m away"),
        ("1 0 0 0 3 0 0 1\n", r"t\.txt:1: quaternion has length 3\.16"),
    ],
)
def test_broken_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(DatasetError, match=message):
        read_tum_trajectory(tmp_path / "t.txt")
    with pytest.raises(DatasetError, match="file is missing"):
        read_tum_trajectory(tmp_path / "other.txt")


@pytest.mark.parametrize(
    ("timestamps", "poses", "message"),
    [
        ([0.0, 1.0], np.eye(4)[None], "timestamps"),
        ([0.0, 0.0], np.stack([np.eye(4)] * 2), "increase strictly"),
        ([0.0], np.full((1, 4, 4), np.nan), "not finite"),
        ([0.0], 2 * np.eye(4)[None], "not a rigid transform"),
    ],
)
def test_trajectory_refuses(timestamps: list[float], poses: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Trajectory(np.array(timestamps), poses)


def test_empty_trajectory() -> None:
    trajectory = Trajectory(np.zeros(0), np.zeros((0, 4, 4)))
    assert len(trajectory) == 0
    assert trajectory.positions.shape == (0, 3)
