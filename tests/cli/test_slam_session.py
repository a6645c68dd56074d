"""Maps on the command line: saved, continued, resumed after a crash, and images found in them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from exif_files import write_turned
from semkey.cli.main import main
from semkey.extractors import OrbExtractor
from semkey.geometry.trajectories import read_tum_trajectory
from semkey.slam.output.session import load_session, save_session
from tum_folder import CAMERA, DISTANCE, FOCAL, HEIGHT, WIDTH, write_tum

ORB = ("--features", "orb", *CAMERA)
STEP = 9 * DISTANCE / FOCAL


def run(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code if isinstance(stopped.value.code, int) else 0


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the sequence ``wall``, and the map ``room.semkey`` and cloud ``room.ply`` made of it."""
    folder = tmp_path_factory.mktemp("saved")
    write_tum(folder / "wall", frames=8)
    files = ("--save-map", folder / "room.semkey", "--ply", folder / "room.ply")
    assert run("slam", folder / "wall", "--out", folder / "out", *ORB, *files) == 0
    return folder


def test_places_in_the_map_of_a_single_camera_are_in_units(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = next((saved / "wall" / "rgb").glob("*.png"))
    session = load_session(saved / "room.semkey")
    save_session(tmp_path / "mono.semkey", replace(session, result=replace(session.result, sensor="mono")))
    for room_map, unit in ((saved / "room.semkey", "x, m\t"), (tmp_path / "mono.semkey", "x, units\t")):
        run("localize", room_map, photo, "--out", tmp_path / room_map.stem)
        assert unit in capsys.readouterr().out


def test_a_map_and_its_points_are_written(saved: Path) -> None:
    session = load_session(saved / "room.semkey")
    assert session.result.features == "orb"
    assert session.result.sequence_name == "wall"
    assert len(session.result.frames) == 8
    assert session.colors is not None
    ids = session.slam_map.landmarks.ids
    assert np.ptp(session.colors[ids], axis=0).min() > 30, "colours of the wall, not grey"

    data = (saved / "room.ply").read_bytes()
    header, body = data.split(b"end_header\n", 1)
    assert f"element vertex {len(ids)}".encode() in header
    vertices = np.frombuffer(body, dtype=[("xyz", "<f4", 3), ("rgb", "u1", 3)])
    np.testing.assert_allclose(vertices["xyz"], session.slam_map.landmarks.positions[ids], atol=1e-5)
    np.testing.assert_array_equal(vertices["rgb"], session.colors[ids])
    assert not (saved / "out/autosave.semkey").exists()


def test_images_are_found_in_the_map(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    queries = tmp_path / "queries"
    queries.mkdir()
    frame = cv2.imread(str(sorted((saved / "wall/rgb").iterdir())[3]))
    assert frame is not None
    cv2.imwrite(str(queries / "a.png"), frame)
    cv2.imwrite(str(queries / "b.png"), cv2.resize(frame, (WIDTH * 2, HEIGHT * 2), interpolation=cv2.INTER_CUBIC))
    noise = np.random.default_rng(9).integers(0, 256, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    cv2.imwrite(str(queries / "c.png"), cv2.GaussianBlur(noise, (0, 0), 2) * 2)
    out = tmp_path / "found"
    assert run("localize", saved / "room.semkey", queries, "--out", out) == 0

    found = json.loads((out / "poses.json").read_text())["images"]
    assert [entry["found"] for entry in found] == [True, True, False]
    assert found[1]["camera"]["fx"] == 2 * FOCAL
    assert found[2]["T_world_cam"] is None
    poses = read_tum_trajectory(out / "poses.txt")
    np.testing.assert_array_equal(poses.timestamps, [0, 1])
    # The world is the camera of the first frame, which the wall passes by.
    np.testing.assert_allclose(poses.positions, [[3 * STEP, 0, 0]] * 2, atol=0.02)
    assert sorted(file.name for file in out.iterdir()) == [
        "0000_a.png",
        "0001_b.png",
        "map.png",
        "poses.json",
        "poses.txt",
    ]
    for name in ("0000_a.png", "map.png"):
        assert cv2.imread(str(out / name)) is not None
    assert "2 of 3 found" in capsys.readouterr().out


def test_images_of_another_shape_need_a_camera(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = cv2.imread(str(sorted((saved / "wall/rgb").iterdir())[3]))
    assert frame is not None
    cv2.imwrite(str(tmp_path / "cut.png"), frame[:, 40:])
    arguments = ("localize", saved / "room.semkey", tmp_path / "cut.png", "--out", tmp_path / "out")
    assert run(*arguments) == 2
    assert "cut.png: the image is 280x240" in (error := capsys.readouterr().err)
    assert "--camera" in error
    # Cutting off columns moves the principal point.
    assert run(*arguments, "--camera", f"{FOCAL},{FOCAL},{(WIDTH - 1) / 2 - 40},{(HEIGHT - 1) / 2}") == 0
    poses = read_tum_trajectory(tmp_path / "out/poses.txt")
    np.testing.assert_allclose(poses.positions, [[3 * STEP, 0, 0]], atol=0.02)


def test_a_map_is_continued_and_saved_again(tmp_path: Path) -> None:
    wall = write_tum(tmp_path / "wall", frames=16)
    first, second = tmp_path / "first.semkey", tmp_path / "second.semkey"
    assert run("slam", wall, "--out", tmp_path / "a", *ORB, "--max-frames", "9", "--save-map", first) == 0
    assert run("slam", wall, "--out", tmp_path / "b", *ORB, "--load-map", first, "--save-map", second) == 0
    figures = json.loads((tmp_path / "b/report.json").read_text())
    assert figures["tracked"] == 16
    before, after = load_session(first), load_session(second)
    assert after.slam_map.counters["next_keyframe"] > before.slam_map.counters["next_keyframe"]
    assert after.result.frames[0].method == "relocalised"
    np.testing.assert_allclose(after.result.trajectory().positions[-1], [15 * STEP, 0, 0], atol=0.02)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--load-map", "nowhere.semkey"], "nowhere.semkey: no such file"),
        (["--load-map", "room.semkey", "--features", "sift"], "made with --features orb, not sift"),
        (["--load-map", "room.semkey", "--camera", "310,310,160,120"], "continued with the camera"),
        (["--load-map", "wall/rgb.txt"], "not a semkey map"),
        (["--resume"], "no automatic save to resume from"),
        (["--resume", "--load-map", "room.semkey"], "exclude each other"),
        (["--save-map", "wall"], "it is a folder"),
        (["--record", "wall/rgb.txt/run.rrd"], "cannot write"),
    ],
)
def test_what_cannot_be_done_is_one_line_before_the_run(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    places = [str(saved / word) if (saved / word.split("/")[0]).exists() else word for word in arguments]
    assert run("slam", saved / "wall", "--out", tmp_path / "out", *ORB, *places) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list((tmp_path / "out").glob("*"))


@pytest.mark.parametrize("point", ["hostile:create", "hostile_package"])
def test_a_strangers_map_runs_no_code(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], point: str
) -> None:
    """The module that the map names lies beside it, and an installed package has the name: neither is imported."""
    session = load_session(saved / "room.semkey")
    result = replace(session.result, features=point)
    save_session(tmp_path / "room.semkey", replace(session, result=result))
    (tmp_path / "hostile.py").write_text("open('ran', 'w').close()\ndef create(**options): ...\n")
    package = tmp_path / "hostile-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: hostile\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[semkey.extractors]\nhostile_package = hostile:create\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    image = next((saved / "wall/rgb").iterdir())
    assert run("localize", "room.semkey", image, "--out", "found") == 2
    error = capsys.readouterr().err
    assert "give your own extractor with --features" in error
    assert error.count("\n") == 1
    assert run("slam", saved / "wall", "--out", "out", *ORB, "--load-map", "room.semkey") == 2
    assert f"made with --features {point}, not orb" in capsys.readouterr().err
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "found").exists()


def test_ones_own_features_are_given_for_a_map(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    session = load_session(saved / "room.semkey")
    result = replace(session.result, features="own_orb:create")
    save_session(tmp_path / "room.semkey", replace(session, result=result))
    (tmp_path / "own_orb.py").write_text(
        "from semkey.extractors import OrbExtractor\n"
        "def create(max_keypoints, device):\n"
        "    return OrbExtractor(max_keypoints=max_keypoints)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    image = sorted((saved / "wall/rgb").iterdir())[3]
    out = ("--out", tmp_path / "found")
    assert run("localize", tmp_path / "room.semkey", image, *out, "--features", "own_orb:create") == 0
    assert "1 of 1 found" in capsys.readouterr().out
    assert run("localize", tmp_path / "room.semkey", image, *out, "--features", "sift") == 2
    assert "made with --features own_orb:create, not sift" in capsys.readouterr().err


def test_ctrl_c_then_resume_covers_all_frames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_tum(tmp_path / "wall", frames=10)
    extract, calls = OrbExtractor.extract, []

    def interrupted(self: OrbExtractor, image: np.ndarray):
        calls.append(image)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return extract(self, image)

    monkeypatch.setattr(OrbExtractor, "extract", interrupted)
    out = tmp_path / "out"
    assert run("slam", folder, "--out", out, *ORB) == 130
    assert "go on with --resume" in capsys.readouterr().err
    assert len(read_tum_trajectory(out / "trajectory.txt")) == 5
    assert run("slam", folder, "--out", out, *ORB, "--every", "2", "--resume") == 2
    assert "--every 1, not 2" in capsys.readouterr().err
    assert run("slam", folder, "--out", out, *ORB, "--resume") == 0
    figures = json.loads((out / "report.json").read_text())
    assert (figures["frames"], figures["tracked"], figures["submaps"][0]["tracked"]) == (10, 10, 10)
    assert figures["ate_rmse_m"] < 0.005
    assert not (out / "autosave.semkey").exists()


@pytest.mark.slow
def test_resume_after_kill_9(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_tum(tmp_path / "wall", frames=40, shift_px=4)
    (tmp_path / "slow_orb.py").write_text(
        "import time\n"
        "from semkey.extractors import OrbExtractor\n"
        "class SlowOrb(OrbExtractor):\n"
        "    name = 'slow_orb:create'\n"
        "    def extract(self, image):\n"
        "        time.sleep(0.1)\n"
        "        return super().extract(image)\n"
        "def create(max_keypoints, device):\n"
        "    return SlowOrb(max_keypoints=max_keypoints)\n"
    )
    out = tmp_path / "out"
    arguments = ["slam", str(folder), "--out", str(out), "--features", "slow_orb:create", *CAMERA, "--autosave", "0.01"]
    program = f"from semkey.cli.main import main; main({arguments!r})"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment, stdout=subprocess.DEVNULL)
    saved = out / "autosave.semkey"
    deadline = time.monotonic() + 90
    while not saved.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait(timeout=10) == -signal.SIGKILL, "it was done before it could be killed"

    done = len(load_session(saved).result.frames)
    assert 0 < done < 40
    assert not (out / "trajectory.txt").exists()
    monkeypatch.syspath_prepend(tmp_path)
    assert run(*arguments, "--resume") == 0
    figures = json.loads((out / "report.json").read_text())
    assert (figures["frames"], figures["tracked"]) == (40, 40)
    assert figures["ate_rmse_m"] < 0.005
    assert not saved.exists()


def test_a_disk_that_is_full_keeps_the_old_map_and_the_trajectory(tmp_path: Path) -> None:
    folder = write_tum(tmp_path / "wall", frames=4)
    room = tmp_path / "room.semkey"
    room.write_bytes(b"the map of before")
    arguments = ["slam", str(folder), "--out", str(tmp_path / "out"), *ORB, "--save-map", str(room)]
    # The limit on the size of a file stands for a disk without room: report and trajectory fit, the map does not.
    program = (
        "import resource; from semkey.cli.main import main\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (600000, 600000)); main({arguments!r})"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    error = done.stderr.strip().splitlines()[-1]
    assert error.startswith(f"error: cannot write {room}: File too large; the map needs")
    assert room.read_bytes() == b"the map of before"
    assert len(read_tum_trajectory(tmp_path / "out/trajectory.txt")) == 4
    assert not list(tmp_path.glob(".room*"))


def test_places_of_a_backbone_go_into_the_map_and_are_asked_for_again(saved: Path, tmp_path: Path, capsys) -> None:
    pytest.importorskip("transformers", reason="transformers comes with the extra 'backbones'")
    from backbone_fakes import write_folder

    net, other = (write_folder(tmp_path / name, seed=seed) for seed, name in enumerate(("net", "other")))
    room = tmp_path / "room.semkey"
    places = ("--places", f"{net}:gem")
    assert run("slam", saved / "wall", "--out", tmp_path / "a", *ORB, *places, "--save-map", room) == 0
    session = load_session(room)
    assert session.result.features == f"orb@{net}:gem"
    assert session.result.config.loops.retrieval == "joined"
    assert all(len(one.frame.features.global_descriptor) == 32 for one in session.slam_map.keyframes.values())
    image = next((saved / "wall" / "rgb").iterdir())
    assert run("localize", room, image, "--out", tmp_path / "b") == 0
    assert json.loads((tmp_path / "b" / "poses.json").read_text())["images"][0]["found"]
    capsys.readouterr()
    for wrong in (("--places", f"{other}:gem"), ("--places", f"{net}:cls"), ()):
        assert run("slam", saved / "wall", "--out", tmp_path / "c", *ORB, *wrong, "--load-map", room) == 2
        assert "the map was made with" in capsys.readouterr().err
    assert run("slam", saved / "wall", "--out", tmp_path / "d", *ORB, "--places", "vit-tiny") == 2
    assert "places 'vit-tiny' are not" in capsys.readouterr().err


def test_one_photo_of_another_shape_does_not_stop_the_others(
    saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A broken file, a crop that notes nothing, a crop that notes its focal length, and photos stored turned."""
    queries = tmp_path / "queries"
    queries.mkdir()
    frame = cv2.imread(str(sorted((saved / "wall/rgb").iterdir())[3]))
    assert frame is not None
    rgb = np.ascontiguousarray(frame[..., ::-1])
    cv2.imwrite(str(queries / "a_crop.png"), frame[20:-20])
    write_turned(
        queries / "b_noted.jpg", rgb[20:-20], 1, {0xA405: round(FOCAL / np.hypot(320, 200) * np.hypot(36, 24))}
    )
    (queries / "c_broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    write_turned(queries / "d_turned.jpg", rgb, 6)
    write_turned(queries / "e_sideways.jpg", np.ascontiguousarray(np.rot90(rgb)), 8)
    out = tmp_path / "found"
    assert run("localize", saved / "room.semkey", queries, "--out", out) == 2
    error = capsys.readouterr().err
    assert "a_crop.png: the image is 320x200" in error
    assert "notes no focal length" in error
    assert "c_broken.jpg" in error
    assert "b_noted.jpg: its camera is taken from its EXIF focal length" in error
    entries = json.loads((out / "poses.json").read_text())["images"]
    assert [entry.get("found") for entry in entries] == [None, True, None, True, True]
    poses = read_tum_trajectory(out / "poses.txt")
    np.testing.assert_array_equal(poses.timestamps, [1, 3, 4])
    np.testing.assert_allclose(poses.positions, [[3 * STEP, 0, 0]] * 3, atol=0.03)
    # The camera that took the last one was held sideways: it is turned about its axis, and looks at the same wall.
    turn = np.degrees(np.arctan2(poses.poses[:, 1, 0], poses.poses[:, 0, 0]))
    np.testing.assert_allclose(np.abs(turn), [0, 0, 90], atol=0.5)


def test_nothing_is_made_where_no_photo_can_be_used(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    assert run("localize", saved / "room.semkey", tmp_path / "broken.jpg", "--out", tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()
