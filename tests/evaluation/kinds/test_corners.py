from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from scipy.special import erf

from semkey.errors import ConfigError, InputError
from semkey.evaluation.data.corners import (
    BACKGROUND,
    PATTERNS,
    TILE_PX,
    CornerImage,
    RenderingConfig,
    _render,
    corner_images,
)
from semkey.evaluation.kinds.corners import LocalisationConfig, run_localisation
from semkey.evaluation.running.methods import Method, create_method
from semkey.evaluation.running.results import Evaluation
from semkey.metrics.localisation import (
    LocalisationStatistics,
    detections_near,
    mean_along,
    phase_curve,
    pixel_locking,
    pixel_phase,
)
from semkey.model.features import Features

CLEAN = RenderingConfig(noise=0.0, contrast=(0.5, 0.5))


def features_at(points: np.ndarray, size: tuple[int, int] = (640, 480)) -> Features:
    count = len(points)
    return Features(
        keypoints=torch.from_numpy(np.asarray(points, dtype=np.float32).reshape(-1, 2)),
        scores=torch.linspace(1, 0.5, count),
        reliability=torch.ones(count),
        descriptors=torch.ones(count, 1),
        global_descriptor=torch.zeros(0),
        image_size=size,
    )


class Oracle:
    """Knows the true positions and answers with ``answer(image of corners)``."""

    name = "oracle"

    def __init__(self, config: LocalisationConfig, answer: Any) -> None:
        self.known: dict[bytes, CornerImage] = {}
        for pattern in config.patterns:
            for image in corner_images(pattern, count=config.corners, seed=config.seed, config=config.rendering):
                self.known[image.image.tobytes()] = image
        self.answer = answer

    def extract(self, image: Any) -> Features:
        return features_at(self.answer(self.known[image.tobytes()]), (image.shape[1], image.shape[0]))


def run_oracle(config: LocalisationConfig, answer: Any) -> Evaluation:
    method = Method(name="oracle", extractor=Oracle(config, answer))
    return run_localisation([method], config, environment={})


# Rendering


def test_a_pixel_is_the_mean_over_its_area() -> None:
    # An edge at x = 31.25: pixel 31 spans [30.5, 31.5], a quarter of it is bright; far pixels are of one side.
    tile = _render(lambda x, y: (x > 0) * np.ones_like(y), np.array([31.25, 32.0]), 0.0)
    np.testing.assert_allclose(tile[32, 28:36], [0, 0, 0, 0.25, 1, 1, 1, 1], atol=1e-6)
    corner = _render(lambda x, y: ((x > 0) & (y > 0)).astype(np.float32), np.array([31.25, 30.0]), 0.0)
    np.testing.assert_allclose(
        corner[28:33, 30:33], [[0, 0, 0], [0, 0, 0], [0, 0.125, 0.5], *[[0, 0.25, 1]] * 2], atol=1e-6
    )


@pytest.mark.parametrize(("blur", "sigma"), [(0.0, 1.5), (0.4, 2.0), (1.0, 1.7)])
def test_a_blurred_blob_equals_its_closed_form(blur: float, sigma: float) -> None:
    place = np.array([31.3, 32.4])
    tile = _render(lambda x, y: np.exp(-0.5 * (x * x + y * y) / np.float32(sigma) ** 2), place, blur)
    wide = math.hypot(sigma, blur)
    pixels = np.arange(TILE_PX)

    def mass(centre: float) -> np.ndarray:
        """Of a Gaussian of height 1 and standard deviation sigma after the blur, over each pixel."""
        edges = [erf((pixels + side - centre) / (math.sqrt(2) * wide)) for side in (0.5, -0.5)]
        return (edges[0] - edges[1]) / 2 * math.sqrt(2 * math.pi) * sigma

    np.testing.assert_allclose(tile, np.outer(mass(place[1]), mass(place[0])), atol=5e-4)


def test_blobs_have_their_centroid_at_the_true_position() -> None:
    (image,) = corner_images("blob", count=70, seed=3, config=CLEAN)
    weights = np.abs(image.image[..., 0] / 255.0 - round(BACKGROUND * 255) / 255)
    for x, y in image.positions:
        rows, columns = slice(round(y) - 20, round(y) + 21), slice(round(x) - 20, round(x) + 21)
        patch = weights[rows, columns]
        yy, xx = np.mgrid[rows, columns]
        centroid = np.array([(patch * xx).sum(), (patch * yy).sum()]) / patch.sum()
        np.testing.assert_allclose(centroid, [x, y], atol=0.04)


