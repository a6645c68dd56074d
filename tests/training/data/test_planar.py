"""Training pairs of pictures through homographies: exact truth, photometric change that moves nothing, targets."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semkey.errors import ConfigError
from semkey.geometry.homography import warp_points
from semkey.model.preprocess import prepare
from semkey.training.data import DataConfig, LightConfig
from semkey.training.data.augment import motion_kernel, relight
from semkey.training.data.pair import MARGIN, MAX_TARGETS, NMS_PX, Pair, inside, normalize, pad_targets, suppress
from semkey.training.data.planar import Picture, planar_pair, random_views, warp_image
from semkey.training.data.shapes import (
    LEAST_CONTRAST,
    Canvas,
    ShapePairs,
    add_checkerboard,
    add_dots,
    add_junction,
    draw_shapes,
)

SMALL = DataConfig.from_mapping({"width": 128, "height": 96, "points": 48})
PLAIN = replace(SMALL, light=LightConfig.off())


def waves(width: int = 240, height: int = 200) -> np.ndarray:
    """A smooth picture whose grey value changes by several levels per pixel, differently everywhere."""
    y, x = np.mgrid[:height, :width].astype(float)
    values = np.sin(x / 7.0 + y / 19.0) + np.sin(y / 8.0 - x / 23.0) + np.sin((x + y) / 11.0)
    return np.clip(np.rint(127.5 + 42.0 * values), 0, 255).astype(np.uint8)


def picture(rng: np.random.Generator, count: int = 300) -> Picture:
    keypoints = rng.uniform([0, 0], [239, 199], (count, 2))
    return Picture(
        image=waves(), keypoints=keypoints, strengths=rng.uniform(0.1, 1.0, count).astype(np.float32), is_scene=True
    )


def make(seed: int, config: DataConfig = PLAIN, count: int = 300) -> Pair:
    rng = np.random.default_rng(seed)
    shown = picture(rng, count)
    for _ in range(100):
        pair = planar_pair(rng, shown, config)
        if pair is not None:
            return pair
    raise AssertionError("no pair in 100 draws")


def sample(image: torch.Tensor, points: np.ndarray) -> np.ndarray:
    """Bilinear values of a view (1, H, W) at points (N, 2)."""
    x, y = points.astype(np.float32).T
    return cv2.remap(image[0].numpy(), x[:, None], y[:, None], cv2.INTER_LINEAR)[:, 0]


def mismatch(pair: Pair, shift: float) -> float:
    """How far values at corresponding points are from one linear function of each other, in grey levels.

    ``shift`` moves the points of view 1, for showing that the test would notice.
    """
    first = sample(pair["image0"], pair["points0"].numpy())
    second = sample(pair["image1"], pair["points1"].numpy() + shift)
    line = np.polyfit(first, second, 1)
    return float(np.abs(np.polyval(line, first) - second).mean() / abs(line[0]) * 73.0)  # 73: the picture's deviation


# -- geometry ------------------------------------------------------------------------------------------------------


def test_views_show_the_same_at_corresponding_points() -> None:
    config = replace(PLAIN, views=replace(PLAIN.views, scale=1.3, mirrored_border=1.0))
    errors = [mismatch(make(seed, config), 0.0) for seed in range(10)]
    moved = [mismatch(make(seed, config), 0.4) for seed in range(10)]
    assert np.median(errors) < 0.6
    assert np.median(moved) > 2.5 * np.median(errors)


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.0, 1.0]), st.sampled_from([0.0, 1.0]))
def test_points_correspond_and_lie_in_what_both_views_show(seed: int, flips: float, quarter_turns: float) -> None:
    views = replace(PLAIN.views, flips=flips, quarter_turns=quarter_turns)
    pair = make(seed, replace(PLAIN, views=views))
    points0, points1 = pair["points0"].numpy(), pair["points1"].numpy()
    assert len(points0) == PLAIN.points
    np.testing.assert_allclose(warp_points(pair["H10"].numpy(), points0), points1, atol=2e-3)
    for points, valid in ((points0, pair["valid0"]), (points1, pair["valid1"])):
        assert inside(points, PLAIN.size, MARGIN - 1e-3).all()
        x, y = np.rint(points).astype(int).T
        assert valid.numpy()[y, x].all()


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 10_000))
def test_targets_of_both_views_are_the_same_keypoints(seed: int) -> None:
    pair = make(seed)
    H10 = pair["H10"].numpy()
    first, second = (rows[rows[:, 2] > 0] for rows in (pair["targets0"].numpy(), pair["targets1"].numpy()))
    mapped = warp_points(H10, first[:, :2])
    # Hardly two keypoints of the picture are equally strong: the strength says which is which.
    same = first[:, 2][:, None] == second[:, 2][None]
    own, other = np.nonzero(same & (same.sum(axis=1, keepdims=True) == 1) & (same.sum(axis=0, keepdims=True) == 1))
    assert len(own) >= 8
    stretch = np.linalg.norm(warp_points(H10, first[own, :2] + 1e-3) - mapped[own], axis=1) / 1e-3
    assert (np.linalg.norm(mapped[own] - second[other, :2], axis=1) < 1e-3 * (1 + stretch)).all()
    # Each of view 0 is a target of view 1 as well, or lies outside, or a stronger one is close by.
    gaps = np.linalg.norm(mapped[:, None] - second[None, :, :2], axis=-1)
    for row in np.flatnonzero(inside(mapped, PLAIN.size, MARGIN + 0.1) & ~same.any(axis=1)):
        assert (second[gaps[row] < NMS_PX + 0.1, 2] >= first[row, 2]).any()


def test_quarter_turns_and_flips_occur() -> None:
    turned = replace(PLAIN.views, quarter_turns=1.0, rotation_deg=0.0, roll_deg=0.0, perspective=0.0, flips=0.0)
    angles = set()
    for seed in range(30):
        H = random_views(np.random.default_rng(seed), (240, 200), PLAIN.size, turned).H0
        angles.add(round(float(np.degrees(np.arctan2(H[1, 0], H[0, 0])))) % 360)
    assert angles == {90, 180, 270}


def test_scale_and_rotation_stay_in_their_range() -> None:
    config = replace(PLAIN.views, perspective=0.0, quarter_turns=0.0, scale=1.5, rotation_deg=40.0)
    scales, angles = [], []
    for seed in range(200):
        H10 = random_views(np.random.default_rng(seed), (240, 200), PLAIN.size, config).H10
        scales.append(float(np.sqrt(np.linalg.det(H10[:2, :2]))))
        angles.append(float(np.degrees(np.arctan2(H10[1, 0], H10[0, 0]))))
    assert 1 / 1.5 - 1e-6 <= min(scales) < 0.75
    assert 1.3 < max(scales) <= 1.5 + 1e-6
    assert 25 < max(np.abs(angles)) <= 40 + 1e-6


def test_reducing_a_picture_moves_nothing() -> None:
    blob = np.zeros((201, 201), np.float64)
    y, x = np.mgrid[:201, :201]
    blob = 20 + 200 * np.exp(-((x - 90.3) ** 2 + (y - 110.6) ** 2) / (2 * 6.0**2))
    scale = 0.4
    H = np.array([[scale, 0, 3.2], [0, scale, -1.7], [0, 0, 1.0]])
    view = warp_image(np.rint(blob).astype(np.uint8), H, (96, 96), scale, cv2.BORDER_REFLECT_101).astype(float) - 20
    row, column = np.mgrid[:96, :96]
    weights = np.where(view > 4, view, 0)
    centre = np.array([(column * weights).sum(), (row * weights).sum()]) / weights.sum()
    np.testing.assert_allclose(centre, warp_points(H, [[90.3, 110.6]])[0], atol=0.03)


def test_teacher_descriptors_stay_with_their_keypoints() -> None:
    rng = np.random.default_rng(5)
    shown = picture(rng)
    descriptors = np.c_[shown.keypoints, np.ones(len(shown.keypoints))].astype(np.float32)
    shown = replace(shown, descriptors=descriptors)
    config = replace(PLAIN, views=replace(PLAIN.views, flips=0.0, scale=1.2))
    pair = next(p for p in (planar_pair(rng, shown, config) for _ in range(100)) if p is not None)
    teacher = pair["teacher"].numpy()
    known = teacher[:, 2] > 0
    assert 8 <= known.sum() <= 0.75 * PLAIN.points
    assert (teacher[~known] == 0).all()
    # The descriptors say where the keypoints are in the picture: one homography must take them all to the points.
    for points in (pair["points0"].numpy(), pair["points1"].numpy()):
        H, _ = cv2.findHomography(teacher[known, :2].astype(np.float64), points[known].astype(np.float64))
        np.testing.assert_allclose(warp_points(H, teacher[known, :2]), points[known], atol=0.01)


def test_a_pair_has_all_its_points_or_is_none() -> None:
    config = replace(PLAIN, points=3000, views=replace(PLAIN.views, scale=4.0))
    rng = np.random.default_rng(0)
    pairs = [planar_pair(rng, picture(rng), config) for _ in range(30)]
    counts = [len(pair["points0"]) for pair in pairs if pair is not None]
    assert 0 < len(counts) < 30
    assert set(counts) == {3000}


# -- images and targets --------------------------------------------------------------------------------------------


def test_views_are_normalised_as_the_model_does() -> None:
    image = waves(128, 96)
    expected = prepare(torch.from_numpy(image).float() / 255.0, max_side=1600).tensor[0]
    torch.testing.assert_close(normalize(image), expected)
    assert normalize(np.full((32, 32), 7, np.uint8)).abs().max() == 0


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 60), st.floats(0.5, 10.0))
def test_suppression_agrees_with_a_plain_loop(seed: int, count: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    points, strengths = rng.uniform(0, 30, (count, 2)), rng.integers(0, 5, count) / 4.0
    kept: list[int] = []
    for index in sorted(range(count), key=lambda i: -strengths[i]):
        if all(np.linalg.norm(points[index] - points[other]) > radius for other in kept):
            kept.append(index)
    assert suppress(points, strengths, radius).tolist() == kept


def test_targets_are_padded_with_strength_0() -> None:
    targets = pad_targets(np.array([[1.5, 2.0]]), np.array([0.25], np.float32))
    assert targets.shape == (MAX_TARGETS, 3)
    assert targets[0].tolist() == [1.5, 2.0, 0.25]
    assert not targets[1:].any()
    assert not pad_targets(np.zeros((0, 2)), np.zeros(0, np.float32)).any()


# -- photometric change --------------------------------------------------------------------------------------------


def test_light_that_is_off_changes_nothing() -> None:
    image = waves()
    np.testing.assert_array_equal(relight(np.random.default_rng(0), image, LightConfig.off()), image)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.5, 20.0), st.floats(0.0, 7.0))
def test_motion_blur_is_symmetric_about_its_middle(length: float, angle: float) -> None:
    kernel = motion_kernel(length, angle)
    assert kernel.shape[0] % 2 == 1
    assert kernel.sum() == pytest.approx(1.0, abs=1e-5)
    np.testing.assert_allclose(kernel, kernel[::-1, ::-1], atol=1e-6)
    half = kernel.shape[0] // 2
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    along = (kernel * (x * np.cos(angle) + y * np.sin(angle)) ** 2).sum()
    across = (kernel * (y * np.cos(angle) - x * np.sin(angle)) ** 2).sum()
    assert length**2 / 12 - 0.1 < along < length**2 / 12 + length / 2 + 0.6
    assert across < 0.3


@pytest.mark.parametrize("blur", [{"blur": 1.0}, {"motion_blur": 1.0}])
def test_blur_moves_nothing(blur: dict[str, float]) -> None:
    y, x = np.mgrid[:96, :128]
    blob = np.rint(30 + 200 * np.exp(-((x - 60.3) ** 2 + (y - 44.8) ** 2) / 50)).astype(np.uint8)
    config = replace(LightConfig.off(), **blur)
    for seed in range(10):
        view = relight(np.random.default_rng(seed), blob, config).astype(float) - 30
        weights = np.where(view > 3, view, 0)
        centre = np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()
        np.testing.assert_allclose(centre, [60.3, 44.8], atol=0.03)


def test_every_change_changes_the_view_and_keeps_its_type() -> None:
    image = waves()
    changes = (
        {"shadow": 1.0},
        {"gradient": 1.0},
        {"gamma": 0.7},
        {"contrast": (0.5, 0.6)},
        {"level": 0.2},
        {"blur": 1.0},
        {"motion_blur": 1.0},
        {"noise": 1.0, "noise_level": 0.05},
        {"jpeg": 1.0},
    )
    for change in changes:
        view = relight(np.random.default_rng(1), image, replace(LightConfig.off(), **change))
        assert view.dtype == np.uint8
        assert view.shape == image.shape
        assert not np.array_equal(view, image), change
    assert relight(np.random.default_rng(1), image, LightConfig()).dtype == np.uint8


def test_light_differs_between_the_views_of_a_pair() -> None:
    same = mismatch(make(3), 0.0)
    lit = mismatch(make(3, SMALL), 0.0)
    assert lit > 2 * same


def test_geometry_does_not_depend_on_light() -> None:
    plain, lit = make(4), make(4, SMALL)
    for key in ("H10", "points0", "points1", "targets0", "targets1", "valid0", "valid1"):
        assert torch.equal(plain[key], lit[key]), key
    assert not torch.equal(plain["image0"], lit["image0"])


# -- drawn shapes --------------------------------------------------------------------------------------------------


def test_squares_meet_where_they_say() -> None:
    errors = []
    for seed in range(12):
        canvas = Canvas(np.random.default_rng(seed), 480, 400)
        add_checkerboard(canvas)
        image = np.clip(np.rint(canvas.image), 0, 255).astype(np.uint8)
        # Inside the board, away from its outline, where four squares meet.
        hull = cv2.convexHull(canvas.keypoints.astype(np.float32)) if len(canvas.keypoints) else np.zeros((0, 1, 2))
        inner = [p for p in canvas.keypoints if len(hull) > 2 and cv2.pointPolygonTest(hull, p.tolist(), True) > 8]
        if not inner:
            continue
        points = np.array(inner, np.float32)[:, None]
        stop = (cv2.TERM_CRITERIA_MAX_ITER + cv2.TERM_CRITERIA_EPS, 50, 1e-4)
        found = cv2.cornerSubPix(image, points.copy(), (3, 3), (-1, -1), stop)
        errors += (found[:, 0] - points[:, 0]).tolist()
    assert len(errors) > 50
    # Squares of different grey pull OpenCV's corner a little, one way as often as the other.
    assert np.abs(np.mean(errors, axis=0)).max() < 0.02
    assert np.median(np.linalg.norm(errors, axis=1)) < 0.1


def test_spots_lie_where_they_say() -> None:
    canvas = Canvas(np.random.default_rng(3), 480, 400)
    canvas.image[:] = 100.0
    add_dots(canvas)
    assert len(canvas.keypoints) >= 2
    y, x = np.mgrid[:400, :480]
    for point in canvas.keypoints:
        others = np.delete(canvas.keypoints, (canvas.keypoints == point).all(axis=1).argmax(), axis=0)
        if len(others) and np.linalg.norm(others - point, axis=1).min() < 16:
            continue
        weights = np.where(np.hypot(x - point[0], y - point[1]) < 8, np.abs(canvas.image - 100.0), 0.0)
        centre = np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()
        np.testing.assert_allclose(centre, point, atol=0.05)


def test_edges_of_a_junction_meet_where_they_say() -> None:
    """No bias: single fits are a third of a pixel off where sectors are narrow, half a pixel in common would show."""
    errors = []
    for seed in range(250):
        canvas = Canvas(np.random.default_rng(seed), 200, 160)
        canvas.image[:] = 100.0
        add_junction(canvas)
        inside = [p for p in canvas.keypoints if 20 < p[0] < 180 and 20 < p[1] < 140]
        if not inside:
            continue
        point = np.array(inside[0], np.float32)
        # Every gradient near the crossing is across an edge that runs through it (Foerstner's condition).
        view = cv2.GaussianBlur(canvas.image, (0, 0), 0.8)
        dx, dy = (cv2.Sobel(view, cv2.CV_64F, *order, ksize=3) for order in ((1, 0), (0, 1)))
        y, x = np.mgrid[:160, :200]
        near = np.hypot(x - point[0], y - point[1])
        weights = (near < 6.0).astype(float)
        A = np.array([[(weights * a * b).sum() for b in (dx, dy)] for a in (dx, dy)])
        b = np.array([(weights * a * (dx * x + dy * y)).sum() for a in (dx, dy)])
        if np.linalg.cond(A) < 20:
            errors.append(np.linalg.solve(A, b) - point)
    assert len(errors) > 60
    assert np.median(np.linalg.norm(errors, axis=1)) < 0.35
    assert np.abs(np.mean(errors, axis=0)).max() < 0.1


def test_every_keypoint_of_shapes_can_be_seen() -> None:
    image, keypoints = draw_shapes(np.random.default_rng(2))
    for x, y in np.rint(keypoints).astype(int):
        patch = image[max(y - 3, 0) : y + 4, max(x - 3, 0) : x + 4].astype(int)
        assert patch.max() - patch.min() >= LEAST_CONTRAST


def test_pairs_of_shapes_have_targets_and_are_no_scenes() -> None:
    pairs = ShapePairs(SMALL, (0, 0))
    for index in range(4):
        pair = pairs[index]
        assert pair["is_scene"] == 0
        assert set(pair["targets0"][:, 2].unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(pairs[3]["image1"], ShapePairs(SMALL, (0, 0))[3]["image1"])
    assert not torch.equal(pairs[3]["image1"], pairs[2]["image1"])
    assert not torch.equal(pairs[3]["image1"], ShapePairs(SMALL, (1, 0))[3]["image1"])


# -- configuration -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"photo": "x"}, "unknown key 'photo', did you mean 'photos'"),
        ({"views": {"scal": 2}}, "unknown key 'views.scal', did you mean 'scale'"),
        ({"views": {"scale": 0.5}}, r"views: scale is 0.5, must be in \[1, 8\]"),
        ({"views": {"perspective": 0.9}}, "perspective"),
        ({"light": {"blur": 0.7, "motion_blur": 0.5}}, "blur and motion_blur"),
        ({"light": {"contrast": [1.2, 0.4]}}, "contrast"),
        ({"light": {"jpeg_quality": [50, 101]}}, "jpeg_quality"),
        ({"width": 100}, "width must be a multiple of 32"),
        ({"points": 1}, "points"),
        ({"val_share": 0}, "val_share"),
        ({"shares": {"photos": -1}}, "photos"),
        ({"shares": {"photos": 0, "shapes": 0, "rooms": 0}}, "above 0"),
        ({"rooms": {"count": 0}}, "count"),
        ({"rooms": {"texel_size": 1}}, "texel_size"),
        ({"sequences": {"overlap": [0.9, 0.3]}}, "overlap"),
        ({"teacher": {"descriptors": True}}, "descriptors needs the name"),
    ],
)
def test_a_wrong_value_is_named(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        DataConfig.from_mapping(values)


def test_configuration_is_read_back() -> None:
    config = DataConfig.from_mapping({"photos": "p", "teacher": {"name": "sift"}, "light": {"contrast": [0.5, 1]}})
    assert DataConfig.from_mapping(config.to_mapping()) == config
