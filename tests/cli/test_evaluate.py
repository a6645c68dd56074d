"""``semkey eval`` as a user runs it: what it writes, resumes, refuses and prints."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage import data

from command_line import Run
from semkey.evaluation.running.results import Evaluation
from semkey.geometry.trajectories import Trajectory, write_tum_trajectory
from semkey.geometry.transforms import make_transform, so3_exp
from semkey.images import write_image

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
# a shell that started the tests in the background ignores SIGINT, and its children inherit that
LISTENING_MAIN = (
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from semkey.cli.main import main; main()"
)
KINDS = ["planar", "posed-pairs", "homographies", "reliability", "localisation", "speed", "trajectory"]
KINDS += ["shift", "negatives"]


@pytest.fixture(scope="module")
def graf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in Oxford layout: one photo and two views of it through known homographies."""
    folder = tmp_path_factory.mktemp("data") / "astro"
    image = cv2.resize(data.astronaut(), (320, 240), interpolation=cv2.INTER_AREA)
    write_image(folder / "img1.png", image)
    for k, H in (
        (2, [[0.95, 0.08, 10], [-0.06, 0.97, 12], [1e-5, -2e-5, 1]]),
        (3, [[1.1, 0, -20], [0, 1, 5], [0, 0, 1]]),
    ):
        np.savetxt(folder / f"H1to{k}p", H)
        write_image(folder / f"img{k}.png", cv2.warpPerspective(image, np.array(H, float), (320, 240)))
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name, image in (("a", data.astronaut()), ("b", data.coffee()), ("c", data.chelsea())):
        write_image(folder / f"{name}.png", cv2.resize(image, (320, 240), interpolation=cv2.INTER_AREA))
    return folder


