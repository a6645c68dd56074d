"""Maps of a single camera and of a stereo pair: saved, loaded, continued, resumed, and images found in them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from semkey.cli.main import main
from semkey.datasets import FrameSequence, Sensor, open_sequence
from semkey.errors import ConfigError
from semkey.extractors import OrbExtractor
from semkey.geometry.trajectories import read_tum_trajectory
from semkey.metrics.trajectory import absolute_trajectory_error
from semkey.slam import SlamConfig, SlamInterrupted, SlamResult, run_slam
from semkey.slam.config import MapConfig
from semkey.slam.output.session import (
    Autosave,
    Session,
    check_continuable,
    check_resumable,
    load_session,
    save_session,
    session_content,
)
from slam_runs import StopAt

SENSORS: list[Sensor] = ["mono", "stereo"]
CONFIG = SlamConfig(map=MapConfig(adjustment="foreground"))
WIDTH, HEIGHT, FOCAL, STEP = 320, 240, 300.0, 0.08
# A step of the camera moves a point at 4 m by 6 pixels, and one at 2 m by 12; the right camera is two steps aside.
FAR_PX, NEAR_PX, BASELINE_STEPS = 6, 12, 2
FRAMES = 16


def picture(step: int) -> np.ndarray:
    """What a camera sees that has slid ``step`` steps to the right: boards at 2 m before a wall at 4 m."""
    rng = np.random.default_rng(0)
    layers = []
    for _ in range(2):
        noise = cv2.GaussianBlur(rng.integers(0, 256, (HEIGHT, 900)).astype(np.float32), (0, 0), 2)
        layers.append(np.clip((noise - noise.mean()) * 6 + 128, 0, 255).astype(np.uint8))
    boards = np.zeros((HEIGHT, 900), dtype=bool)
    for left in range(40, 860, 110):
        boards[50:190, left : left + 45] = True
    far, near, board = (layers[0], layers[1], boards)
    from_far, from_near = FAR_PX * step, NEAR_PX * step
    board = board[:, from_near : from_near + WIDTH]
    return np.where(board, near[:, from_near : from_near + WIDTH], far[:, from_far : from_far + WIDTH])


def write_kitti(folder: Path, steps: range) -> Path:
    """A rectified pair in KITTI's layout that takes a picture at each of ``steps``."""
    for name in ("image_0", "image_1"):
        (folder / name).mkdir(parents=True)
    for k, step in enumerate(steps):
        cv2.imwrite(str(folder / f"image_0/{k:06d}.png"), picture(step))
        cv2.imwrite(str(folder / f"image_1/{k:06d}.png"), picture(step + BASELINE_STEPS))
    intrinsics = f"{FOCAL} 0 {(WIDTH - 1) / 2} {{}} 0 {FOCAL} {(HEIGHT - 1) / 2} 0 0 0 1 0"
    rows = [f"P0: {intrinsics.format(0)}", f"P1: {intrinsics.format(-FOCAL * BASELINE_STEPS * STEP)}"]
    (folder / "calib.txt").write_text("\n".join(rows) + "\n")
    (folder / "times.txt").write_text("".join(f"{0.1 * k:.6f}\n" for k in range(len(steps))))
    (folder / "poses.txt").write_text("".join(f"1 0 0 {STEP * step:.6f} 0 1 0 0 0 0 1 0\n" for step in steps))
    return folder


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kitti(tmp_path_factory.mktemp("slide") / "07", range(FRAMES))


def run(sequence: FrameSequence, sensor: Sensor, **options: Any) -> SlamResult:
    return run_slam(sequence, OrbExtractor(max_keypoints=600), CONFIG, sensor=sensor, **options)


def error(result: SlamResult) -> float:
    truth = result.ground_truth_trajectory()
    return absolute_trajectory_error(result.trajectory(), truth, alignment=result.alignment).statistics.rmse


