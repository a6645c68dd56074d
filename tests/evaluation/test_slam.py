"""``semkey eval slam``: measures by hand, runs in processes of their own, resumed, and what the command writes."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from command_line import Run
from semkey.errors import ConfigError, DatasetError
from semkey.evaluation.report.bars import bars_figure
from semkey.evaluation.report.page import report_html
from semkey.evaluation.report.tables import overview
from semkey.evaluation.running.code import code_hash
from semkey.evaluation.running.results import Evaluation, SetResult
from semkey.evaluation.slam import child as slam_child
from semkey.evaluation.slam import run as slam
from semkey.evaluation.slam.child import SlamRunError
from semkey.evaluation.slam.code import OUTPUT_ONLY, code_of
from semkey.evaluation.slam.cv2_odometry import run_cv2_odometry
from semkey.evaluation.slam.measures import drift_percent, measure_run
from semkey.evaluation.slam.methods import SlamMethod, create_slam_methods, names_with_places
from semkey.evaluation.slam.pictures import slam_pictures
from semkey.evaluation.slam.rooms import ROOMS, render_rooms
from semkey.evaluation.slam.run import SlamRunConfig, run_slam_evaluation, trajectory_file
from semkey.evaluation.slam.sets import slam_sets
from semkey.evaluation.slam.summary import median_run, slam_metrics, summarise_runs
from semkey.geometry.trajectories import Trajectory, read_tum_trajectory
from semkey.geometry.transforms import make_transform, so3_exp
from semkey.rendering import RoomConfig, write_room
from semkey.slam.config import SlamConfig
from semkey.slam.records import LoopRecord
from synthetic_world import PointWorld, walk


def line(count: int, step: float = 1.0, *, scale: float = 1.0) -> Trajectory:
    """Straight ahead, ``step`` metres per frame."""
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, 2, 3] = scale * step * np.arange(count)
    return Trajectory(np.linspace(0.0, 0.1 * (count - 1), count), poses)


# -- measures ---------------------------------------------------------------------------------------------------------


def test_a_wrong_scale_is_that_much_drift_and_none_under_sim3() -> None:
    truth, estimate = line(301), line(301, scale=1.02)
    assert drift_percent(estimate, truth) == pytest.approx(2.0)
    assert drift_percent(line(51, scale=0.9), line(51)) == pytest.approx(10.0)
    assert math.isnan(drift_percent(line(9, 0.0), line(9, 0.0)))
    row = measure_run(estimate, truth, alignment="sim3")
    assert row["drift_percent"] == pytest.approx(0.0, abs=1e-9)
    assert row["scale"] == pytest.approx(1 / 1.02)
    assert row["ate_rmse_m"] == pytest.approx(0.0, abs=1e-9)
    rigid = measure_run(estimate, truth, alignment="se3", live=line(301, scale=1.04))
    # Centred on each other, the ends are 3 m off: errors are uniform between -3 m and 3 m, and twice that live.
    assert rigid["ate_rmse_m"] == pytest.approx(3 / math.sqrt(3), rel=0.01)
    assert rigid["ate_live_rmse_m"] == pytest.approx(6 / math.sqrt(3), rel=0.01)
    assert rigid["rpe_trans_m"] == pytest.approx(0.02)
    assert len(rigid["error_t"]) == len(rigid["error_m"]) == 300


def test_a_constant_turn_is_a_relative_rotation_error() -> None:
    truth = line(20)
    poses = np.array(
        [make_transform(so3_exp([0, np.radians(0.5) * k, 0]), p[:3, 3]) for k, p in enumerate(truth.poses)]
    )
    row = measure_run(Trajectory(truth.timestamps, poses), truth, alignment="se3")
    assert row["rpe_rot_deg"] == pytest.approx(0.5)


def test_too_few_poses_have_failed_and_no_truth_says_nothing() -> None:
    assert measure_run(line(2), line(20), alignment="se3")["ate_rmse_m"] == math.inf
    assert measure_run(line(20), line(0), alignment="se3") == {}


def test_figures_are_medians_over_runs() -> None:
    rows = [
        {"name": f"seed-{k}", "ate_rmse_m": ate, "tracked": 1.0, "fps": fps, "error_t": [0.0], "error_m": [ate]}
        for k, (ate, fps) in enumerate([(0.3, 10.0), (0.1, 30.0), (math.inf, 20.0)])
    ]
    result = summarise_runs(rows)
    assert result.metrics["ate_rmse_m"] == 0.3
    assert result.metrics["fps"] == 20.0
    assert (result.metrics["ate_lowest_m"], result.metrics["ate_highest_m"]) == (0.1, math.inf)
    assert (result.count, result.failures) == (3, 1)
    assert median_run(rows) == 0
    assert list(result.curves["error"].y) == [0.3]
    assert "error_m" not in result.rows[0]
    assert summarise_runs(rows[1:]).metrics["ate_rmse_m"] == math.inf


# -- OpenCV's odometry ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def room(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "room"
    return write_room(folder, RoomConfig(seed=3, frames=8, width=320, height=240, noise=False))


def test_opencv_finds_the_motion_of_a_rendered_room(room: Path) -> None:
    (opened,) = slam_sets([room])
    run = run_cv2_odometry(opened.sequence)
    assert len(run.poses) == len(run.timestamps) == 8
    truth = np.array(opened.sequence.ground_truth)
    relative = np.linalg.inv(truth[0]) @ truth[-1]
    assert run.poses[-1] is not None
    # Sign and direction of the motion are right, and not only its size.
    assert np.linalg.norm(run.poses[-1][:3, 3] - relative[:3, 3]) < 0.1 * np.linalg.norm(relative[:3, 3])
    assert set(run.stage_seconds) == {"read", "prepare", "align"}


def test_opencv_says_where_it_found_no_motion() -> None:
    run = run_cv2_odometry(PointWorld(walk(4), without_depth=range(4)))
    assert [pose is None for pose in run.poses] == [False, True, True, True]


def test_opencv_needs_depth(room: Path) -> None:
    world = PointWorld(walk(3))
    world.has_depth = False
    with pytest.raises(DatasetError, match="no depth"):
        run_cv2_odometry(world)


# -- runs -------------------------------------------------------------------------------------------------------------


def forbidden(request: Mapping[str, Any]) -> dict[str, Any]:
    raise AssertionError(f"ran again: {request}")


def test_every_run_is_a_process_and_is_not_repeated(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods, sets = create_slam_methods(["orb", "cv2-odometry"], keypoints=400), slam_sets([room])
    config = SlamRunConfig(runs=1, keypoints=400)
    told: list[tuple[int, int]] = []
    first = run_slam_evaluation(
        methods, sets, config, out=tmp_path, progress=lambda done, total, what: told.append((done, total))
    )
    assert told == [(0, 2), (1, 2), (2, 2)]
    metrics = first.results["orb"]["room"].metrics
    assert metrics["frames"] == 8
    assert metrics["tracked"] == 1.0
    assert metrics["ate_rmse_m"] < 0.02
    assert metrics["fps"] > 0.5
    assert 50 < metrics["peak_mb"] < 3000
    assert {"stage_read_ms", "stage_extract_ms", "stage_match_ms"} <= set(metrics)
    assert first.results["cv2-odometry"]["room"].metrics["tracked"] == 1.0
    assert len(read_tum_trajectory(trajectory_file(tmp_path, "orb", "room", 0))) == 8

    monkeypatch.setattr(slam, "measure_in_child", forbidden)
    again = run_slam_evaluation(methods, sets, config, out=tmp_path)
    assert again.results["orb"]["room"].metrics == metrics

    ran: list[int] = []

    def count(request: Mapping[str, Any]) -> dict[str, Any]:
        ran.append(request["seed"])
        raise SlamRunError("out of memory")

    monkeypatch.setattr(slam, "measure_in_child", count)
    more = run_slam_evaluation(methods[:1], sets, SlamRunConfig(runs=3, keypoints=400), out=tmp_path)
    assert ran == [1, 2], "the run with seed 0 is there"
    result = more.results["orb"]["room"]
    assert (result.count, result.failures) == (3, 2)
    assert result.metrics["ate_rmse_m"] == math.inf
    assert result.rows[1]["failure"] == "out of memory"

    monkeypatch.setattr(slam, "measure_in_child", forbidden)
    with pytest.raises(AssertionError, match="ran again"):
        run_slam_evaluation(methods, sets, SlamRunConfig(runs=1, keypoints=401), out=tmp_path)


def refused(request: Mapping[str, Any]) -> dict[str, Any]:
    raise SlamRunError("out of memory")


def answering(request: Mapping[str, Any]) -> dict[str, Any]:
    return {"ate_rmse_m": 0.1, "tracked": 1.0, "fps": 5.0}


def test_a_run_that_failed_is_tried_again(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods, sets = create_slam_methods(["orb"]), slam_sets([room])
    config = SlamRunConfig(runs=1)
    monkeypatch.setattr(slam, "measure_in_child", refused)
    assert run_slam_evaluation(methods, sets, config, out=tmp_path).results["orb"]["room"].failures == 1
    monkeypatch.setattr(slam, "measure_in_child", answering)
    result = run_slam_evaluation(methods, sets, config, out=tmp_path).results["orb"]["room"]
    assert (result.failures, result.metrics["ate_rmse_m"]) == (0, 0.1)
    monkeypatch.setattr(slam, "measure_in_child", forbidden)
    assert run_slam_evaluation(methods, sets, config, out=tmp_path).results["orb"]["room"].failures == 0


def test_a_process_that_is_told_to_end_interrupts_the_evaluation(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slam_child, "_START", "import os, signal; os.kill(os.getpid(), signal.SIGTERM)")
    with pytest.raises(KeyboardInterrupt):
        run_slam_evaluation(create_slam_methods(["orb"]), slam_sets([room]), SlamRunConfig(runs=1), out=tmp_path)
    monkeypatch.setattr(slam_child, "_START", "import os, signal; os.kill(os.getpid(), signal.SIGABRT)")
    evaluation = run_slam_evaluation(
        create_slam_methods(["orb"]), slam_sets([room]), SlamRunConfig(runs=1), out=tmp_path
    )
    assert evaluation.results["orb"]["room"].rows[0]["failure"].endswith("its process ended with -6")


def test_the_process_of_a_run_ends_where_its_parent_is_not_the_one_that_started_it() -> None:
    reader, writer = os.pipe()  # a request that never comes
    try:
        command = [sys.executable, "-c", slam_child._START, "1"]
        child = subprocess.run(command, stdin=reader, capture_output=True, text=True, timeout=200, check=False)
    finally:
        os.close(reader)
        os.close(writer)
    assert (child.returncode, child.stdout, child.stderr) == (1, "", "")


def test_code_that_changes_meanwhile_ends_the_evaluation_and_spoils_no_row(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    methods, sets, config = create_slam_methods(["orb"]), slam_sets([room]), SlamRunConfig(runs=1)
    monkeypatch.setattr(slam, "measure_in_child", answering)
    run_slam_evaluation(methods, sets, config, out=tmp_path)
    codes = iter(["before", "after"])
    monkeypatch.setattr(slam, "code_now", lambda: next(codes))
    with pytest.raises(ConfigError, match="code was changed"):
        run_slam_evaluation(methods, sets, SlamRunConfig(runs=2), out=tmp_path)
    monkeypatch.setattr(slam, "code_now", lambda: "before")
    asked: list[int] = []
    monkeypatch.setattr(slam, "measure_in_child", lambda request: asked.append(request["seed"]) or answering(request))
    run_slam_evaluation(methods, sets, SlamRunConfig(runs=2), out=tmp_path)
    assert asked == [1], "the row of the run meanwhile was not kept, that of before was"


def test_rows_hold_until_what_is_executed_changes(tmp_path: Path) -> None:
    (tmp_path / "slam" / "output").mkdir(parents=True)
    file, report = tmp_path / "slam" / "tracker.py", tmp_path / "slam" / "output" / "report.py"
    file.write_text('"""Old."""\n\ndef one(x: int) -> int:\n    """Old."""\n    return x + 1\n')
    report.write_text("A = 1\n")
    before = code_hash(["slam"], tmp_path, left_out=OUTPUT_ONLY)
    file.write_text('"""New."""\n# why\ndef one( x: int ) -> int:\n\n    return (x + 1)\n')
    report.write_text("A = 2\n")
    assert code_hash(["slam"], tmp_path, left_out=OUTPUT_ONLY) == before
    file.write_text("def one(x: int) -> int:\n    return x + 2\n")
    assert code_hash(["slam"], tmp_path, left_out=OUTPUT_ONLY) != before


def test_files_that_do_not_count_are_not_imported_by_a_run() -> None:
    code = (
        "import sys; import semkey.slam.runner, semkey.evaluation.slam.child; "
        "print(*(name for name in sys.modules if name.startswith('semkey.')))"
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = made.stdout.split()
    assert "semkey.slam.tracking.tracker" in loaded
    unused = tuple("semkey." + name.removesuffix(".py").replace("/", ".") for name in OUTPUT_ONLY)
    assert not [name for name in loaded if name.startswith(unused)]
    assert all((Path(slam.__file__).parents[2] / name).exists() for name in OUTPUT_ONLY)


def test_opencv_does_not_depend_on_the_back_end_and_features_do() -> None:
    opencv, orb = create_slam_methods(["cv2-odometry", "orb"])
    assert code_of(opencv) != code_of(orb)
    assert code_of(orb) == code_of(create_slam_methods(["orb+lines"])[0])


def test_features_are_kept_and_times_are_those_of_the_run_that_extracted(room: Path, tmp_path: Path) -> None:
    methods, sets = create_slam_methods(["orb"], keypoints=400), slam_sets([room])
    config = SlamRunConfig(runs=2, keypoints=400, max_frames=5)
    kept = run_slam_evaluation(methods, sets, config, out=tmp_path / "kept", cache=tmp_path / "cache")
    first, second = kept.results["orb"]["room"].rows
    assert first["fps"] > 0
    assert second["extraction"] == "cached"
    assert not {"fps", "peak_mb", "stage_extract_ms"} & set(second)
    metrics = kept.results["orb"]["room"].metrics
    assert (metrics["fps"], metrics["timed_runs"]) == (first["fps"], 1)
    # The same poses come out of features that were kept.
    config = SlamRunConfig(runs=1, seed=1, keypoints=400, max_frames=5)
    plain = run_slam_evaluation(methods, sets, config, out=tmp_path / "plain")
    (row,) = plain.results["orb"]["room"].rows
    assert row["ate_rmse_m"] == second["ate_rmse_m"]
    assert row["fps"] > 0
    with pytest.raises(ConfigError, match="real time"):
        run_slam_evaluation(methods, sets, SlamRunConfig(realtime=True), out=tmp_path / "x", cache=tmp_path / "cache")


def test_lines_are_a_method_of_their_own(room: Path, tmp_path: Path) -> None:
    methods = create_slam_methods(["orb", "orb+lines"], keypoints=400)
    config = SlamRunConfig(runs=1, keypoints=400, max_frames=4)
    evaluation = run_slam_evaluation(methods, slam_sets([room]), config, out=tmp_path, cache=tmp_path / "cache")
    assert evaluation.results["orb+lines"]["room"].metrics["map_lines"] > 3
    assert "map_lines" not in evaluation.results["orb"]["room"].metrics
    assert evaluation.methods["orb+lines"]["lines"] is True


def test_submaps_are_those_of_the_map_at_the_end(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A submap that was merged into another is no submap any more, though frames were tracked in it."""
    import semkey.slam

    run_slam = semkey.slam.run_slam

    def merged(*arguments: Any, **options: Any) -> Any:
        result = run_slam(*arguments, **options)
        result.frames[1:] = [replace(record, submap=1) for record in result.frames[1:]]
        result.loops += [
            LoopRecord(kind=kind, frame_index=3, keyframe_id=1, matched_keyframe_id=0, inliers=50)
            for kind in ("merge", "loop", "loop")
        ]
        return result

    monkeypatch.setattr(semkey.slam, "run_slam", merged)
    request = {
        **dict.fromkeys(("camera", "sensor", "cache")),
        **dict.fromkeys(("realtime", "lines", "read_cache"), False),
        "settings": [],
        "runtime": "torch",
        **{"path": str(room), "format": "auto", "every": 1, "max_frames": 4, "features": "orb", "keypoints": 400},
        **{"device": "cpu", "weights": [], "seed": 0, "trajectory": str(tmp_path / "x.txt")},
    }
    row = slam_child.measure_here(request)
    assert (row["submaps"], row["merges"], row["loops"]) == (1, 1, 2)
    assert 2 <= row["track_keyframes"] <= row["track_frames"] <= 4
    assert row["false_loops"] == 0  # its keyframes lie as they should