def check_written(out: Path, kind: str) -> Evaluation:
    evaluation = Evaluation.read(out / "results.json")
    assert evaluation.kind == kind
    assert evaluation.environment["command"].startswith(f"semkey eval {kind} ")
    page = (out / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    # Megabytes of base64 hold any four letters sooner or later.
    assert "http" not in re.sub(r"base64,[A-Za-z0-9+/=]+", "", page.split("<body>")[1])
    return evaluation


def test_every_kind_has_help_with_an_example(run: Run) -> None:
    listed = run("eval", "--help")
    assert listed.code == 0
    for kind in [*KINDS, "report", "convert-megadepth"]:
        assert kind in listed.out
        outcome = run("eval", kind, "--help")
        assert outcome.code == 0
        assert f"semkey eval {kind}" in outcome.out.replace("\n", " ")
        assert "Example" in outcome.out


def test_planar_writes_results_report_and_a_table(run: Run, graf: Path, tmp_path: Path) -> None:
    options = ["--methods", "sift,orb", "--keypoints", 300, "--out", tmp_path / "out"]
    outcome = run("eval", "planar", graf, *options)
    assert outcome.code == 0, outcome.err
    lines = [line.split("\t") for line in outcome.out.splitlines()]
    assert lines[0][:2] == ["set", "method"]
    assert [line[:2] for line in lines[1:]] == [["astro", "sift"], ["astro", "orb"]]
    evaluation = check_written(tmp_path / "out", "planar")
    assert evaluation.options["keypoints"] == 300
    assert evaluation.results["sift"]["astro"].count == 2
    assert evaluation.results["sift"]["astro"].metrics["auc_poselib@5"] > 0.5
    assert evaluation.methods["sift"]["extraction"]["max_keypoints"] == 300
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Worst pairs of sift, beside orb" in page
    assert len(list((tmp_path / "out" / "cache").rglob("*.safetensors"))) == 6


def test_the_same_command_again_takes_what_is_there(run: Run, graf: Path, tmp_path: Path) -> None:
    options = ["planar", graf, "--methods", "orb", "--out", tmp_path / "out", "--seed", 4]
    assert run("eval", *options).code == 0
    first = json.loads((tmp_path / "out" / "results.json").read_text())
    (rows,) = tmp_path.rglob("*.jsonl")
    before = rows.stat().st_mtime_ns
    assert run("eval", *options).code == 0
    again = json.loads((tmp_path / "out" / "results.json").read_text())
    for environment in (first["environment"], again["environment"]):
        environment.pop("started")
    assert first == again
    lines = rows.read_bytes()
    assert run("eval", *options[:-1], 5).code == 0  # another seed: measured anew
    assert rows.read_bytes() != lines
    assert rows.stat().st_mtime_ns > before


def test_report_is_made_again_from_the_folder(run: Run, graf: Path, tmp_path: Path) -> None:
    assert run("eval", "planar", graf, "--methods", "orb", "--out", tmp_path / "out").code == 0
    page = tmp_path / "out" / "report.html"
    before = page.read_bytes()
    page.unlink()
    assert run("eval", "report", tmp_path / "out").code == 0
    assert page.read_bytes() == before
    outcome = run("eval", "report", tmp_path)
    assert outcome.code == 2
    assert outcome.err == f"error: {tmp_path / 'results.json'}: no such file\n"


def test_a_shared_cache_and_none(run: Run, graf: Path, tmp_path: Path) -> None:
    base = ["eval", "planar", graf, "--methods", "orb", "--no-pictures"]
    assert run(*base, "--out", tmp_path / "a", "--cache", tmp_path / "cache").code == 0
    assert not (tmp_path / "a" / "cache").exists()
    assert list((tmp_path / "cache").rglob("*.safetensors"))
    assert run(*base, "--out", tmp_path / "b", "--no-cache").code == 0
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == [
        "pictures",
        "report.html",
        "results.json",
        "rows",
    ]
    outcome = run(*base, "--out", tmp_path / "c", "--cache", tmp_path / "cache", "--no-cache")
    assert (outcome.code, outcome.err) == (2, "error: --cache and --no-cache exclude each other\n")


def test_homographies_and_reliability_of_photos(run: Run, photos: Path, tmp_path: Path) -> None:
    options = ["--methods", "sift,orb", "--keypoints", 200, "--count", 5]
    assert run("eval", "homographies", photos, *options, "--out", tmp_path / "h").code == 0
    evaluation = check_written(tmp_path / "h", "homographies")
    (name,) = evaluation.sets
    assert evaluation.results["sift"][name].metrics["mma@3"] > 0.3
    assert run("eval", "reliability", photos, *options, "--out", tmp_path / "r").code == 0
    evaluation = check_written(tmp_path / "r", "reliability")
    assert 0 <= evaluation.results["sift"][name].metrics["auroc_score"] <= 1
    assert evaluation.results["sift"][name].metrics["auroc_reliability"] == pytest.approx(0.5)


def test_shifts_and_negatives_of_photos(run: Run, photos: Path, tmp_path: Path) -> None:
    options = ["--methods", "sift,orb", "--keypoints", 300, "--count", 2]
    assert run("eval", "shift", photos, *options, "--shifts", "2,0.5", "--out", tmp_path / "s").code == 0
    evaluation = check_written(tmp_path / "s", "shift")
    assert evaluation.results["sift"]["whole-pixels"].metrics["within"] > 0.9
    assert evaluation.results["sift"]["fractions"].metrics["median_px"] < 0.2
    assert run("eval", "negatives", photos, *options, "--out", tmp_path / "n").code == 0
    evaluation = check_written(tmp_path / "n", "negatives")
    assert evaluation.results["sift"]["blank"].metrics["most"] == 0
    assert list(evaluation.sets) == ["blank", "gradient", "noise", "defocus", "photos"]


def test_posed_pairs_of_a_rendered_room_and_of_a_list(run: Run, tmp_path: Path) -> None:
    room = tmp_path / "room"
    assert run("render-room", "--out", room, "--frames", 9, "--width", 320, "--height", 240).code == 0
    options = ["--methods", "sift", "--gaps", "2,4", "--min-overlap", 0.2, "--out", tmp_path / "out"]
    assert run("eval", "posed-pairs", room, *options, "--sweep", "0.5,2").code == 0
    evaluation = check_written(tmp_path / "out", "posed-pairs")
    assert list(evaluation.sets) == ["room-gap-2", "room-gap-4"]
    assert evaluation.options["sweep_px"] == [0.5, 2.0]
    metrics = evaluation.results["sift"]["room-gap-2"].metrics
    assert metrics["precision@4"] > 0.6  # the rendered depth and poses are exact
    outcome = run("eval", "posed-pairs", room / "rgb.txt", "--methods", "orb")
    assert outcome.code == 2
    assert "--images" in outcome.err


def test_reliability_of_sequences_takes_their_depth(run: Run, tmp_path: Path) -> None:
    room = tmp_path / "room"
    assert run("render-room", "--out", room, "--frames", 5, "--width", 320, "--height", 240).code == 0
    options = ["--methods", "orb", "--gaps", "2", "--out", tmp_path / "out"]
    assert run("eval", "reliability", room, *options).code == 0
    assert list(check_written(tmp_path / "out", "reliability").sets) == ["room-gap-2"]


def test_localisation_and_speed(run: Run, tmp_path: Path) -> None:
    outcome = run(
        "eval", "localisation", "--methods", "sift,orb", "--corners", 20, "--patterns", "blob", "--out", tmp_path / "l"
    )
    assert outcome.code == 0, outcome.err
    evaluation = check_written(tmp_path / "l", "localisation")
    assert evaluation.results["sift"]["blob"].metrics["median_px"] < 0.3
    assert evaluation.options["keypoints"] == 1024
    outcome = run(
        *("eval", "speed", "--methods", "sift,orb", "--reference", "orb", "--rounds", 3, "--warmup", 1),
        *("--sizes", "160x120,200x150", "--no-memory", "--out", tmp_path / "s"),
    )
    assert outcome.code == 0, outcome.err
    evaluation = check_written(tmp_path / "s", "speed")
    assert list(evaluation.sets) == ["160x120", "200x150"]
    assert evaluation.results["orb"]["160x120"].metrics["extract_ratio"] == 1.0


def test_trajectory_of_two_estimates(run: Run, tmp_path: Path) -> None:
    times = 0.1 * np.arange(20, dtype=np.float64)
    poses = np.stack([make_transform(so3_exp([0, 0.02 * i, 0]), [0.05 * i, 0.01 * i**1.5, 0]) for i in range(20)])
    write_tum_trajectory(tmp_path / "gt.txt", Trajectory(times, poses))
    shifted = poses.copy()
    shifted[:, :3, 3] += [1.0, 2.0, 3.0]
    write_tum_trajectory(tmp_path / "shifted.txt", Trajectory(times, shifted))
    write_tum_trajectory(tmp_path / "half.txt", Trajectory(times[:10], poses[:10]))
    files = [tmp_path / name for name in ("shifted.txt", "half.txt", "gt.txt")]
    outcome = run("eval", "trajectory", *files, "--out", tmp_path / "out")
    assert outcome.code == 0, outcome.err
    evaluation = check_written(tmp_path / "out", "trajectory")
    assert list(evaluation.methods) == ["shifted", "half"]
    assert evaluation.results["shifted"]["gt"].metrics["ate_rmse_m"] < 1e-6
    assert evaluation.results["half"]["gt"].metrics["tracked"] < 0.5
    raw = run("eval", "trajectory", *files, "--out", tmp_path / "raw", "--alignment", "none")
    assert raw.code == 0
    found = Evaluation.read(tmp_path / "raw" / "results.json").results["shifted"]["gt"].metrics["ate_rmse_m"]
    assert found == pytest.approx(np.sqrt(14.0), abs=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["planar", "DATA", "--methods", "sift,nope"], "'nope'"),
        (["planar", "DATA", "--methods", "sift,sift"], "--methods names 'sift' twice"),
        (["planar", "DATA", "--methods", ","], "--methods is empty"),
        (["planar", "DATA", "--methods", "compact+lightglue"], "compact"),
        (["planar", "DATA/nothing", "--methods", "orb"], "nothing: no such folder"),
        (["planar", "DATA", "--methods", "orb", "--estimators", "magic"], "unknown estimator 'magic'"),
        (["planar", "DATA", "--methods", "orb", "--resize", "big"], "resize 'big'"),
        (["planar", "DATA", "--methods", "orb", "--max-error", "0"], "max_error_px"),
        (["posed-pairs", "DATA", "--methods", "orb", "--gaps", "a"], "--gaps takes whole numbers"),
        (["posed-pairs", "DATA", "--methods", "orb", "--sweep", "1,x"], "--sweep takes numbers"),
        (["speed", "--methods", "orb", "--sizes", "640"], "--sizes takes WIDTHxHEIGHT"),
        (["speed", "--methods", "orb", "--reference", "sift"], "reference 'sift'"),
        (["localisation", "--methods", "orb", "--patterns", "cross"], "pattern 'cross'"),
        (["shift", "DATA", "--methods", "orb", "--shifts", "0"], "shifts lie in (0, 64] pixels"),
        (["negatives", "DATA/nothing", "--methods", "orb"], "nothing: no such file or folder"),
        (["trajectory", "DATA/est.txt", "DATA/gt.txt"], "gt.txt: file is missing"),
        (["convert-megadepth", "DATA", "OUT/list.txt"], "npz"),
    ],
)
def test_bad_input_is_one_line_and_leaves_no_results(
    run: Run, graf: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    out = tmp_path / "out"
    typed = [argument.replace("DATA", str(graf)).replace("OUT", str(out)) for argument in arguments]
    if arguments[0] not in ("convert-megadepth",):
        typed += ["--out", str(out)]
    outcome = run("eval", *typed)
    assert outcome.code == 2
    assert outcome.err.count("\n") == 1
    assert outcome.err.startswith("error: ")
    assert message in outcome.err
    assert not list(out.rglob("*")) or arguments[0] == "speed"


def test_an_unreadable_image_ends_the_run_without_results(run: Run, graf: Path, tmp_path: Path) -> None:
    folder = tmp_path / "broken"
    folder.mkdir()
    for file in graf.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    whole = (folder / "img3.png").read_bytes()
    (folder / "img3.png").write_bytes(whole[: len(whole) // 2])
    outcome = run("eval", "planar", folder, "--methods", "orb", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "pair 1-3" in outcome.err
    assert str(folder / "img3.png") in outcome.err
    assert not (tmp_path / "out" / "results.json").exists()
    (folder / "img3.png").write_bytes(whole)
    assert run("eval", "planar", folder, "--methods", "orb", "--out", tmp_path / "out").code == 0


@pytest.mark.slow
def test_ctrl_c_exits_with_130_and_the_next_run_goes_on(run: Run, photos: Path, tmp_path: Path) -> None:
    arguments = [
        "eval",
        "homographies",
        str(photos),
        "--methods",
        "sift",
        "--count",
        "2000",
        "--out",
        str(tmp_path / "o"),
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", LISTENING_MAIN, *arguments], env=ENVIRONMENT, stderr=subprocess.PIPE, text=True
    )
    rows: list[Path] = []
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and not (rows and rows[0].read_bytes().count(b"\n") > 5):
        time.sleep(0.2)
        rows = list(tmp_path.rglob("*.jsonl"))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "run the same command again" in err
    assert "Traceback" not in err
    assert not (tmp_path / "o" / "results.json").exists()
    kept = rows[0].read_bytes()
    assert kept.endswith(b"\n")
    assert 5 < kept.count(b"\n") < 2000


@pytest.fixture
def walk(tmp_path: Path) -> Trajectory:
    times = 1_700_000_000 + 0.1 * np.arange(20, dtype=np.float64)
    poses = np.stack([make_transform(so3_exp([0, 0.02 * i, 0]), [0.05 * i, 0.01 * i**1.5, 0]) for i in range(20)])
    write_tum_trajectory(tmp_path / "gt.txt", Trajectory(times, poses))
    return Trajectory(times, poses)


@pytest.mark.parametrize(
    ("factor", "shift", "words"),
    [
        (1e9, 0.0, "its stamps look like nanoseconds"),
        (1e3, 0.0, "its stamps look like milliseconds"),
        (1.0, -1_700_000_000.0, "its clock is -1700000000.000 s away from the other"),
        (1.0, -1_699_999_999.0, "its clock is -1699999999.000 s away"),  # 1.7 would be nanoseconds of the other
        (1.0, 3600.0, "its clock is 3600.000 s away"),
        (1.0, 0.05, "the nearest are 0.050 s apart (--max-difference)"),
    ],
)
def test_clocks_that_do_not_meet_are_told(
    run: Run, tmp_path: Path, walk: Trajectory, factor: float, shift: float, words: str
) -> None:
    write_tum_trajectory(tmp_path / "est.txt", Trajectory((walk.timestamps + shift) * factor, walk.poses))
    outcome = run("eval", "trajectory", tmp_path / "est.txt", tmp_path / "gt.txt", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "est.txt: no stamp is within 0.02 s of the ground truth" in outcome.err
    assert words in outcome.err
    assert not (tmp_path / "out").exists()


def test_the_unit_of_a_single_pose_is_told(run: Run, tmp_path: Path, walk: Trajectory) -> None:
    write_tum_trajectory(tmp_path / "est.txt", Trajectory(walk.timestamps[:1] * 1e9, walk.poses[:1]))
    outcome = run("eval", "trajectory", tmp_path / "est.txt", tmp_path / "gt.txt", "--out", tmp_path / "out")
    assert (outcome.code, "its stamps look like nanoseconds" in outcome.err) == (2, True), outcome.err


def test_folders_are_searched_for_their_trajectory(run: Run, tmp_path: Path, walk: Trajectory) -> None:
    """Ground truth in a folder, given last or first; an estimate as the folder of a run."""
    for name, file in (("truth", "groundtruth.txt"), ("run", "trajectory.txt")):
        (tmp_path / name).mkdir()
        write_tum_trajectory(tmp_path / name / file, walk)
    for number, given in enumerate((["run", "truth"], ["truth", "gt.txt"], ["run", "gt.txt"])):
        out = tmp_path / f"out{number}"
        outcome = run("eval", "trajectory", *(tmp_path / name for name in given), "--out", out)
        assert outcome.code == 0, outcome.err
        assert "inf" not in outcome.out
    (tmp_path / "empty").mkdir()
    outcome = run(
        "eval", "trajectory", tmp_path / "run", tmp_path / "empty", tmp_path / "gt.txt", "--out", tmp_path / "o"
    )
    assert (outcome.code, "give estimates first and the ground truth last" in outcome.err) == (2, True)