def command(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code if isinstance(stopped.value.code, int) else 0


@pytest.mark.parametrize("sensor", SENSORS)
def test_a_map_comes_back_as_it_was(slide: Path, tmp_path: Path, sensor: Sensor) -> None:
    result = run(open_sequence(slide), sensor)
    assert result.sensor == sensor
    assert result.tracked == FRAMES
    assert error(result) < 0.02
    assert result.slam_map is not None
    # A map of a single camera whose scale was corrected somewhere.
    newest = result.slam_map.tree.newest
    result.slam_map.set_poses({newest.id: newest.T_world_cam}, {newest.id: 1.25 if sensor == "mono" else 1.0})
    save_session(tmp_path / "x.semkey", Session(result=result))
    loaded = load_session(tmp_path / "x.semkey")
    one, other = session_content(Session(result=result)), session_content(loaded)
    assert one.header == other.header
    for name, array in one.arrays.items():
        np.testing.assert_array_equal(array, other.arrays[name], err_msg=name)
    assert loaded.result.alignment == result.alignment
    np.testing.assert_array_equal(loaded.result.trajectory().poses, result.trajectory().poses)


@pytest.mark.parametrize("sensor", SENSORS)
@pytest.mark.parametrize("stop", [6, 11])
def test_a_resumed_run_ends_like_one_in_a_piece(slide: Path, tmp_path: Path, sensor: Sensor, stop: int) -> None:
    sequence = open_sequence(slide)
    whole = run(sequence, sensor)
    path = tmp_path / "autosave.semkey"
    with pytest.raises(SlamInterrupted):
        run(sequence, sensor, listeners=[StopAt(stop), Autosave(path)])
    session = load_session(path)
    part = session.result
    assert part.sensor == sensor
    assert [record.index for record in part.frames] == list(range(stop + 1))
    check_resumable(session, path, sequence, CONFIG, every=1, sensor=sensor)
    result = run(sequence, sensor, resume=part)
    assert result.tracked == whole.tracked == FRAMES
    # The unit of length of a single camera is that of the first part.
    np.testing.assert_allclose(result.trajectory().positions, whole.trajectory().positions, atol=0.02)


@pytest.mark.parametrize("sensor", SENSORS)
def test_another_run_continues_a_map(slide: Path, tmp_path: Path, sensor: Sensor) -> None:
    first = run(open_sequence(slide), sensor)
    save_session(tmp_path / "x.semkey", Session(result=first))
    session = load_session(tmp_path / "x.semkey")
    unit = STEP * (FRAMES - 1) / float(np.linalg.norm(np.ptp(first.trajectory().positions, axis=0)))
    keyframes = max(session.slam_map.keyframes)
    later = open_sequence(write_kitti(tmp_path / "later", range(FRAMES - 6, FRAMES + 8)))
    result = run(later, sensor, slam_map=session.slam_map)
    assert result.frames[0].method == "relocalised"
    assert result.tracked == len(later)
    assert {record.submap for record in result.frames} == {0}
    assert max(session.slam_map.keyframes) > keyframes
    # Where the first run has been, and beyond it, in the world of the first run.
    expected = STEP * np.arange(FRAMES - 6, FRAMES + 8)
    np.testing.assert_allclose(unit * result.trajectory().positions[:, 0], expected, atol=0.04)


def test_depth_cannot_be_added_to_a_map_without_a_unit_of_length(slide: Path) -> None:
    sequence = open_sequence(slide)
    mono = Session(result=run(sequence, "mono"))
    check_continuable(mono, "x.semkey", sequence, sensor="mono")
    with pytest.raises(ConfigError, match=r"x\.semkey.*--sensor mono.*not stereo"):
        check_continuable(mono, "x.semkey", sequence, sensor="stereo")
    with pytest.raises(ConfigError, match="sensor mono, not stereo"):
        check_resumable(mono, "x.semkey", sequence, CONFIG, every=1, sensor="stereo")
    # A single camera can be tracked in a map that has one.
    stereo = Session(result=run(sequence, "stereo"))
    check_continuable(stereo, "x.semkey", sequence, sensor="mono")


@pytest.mark.parametrize("sensor", SENSORS)
def test_on_the_command_line(slide: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], sensor: Sensor) -> None:
    options = ("--features", "orb", "--sensor", sensor)
    room = tmp_path / "room.semkey"
    assert command("slam", slide, "--out", tmp_path / "a", *options, "--save-map", room) == 0
    first = read_tum_trajectory(tmp_path / "a/trajectory.txt")
    assert load_session(room).result.sensor == sensor

    images = [slide / f"image_0/{k:06d}.png" for k in (5, 10)]
    assert command("localize", room, *images, "--out", tmp_path / "found") == 0
    found = json.loads((tmp_path / "found/poses.json").read_text())["images"]
    # The camera slides at one speed; single frames of the first run are less certain than its ends.
    step = (first.positions[-1] - first.positions[0]) / (FRAMES - 1)
    unit = float(np.linalg.norm(step))
    for entry, k in zip(found, (5, 10), strict=True):
        assert entry["found"]
        position = np.array(entry["T_world_cam"])[:3, 3]
        assert np.linalg.norm(position - (first.positions[0] + k * step)) < 0.25 * unit

    later = write_kitti(tmp_path / "later", range(FRAMES - 6, FRAMES + 4))
    assert command("slam", later, "--out", tmp_path / "b", *options, "--load-map", room) == 0
    second = read_tum_trajectory(tmp_path / "b/trajectory.txt")
    assert len(second) == 10
    np.testing.assert_allclose(second.positions[0], first.positions[FRAMES - 6], atol=float(0.5 * unit))
    capsys.readouterr()
    if sensor == "mono":
        wrong = ("--features", "orb", "--sensor", "stereo", "--load-map", room)
        assert command("slam", later, "--out", tmp_path / "c", *wrong) == 2
        assert "error: " in capsys.readouterr().err