def edge_angles(image: np.ndarray, position: np.ndarray, radius: float) -> np.ndarray:
    """Directions (degrees, sorted) in which grey changes on a circle, each the centroid of its change."""
    degrees = np.arange(0, 360, 0.5)
    angles = np.radians(degrees)
    circle = position[:, None] + radius * np.stack([np.cos(angles), np.sin(angles)])
    values = map_coordinates(image, circle[::-1], order=3)
    change = np.abs(np.roll(values, -1) - values)
    found = []
    while change.max() > 0.003:
        peak = int(change.argmax())
        window = np.arange(peak - 50, peak + 51)  # 25 degrees on both sides: other edges are 45 away
        weights = change[window % len(change)]
        found.append((weights * (window + 0.5)).sum() / weights.sum() * 0.5 % 360)
        change[window % len(change)] = 0
    return np.sort(found)


@pytest.mark.parametrize(("pattern", "edges"), [("l-corner", 2), ("x-junction", 4), ("y-junction", 3)])
def test_edges_meet_at_the_true_position(pattern: str, edges: int) -> None:
    # Rays from the true position keep their direction along the radius; from half a pixel beside it they would turn by
    # up to 1.4 degrees between these two.
    (image,) = corner_images(
        pattern, count=30, seed=1, config=RenderingConfig(noise=0, contrast=(0.5, 0.5), blur_px=(0.5, 0.5))
    )
    gray = image.image[..., 0] / 255.0
    turns, wrong = [], []
    for position in image.positions:
        near, far = (edge_angles(gray, position, radius) for radius in (7.0, 11.0))
        if len(near) == len(far) == edges:
            turns.append(np.abs((near - far + 180) % 360 - 180).max())
            moved = position + np.array([0.5, 0.0])
            near, far = (edge_angles(gray, moved, radius) for radius in (7.0, 11.0))
            if len(near) == len(far) == edges:
                wrong.append(np.abs((near - far + 180) % 360 - 180).max())
    assert len(turns) >= 25
    assert np.median(turns) < 0.3
    assert np.median(wrong) > 0.8


def test_axes_point_into_the_wedge() -> None:
    (image,) = corner_images("l-corner", count=70, seed=2, config=CLEAN)
    gray = image.image[..., 0] / 255.0
    for position, axis, group in zip(image.positions, image.axes, image.groups, strict=True):
        inside, outside = (
            map_coordinates(gray, (position + side * 8 * axis)[::-1, None], order=1)[0] for side in (1, -1)
        )
        assert (inside > outside) == (group == "bright")
    assert set(image.groups) == {"bright", "dark"}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_images_are_reproducible_and_grow_by_appending(pattern: str) -> None:
    config = RenderingConfig(width=128, height=128, noise=0.0)
    few = corner_images(pattern, count=5, seed=5, config=config)
    many = corner_images(pattern, count=9, seed=5, config=config)
    assert [len(image.positions) for image in many] == [4, 4, 1]
    np.testing.assert_array_equal(few[0].image, many[0].image)
    np.testing.assert_array_equal(few[1].positions, many[1].positions[:1])
    np.testing.assert_array_equal(few[1].image[:64, :64], many[1].image[:64, :64])
    assert not np.array_equal(many[0].image, corner_images(pattern, count=2, seed=6, config=config)[0].image)


def test_the_background_has_no_pattern_of_its_own() -> None:
    for pattern in PATTERNS:
        (image,) = corner_images(pattern, count=20, seed=0, config=CLEAN)
        for x, y in image.decoys:
            assert image.image[round(y), round(x), 0] == round(BACKGROUND * 255)
        distance = np.linalg.norm(image.decoys[:, None] - image.positions[None], axis=2)
        assert distance.min() > 40


# Statistics


def test_statistics_by_hand() -> None:
    statistics = LocalisationStatistics.of([[3.0, 4.0], [0.0, 1.0], [0.0, -2.0]])
    assert statistics.median == 2.0
    assert statistics.mean == pytest.approx(8 / 3)
    assert statistics.rmse == pytest.approx(math.sqrt(10))
    assert (statistics.bias_x, statistics.bias_y) == (1.0, 1.0)
    assert statistics.bias == pytest.approx(math.sqrt(2))
    assert math.isnan(LocalisationStatistics.of(np.zeros((0, 2))).median)


def test_mean_along_by_hand() -> None:
    # The first moved 2 along its axis (+x), the second 1 along its axis (+y) and 3 in x, which lies at its right.
    along, across = mean_along([[2.0, 0.0], [3.0, 1.0]], [[1.0, 0.0], [0.0, 1.0]])
    assert along == pytest.approx(1.5)
    assert across == pytest.approx(-1.5)


