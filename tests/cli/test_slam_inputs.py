"""Input options of ``semkey slam``."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from command_line import Run
from semkey.cli.inputs import Format, InputOptions
from semkey.datasets import FORMATS
from semkey.errors import ConfigError
from tum_folder import FOCAL, HEIGHT, WIDTH, write_tum

CALIBRATION = f"size: [{WIDTH}, {HEIGHT}]\nintrinsics: [{FOCAL}, {FOCAL}, {(WIDTH - 1) / 2}, {(HEIGHT - 1) / 2}]\n"


def test_formats_are_those_of_the_library() -> None:
    assert get_args(Format) == FORMATS


def test_a_calibration_file_is_the_camera(tmp_path: Path, run: Run) -> None:
    folder = write_tum(tmp_path / "wall", frames=4)
    (tmp_path / "camera.yaml").write_text(CALIBRATION)
    done = run(
        "slam", folder, "--out", tmp_path / "out", "--features", "orb", "--calibration", tmp_path / "camera.yaml"
    )
    assert done.code == 0
    assert "tracked\t4 (100.0 %)" in done.out


def test_a_broken_calibration_is_one_line(tmp_path: Path, run: Run) -> None:
    folder = write_tum(tmp_path / "wall", frames=2)
    (tmp_path / "camera.yaml").write_text(CALIBRATION.replace("size", "sice"))
    done = run("slam", folder, "--out", tmp_path / "out", "--calibration", tmp_path / "camera.yaml")
    assert done.code == 2
    assert "camera.yaml:1: 'sice' is unknown; did you mean 'size'?" in done.err
    assert done.err.count("\n") == 1


def test_two_cameras_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give one of them"):
        InputOptions(camera="1,1,1,1", calibration=tmp_path / "camera.yaml").open(tmp_path)
