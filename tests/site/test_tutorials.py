"""Tutorials and the quick start run as they are written, block by block."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from boards import photos
from command_line import Run
from semkey.cli.main import main
from semkey.datasets import Lens, open_sequence
from semkey.datasets.cameras.boards import BoardConfig
from semkey.images import read_image
from semkey.rendering import RoomConfig, write_room

DOCS = Path(__file__).resolve().parents[2] / "docs"
FRAMES = 36
# Tutorials give these commands as they are; here they do less of the same.
SHORTER = {
    "semkey slam": ["--features", "nano", "-n", "512", "--device", "cpu"],
    "semkey render-room": ["--width", "320", "--height", "240"],
    "semkey data show": ["--set", "data.width=96", "--set", "data.height=96", "--pairs", "1"],
    "semkey train": [
        *("--set", "data.width=96", "--set", "data.height=96", "--set", "data.points=32", "--set", "run.device=cpu"),
        *("--set", "run.workers=0", "--set", "data.val_share=0.4", "--set", "validation.keypoints=32"),
        *("--set", "stages.detector.epochs=1", "--set", "objectives.max_keypoints=32", "--set", "data.cache=cache"),
    ],
}


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the tutorials take for granted: photos, a recorded room, its video, and one of a board."""
    folder = tmp_path_factory.mktemp("material")
    write_room(folder / "room", RoomConfig(frames=FRAMES, fps=8.0, blur=False))
    sequence = open_sequence(folder / "room")
    write_video(folder / "recording.mp4", [frame.image for frame in sequence])
    for name, index in (("a", 8), ("b", 14)):
        cv2.imwrite(str(folder / f"{name}.jpg"), sequence[index].image[..., ::-1])
    (folder / "photos").mkdir()
    for index in range(6, FRAMES, 6):
        cv2.imwrite(str(folder / f"photos/{index}.jpg"), sequence[index].image[..., ::-1])
    return folder


@pytest.fixture
def place(material: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the material to run in."""
    shutil.copytree(material, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


@pytest.fixture(scope="module")
def room_map(material: Path) -> Path:
    """The map of the recorded room, as another tutorial makes it."""
    file = material / "room.semkey"
    arguments = ["slam", material / "room", "--out", material / "run", "--save-map", file, "-f", "nano", "-n", "512"]
    with pytest.raises(SystemExit) as stopped:
        main([*map(str, arguments), "--device", "cpu"])
    assert stopped.value.code in (0, None)
    return file


def write_video(path: Path, images: list[np.ndarray]) -> None:
    size = (images[0].shape[1], images[0].shape[0])
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), 8.0, size)
    for image in images:
        writer.write(np.ascontiguousarray(image[..., ::-1]))
    writer.release()


def follow(run: Run, page: str) -> tuple[str, dict[str, Any]]:
    """Do what a page says: what its commands printed, and the names of its Python."""
    text = (DOCS / page).read_text(encoding="utf-8")
    printed, names = "", {}
    for language, block in re.findall(r"^```(\w+)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if language == "python":
            exec(compile(block, page, "exec"), names)
        elif language == "sh":
            for line in filter(None, (line.partition("#")[0].strip() for line in block.splitlines())):
                assert line.startswith("semkey "), line
                shorter = next((more for start, more in SHORTER.items() if line.startswith(start)), [])
                outcome = run(*shlex.split(line)[1:], *shorter)
                assert outcome.code == 0, f"{line}\n{outcome.err}"
                printed += outcome.out
    return printed, names


def test_match(run: Run, place: Path) -> None:
    printed, names = follow(run, "tutorials/match.md")
    assert {file.name for file in (place / "drawn").iterdir()} == {"a_keypoints.png", "b_keypoints.png"}
    assert (place / "matches.png").is_file()
    assert (place / "checked.png").is_file()
    assert len(names["matches"]) > 100
    assert names["estimate"].inlier_count > 0.6 * len(names["matches"])
    assert "inliers (fundamental)" in printed


def test_slam(run: Run, place: Path) -> None:
    """With a video of a board and one of the room, both by the camera that rendered the room."""
    camera = open_sequence(place / "room").camera
    assert camera is not None
    lens = Lens(
        model="radial-tangential", intrinsics=(*camera.matrix[[0, 1, 0, 1], [0, 1, 2, 2]],), distortion=(0, 0, 0, 0),
        size=(640, 480),
    )  # fmt: skip
    photos(place / "board", lens, BoardConfig(board="chessboard", columns=9, rows=6), 10)
    write_video(place / "board.mp4", [read_image(file) for file in sorted((place / "board").iterdir())])
    printed, names = follow(run, "tutorials/slam.md")
    assert "found in" not in printed
    assert names["report"]["tracked_percent"] == 100
    assert len(names["path"]) == FRAMES
    assert "no absolute scale" in printed


def test_localize(run: Run, place: Path, room_map: Path) -> None:
    shutil.copy(room_map, place)
    (place / "room").rename(place / "another")
    follow(run, "tutorials/localize.md")
    images = json.loads((place / "found" / "poses.json").read_text())["images"]
    assert [photo["found"] for photo in images] == [True] * len(images)
    assert (place / "tracked" / "trajectory.txt").is_file()


def test_train(run: Run, place: Path) -> None:
    pytest.importorskip("lightning_fabric", reason="semkey[train]")
    _, names = follow(run, "tutorials/train.md")
    assert (place / "pairs.html").is_file()
    assert (place / "first" / "report.html").is_file()
    assert names["detector"].name.endswith("compact-small.safetensors")


def test_export(run: Run, place: Path, room_map: Path) -> None:
    for package in ("onnx", "onnxscript", "onnxruntime", "h5py"):
        pytest.importorskip(package)
    shutil.copy(room_map, place)
    _, names = follow(run, "tutorials/export.md")
    for name in ("room.ply", "path.txt", "nano.onnx", "features.h5"):
        assert (place / name).stat().st_size > 1000
    assert (place / "room_nerf" / "transforms.json").is_file()
    assert any((place / "room_colmap").rglob("points3D*"))
    assert names["valid"].sum() > 100


def test_quick_start(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for its first command, which has tests of its own."""
    monkeypatch.chdir(tmp_path)
    text = (DOCS / "quick-start.md").read_text(encoding="utf-8")
    assert "```sh\nsemkey demo\n```" in text
    monkeypatch.setattr("semkey.cli.main.demo.demo", lambda: None)
    commands = re.findall(r"^semkey (.*)$", text, re.MULTILINE)
    assert commands[0] == "demo"
    for command in commands[1:]:
        kind = "semkey " + command.split(maxsplit=1)[0]
        assert run(*shlex.split(command), *(SHORTER[kind] if kind != "semkey slam" else [])).code == 0
    (block,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    assert names["result"].tracked == 40
    assert (tmp_path / "room.semkey").is_file()
