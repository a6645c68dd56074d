"""The picture of a mapped room: surfaces that face the viewer, and the path in front of them."""

from __future__ import annotations

import numpy as np
import pytest

from semkey.errors import InputError
from semkey.geometry.camera import PinholeCamera
from semkey.visualization.palette import ESTIMATE, rgb
from semkey.visualization.scene import DepthShot, draw_overview, draw_scene

CAMERA = PinholeCamera(fx=80.0, fy=80.0, cx=39.5, cy=29.5, width=80, height=60)
GREEN, RED = (30, 200, 60), (220, 30, 40)


def pose(x: float = 0.0, z: float = 0.0) -> np.ndarray:
    T_world_cam = np.eye(4)
    T_world_cam[[0, 2], 3] = x, z
    return T_world_cam


def wall(color: tuple[int, int, int], distance: float, T_world_cam: np.ndarray) -> DepthShot:
    return np.full((60, 80, 3), color, np.uint8), np.full((60, 80), distance), T_world_cam


def share(picture: np.ndarray, color: tuple[int, int, int], tolerance: int = 30) -> float:
    return float((np.abs(picture.astype(int) - color).max(axis=2) <= tolerance).mean())


def test_a_wall_is_seen_from_where_it_was_seen_and_the_path_before_it() -> None:
    path = [pose(x) for x in np.linspace(-0.5, 0.5, 9)]
    picture = draw_scene([wall(GREEN, 2.0, path[4])], CAMERA, path, (200, 150))
    assert picture.shape == (150, 200, 3)
    assert share(picture, GREEN) > 0.1
    assert share(picture, rgb(ESTIMATE), 60) > 0.003
    blue = np.argwhere(np.abs(picture.astype(int) - rgb(ESTIMATE)).max(axis=2) < 60)
    assert blue.min() >= 0
    assert np.ptp(blue[:, 1]) > 20, "the path goes from left to right"


def test_surfaces_that_show_their_back_are_left_out() -> None:
    """A camera that looks back saw the red wall; it would hide the green one from behind the path."""
    back = pose(z=0.1)
    back[:3, :3] = np.diag([-1.0, 1.0, -1.0])
    path = [pose(x) for x in np.linspace(-0.3, 0.3, 5)]
    both = [wall(GREEN, 2.0, pose()), wall(RED, 0.4, back)]
    picture = draw_scene(both, CAMERA, path, (200, 150))
    assert share(picture, GREEN) > 0.05
    assert share(picture, RED) < 0.002


def test_nothing_to_draw_is_an_error() -> None:
    unknown = (np.zeros((60, 80, 3), np.uint8), np.zeros((60, 80)), pose())
    for shots, path in (([], [pose()]), ([unknown], [pose()]), ([wall(GREEN, 1.0, pose())], [])):
        with pytest.raises(InputError, match="nothing to draw"):
            draw_scene(shots, CAMERA, path, (40, 30))


def test_an_overview_has_both_pictures_at_one_height() -> None:
    picture = draw_overview(np.full((50, 100, 3), GREEN, np.uint8), np.full((30, 30, 3), RED, np.uint8), 60)
    assert picture.shape == (60, 120 + 8 + 60, 3)
    assert picture[30, 10].tolist() == list(GREEN)
    assert picture[30, -10].tolist() == list(RED)
