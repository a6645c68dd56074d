"""What the terminal says: progress, -q, -v, --log, doctor, folders and descriptors of detect."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from command_line import Run
from exif_files import set_rotation, write_turned, write_video
from pictures import blocks
from semkey.cli.terminal.messages import Verbosity, messages, take_verbosity
from semkey.cli.terminal.progress import show_progress
from semkey.errors import ConfigError


def ticking(step: float) -> Callable[[], float]:
    """A clock that goes on by ``step`` seconds whenever somebody looks at it."""
    now = [0.0]

    def clock() -> float:
        now[0] += step
        return now[0]

    return clock


def test_piped_progress_is_a_line_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("Tracking", clock=ticking(0.5)) as show:
        for done in range(20):
            show(done, 20, detail=f"{done} inliers")
    lines = capsys.readouterr().err.splitlines()
    # From 0.5 s on, in steps of half a second: the first line two seconds later, then every five.
    assert lines == [
        "Tracking: 3 of 20 (15 %), 0:11 left, 3 inliers",
        "Tracking: 13 of 20 (65 %), 0:04 left, 13 inliers",
    ]


def test_short_work_and_quiet_work_say_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress("Tracking", clock=ticking(0.01)) as show:
        for done in range(20):
            show(done, 20)
    with messages(Verbosity(quiet=True), []), show_progress("Tracking", clock=ticking(1.0)) as show:
        logging.getLogger("semkey.x").warning("careful")
        for done in range(20):
            show(done, 20)
    assert capsys.readouterr().err == ""


def test_a_new_step_estimates_anew(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress(clock=ticking(1.0)) as show:
        for what in ("reading", "adjusting"):
            for done in range(5):
                show(done, None if what == "adjusting" else 5, what)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["reading", "adjusting"]
    assert "so far" in lines[1]


def test_verbosity_may_stand_anywhere() -> None:
    taken, rest = take_verbosity(["slam", "in", "-v", "--out", "o", "--log", "l.txt", "--", "-q"])
    assert taken == Verbosity(verbose=True, log="l.txt")
    assert rest == ["slam", "in", "--out", "o", "--", "-q"]
    assert take_verbosity(["--log=x"])[0].log == "x"
    for wrong in (["slam", "--log"], ["-q", "-v"]):
        with pytest.raises(ConfigError):
            take_verbosity(wrong)


def test_notes_are_shown_and_logged(run: Run, tmp_path: Path) -> None:
    """A video that is to be turned: said once, with -q not at all; the log has it in any case."""
    video = write_video(tmp_path / "v.mp4", [blocks(48, 64, size=16)] * 3)
    set_rotation(video, 90)
    outcome = run("info", video, "--log", tmp_path / "log.txt")
    assert outcome.err.count("note: ") == 1
    assert "turned by 90 degrees clockwise" in outcome.err
    quiet = run("info", video, "-q", "--log", tmp_path / "log.txt")
    assert (quiet.code, quiet.err) == (0, "")
    assert quiet.out == outcome.out
    log = (tmp_path / "log.txt").read_text()
    assert log.count("turned by 90 degrees clockwise") == 2
    assert f"info {video}" in log
    assert run("info", video, "--log", tmp_path).code == 2


def test_detect_takes_folders_and_writes_descriptors(run: Run, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for k in range(2):
        write_turned(photos / f"{k}.jpg", blocks(240, 160, seed=k, size=12), 6)
    (photos / "notes.txt").write_text("no image")
    archive = tmp_path / "f.npz"
    outcome = run("detect", photos, "-f", "orb", "--descriptors", archive, "--json", tmp_path / "k.json")
    assert outcome.code == 0
    assert "160x240" in outcome.out
    images = json.loads((tmp_path / "k.json").read_text())["images"]
    with np.load(archive) as arrays:
        for k, image in enumerate(images):
            np.testing.assert_allclose(arrays[f"{k}.jpg/keypoints"], image["keypoints"], atol=1e-3)
            assert len(arrays[f"{k}.jpg/descriptors"]) == len(image["keypoints"]) > 20
            assert arrays[f"{k}.jpg/image_size"].tolist() == [160, 240]
    assert run("detect", photos, "-f", "orb", "--descriptors", tmp_path / "f.h5").code == 0
    h5py = pytest.importorskip("h5py", reason="h5py is an extra")
    with h5py.File(tmp_path / "f.h5") as file:
        assert sorted(file) == ["0.jpg", "1.jpg"]
    wrong = run("detect", photos, "-f", "orb", "--descriptors", tmp_path / "f.txt")
    assert (wrong.code, "ends in .h5 or .npz" in wrong.err) == (2, True)
    (photos / "3.heic").write_bytes(b"photo")
    assert "1 .heic left out" in run("detect", photos, "-f", "orb").err
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no images in this folder" in run("detect", empty, "-f", "orb").err


def test_keypoints_are_where_the_photo_shows_them(run: Run, tmp_path: Path) -> None:
    """The same picture stored upright and turned: the same keypoints, in pixels of what is shown."""
    shown = np.kron(blocks(20, 15, seed=3, size=1), np.ones((16, 16, 1), np.uint8))
    found = {}
    for code in (1, 6, 3, 8):
        write_turned(tmp_path / f"{code}.jpg", shown, code)
        assert run("detect", tmp_path / f"{code}.jpg", "-f", "sift", "--json", tmp_path / "k.json").code == 0
        image = json.loads((tmp_path / "k.json").read_text())["images"][0]
        assert (image["width"], image["height"]) == (240, 320)
        found[code] = np.array(image["keypoints"])
    for code in (6, 3, 8):
        distances = np.linalg.norm(found[code][:, None] - found[1][None], axis=2).min(axis=1)
        assert np.mean(distances < 1.0) > 0.8


def test_doctor_reports_and_exits_by_what_it_finds(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from semkey.cli import doctor

    monkeypatch.setattr(doctor, "_load_value", lambda: 0.1)
    outcome = run("doctor", "--json", tmp_path / "d.json")
    written = json.loads((tmp_path / "d.json").read_text())
    assert (outcome.code, written["troubles"]) == (0, [])
    for name in ("semkey", "torch", "bfloat16", "threads", "weights of nano", "downloaded weights"):
        assert name in written["facts"]
        assert name in outcome.out
    assert "as shipped" in written["facts"]["weights of nano"]
    monkeypatch.setattr(doctor, "_load_value", lambda: 1000.0)
    busy = run("doctor")
    assert busy.code == 3
    assert "keep the cores busy (load 1000.0" in busy.err


def test_doctor_sees_damaged_weights(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from semkey.cli import doctor
    from semkey.model.presets import Preset

    broken = tmp_path / "nano.safetensors"
    broken.write_bytes(b"x")
    whole = Preset.path.fget
    assert whole is not None
    monkeypatch.setattr(Preset, "path", property(lambda self: broken if self.name == "nano" else whole(self)))
    monkeypatch.setattr(doctor, "_load_value", lambda: 0.1)
    outcome = run("doctor")
    assert outcome.code == 3
    assert "weights of nano: 0.0 MB" in outcome.err
    assert "install semkey again" in outcome.err
