"""``--mask``: nothing from masked pixels in detect, match and slam, and one line for masks that do not fit."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from command_line import Run
from semkey.slam.output.session import load_session
from tum_folder import CAMERA, HEIGHT, WIDTH, write_tum

ORB = ("--features", "orb")


@pytest.fixture(scope="module")
def wall(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recording ``wall``, ``mask.png`` that leaves out its left 100 columns, and ``masks`` with that for each."""
    folder = tmp_path_factory.mktemp("masked")
    wall = write_tum(folder / "wall", frames=8)
    mask = np.full((HEIGHT, WIDTH), 255, np.uint8)
    mask[:, :100] = 0
    cv2.imwrite(str(folder / "mask.png"), mask)
    (folder / "masks").mkdir()
    for image in (wall / "rgb").iterdir():
        cv2.imwrite(str(folder / "masks" / image.name), mask)
    return folder


def images(wall: Path) -> list[Path]:
    return sorted((wall / "wall/rgb").iterdir())


@pytest.mark.parametrize("masks", ["mask.png", "masks"])
def test_detect(wall: Path, tmp_path: Path, run: Run, masks: str) -> None:
    result = run("detect", *images(wall)[:2], *ORB, "--json", tmp_path / "k.json", "--mask", wall / masks)
    assert result.code == 0
    for image in json.loads((tmp_path / "k.json").read_text())["images"]:
        assert len(image["keypoints"]) > 200
        assert min(x for x, _ in image["keypoints"]) > 99


def test_match(wall: Path, tmp_path: Path, run: Run) -> None:
    arguments = ("match", *images(wall)[:2], *ORB, "--json", tmp_path / "m.json")
    assert run(*arguments, "--mask", wall / "masks").code == 0
    matches = json.loads((tmp_path / "m.json").read_text())["matches"]
    assert len(matches) > 100
    assert min(min(match["point0"][0], match["point1"][0]) for match in matches) > 99


@pytest.mark.parametrize("masks", ["mask.png", "masks"])
def test_slam_with_lines(wall: Path, tmp_path: Path, run: Run, masks: str) -> None:
    files = ("--out", tmp_path / "out", "--save-map", tmp_path / "room.semkey")
    assert run("slam", wall / "wall", *ORB, *CAMERA, "--lines", *files, "--mask", wall / masks).code == 0
    session = load_session(tmp_path / "room.semkey")
    assert session.result.tracked == 8
    for keyframe in session.slam_map.keyframes.values():
        assert len(keyframe.frame) > 100
        assert keyframe.frame.keypoints[:, 0].min() > 99


def test_all_black_masks_give_nothing(wall: Path, tmp_path: Path, run: Run) -> None:
    black = tmp_path / "black.png"
    cv2.imwrite(str(black), np.zeros((HEIGHT, WIDTH), np.uint8))
    assert run("detect", images(wall)[0], *ORB, "--json", tmp_path / "k.json", "--mask", black).code == 0
    assert json.loads((tmp_path / "k.json").read_text())["images"][0]["keypoints"] == []


@pytest.mark.parametrize("command", ["detect", "match", "slam"])
@pytest.mark.parametrize(
    ("kind", "words"), [("none", "no such mask"), ("small", "has 30x20 pixels"), ("empty", "holds no masks")]
)
def test_masks_that_do_not_fit_are_one_line(
    wall: Path, tmp_path: Path, run: Run, command: str, kind: str, words: str
) -> None:
    masks = tmp_path / kind
    if kind == "small":
        masks = tmp_path / "small.png"
        cv2.imwrite(str(masks), np.zeros((20, 30), np.uint8))
    elif kind == "empty":
        masks.mkdir()
    out = tmp_path / "out"
    given = [wall / "wall", *CAMERA, "--out", out] if command == "slam" else images(wall)[: 1 + (command == "match")]
    result = run(command, *given, *ORB, "--mask", masks)
    assert result.code == 2
    assert words in result.err
    assert all(line.startswith(("error", "semkey")) for line in result.err.strip().splitlines())
    assert not out.exists()
