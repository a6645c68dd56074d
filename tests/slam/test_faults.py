"""Faults of the input and of the disk: each is named, and what was tracked is kept."""

from __future__ import annotations

import resource
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from semkey.datasets import BrokenFrame, Frame
from semkey.errors import DatasetError, InputError
from semkey.geometry.trajectories import read_tum_trajectory
from semkey.metrics.trajectory import absolute_trajectory_error
from semkey.slam import SlamResult, run_slam
from semkey.slam.output.report import summarise, write_report
from semkey.slam.output.saving import save_run
from synthetic_world import PointExtractor, PointWorld, walk


class FaultyWorld(PointWorld):
    """A world whose camera delivers frames that cannot be read, wrong stamps, or depth that is NaN."""

    unreadable: Sequence[int] = ()
    nan_depth: Sequence[int] = ()

    def read(self, index: int) -> Frame | BrokenFrame:
        if index in self.unreadable:
            error = InputError(f"{index}.png is a truncated PNG")
            return BrokenFrame(index=index, timestamp=float(self.timestamps[index]), error=error)
        frame = self[index]
        if index in self.nan_depth:
            assert frame.depth is not None
            frame.depth[:] = np.nan
        return frame


def run(world: PointWorld, **options) -> SlamResult:
    return run_slam(world, PointExtractor(world), **options)


def ate(result: SlamResult) -> float:
    error = absolute_trajectory_error(result.trajectory(), result.ground_truth_trajectory())
    return error.statistics.rmse


def test_dropped_frames_are_tracked_over() -> None:
    """Ten frames at 10 Hz are missing: a metre and a half of motion is not, but 0.2 m and some degrees are."""
    poses = walk(40)
    kept = [*range(15), *range(20, 40)]
    world = PointWorld([poses[k] for k in kept], pixel_noise=0.3, depth_noise=0.5)
    world.timestamps = np.array(kept) * 0.1
    result = run(world)
    assert result.tracked == len(kept)
    assert ate(result) < 0.01


def test_corrupted_frames_are_named_and_left_out() -> None:
    world = FaultyWorld(walk(30), pixel_noise=0.3, depth_noise=0.5)
    world.unreadable = (0, 10, 11, 20)
    result = run(world)
    assert [r.index for r in result.frames if r.T_world_cam is None] == [0, 10, 11, 20]
    assert [r.method for r in result.frames if r.T_world_cam is None] == ["unreadable"] * 4
    assert len(result.problems) == 4
    assert "frame 10: 10.png is a truncated PNG" in result.problems
    assert [event.recovered for event in result.lost_events] == ["new submap", "tracked on", "tracked on"]
    assert ate(result) < 0.01
    assert summarise(result)["problems"] == result.problems


@pytest.mark.parametrize("stamp", [0.9, 0.5, float("nan")], ids=["duplicated", "out of order", "not a number"])
def test_a_frame_whose_time_does_not_advance_is_left_out(stamp: float) -> None:
    world = PointWorld(walk(30), pixel_noise=0.3, depth_noise=0.5)
    world.timestamps[10] = stamp
    result = run(world)
    assert [record.index for record in result.frames] == [k for k in range(30) if k != 10]
    assert len(result.problems) == 1
    assert result.problems[0].startswith("frame 10: left out, its time")
    assert result.tracked == 29
    assert ate(result) < 0.01


def test_a_clock_that_jumps_back_is_an_error_and_frames_left_out_count_as_not_tracked() -> None:
    world = PointWorld(walk(30), pixel_noise=0.3, depth_noise=0.5)
    world.timestamps[20:] -= 5.0
    with pytest.raises(DatasetError, match=r"time jumps back at .*20 .*10 of 30 frames would be left out"):
        run(world)
    world.timestamps[20:] += 5.0
    world.timestamps[[10, 20]] -= 0.5
    figures = summarise(run(world))
    assert (figures["frames"], figures["tracked"], figures["tracked_percent"]) == (30, 28, 93.333)


@pytest.mark.parametrize("jump", [3600.0, 0.5])
def test_a_clock_that_jumps_forward_costs_no_frame(jump: float) -> None:
    world = PointWorld(walk(30), pixel_noise=0.3, depth_noise=0.5)
    world.timestamps[15:] += jump
    result = run(world)
    assert result.tracked == 30
    assert ate(result) < 0.01


def test_frames_whose_depth_is_all_nan_are_tracked_by_their_pixels() -> None:
    world = FaultyWorld(walk(30), pixel_noise=0.3, depth_noise=0.5)
    world.nan_depth = range(12, 16)
    result = run(world)
    assert result.tracked == 30
    assert np.isfinite(result.trajectory().poses).all()
    assert ate(result) < 0.01


def test_a_sequence_whose_depth_is_all_nan_is_lost_and_says_so() -> None:
    world = FaultyWorld(walk(12))
    world.nan_depth = range(12)
    result = run(world)
    assert result.tracked == 0
    assert summarise(result)["tracked_percent"] == 0


def test_a_lens_covered_for_three_seconds_is_found_again() -> None:
    """Thirty black frames at 10 Hz while the camera goes on moving."""
    world = PointWorld(walk(60, step=(0.01, 0.002, 0.005, 0.002, 0.005, 0.001)), blank=range(15, 45), pixel_noise=0.3)
    result = run(world)
    lost = [record.index for record in result.frames if record.T_world_cam is None]
    assert lost == list(range(15, 45))
    assert [(e.first_frame, e.last_frame, e.recovered) for e in result.lost_events] == [(15, 44, "relocalised")]
    assert ate(result) < 0.01


# -- the disk ---------------------------------------------------------------------------------------------------------


def test_a_disk_that_fills_while_the_report_is_written_leaves_the_trajectory(
    tmp_path: Path,
) -> None:
    world = PointWorld(walk(12))
    result = run(world)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    # Python ignores SIGXFSZ: a write over the limit fails with EFBIG, as one on a full disk does with ENOSPC.
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limit[1]))
    try:
        with pytest.raises(InputError, match=r"cannot write .*: File too large"):
            write_report(result, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    written = {file.name for file in (tmp_path / "out").iterdir()}
    assert "trajectory.txt" in written
    assert not written & {"trajectory.png", "report.html"}
    assert len(read_tum_trajectory(tmp_path / "out" / "trajectory.txt")) == 12


def test_a_trajectory_that_cannot_be_written_where_it_should_goes_to_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    result = run(PointWorld(walk(12)))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be used as output folder") as caught:
        save_run(result, tmp_path / "file" / "out")
    saved = next(tmp_path.glob("semkey-*/trajectory.txt"))
    assert str(caught.value).endswith(f"; the trajectory of 12 frames is in {saved}")
    assert len(read_tum_trajectory(saved)) == 12


def test_a_trajectory_that_can_be_written_nowhere_is_said_to_be_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    result = run(PointWorld(walk(12)))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limit[1]))
    try:
        with pytest.raises(InputError, match="the trajectory could not be saved"):
            save_run(result, tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert not list(tmp_path.rglob("*.txt"))
