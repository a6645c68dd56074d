"""Pictures of a calibration board, as a camera with a lens would take them."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from semkey.datasets import Lens
from semkey.datasets.cameras.boards import BoardConfig, charuco_board
from semkey.geometry.transforms import so3_exp
from semkey.images import write_image

SIZE = (640, 480)
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