def test_pixel_phase_by_hand() -> None:
    np.testing.assert_allclose(pixel_phase([2.0, 2.25, 2.75, 2.5, -0.25]), [0.0, 0.25, -0.25, -0.5, -0.25])


@given(seed=st.integers(0, 1000), share=st.floats(0, 1), offset=st.floats(-2, 2))
def test_locking_is_the_share_of_the_way_to_the_pixel_centre(seed: int, share: float, offset: float) -> None:
    positions = np.random.default_rng(seed).uniform(0, 100, (50, 2))
    differences = -share * pixel_phase(positions) + offset
    assert pixel_locking(positions, differences) == pytest.approx(share, abs=1e-9)
    centres, means = phase_curve(positions, differences, bins=20, min_count=1)
    np.testing.assert_allclose(means, offset - share * centres, atol=0.026 * share + 1e-9)


def test_thin_bins_of_the_phase_curve_are_left_out() -> None:
    positions = np.array([[0.25, 10.25]] * 10 + [[0.45, -0.25]] * 5)
    centres, means = phase_curve(positions, np.full((15, 2), 0.5), bins=10, min_count=20)
    np.testing.assert_allclose(centres, [0.25])
    np.testing.assert_allclose(means, [0.5])
    assert len(phase_curve(positions, np.zeros((15, 2)), min_count=21)[0]) == 0


@settings(max_examples=40)
@given(seed=st.integers(0, 10_000), count=st.integers(0, 40), radius=st.floats(0.5, 6))
def test_detections_equal_a_plain_loop(seed: int, count: int, radius: float) -> None:
    rng = np.random.default_rng(seed)
    keypoints, positions = rng.uniform(0, 20, (count, 2)), rng.uniform(0, 20, (7, 2))
    found = detections_near(keypoints, positions, radius)
    for index, place in enumerate(positions):
        close = [
            (math.dist(point, place), rank) for rank, point in enumerate(keypoints) if math.dist(point, place) < radius
        ]
        assert found.counts[index] == len(close)
        assert found.nearest[index] == (min(close)[1] if close else -1)
        assert found.strongest[index] == (min(rank for _, rank in close) if close else -1)


def test_detections_refuse() -> None:
    with pytest.raises(InputError, match="shapes"):
        detections_near(np.zeros((3, 3)), np.zeros((1, 2)), 1.0)
    with pytest.raises(InputError, match="radius"):
        detections_near(np.zeros((3, 2)), np.zeros((1, 2)), 0.0)


# The whole evaluation

SMALL = LocalisationConfig(corners=40, rendering=RenderingConfig(width=320, height=256))


def test_a_perfect_method() -> None:
    evaluation = run_oracle(SMALL, lambda image: image.positions)
    for result in evaluation.results["oracle"].values():
        assert result.count == 40
        assert result.failures == 0
        assert result.metrics["found"] == result.metrics["within_1px"] == 1.0
        assert result.metrics["rmse_px"] < 1e-4  # keypoints are float32
        assert result.metrics["found_by_chance"] == 0.0
        assert result.curves["recall"].y[1:] == pytest.approx([1.0] * 30)
    assert set(evaluation.results["oracle"]["l-corner"].groups) == {"bright", "dark"}
    assert not evaluation.results["oracle"]["x-junction"].groups


def test_a_constant_offset_is_bias() -> None:
    evaluation = run_oracle(SMALL, lambda image: image.positions + np.array([0.25, -0.5]))
    for result in evaluation.results["oracle"].values():
        assert result.metrics["bias_x_px"] == pytest.approx(0.25, abs=1e-4)
        assert result.metrics["bias_y_px"] == pytest.approx(-0.5, abs=1e-4)
        assert result.metrics["bias_px"] == pytest.approx(result.metrics["median_px"], abs=1e-4)
        assert result.metrics["locking"] == pytest.approx(0, abs=1e-3)
        assert all(row["dx"] == pytest.approx(0.25, abs=2e-4) for row in result.rows)


def test_drift_into_the_wedge_is_no_bias_of_the_image_axes() -> None:
    config = LocalisationConfig(corners=300, patterns=("l-corner",))
    result = run_oracle(config, lambda image: image.positions + 0.8 * image.axes).results["oracle"]["l-corner"]
    assert result.metrics["drift_px"] == pytest.approx(0.8, abs=1e-4)
    assert result.metrics["across_px"] == pytest.approx(0.0, abs=1e-4)
    assert result.metrics["bias_px"] < 0.15
    assert result.metrics["median_px"] == pytest.approx(0.8, abs=1e-4)


