from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from eval_fakes import SIZE, diagonal, features, matches, pair, through_json
from semkey.datasets.cameras.lens import Lens
from semkey.errors import ConfigError
from semkey.evaluation.data.pairs import HomographyTruth, PoseTruth
from semkey.evaluation.kinds.posed import PosedProtocol
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import make_transform, so3_exp

CAMERA = PinholeCamera(fx=500.0, fy=500.0, cx=319.5, cy=239.5, width=640, height=480)
T_TRUE = make_transform(so3_exp(np.array([0.02, 0.12, -0.03])), [-0.5, 0.05, 0.1])
PROTOCOL = PosedProtocol()


def room(rng: np.random.Generator, count: int = 200, T: np.ndarray = T_TRUE) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints of points at depths of 3 to 8 m that both cameras see."""
    points = np.stack([rng.uniform(-2, 2, 4 * count), rng.uniform(-1, 1, 4 * count), rng.uniform(3, 8, 4 * count)], 1)
    pixels0, pixels1 = CAMERA.project(points), CAMERA.project(points @ T[:3, :3].T + T[:3, 3])
    seen = np.flatnonzero(CAMERA.contains(pixels0) & CAMERA.contains(pixels1))[:count]
    assert len(seen) == count
    return pixels0[seen], pixels1[seen]


def truth(T: np.ndarray = T_TRUE) -> PoseTruth:
    return PoseTruth(T_cam1_cam0=T, camera0=CAMERA, camera1=CAMERA)


def wall(shift_m: float = 0.2, metres: float = 2.0) -> PoseTruth:
    """A wall in front of both cameras, camera 1 to the right of camera 0: points move 500 * 0.2 / 2 = 50 px left.

    The depth of view 0 has a hole at x 100..119.
    """
    depth0, depth1 = (np.full((SIZE[1], SIZE[0]), metres, dtype=np.float32) for _ in range(2))
    depth0[:, 100:120] = 0.0
    return PoseTruth(
        T_cam1_cam0=make_transform(np.eye(3), [-shift_m, 0.0, 0.0]),
        camera0=CAMERA,
        camera1=CAMERA,
        read_depth0=lambda: depth0,
        read_depth1=lambda: depth1,
    )


def stripes(period: int = 40) -> np.ndarray:
    """An image whose only edges are vertical, so that along is y and across is x."""
    wave = 127.5 + 100 * np.sin(2 * np.pi * np.arange(SIZE[0]) / period)
    return np.broadcast_to(wave.astype(np.uint8)[None, :, None], (SIZE[1], SIZE[0], 3)).copy()


@pytest.mark.parametrize("estimator", ["poselib", "opencv"])
def test_known_pose(estimator: str, rng: np.random.Generator) -> None:
    protocol = PosedProtocol(estimator=estimator)
    pixels0, pixels1 = room(rng)
    row = protocol.measure(pair(truth()), features(pixels0), features(pixels1), diagonal(200))
    assert row["error"] == max(row["rotation_error"], row["translation_error"]) < 0.02
    assert row["inliers"] == row["matches"] == row["keypoints"] == 200
    assert not row["failed"]
    areas = protocol.summarise([row]).metrics
    assert [areas[f"auc@{deg}"] for deg in (5, 10, 20)] == pytest.approx([1.0] * 3, abs=0.01)
    assert math.isnan(areas["precision@1"])


@pytest.mark.parametrize("estimator", ["poselib", "opencv"])
def test_a_pose_that_is_off_by_a_known_angle(estimator: str, rng: np.random.Generator) -> None:
    pixels0, pixels1 = room(rng)
    turned = T_TRUE @ make_transform(so3_exp(np.array([0.0, 0.0, np.radians(4.0)])), np.zeros(3))
    row = PosedProtocol(estimator=estimator).measure(
        pair(truth(turned)), features(pixels0), features(pixels1), diagonal(200)
    )
    assert row["rotation_error"] == pytest.approx(4.0, abs=0.02)
    assert row["translation_error"] < 0.02
    moved = T_TRUE.copy()
    moved[:3, 3] = so3_exp(np.array([0.0, np.radians(8.0), 0.0])) @ moved[:3, 3]
    row = PosedProtocol(estimator=estimator).measure(
        pair(truth(moved)), features(pixels0), features(pixels1), diagonal(200)
    )
    direction = T_TRUE[:3, 3] / np.linalg.norm(T_TRUE[:3, 3])
    expected = np.degrees(np.arccos(direction @ (moved[:3, 3] / np.linalg.norm(moved[:3, 3]))))
    assert row["error"] == row["translation_error"] == pytest.approx(expected, abs=0.02)
    # One pair of error e: the recall rises over [0, e] and stays at 1.
    area = PROTOCOL.summarise([row]).metrics["auc@10"]
    assert area == pytest.approx(1 - expected / 20, abs=0.002)


def test_outliers_only_are_worse_than_20_degrees_or_fail(rng: np.random.Generator) -> None:
    rows = []
    for index in range(10):
        points0, points1 = rng.uniform(0, SIZE, (2, 60, 2))
        rows.append(PROTOCOL.measure(pair(truth(), f"{index}"), features(points0), features(points1), diagonal(60)))
    assert PROTOCOL.summarise(rows).metrics["auc@5"] < 0.1
    assert max(row["inliers"] for row in rows) < 30


def test_no_matches_is_a_failure_that_counts(rng: np.random.Generator) -> None:
    pixels0, pixels1 = room(rng)
    rows = [
        PROTOCOL.measure(pair(truth(), "good"), features(pixels0), features(pixels1), diagonal(200)),
        PROTOCOL.measure(pair(truth(), "unmatched"), features(pixels0), features(pixels1), matches([])),
        PROTOCOL.measure(pair(truth(), "few"), features(pixels0), features(pixels1), diagonal(4)),
        PROTOCOL.measure(pair(truth(), "empty"), features([]), features([]), matches([])),
    ]
    assert [row["failed"] for row in rows] == [False, True, True, True]
    assert rows[1]["error"] == rows[2]["error"] == rows[3]["error"] == math.inf
    result = PROTOCOL.summarise(through_json(rows))
    assert (result.count, result.failures) == (4, 3)
    assert result.metrics["auc@20"] == pytest.approx(0.25, abs=0.001)
    assert result.metrics["inliers"] == 50


def test_with_depth_matches_are_judged() -> None:
    # Truth: 50 px to the left. Errors: 0.5, 1.5, 3, far away; then one at the hole, and one that leaves image 1.
    points0 = np.array([[200, 100], [300, 100], [400, 100], [500, 100], [110, 100], [20, 100]], dtype=float)
    errors = np.array([[0.5, 0], [0, 1.5], [3, 0], [0, 99], [0, 0], [0, 0]])
    points1 = np.clip(points0 - [50, 0] + errors, 0, None)
    row = PROTOCOL.measure(pair(wall(), read=stripes), features(points0), features(points1), diagonal(6))
    # The one at the hole cannot be judged; the last one should be at x = -30 and is at 0.
    assert row["precision"] == [1 / 5, 2 / 5, 3 / 5]
    assert row["correct"] == [1, 2, 3]
    # Within 3 px: of image 0 three of the four co-visible are repeated. Of image 1 the one at x = 60 leads to the hole
    # and is not co-visible; three of the other five are repeated.
    assert row["repeatability"] == (3 + 3) / (4 + 5)


def test_a_match_to_what_hides_the_point_is_judged_by_its_place() -> None:
    hidden = wall()
    depth1 = np.full((SIZE[1], SIZE[0]), 2.0, dtype=np.float32)
    depth1[:, 200:] = 1.0
    occluded = PoseTruth(
        T_cam1_cam0=hidden.T_cam1_cam0,
        camera0=CAMERA,
        camera1=CAMERA,
        read_depth0=hidden.read_depth0,
        read_depth1=lambda: depth1,
    )
    row = PROTOCOL.measure(pair(occluded, read=stripes), features([[400, 100]]), features([[300, 100]]), diagonal(1))
    assert row["precision"] == [0.0, 0.0, 0.0]
    assert row["repeatability"] == 0.0


def test_sweep_reports_the_best_threshold_beside_the_fixed_one(rng: np.random.Generator) -> None:
    protocol = PosedProtocol(max_error_px=0.02, sweep_px=(0.02, 2.0))
    rows = []
    for index in range(6):
        pixels0, pixels1 = room(rng)
        noisy = pixels1 + rng.normal(0, 0.7, pixels1.shape)
        noisy[:60] = rng.uniform(0, SIZE, (60, 2))
        rows.append(protocol.measure(pair(truth(), f"{index}", "g"), features(pixels0), features(noisy), diagonal(200)))
    result = protocol.summarise(through_json(rows))
    assert result.metrics["sweep_px"] == 2.0
    assert result.metrics["sweep_auc@20"] > result.metrics["auc@20"]
    assert [row["sweep"][0] for row in rows] == [row["error"] for row in rows]
    names = {metric.name for metric in protocol.metrics}
    assert set(result.metrics) == set(result.groups["g"]) == names
    assert result.curves["sweep"].y[1] == result.metrics["sweep_auc@20"]
    assert "sweep_px" not in PROTOCOL.summarise([]).metrics
    for name, (low, high) in result.intervals.items():
        assert low <= result.metrics[name] <= high, name


@pytest.mark.parametrize(
    "options",
    [{"auc_deg": ()}, {"correct_px": (2.0, 1.0)}, {"estimator": "dlt"}, {"max_error_px": -1.0}, {"sweep_px": (0.0,)}],
)
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError):
        PosedProtocol(**options)


def test_pairs_with_a_homography_are_refused() -> None:
    with pytest.raises(ConfigError, match="wall has no camera poses"):
        PROTOCOL.measure(pair(HomographyTruth(H10=np.eye(3)), "wall"), features([]), features([]), matches([]))


# -- position noise and epipolar lines -----------------------------------------------------------------------------


def test_position_noise_is_split_along_and_across_the_edges(rng: np.random.Generator) -> None:
    """Errors of sigma 1.2 px along the stripes and 0.3 px across them, beside wrong matches that do not count."""
    points0 = np.stack([rng.uniform(160, 600, 2000), rng.uniform(20, 460, 2000)], axis=1)
    errors = rng.normal(0, 1, (2000, 2)) * [0.3, 1.2]
    errors[:200] = 20.0
    row = PROTOCOL.measure(
        pair(wall(), read=stripes), features(points0), features(points0 - [50, 0] + errors), diagonal(2000)
    )
    lengths = np.linalg.norm(errors, axis=1)
    right = lengths <= 3
    metrics = PROTOCOL.summarise(through_json([row])).metrics
    assert metrics["noise_px"] == pytest.approx(np.median(lengths[right]), abs=0.01)
    assert metrics["noise_p90_px"] == pytest.approx(np.quantile(lengths[right], 0.9), abs=0.02)
    assert metrics["noise_along_px"] == pytest.approx(np.median(np.abs(errors[right, 1])), abs=0.01)
    assert metrics["noise_across_px"] == pytest.approx(np.median(np.abs(errors[right, 0])), abs=0.01)
    assert metrics["on_edges"] == 1.0
    assert math.isnan(metrics["noise_corners_px"])


def test_position_noise_pools_matches_not_pairs() -> None:
    """1 match off by 2 px and 9 in place: the median is 0, not the 1 px that the mean of two medians would be."""
    pairs = [([[300.0, 100.0]], [[2.0, 0.0]]), ([[200.0 + 30 * i, 100.0] for i in range(9)], [[0.0, 0.0]] * 9)]
    rows = []
    for index, (points, errors) in enumerate(pairs):
        moved = np.array(points) - [50, 0] + np.array(errors)
        one = pair(wall(), f"{index}", read=stripes)
        rows.append(PROTOCOL.measure(one, features(points), features(moved), diagonal(len(points))))
    result = PROTOCOL.summarise(rows)
    assert result.metrics["noise_px"] < 0.02
    assert result.metrics["noise_p90_px"] < 0.02
    assert not any(key.startswith("noise_") for row in result.rows for key in row)


def test_without_depth_there_is_no_noise_but_an_epipolar_distance(rng: np.random.Generator) -> None:
    """Points moved across their epipolar lines by 0.5 px; the camera moves sideways, so lines are rows."""
    T = make_transform(np.eye(3), [-0.2, 0.0, 0.0])
    pixels0, pixels1 = room(rng, T=T)
    moved = pixels1 + np.array([0.0, 0.5])
    moved[:50, 1] += 40
    row = PROTOCOL.measure(pair(truth(T)), features(pixels0), features(moved), diagonal(200))
    metrics = PROTOCOL.summarise(through_json([row])).metrics
    assert metrics["epipolar@1"] == metrics["epipolar@3"] == 0.75
    assert metrics["epipolar_px"] == pytest.approx(0.5, abs=1e-3)
    assert math.isnan(metrics["noise_px"])


def test_points_are_straightened_before_the_pose_is_estimated(rng: np.random.Generator) -> None:
    lens = Lens(
        model="radial-tangential",
        intrinsics=(CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy),
        distortion=(-0.2, 0.05, 0.001, -0.002),
        size=SIZE,
    )
    pixels0, pixels1 = room(rng)
    bent0, bent1 = (lens.project(np.c_[CAMERA.normalize(pixels), np.ones(200)]) for pixels in (pixels0, pixels1))
    assert np.abs(bent0 - pixels0).max() > 5
    known = replace(truth(), lens0=lens, lens1=lens)
    straight = PROTOCOL.measure(pair(known), features(bent0), features(bent1), diagonal(200))
    assert straight["error"] < 0.05
    assert straight["epipolar_px"] < 1e-3
    bent = PROTOCOL.measure(pair(truth()), features(bent0), features(bent1), diagonal(200))
    assert bent["epipolar_px"] > 0.05
    other = replace(lens, distortion=(0.0, 0.0, 0.0, 0.0))
    assert replace(known, lens1=other).swapped().lens0 == other
