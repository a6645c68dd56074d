"""Calibration from rendered boards: the camera that rendered them comes out."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from command_line import Run
from semkey.datasets import Lens, read_calibration
from semkey.datasets.cameras.boards import BoardConfig, charuco_board
from semkey.geometry.transforms import so3_exp
from semkey.images import read_image, write_image

SIZE = (640, 480)
LENSES = {
    "radial-tangential": Lens(
        model="radial-tangential", intrinsics=(520.0, 525.0, 315.0, 244.0), distortion=(-0.15, 0.05, 0.001, -0.001),
        size=SIZE,
    ),
    "fisheye": Lens(
        model="fisheye", intrinsics=(380.0, 381.0, 322.0, 238.0), distortion=(-0.03, 0.01, 0.0, 0.0), size=SIZE
    ),
}  # fmt: skip
PX_PER_M = 3000.0


def board_image(config: BoardConfig) -> np.ndarray:
    """The board, printed with a white margin."""
    side = round(config.square * PX_PER_M)
    if config.board == "charuco":
        drawn = charuco_board(config).generateImage((config.columns * side, config.rows * side))
    else:
        x, y = np.meshgrid(np.arange((config.columns + 1) * side), np.arange((config.rows + 1) * side))
        drawn = np.where((x // side + y // side) % 2, 255, 0).astype(np.uint8)
    return np.pad(drawn, side, constant_values=255)


FINE = 2


def fine_rays(lens: Lens) -> np.ndarray:
    """Rays (2 H, 2 W, 3), four to a pixel."""
    x, y = ((np.arange(FINE * side) + 0.5) / FINE - 0.5 for side in SIZE)
    return lens.unproject(np.stack(np.meshgrid(x, y), axis=2)).reshape(len(y), len(x), 3)


def photograph(rays: np.ndarray, drawn: np.ndarray, rotation: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """What a camera sees of the board whose middle is at ``shift``: each ray meets the board's plane."""
    normal = rotation[:, 2]
    points = (rays * ((shift @ normal) / (rays @ normal))[..., None] - shift) @ rotation  # on the board, metres
    middle = (np.array(drawn.shape[::-1]) - 1) / 2
    x, y = (np.ascontiguousarray(points[..., k] * PX_PER_M + middle[k], dtype=np.float32) for k in (0, 1))
    seen = cv2.remap(drawn, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=(190,))
    return cv2.resize(seen, SIZE, interpolation=cv2.INTER_AREA)


def photos(folder: Path, lens: Lens, config: BoardConfig, count: int = 14) -> Path:
    rng = np.random.default_rng(3)
    nearness = 0.5 if lens.model == "fisheye" else 1.0  # the board must reach the image's corners
    rays, drawn = fine_rays(lens), board_image(config)
    for k in range(count):
        rotation = so3_exp([*rng.uniform(-0.5, 0.5, 2), rng.uniform(-0.2, 0.2)])
        shift = np.array([*(rng.uniform(-0.06, 0.06, 2)), rng.uniform(0.32, 0.5) * nearness])
        image = photograph(rays, drawn, rotation, shift)
        write_image(folder / f"{k}.png", np.repeat(image[:, :, None], 3, axis=2))
    return folder


@pytest.mark.parametrize(("board", "lens"), [("charuco", "radial-tangential"), ("chessboard", "radial-tangential"),
                                             ("charuco", "fisheye")])  # fmt: skip
def test_the_rendering_camera_comes_out(run: Run, tmp_path: Path, board: str, lens: str) -> None:
    config = BoardConfig(board=board, columns=9 if board == "charuco" else 8, rows=6 if board == "charuco" else 5)  # ty: ignore[invalid-argument-type]
    truth = LENSES[lens]
    folder, out = photos(tmp_path / "photos", truth, config), tmp_path / "camera.yaml"
    size = f"{config.columns}x{config.rows}"
    outcome = run("calibrate", folder, "--board", board, "--size", size, "--lens", lens, "--out", out)
    assert outcome.code == 0, outcome.err
    found = read_calibration(out).left
    assert (found.model, found.size) == (lens, SIZE)
    assert found.intrinsics[:2] == pytest.approx(truth.intrinsics[:2], rel=0.005)
    assert found.intrinsics[2:] == pytest.approx(truth.intrinsics[2:], abs=2.0)
    # Rays of the image's middle part agree to a fraction of a pixel.
    x, y = np.meshgrid(np.linspace(60, 580, 12), np.linspace(60, 420, 9))
    pixels = np.stack([x.ravel(), y.ravel()], axis=1)
    np.testing.assert_allclose(found.project(truth.unproject(pixels)), pixels, atol=2.5)
    assert "rms 0." in outcome.out
    picture = read_image(out.with_suffix(".png"))
    assert picture.shape == (SIZE[1], SIZE[0], 3)
    assert (picture < 250).any(axis=2).sum() > 500  # corners are drawn


def test_what_cannot_be_calibrated_is_one_line(run: Run, tmp_path: Path) -> None:
    for k in range(6):
        write_image(tmp_path / f"photos/{k}.png", np.full((48, 64, 3), 90, np.uint8))
    out = tmp_path / "camera.yaml"
    outcome = run("calibrate", tmp_path / "photos", "--out", out)
    assert (outcome.code, "the board was found in 0 pictures; at least 5" in outcome.err) == (2, True)
    for options, message in ((["--size", "9"], "expected COLUMNSxROWS"), (["--dictionary", "DICT_X"], "is unknown")):
        outcome = run("calibrate", tmp_path / "photos", "--out", out, *options)
        assert (outcome.code, message in outcome.err) == (2, True)
    assert not out.exists()
