"""Calibration from rendered boards: the camera that rendered them comes out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from boards import SIZE, photos
from command_line import Run
from semkey.datasets import Lens, read_calibration
from semkey.datasets.cameras.boards import BoardConfig
from semkey.images import read_image, write_image

LENSES = {
    "radial-tangential": Lens(
        model="radial-tangential", intrinsics=(520.0, 525.0, 315.0, 244.0), distortion=(-0.15, 0.05, 0.001, -0.001),
        size=SIZE,
    ),
    "fisheye": Lens(
        model="fisheye", intrinsics=(380.0, 381.0, 322.0, 238.0), distortion=(-0.03, 0.01, 0.0, 0.0), size=SIZE
    ),
}  # fmt: skip


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
