"""``semkey slam`` on small sequences written here: files, figures, exit codes and messages."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from semkey.cli.main import main
from semkey.extractors import OrbExtractor
from semkey.geometry.trajectories import read_tum_trajectory
from semkey.images.writing import write_image
from tum_folder import CAMERA, DISTANCE, FOCAL, write_tum

FILES = [
    *("report.html", "report.json", "trajectory.png", "trajectory.txt"),
    *("trajectory_covariance.csv", "trajectory_live.txt"),
]


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in ("slam", *arguments)])
    return stopped.value.code if isinstance(stopped.value.code, int) else 0


def test_tracks_a_tum_folder_and_writes_four_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_tum(tmp_path / "wall")
    out = tmp_path / "deep/out"
    assert run(folder, "--out", out, "--features", "orb", *CAMERA, "--seed", "7") == 0
    assert sorted(file.name for file in out.iterdir()) == FILES

    figures = json.loads((out / "report.json").read_text())
    assert (figures["frames"], figures["tracked"], figures["tracked_percent"]) == (8, 8, 100.0)
    assert (figures["lost_events"], figures["seed"], figures["alignment"]) == (0, 7, "se3")
    assert figures["ate_rmse_m"] < 0.005
    assert figures["rpe_trans_m"] < 0.005
    assert figures["rpe_rot_deg"] < 0.3
    assert figures["keyframes"] >= 1
    assert figures["fps"] == pytest.approx(8 / figures["tracking_seconds"], rel=1e-2)
    assert figures["features"] == "orb"

    trajectory = read_tum_trajectory(out / "trajectory.txt")
    assert len(trajectory) == 8
    moved = trajectory.positions[-1] - trajectory.positions[0]
    np.testing.assert_allclose(moved, [7 * 9 * DISTANCE / FOCAL, 0, 0], atol=0.01)
    assert cv2.imread(str(out / "trajectory.png")) is not None
    page = (out / "report.html").read_text()
    assert "No frame was lost" in page
    assert "data:image/png;base64," in page
    printed = capsys.readouterr().out
    assert "tracked\t8 (100.0 %)" in printed
    assert "trajectory.txt" in printed


def test_without_ground_truth_there_are_no_errors(tmp_path: Path) -> None:
    folder = write_tum(tmp_path / "wall", frames=4)
    (folder / "groundtruth.txt").unlink()
    assert (
        run(folder, "--out", tmp_path / "out", "--features", "orb", *CAMERA, "--every", "2", "--max-frames", "9") == 0
    )
    figures = json.loads((tmp_path / "out/report.json").read_text())
    assert figures["frames"] == 2
    assert not {"ate_rmse_m", "rpe_trans_m", "rpe_rot_deg", "alignment"} & figures.keys()


def test_interrupt_saves_the_trajectory_so_far(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_tum(tmp_path / "wall", frames=6)
    extract, calls = OrbExtractor.extract, []

    def interrupted(self: OrbExtractor, image: np.ndarray):
        calls.append(image)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return extract(self, image)

    monkeypatch.setattr(OrbExtractor, "extract", interrupted)
    assert run(folder, "--out", tmp_path / "out", "--features", "orb", *CAMERA) == 130
    assert len(read_tum_trajectory(tmp_path / "out/trajectory.txt")) == 4
    assert json.loads((tmp_path / "out/report.json").read_text())["interrupted"] is True
    assert "interrupted" in capsys.readouterr().err


def test_input_without_a_camera_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_tum(tmp_path / "wall", frames=2)
    assert run(folder / "rgb", "--out", tmp_path / "out", "--features", "orb") == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "--camera" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--camera", "1,2,3"], "fx,fy,cx,cy"),
        (["--features", "orbb"], "orb"),
        (["--format", "7scenes"], "frame-"),
    ],
)
def test_bad_options(tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str) -> None:
    folder = write_tum(tmp_path / "wall", frames=2)
    assert run(folder, "--out", tmp_path / "out", *CAMERA, *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_missing_input_and_out_that_is_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "nowhere", "--out", tmp_path / "out") == 2
    assert "nowhere" in capsys.readouterr().err
    folder = write_tum(tmp_path / "wall", frames=2)
    (tmp_path / "taken").write_text("mine")
    assert run(folder, "--out", tmp_path / "taken", "--features", "orb", *CAMERA) == 2
    assert "taken" in capsys.readouterr().err
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_truncated_frame_is_named_and_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_tum(tmp_path / "wall", frames=5)
    victim = sorted((folder / "rgb").iterdir())[3]
    victim.write_bytes(victim.read_bytes()[:500])
    assert run(folder, "--out", tmp_path / "out", "--features", "orb", *CAMERA) == 0
    error = capsys.readouterr().err
    assert error.startswith("warning: frame 3: ")
    assert victim.name in error
    assert error.count("\n") == 1
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert (report["frames"], report["tracked"]) == (5, 4)
    assert [(event["first_frame"], event["recovered"]) for event in report["lost"]] == [(3, "tracked on")]
    assert victim.name in report["problems"][0]


def test_what_is_known_of_the_unit_of_length_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_tum(tmp_path / "wall", frames=3)
    assert run(folder, "--out", tmp_path / "out", "--features", "orb", *CAMERA) == 0
    assert "units of length" not in capsys.readouterr().err
    monkeypatch.setattr(
        "semkey.slam.output.report.scale_figures", lambda result: {"statement": f"units of length of {result.sensor}"}
    )
    assert run(folder, "--out", tmp_path / "out", "--features", "orb", *CAMERA) == 0
    assert "warning: units of length of rgbd\n" in capsys.readouterr().err


def test_every_sensor_says_why_it_tracked_nothing_and_exits_with_3(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    black, textured = np.zeros((240, 320, 3), np.uint8), _textured()
    rgbd, stereo = tmp_path / "rgbd", tmp_path / "stereo"
    for k in range(4):
        write_image(rgbd / "rgb" / f"{k}.png", textured)
        (rgbd / "depth").mkdir(exist_ok=True)
        cv2.imwrite(str(rgbd / "depth" / f"{k}.png"), np.zeros((240, 320), np.uint16))
        for camera in ("image_0", "image_1"):
            write_image(stereo / camera / f"{k:06d}.png", black)
    for kind in ("rgb", "depth"):
        (rgbd / f"{kind}.txt").write_text("".join(f"{0.1 * k:.3f} {kind}/{k}.png\n" for k in range(4)))
    (stereo / "times.txt").write_text("".join(f"{0.1 * k:.3f}\n" for k in range(4)))
    row = "262 0 160 {x} 0 262 120 0 0 0 1 0"
    (stereo / "calib.txt").write_text(f"P0: {row.format(x=0)}\nP1: {row.format(x=-131)}\n")
    for sensor, folder, sentence in (
        ("rgbd", rgbd, "no map could be started, for which keypoints with depth were missing"),
        ("mono", rgbd, "no map could be started, for which motion seen from the side was missing"),
        ("stereo", stereo, "4 show too little, with fewer than 20 keypoints"),
    ):
        out = tmp_path / f"out-{sensor}"
        options = ("--sensor", sensor, "-f", "orb", "--out", out)
        camera = () if sensor == "stereo" else ("--camera", "262,262,160,120")
        assert run(folder, *options, *camera) == 3
        assert f"lost: 0 of 4 frames were tracked: {sentence}" in capsys.readouterr().err
        assert json.loads((out / "report.json").read_text())["shortfall"] == f"0 of 4 frames were tracked: {sentence}"


def _textured() -> np.ndarray:
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(noise, (320, 240), interpolation=cv2.INTER_CUBIC), dtype=np.uint8)
