"""Runs that tracked nothing say why in one sentence and end with 3: no script goes on as if there were a path."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from command_line import Run
from semkey.geometry.transforms import so3_exp
from semkey.images import read_image
from semkey.rendering import RoomConfig, write_room
from tum_folder import CAMERA, FOCAL, HEIGHT, WIDTH, write_tum

ORB = ("--features", "orb", *CAMERA)


def images(folder: Path) -> list[Path]:
    return sorted((folder / "rgb").iterdir())


def assert_told(run: Run, folder: Path, out: Path, sentence: str, *options: str) -> None:
    outcome = run("slam", folder, "--out", out, *ORB, *options)
    assert outcome.code == 3
    told = [line for line in outcome.err.splitlines() if line.startswith("lost: ")]
    assert len(told) == 1
    assert sentence in told[0]
    assert "Traceback" not in outcome.err
    report = json.loads((out / "report.json").read_text())
    assert report["tracked"] == 0
    assert report["frames"] == 12
    assert "of 12 frames were tracked" in told[0]


def test_a_single_camera_that_stands_still(run: Run, tmp_path: Path) -> None:
    folder = write_tum(tmp_path / "still", frames=12, shift_px=0)
    assert_told(run, folder, tmp_path / "out", "motion seen from the side was missing", "--sensor", "mono")


def test_a_single_camera_that_only_turns(run: Run, tmp_path: Path) -> None:
    """Every frame is the first one as a camera sees it that turned: no depth can be told from these."""
    write_room(tmp_path / "room", RoomConfig(frames=1, width=2 * WIDTH, height=2 * HEIGHT, noise=False))
    wide = cv2.GaussianBlur(read_image(images(tmp_path / "room")[0])[..., ::-1], (0, 0), 0.9)  # it is shown smaller
    folder = write_tum(tmp_path / "turning", frames=12)
    K = np.array([[FOCAL, 0, (WIDTH - 1) / 2], [0, FOCAL, (HEIGHT - 1) / 2], [0, 0, 1]])
    K_wide = np.array([[525.0, 0, WIDTH - 0.5], [0, 525.0, HEIGHT - 0.5], [0, 0, 1]])
    for k, file in enumerate(images(folder)):
        H = K @ so3_exp([0.0, 0.02 * k - 0.11, 0.0]) @ np.linalg.inv(K_wide)
        cv2.imwrite(str(file), cv2.warpPerspective(wide, H, (WIDTH, HEIGHT), flags=cv2.INTER_AREA))
    assert_told(run, folder, tmp_path / "out", "motion seen from the side was missing", "--sensor", "mono")


def test_depth_that_cannot_be_read(run: Run, tmp_path: Path) -> None:
    folder = write_tum(tmp_path / "broken", frames=12)
    for file in (folder / "depth").iterdir():
        file.write_bytes(b"not a picture")
    assert_told(run, folder, tmp_path / "out", "12 could not be read")


def test_pictures_with_nothing_in_them(run: Run, tmp_path: Path) -> None:
    folder = write_tum(tmp_path / "dark", frames=12)
    for file in images(folder):
        cv2.imwrite(str(file), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert_told(run, folder, tmp_path / "out", "12 show too little")


def test_depth_that_says_nothing(run: Run, tmp_path: Path) -> None:
    folder = write_tum(tmp_path / "holes", frames=12)
    for file in (folder / "depth").iterdir():
        cv2.imwrite(str(file), np.zeros((HEIGHT, WIDTH), np.uint16))
    assert_told(run, folder, tmp_path / "out", "keypoints with depth were missing")


def test_a_path_that_was_tracked_ends_with_nothing_of_that(run: Run, tmp_path: Path) -> None:
    outcome = run("slam", write_tum(tmp_path / "wall", frames=12), "--out", tmp_path / "out", *ORB)
    assert outcome.code == 0
    assert "lost: " not in outcome.err