def test_opencv_is_left_out_where_there_is_no_depth(
    room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slam, "measure_in_child", answering)
    methods, sets = create_slam_methods(["orb", "cv2-odometry"]), slam_sets([room])
    mono = SlamRunConfig(runs=1, sensor="mono")
    evaluation = run_slam_evaluation(methods, sets, mono, out=tmp_path)
    assert evaluation.results["orb"]["room"].count == 1
    assert evaluation.results["cv2-odometry"] == {}
    assert slam_pictures(evaluation, sets, tmp_path)
    with pytest.raises(ConfigError, match="nothing to run"):
        run_slam_evaluation(methods[1:], sets, mono, out=tmp_path)


def test_runs_with_other_settings_are_other_runs(room: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="unknown key 'traking', did you mean 'tracking'"):
        SlamRunConfig(settings=("traking.min_inliers=20",))
    methods, sets = create_slam_methods(["orb"]), slam_sets([room])
    asked: list[object] = []
    monkeypatch.setattr(
        slam, "measure_in_child", lambda request: asked.append(request["settings"]) or answering(request)
    )
    for settings in ((), ("tracking.min_inliers=20",), ("tracking.min_inliers=20",)):
        run_slam_evaluation(methods, sets, SlamRunConfig(runs=1, settings=settings), out=tmp_path)
    assert asked == [[], ["tracking.min_inliers=20"]]