def test_whole_pixels_are_seen_as_locking() -> None:
    config = LocalisationConfig(corners=300, patterns=("blob",))
    result = run_oracle(config, lambda image: np.round(image.positions)).results["oracle"]["blob"]
    assert result.metrics["locking"] == pytest.approx(1.0, abs=1e-3)
    curve = result.curves["pixel_phase"]
    np.testing.assert_allclose(curve.y, -np.array(curve.x), atol=0.03)
    # Uniform within a pixel: the RMSE of rounding is sqrt(2 / 12).
    assert result.metrics["rmse_px"] == pytest.approx(math.sqrt(1 / 6), abs=0.03)


def test_nearest_and_strongest_are_told_apart() -> None:
    def answer(image: CornerImage) -> np.ndarray:
        return np.concatenate([image.positions + np.array([2.0, 0.0]), image.positions + np.array([0.0, 0.5])])

    for result in run_oracle(SMALL, answer).results["oracle"].values():
        assert result.metrics["median_px"] == pytest.approx(0.5, abs=1e-4)
        assert result.metrics["strongest_median_px"] == pytest.approx(2.0, abs=1e-4)
        assert result.metrics["keypoints_per_corner"] == 2.0


def test_misses_are_failures_and_can_be_written(tmp_path: Path) -> None:
    evaluation = run_oracle(SMALL, lambda image: np.zeros((0, 2)))
    result = evaluation.results["oracle"]["blob"]
    assert result.failures == result.count == 40
    assert result.metrics["found"] == 0.0
    assert math.isnan(result.metrics["median_px"])
    assert all(row["error"] == math.inf and math.isnan(row["dx"]) for row in result.rows)
    evaluation.write(tmp_path / "results.json")
    read = Evaluation.read(tmp_path / "results.json")
    assert read.results["oracle"]["blob"].failures == 40
    assert read.results["oracle"]["blob"].rows[7] == pytest.approx(result.rows[7], nan_ok=True)


def test_half_the_corners_missed() -> None:
    config = LocalisationConfig(corners=40, patterns=("x-junction",))
    result = run_oracle(config, lambda image: image.positions[::2] + np.array([0.0, 1.5])).results["oracle"][
        "x-junction"
    ]
    assert result.failures == 20
    assert result.metrics["found"] == 0.5
    assert result.metrics["within_1px"] == 0.0
    assert result.metrics["median_px"] == pytest.approx(1.5, abs=1e-4)
    low, high = result.intervals["found"]
    # Binomial of 40 trials with p = 0.5: standard deviation 0.079.
    assert low == pytest.approx(0.5 - 1.96 * 0.079, abs=0.04)
    assert high == pytest.approx(0.5 + 1.96 * 0.079, abs=0.04)


def test_progress_counts_every_image() -> None:
    seen: list[tuple[int, int, str]] = []
    config = LocalisationConfig(corners=7, rendering=RenderingConfig(width=128, height=128))
    method = Method(name="oracle", extractor=Oracle(config, lambda image: image.positions))
    run_localisation(
        [method], config, environment={}, progress=lambda done, total, what: seen.append((done, total, what))
    )
    assert [done for done, _, _ in seen] == list(range(9))
    assert {total for _, total, _ in seen} == {8}


def test_sift_finds_blobs_without_bias() -> None:
    # A true sub-pixel detector on its own pattern: an error of the pixel convention in the images would show here.
    method = create_method("sift")
    result = run_localisation([method], LocalisationConfig(corners=140, patterns=("blob",))).results["sift"]["blob"]
    assert result.metrics["found"] > 0.8
    assert result.metrics["median_px"] < 0.08
    assert result.metrics["bias_px"] < 0.03


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"corners": 0}, "corners"),
        ({"seed": -1}, "seed"),
        ({"radius_px": 0.0}, "radius_px"),
        ({"patterns": ()}, "patterns"),
        ({"patterns": ("blob", "blob")}, "once each"),
        ({"patterns": ("star",)}, "'star' is unknown; choose among l-corner"),
    ],
)
def test_bad_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        LocalisationConfig(**options)


@pytest.mark.parametrize(
    "options",
    [{"width": 10}, {"blur_px": (1.0, 0.5)}, {"contrast": (0.0, 0.5)}, {"contrast": (0.2, 0.9)}, {"noise": -1}],
)
def test_bad_rendering(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        RenderingConfig(**options)


def test_names_must_be_unique() -> None:
    method = create_method("orb")
    with pytest.raises(ConfigError, match="orb, orb"):
        run_localisation([method, method])
    with pytest.raises(ConfigError, match="none"):
        run_localisation([])
