"""Signals and standard streams of a command: what was done is saved, and the exit code tells."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from command_line import Run
from semkey.geometry.trajectories import read_tum_trajectory
from semkey.slam import runner
from semkey.slam.events import SlamListener
from semkey.slam.output.optional import OptionalListener
from semkey.slam.output.session import load_session
from tum_folder import CAMERA, write_tum

SEMKEY = (sys.executable, "-m", "semkey")


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wall")
    write_tum(folder / "wall", frames=6)
    return folder / "wall"


def interrupt_at(monkeypatch: pytest.MonkeyPatch, frame: int, number: int) -> None:
    track = runner._track

    def tracked(slam: Any, prepared: Any) -> Any:
        if prepared.frame.index == frame:
            os.kill(os.getpid(), number)
        return track(slam, prepared)

    monkeypatch.setattr(runner, "_track", tracked)


@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_signals_save_like_ctrl_c(
    wall: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, name: str, code: int
) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    interrupt_at(monkeypatch, 4, getattr(signal, name))
    outcome = run("slam", wall, "--out", tmp_path, "--features", "orb", *CAMERA)
    assert outcome.code == code
    assert "interrupted" in outcome.err
    assert len(read_tum_trajectory(tmp_path / "trajectory.txt")) == 4
    assert load_session(tmp_path / "autosave.semkey").result.tracked == 4
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_signal_that_is_ignored_stays_so(
    wall: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    interrupt_at(monkeypatch, 2, signal.SIGHUP)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
    try:
        assert run("slam", wall, "--out", tmp_path, "--features", "orb", *CAMERA).code == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_results_are_saved_before_they_are_printed(wall: Path, tmp_path: Path) -> None:
    arguments = (
        "slam",
        wall,
        "--out",
        tmp_path / "run",
        "--save-map",
        tmp_path / "m.semkey",
        "--features",
        "orb",
        *CAMERA,
    )
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*SEMKEY, *map(str, arguments)], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: cannot write to standard output: No space left on device"
    assert "Traceback" not in done.stderr
    assert load_session(tmp_path / "m.semkey").result.tracked == 6
    assert len(read_tum_trajectory(tmp_path / "run" / "trajectory.txt")) == 6


@pytest.mark.parametrize(
    ("redirect", "code", "error"),
    [
        ("| true", 141, ""),
        ("> /dev/full", 2, "error: cannot write to standard output: No space left on device\n"),
        ("> /dev/full 2> /dev/full", 2, ""),
        (">&- 2>&- <&-", 0, ""),
    ],
    ids=["closed pipe", "full", "both full", "closed"],
)
def test_output_that_cannot_be_printed(redirect: str, code: int, error: str) -> None:
    # sleep: the reader is gone before something is printed
    script = f'set -o pipefail; (sleep 0.2; exec "$0" -m semkey info) {redirect}'
    done = subprocess.run(["bash", "-c", script, sys.executable], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (code, error)


class Full(SlamListener):
    """A recorder whose disk fills up at the second frame."""

    def __init__(self) -> None:
        self.frames = 0

    def on_frame(self, event: Any) -> None:
        self.frames += 1
        if self.frames == 2:
            raise OSError(errno.ENOSPC, "No space left\non device")


def test_a_recorder_that_fails_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    full = Full()
    listener = OptionalListener(full, "the recording x.rrd")
    with caplog.at_level(logging.WARNING):
        for _ in range(4):
            listener.on_frame(None)  # ty: ignore
    assert listener.has_failed
    assert full.frames == 2
    (record,) = caplog.records
    assert record.getMessage().startswith("the recording x.rrd has stopped, the run goes on without: ")
    assert "\n" not in record.getMessage()


def test_a_recording_on_a_full_disk_is_told_before_the_run(wall: Path, tmp_path: Path, run: Run) -> None:
    pytest.importorskip("rerun", reason="needs the extra viewer")
    outcome = run("slam", wall, "--out", tmp_path, "--record", "/dev/full", "--features", "orb", *CAMERA)
    assert outcome.code == 2
    assert outcome.err.startswith("error: cannot write /dev/full: ")
    assert "No space left on device" in outcome.err


def test_a_disk_that_fills_up_while_recording_costs_no_run(
    wall: Path, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    viewer = pytest.importorskip("semkey.slam.output.viewer")
    pytest.importorskip("rerun", reason="needs the extra viewer")
    monkeypatch.setattr(viewer.RerunListener, "on_frame", Full().on_frame)
    recording = tmp_path / "run.rrd"
    outcome = run("slam", wall, "--out", tmp_path, "--record", recording, "--features", "orb", *CAMERA)
    assert outcome.code == 0
    assert outcome.err.count("has stopped, the run goes on without") == 1
    assert "recording written" not in outcome.out
    assert len(read_tum_trajectory(tmp_path / "trajectory.txt")) == 6