def test_a_run_that_fails_says_why(room: Path) -> None:
    request = {
        "path": str(room / "missing"),
        "format": "auto",
        "camera": None,
        "features": "orb",
    }
    with pytest.raises(SlamRunError, match=r"orb on .*missing: .*no such file or folder"):
        slam.measure_in_child(request)


def test_sequences_by_path_with_a_step(room: Path) -> None:
    sets = slam_sets([room, f"{room}@3"], every=2)
    assert [(one.name, one.every, one.path) for one in sets] == [("room, every 2", 2, room), ("room, every 3", 3, room)]
    with pytest.raises(ConfigError, match="every must be positive"):
        slam_sets([f"{room}@0"])
    with pytest.raises(DatasetError, match="no such file"):
        slam_sets([room / "missing@2"])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["orb", "orb"], "occur twice"),
        ([], "no features"),
        (["sfit"], "did you mean 'sift'"),
        (["sfit+lines"], "did you mean 'sift'"),
        (["aliked-n16+lightglue"], "matches by itself.*give 'aliked-n16'"),
        (["cv2-odometry+lines"], "uses no lines"),
    ],
)
def test_wrong_features_are_refused_before_any_work(names: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        create_slam_methods(names)


# -- rooms ------------------------------------------------------------------------------------------------------------


def test_six_rooms_differ_in_one_thing_each() -> None:
    assert len(ROOMS) == 6
    difficulties = {(room.texture, room.motion, room.light) for room in ROOMS.values()}
    assert len(difficulties) == 6
    assert len({room.seed for room in ROOMS.values()}) == 6
    assert all(room.blur and room.depth_noise for room in ROOMS.values())


def test_a_room_is_rendered_once(tmp_path: Path) -> None:
    told: list[tuple[int, int, str]] = []
    found = render_rooms(["room-low-texture"], folder=tmp_path, frames=2, progress=lambda *report: told.append(report))
    assert told == [(1, 2, "rendering room-low-texture"), (2, 2, "rendering room-low-texture")]
    assert json.loads((found["room-low-texture"] / "room.json").read_text())["frames"] == 2
    assert (
        render_rooms(["room-low-texture"], folder=tmp_path, frames=2, progress=lambda *report: told.append(report))
        == found
    )
    assert len(told) == 2
    with pytest.raises(ConfigError, match="there is no room 'attic'"):
        render_rooms(["attic"], folder=tmp_path)


# -- the command ------------------------------------------------------------------------------------------------------


def test_the_command_prints_a_table_and_writes_a_report(run: Run, room: Path, tmp_path: Path) -> None:
    arguments = ["--features", "orb", "--runs", "1", "--max-frames", "5", "--keypoints", "400", "--out", tmp_path]
    outcome = run("eval", "slam", room, *arguments)
    assert outcome.code == 0, outcome.err
    header, row = (text.split("\t") for text in outcome.out.splitlines())
    assert header[:5] == ["set", "method", "frames tracked, %", "ATE, m", "RPE, m"]
    assert row[:3] == ["room", "orb", "100.0"]
    evaluation = Evaluation.read(tmp_path / "results.json")
    assert evaluation.kind == "slam"
    assert evaluation.sets["room"]["description"].startswith("tum, rgbd, 5 frames of 320x240, path of ")
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!doctype html>")
    assert "Paths" in page
    assert "position error, m over time" in page
    again = run("eval", "report", tmp_path)
    assert again.code == 0


def test_the_command_needs_something_to_run_on(run: Run, room: Path, tmp_path: Path) -> None:
    outcome = run("eval", "slam", "--out", tmp_path)
    assert (outcome.code, outcome.err) == (2, "error: give sequences, or --rooms for the rendered ones, or --torture\n")
    outcome = run("eval", "slam", room, "--features", "sfit", "--out", tmp_path / "out")
    assert outcome.code == 2
    assert "did you mean 'sift'" in outcome.err
    assert not (tmp_path / "out").exists()


# -- the report -------------------------------------------------------------------------------------------------------


def slam_evaluation(values: Mapping[str, Mapping[str, float]]) -> Evaluation:
    """ATE by method and set."""
    results = {
        method: {name: SetResult(count=1, metrics={"ate_rmse_m": ate}) for name, ate in sets.items()}
        for method, sets in values.items()
    }
    return Evaluation(
        kind="slam",
        options={},
        environment={},
        methods={method: {} for method in values},
        sets={name: {} for name in next(iter(values.values()))},
        metrics=slam_metrics(results, runs=1),
        results=results,
    )


def test_one_table_says_who_wins_where_and_by_how_much_one_loses() -> None:
    evaluation = slam_evaluation(
        {"a": {"x": 0.01, "y": 0.03, "z": math.inf}, "b": {"x": 0.02, "y": 0.02, "z": 0.1}, "c": {"x": 0.01, "y": 0.04}}
    )
    metric = next(metric for metric in evaluation.metrics if metric.name == "ate_rmse_m")
    header, rows, marks = overview(evaluation, metric)
    assert header == ["set", "a", "b", "c"]
    assert rows == [
        ["x", "0.0100", "0.0200", "0.0100"],
        ["y", "0.0300", "0.0200", "0.0400"],
        ["z", "inf", "0.1000", "-"],
        ["best of 3", "1", "2", "1"],
        ["farthest behind the best, %", "inf", "100", "100"],
    ]
    assert marks[:3] == [["", "best", "", "best"], ["", "", "best", ""], ["", "", "best", ""]]
    page = report_html(evaluation)
    assert "ATE, m on all sets" in page
    assert "farthest behind the best" in page


def test_bars_leave_out_what_is_not_known() -> None:
    evaluation = slam_evaluation({"a": {"x": 0.01, "y": math.inf}, "b": {"x": 10.0, "y": math.inf}})
    assert bars_figure(evaluation, "ate_rmse_m") is not None
    assert bars_figure(evaluation, "fps") is None


def test_the_range_of_runs_is_a_headline_where_there_are_several() -> None:
    shown = {runs: [m.name for m in slam_metrics({}, runs=runs) if m.headline] for runs in (1, 3)}
    assert set(shown[3]) - set(shown[1]) == {"ate_lowest_m", "ate_highest_m"}
    assert [m.headline for m in slam_metrics({}, runs=1, has_long_path=True) if m.name == "drift_percent"] == [True]


def test_places_stand_behind_the_features_and_ask_for_joined_retrieval() -> None:
    names = names_with_places(["orb", "orb+lines", "cv2-odometry"], ["vit-tiny:gem"])
    assert names == ["orb", "orb+lines", "cv2-odometry", "orb@vit-tiny:gem", "orb@vit-tiny:gem+lines"]
    method = SlamMethod(name="orb@own@vit-tiny:gem+lines", fingerprint={})
    assert (method.features, method.lines) == ("orb@own@vit-tiny:gem", True)
    assert SlamConfig().with_changes(method.settings).loops.retrieval == "joined"
    assert not SlamMethod(name="orb+lines", fingerprint={}).settings
    with pytest.raises(ConfigError, match="places 'gem' are not"):
        names_with_places(["orb"], ["gem"])
