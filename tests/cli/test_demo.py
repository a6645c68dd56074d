from __future__ import annotations

import json
from pathlib import Path

import pytest

from semkey.cli.main import main
from semkey.datasets import open_sequence
from semkey.images import read_image


def run(*arguments: str) -> int:
    """Exit code of the command line."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    return int(stopped.value.code or 0)


@pytest.mark.slow
def test_demo_renders_detects_matches_and_tracks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "demo"
    assert run("demo", "--out", str(out), "--frames", "8", "--features", "orb", "--texture", "low", "--seed", "2") == 0
    summary = json.loads((out / "summary.json").read_text())
    assert summary["frames"] == 8
    assert summary["tracked"] == 8
    assert summary["ate_rmse_m"] < 0.02
    assert summary["rotation_error_deg"] < 3.0
    assert summary["matches"] > 50
    assert summary["right_matches_share"] > 0.4
    # An essential matrix keeps matches that are right by ground truth, and few others.
    assert summary["inlier_share"] == pytest.approx(summary["right_matches_share"], abs=0.3)
    for name in ("keypoints.png", "matches.png", "overview.jpg", "trajectory.png", "slam/trajectory.png"):
        assert read_image(out / name).std() > 10
    report = (out / "report.html").read_text()
    assert report.count("data:image/png;base64,") == 4
    assert len(open_sequence(out / "room")) == 8
    printed = capsys.readouterr().out
    assert "report.html" in printed
    assert "8 of 8 (100.0 %)" in printed


def test_demo_leaves_a_folder_that_is_no_room_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "thesis.txt").write_text("mine")
    assert run("demo", "--out", str(tmp_path), "--features", "orb") == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert [entry.name for entry in tmp_path.rglob("*")] == ["room", "thesis.txt"]


def test_demo_into_a_file_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "demo").write_text("a file")
    assert run("demo", "--out", str(tmp_path / "demo"), "--features", "orb") == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert str(tmp_path / "demo") in error


def test_render_room_writes_a_sequence_and_overwrites_only_when_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--frames", "2", "--width", "64", "--height", "48", "--texture", "low", "--no-blur"]
    out = str(tmp_path / "room")
    assert run("render-room", "--out", out, *small) == 0
    assert "next: semkey slam" in capsys.readouterr().out
    sequence = open_sequence(out)
    assert len(sequence) == 2
    assert sequence[0].image.shape == (48, 64, 3)
    assert run("render-room", "--out", out, *small) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run("render-room", "--out", out, *small, "--seed", "1", "--overwrite") == 0
    assert json.loads((tmp_path / "room" / "room.json").read_text())["seed"] == 1


def test_render_room_names_a_bad_value(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("render-room", "--out", str(tmp_path / "room"), "--fps", "0") == 2
    assert "fps" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
