"""A turn is told from a step, whether what is seen is deep or flat."""

from __future__ import annotations

import numpy as np
import pytest

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import make_transform, so3_exp, transform_points
from semkey.slam.solvers.turning import only_turned

CAMERA = PinholeCamera(fx=500.0, fy=500.0, cx=319.5, cy=239.5, width=640, height=480)


def told(points: np.ndarray, motion: np.ndarray, noise: float = 0.5, wrong: int = 0) -> bool:
    """What is said of points (N, 3) seen before and after a motion, by a camera with noisy pixels."""
    rng = np.random.default_rng(0)
    views = [CAMERA.project(points), CAMERA.project(transform_points(motion, points))]
    views = [view + rng.normal(0, noise, view.shape) for view in views]
    inliers = np.ones(len(points), dtype=bool)
    inliers[:wrong] = False
    views[1][:wrong] += 200
    return only_turned(views[0], views[1], inliers, CAMERA, noise)


def scene(depths: tuple[float, float]) -> np.ndarray:
    rng = np.random.default_rng(1)
    pixels = rng.uniform([0, 0], [639, 479], (300, 2))
    return CAMERA.backproject(pixels, rng.uniform(*depths, 300))


TURN = make_transform(so3_exp([0.02, 0.06, -0.03]), np.zeros(3))


@pytest.mark.parametrize("depths", [(1.0, 8.0), (2.0, 2.0)])
def test_a_turn_is_one_whatever_is_seen(depths: tuple[float, float]) -> None:
    assert told(scene(depths), TURN)
    assert told(scene(depths), TURN, wrong=60), "matches that are no inliers are not asked"


def test_a_step_is_none() -> None:
    step = make_transform(so3_exp([0.0, 0.02, 0.0]), np.array([0.2, 0.0, 0.05]))
    assert not told(scene((1.0, 8.0)), step)
    assert not told(scene((2.0, 2.0)), step), "nor along a wall"


def test_too_few_matches_say_nothing() -> None:
    assert not told(scene((1.0, 2.0))[:2], TURN)
