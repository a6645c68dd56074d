"""Pictures of matches and trajectories: what is sampled, how images are laid out, angles, and the map to turn."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from semkey.errors import InputError
from semkey.geometry.trajectories import Trajectory
from semkey.geometry.transforms import make_transform, so3_exp
from semkey.matching.mutual import Matches
from semkey.model.features import Features
from semkey.visualization import draw_keypoints, draw_matches
from semkey.visualization.draw import COVARIANCE_SIGMAS
from semkey.visualization.poses_over_time import euler_angles_deg
from semkey.visualization.trajectory import trajectory_figure
from semkey.visualization.turntable import MOST_POINTS, turntable_html


def features(points: np.ndarray, size: tuple[int, int], covariances: np.ndarray | None = None) -> Features:
    count = len(points)
    return Features(
        keypoints=torch.tensor(points, dtype=torch.float32).reshape(-1, 2),
        scores=torch.linspace(1, 0.1, count),
        reliability=torch.linspace(0, 1, count),
        descriptors=torch.ones(count, 4) / 2,
        global_descriptor=torch.zeros(0),
        image_size=size,
        covariances=None if covariances is None else torch.tensor(covariances, dtype=torch.float32),
    )


def matched(count: int) -> Matches:
    return Matches(indices=torch.arange(count)[:, None].repeat(1, 2), scores=torch.ones(count))


def test_of_many_matches_a_sample_is_drawn_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(5, 95, (600, 2))
    image = np.zeros((100, 100, 3), np.uint8)
    said: list[str] = []
    from semkey.visualization import draw

    whole = draw.with_caption
    monkeypatch.setattr(draw, "with_caption", lambda canvas, text: said.append(text) or whole(canvas, text))
    inliers = np.arange(600) < 450
    drawn = np.zeros(0, dtype=bool)
    sample = draw._sample

    def kept(good: np.ndarray) -> np.ndarray:
        nonlocal drawn
        drawn = sample(good)
        return drawn

    monkeypatch.setattr(draw, "_sample", kept)
    draw_matches(image, image, features(points, (100, 100)), features(points, (100, 100)), matched(600), inliers)
    assert said == ["600 and 600 keypoints, 600 matches, 450 inliers (75%); 150 drawn"]
    assert (drawn.sum(), (drawn & inliers).sum()) == (150, 112)
    draw_matches(image, image, features(points, (100, 100)), features(points, (100, 100)), matched(150))
    assert said[1] == "600 and 600 keypoints, 150 matches"


@pytest.mark.parametrize(
    ("size", "layout", "shape"),
    [
        ((300, 400), "auto", (400, 606)),
        ((640, 480), "auto", (480, 1286)),
        ((1200, 300), "auto", (606, 1200)),
        ((300, 400), "vertical", (806, 300)),
    ],
)
def test_images_are_laid_out_to_fit_a_screen(size: tuple[int, int], layout: str, shape: tuple[int, int]) -> None:
    image = np.full((size[1], size[0], 3), 200, np.uint8)
    one = features(np.array([[size[0] - 20, size[1] - 20]]), size)
    drawn = draw_matches(image, image, one, one, matched(1), layout=layout).pixels  # ty: ignore[invalid-argument-type]
    assert drawn.shape[1] == max(shape[1], 480)
    assert 0 < drawn.shape[0] - shape[0] < 60  # the caption
    second = (drawn.shape[0] - (drawn.shape[0] - shape[0]) - 20, shape[1] - 20)
    near = drawn[second[0] - 5 : second[0] + 6, second[1] - 5 : second[1] + 6].astype(int)
    assert (near[..., 1] - near[..., 0]).max() > 60, "the end of the line is where the second image has the keypoint"
    with pytest.raises(InputError, match="layout 'diagonal'"):
        draw_matches(image, image, one, one, matched(1), layout="diagonal")  # ty: ignore[invalid-argument-type]


def test_inliers_are_coloured_by_their_error() -> None:
    image = np.zeros((100, 200, 3), np.uint8)
    one = features(np.array([[20, 30], [20, 70]]), (200, 100))
    drawn = draw_matches(image, image, one, one, matched(2), errors=[0.0, 2.0], layout="horizontal")
    drawn = drawn.pixels.astype(np.int64)
    at = drawn.shape[1] // 3
    exact, bad = drawn[28:33, at].max(axis=0), drawn[68:73, at].max(axis=0)
    assert exact[2] > exact[0] + 50
    assert bad[0] > bad[2] + 50
    with pytest.raises(InputError, match=r"errors have shape \(1,\)"):
        draw_matches(image, image, one, one, matched(2), errors=[0.0])


def test_a_keypoint_with_a_covariance_is_its_ellipse() -> None:
    """Two pixels along x, half of one along y, eight standard deviations each."""
    image = np.full((100, 140, 3), 255, np.uint8)
    covariances = np.array([[[4.0, 0.0], [0.0, 0.25]]])
    drawn = draw_keypoints(image, features(np.array([[70, 50]]), (140, 100), covariances)).pixels
    rows, columns = np.nonzero((drawn != 255).any(axis=2))
    width, height = np.ptp(columns) + 1, np.ptp(rows) + 1
    assert width == pytest.approx(2 * COVARIANCE_SIGMAS * 2 + 5, abs=3)
    assert height == pytest.approx(2 * COVARIANCE_SIGMAS * 0.5 + 5, abs=3)


def test_euler_angles() -> None:
    angles = np.radians([10.0, -20.0, 170.0])
    turn = so3_exp([0, 0, angles[2]]) @ so3_exp([0, angles[1], 0]) @ so3_exp([angles[0], 0, 0])
    further = so3_exp([0, 0, np.radians(20.0)]) @ turn
    poses = np.stack([make_transform(one, [0, 0, 0]) for one in (turn, further)])
    np.testing.assert_allclose(euler_angles_deg(poses), [[10, -20, 170], [10, -20, 190]], atol=1e-9)


def test_a_single_camera_without_truth_has_no_metres(monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib.axes import Axes

    labels: list[str] = []
    whole = Axes.set_ylabel
    monkeypatch.setattr(Axes, "set_ylabel", lambda self, text, **more: labels.append(text) or whole(self, text, **more))
    path = Trajectory(np.arange(5.0), np.stack([make_transform(np.eye(3), [k, 0.1 * k * k, 0]) for k in range(5)]))
    assert cv2.imdecode(np.frombuffer(trajectory_figure(path, alignment="sim3"), np.uint8), 1) is not None
    assert "x (units)" in labels
    assert not [label for label in labels if "(m)" in label]
    labels.clear()
    trajectory_figure(path, path, alignment="sim3")
    assert "x (m)" in labels


def test_the_map_to_turn_holds_what_it_was_given(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-2, 2, (60_000, 3))
    colors = rng.integers(0, 256, (60_000, 3)).astype(np.uint8)
    path = np.stack([np.linspace(-1, 1, 50), np.zeros(50), np.zeros(50)], axis=1)
    path[20] = np.nan
    page = turntable_html(
        points, colors, [("estimate", "#2563eb", path)], up=np.array([0.0, -1.0, 0.0]), caption="<map>"
    )
    assert len(page) < 5_000_000 / 4
    assert "http" not in page
    assert "&lt;map&gt;" in page
    stored = {name: base64.b64decode(text) for name, text in re.findall(r'data-name="(\w+)">([^<\[]+)<', page)}
    steps = np.frombuffer(stored["points"], "<i2").reshape(-1, 3)
    assert 0.9 * MOST_POINTS < len(steps) <= MOST_POINTS
    assert len(stored["colours"]) == 3 * len(steps)
    assert page.count("null") >= 1
    # Up is -y: what was highest there is highest in z now, and nothing is stretched.
    ratio = np.ptp(steps, axis=0) / np.ptp(steps)
    np.testing.assert_allclose(ratio, 1.0, atol=0.05)
