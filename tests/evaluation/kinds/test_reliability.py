from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from eval_fakes import SIZE, diagonal, features, matches, pair, through_json
from semkey.errors import ConfigError, InputError
from semkey.evaluation.data.pairs import PoseTruth
from semkey.evaluation.kinds.reliability import ReliabilityProtocol
from semkey.evaluation.kinds.reliability_samples import Samples, pooled_metrics
from semkey.evaluation.running.results import Row
from semkey.geometry.camera import PinholeCamera
from semkey.metrics.reliability import auroc, average_precision

IDENTITY = np.eye(3)
PROTOCOL = ReliabilityProtocol(best_k=(1, 2, 4), keep=2)


def spread(count: int) -> np.ndarray:
    return np.stack([np.linspace(20, 600, count), np.full(count, 200.0)], axis=1)


def by_hand() -> Row:
    """Six keypoints: matches of 0, 1 and 3 are right, that of 2 is wrong, 4 and 5 have none; 5 is not co-visible."""
    points0 = np.array([[100, 100], [200, 100], [300, 100], [400, 100], [500, 100], [20, 100]], dtype=float)
    points1 = points0 - [50, 0] + np.array([[0, 0], [2, 0], [5, 0], [0, 3], [0, 0], [0, 0]])
    points1[5] = [600, 400]
    shift = np.array([[1, 0, -50], [0, 1, 0], [0, 0, 1]])
    return PROTOCOL.measure(
        pair(shift),
        features(points0, scores=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4], reliability=[0.9, 0.2, 0.3, 0.8, 0.1, 1.0]),
        features(points1, scores=[0.9, 0.8, 0.7, 0.6, 0.5, 0.4], reliability=[0.9, 0.2, 0.3, 0.8, 0.1, 1.0]),
        matches([[0, 0], [1, 1], [2, 2], [3, 3]], [0.9, 0.6, 0.7, 0.8]),
    )


def test_labels_by_hand() -> None:
    row = by_hand()
    assert row["matched"] == 3 / 5
    assert row["error"] == pytest.approx(2 / 5)
    assert row["precision"] == 3 / 4
    metrics = PROTOCOL.summarise([row]).metrics
    # Keypoints 0..4 with labels 1 1 0 1 0. Scores put 6 pairs but (3 over 2) in order.
    assert metrics["auroc_score"] == pytest.approx(5 / 6)
    # Reliability 0.9 0.2 0.3 0.8 0.1: wrong only in (1 over 2).
    assert metrics["auroc_reliability"] == pytest.approx(5 / 6)
    assert metrics["auroc_image_reliability"] == metrics["auroc_reliability"]
    # Products 0.81 0.16 0.21 0.48 0.05.
    assert metrics["auroc_product"] == pytest.approx(5 / 6)
    assert metrics["ap_reliability"] == pytest.approx((1 + 1 + 3 / 4) / 3)
    # Given a match: labels 1 1 0 1, similarities 0.9 0.6 0.7 0.8.
    assert metrics["auroc_match_similarity"] == pytest.approx(2 / 3)
    assert metrics["auroc_match_score"] == pytest.approx(2 / 3)
    assert [metrics[f"precision_similarity@{k}"] for k in (1, 2, 4)] == [1.0, 1.0, 3 / 4]
    assert [metrics[f"precision_score@{k}"] for k in (1, 2, 4)] == [1.0, 1.0, 3 / 4]
    # Claims 0.9 0.2 0.3 0.8 with 1 1 0 1 fall into bins of their own.
    assert metrics["ece_match"] == pytest.approx((0.1 + 0.8 + 0.3 + 0.2) / 4)
    assert metrics["ece"] == pytest.approx((0.1 + 0.8 + 0.3 + 0.2 + 0.1) / 5)


def test_match_predictors_are_geometric_means_of_both_keypoints() -> None:
    points0 = spread(3)
    row = PROTOCOL.measure(
        pair(IDENTITY),
        features(points0, scores=[0.9, 0.8, 0.1], reliability=[1.0, 1.0, 0.1]),
        features(points0 + np.array([[0, 0], [0, 40], [0, 0]]), scores=[0.9, 0.2, 0.1], reliability=[0.4, 0.1, 1.0]),
        diagonal(3),
    )
    samples = Samples.unpacked(row["match_samples"])
    np.testing.assert_array_equal(samples.labels, [True, False, True])
    np.testing.assert_allclose(samples.predicted("score"), [0.9, 0.4, 0.1], rtol=1e-6)
    np.testing.assert_allclose(samples.predicted("reliability"), np.sqrt([0.4, 0.1, 0.1]), rtol=1e-6)
    np.testing.assert_allclose(samples.probabilities, [1.0, 1.0, 0.1], rtol=1e-6)


def test_selection_by_reliability_keeps_what_can_be_matched() -> None:
    # Keypoints 0 and 1 score best and move; 2 and 3 stay, and their reliability says so.
    points0 = spread(4)
    points1 = points0 + np.array([[0, 50], [0, 60], [0, 0], [0, 0]])
    sides = [
        features(points, scores=[1.0, 0.9, 0.8, 0.7], reliability=[0.1, 0.1, 1.0, 1.0]) for points in (points0, points1)
    ]
    row = PROTOCOL.measure(pair(IDENTITY), *sides, diagonal(4))
    assert row["matching_score_by_score"] == 0.0
    assert row["matching_score_by_product"] == 1.0
    assert row["matching_score_gain"] == 1.0
    assert (row["correct_by_score"], row["correct_by_product"]) == (0, 2)
    assert (row["precision_by_score"], row["precision_by_product"]) == (0.0, 1.0)


def test_constant_reliability_says_nothing_and_changes_nothing(rng: np.random.Generator) -> None:
    points0 = rng.uniform(20, 450, (50, 2))
    points1 = points0 + np.where(rng.random((50, 1)) < 0.5, 0, 30)
    row = PROTOCOL.measure(pair(IDENTITY), features(points0), features(points1), diagonal(50))
    metrics = PROTOCOL.summarise([row]).metrics
    assert metrics["auroc_reliability"] == metrics["auroc_match_reliability"] == 0.5
    assert metrics["matching_score_gain"] == 0.0
    assert metrics["auroc_product"] == metrics["auroc_score"]
    assert metrics["precision_reliability@2"] == pytest.approx(row["precision"])
    assert metrics["ece_match"] == pytest.approx(1 - row["precision"])


def test_no_matches_fails_and_counts() -> None:
    points0 = spread(5)
    empty = PROTOCOL.measure(pair(IDENTITY, "empty"), features([]), features([]), matches([]))
    unmatched = PROTOCOL.measure(pair(IDENTITY, "unmatched"), features(points0), features(points0), matches([]))
    assert empty["failed"]
    assert unmatched["failed"]
    assert empty["error"] == unmatched["error"] == 1.0
    assert empty["precision"] == unmatched["precision"] == 0.0
    good = PROTOCOL.measure(pair(IDENTITY, "good"), features(points0), features(points0), diagonal(5))
    result = PROTOCOL.summarise(through_json([good, empty, unmatched]))
    assert result.failures == 2
    assert result.metrics["precision"] == result.metrics["precision_score@2"] == pytest.approx(1 / 3)
    # Five right of ten co-visible keypoints: the unmatched ones count as zeros.
    assert result.metrics["ap_reliability"] == 0.5
    alone = PROTOCOL.summarise([empty])
    assert math.isnan(alone.metrics["auroc_score"])
    assert math.isnan(alone.metrics["ece_match"])
    assert PROTOCOL.summarise([]).count == 0


def test_depth_holes_are_left_out() -> None:
    camera = PinholeCamera(fx=500.0, fy=500.0, cx=319.5, cy=239.5, width=640, height=480)
    depth0, depth1 = (np.full((SIZE[1], SIZE[0]), 2.0, dtype=np.float32) for _ in range(2))
    depth0[:, :320] = 0.0
    poses = PoseTruth(T_cam1_cam0=np.eye(4), camera0=camera, camera1=camera)
    truth = replace(poses, read_depth0=lambda: depth0, read_depth1=lambda: depth1)
    points0 = np.array([[100, 100], [500, 100], [550, 100]])
    row = PROTOCOL.measure(
        pair(truth), features(points0), features(points0 + np.array([[0, 0], [0, 0], [0, 9]])), diagonal(3)
    )
    assert len(Samples.unpacked(row["keypoint_samples"])) == 2
    np.testing.assert_array_equal(Samples.unpacked(row["match_samples"]).labels, [True, False])
    with pytest.raises(ConfigError, match="no depth"):
        PROTOCOL.measure(pair(poses), features([]), features([]), matches([]))


def random_rows(rng: np.random.Generator, count: int) -> tuple[list[Row], np.ndarray, np.ndarray]:
    """Pairs whose keypoints are matched right with the probability that their reliability claims."""
    protocol = ReliabilityProtocol()
    rows, labels, claims = [], [], []
    for index in range(count):
        points0 = rng.uniform(0, [639, 440], (300, 2))
        claimed = rng.random(300).astype(np.float32)
        right = rng.random(300) < claimed
        points1 = points0 + np.where(right, 0, 35)[:, None] * [0, 1]
        scores = np.sort(rng.random(300))[::-1].tolist()
        group = "even" if index % 2 == 0 else "odd"
        rows.append(
            protocol.measure(
                pair(IDENTITY, f"{index}", group),
                features(points0, scores=scores, reliability=claimed.tolist()),
                features(points1, scores=scores, reliability=claimed.tolist()),
                diagonal(300),
            )
        )
        labels.append(right)
        claims.append(claimed)
    return rows, np.concatenate(labels), np.concatenate(claims)


def test_pooled_measures_equal_those_of_all_samples_and_survive_json(rng: np.random.Generator) -> None:
    rows, labels, claims = random_rows(rng, 12)
    protocol = ReliabilityProtocol()
    fresh, again = protocol.summarise(rows), protocol.summarise(through_json(rows))
    assert fresh.metrics == again.metrics
    assert fresh.intervals == again.intervals
    assert fresh.metrics["auroc_reliability"] == pytest.approx(auroc(labels, claims))
    assert fresh.metrics["ap_reliability"] == pytest.approx(average_precision(labels, claims))
    assert fresh.metrics["auroc_reliability"] == pytest.approx(5 / 6, abs=0.02)  # of honest uniform claims
    assert abs(fresh.metrics["auroc_score"] - 0.5) < 0.05
    assert fresh.metrics["ece_match"] < 0.05
    for name, (low, high) in fresh.intervals.items():
        assert low <= fresh.metrics[name] <= high, name
    assert "auroc_reliability" in fresh.intervals
    low, high = fresh.intervals["auroc_reliability"]
    assert 0.005 < high - low < 0.08
    names = {metric.name for metric in protocol.metrics}
    assert set(fresh.metrics) == set(fresh.groups["even"]) == set(fresh.groups["odd"]) == names
    assert set(fresh.curves) == set(protocol.curve_labels)
    curve = fresh.curves["calibration_match"]
    np.testing.assert_allclose(curve.x, curve.y, atol=0.12)
    assert not any("samples" in name for row in fresh.rows for name in row)


def test_packing_rounds_nothing(rng: np.random.Generator) -> None:
    for count in (0, 1, 7, 8, 9, 100):
        values = {"score": rng.random(count).astype(np.float32), "reliability": rng.random(count).astype(np.float32)}
        samples = Samples(labels=rng.random(count) < 0.5, predictions=values, probabilities=values["reliability"] ** 2)
        again = Samples.unpacked(samples.packed())
        np.testing.assert_array_equal(again.labels, samples.labels)
        np.testing.assert_array_equal(again.probabilities, samples.probabilities)
        for name in samples.predictors:
            np.testing.assert_array_equal(again.predicted(name), samples.predicted(name))
    assert pooled_metrics([], "", bins=10) == {}


@pytest.mark.parametrize(
    "broken", [{"scores": [1.5, 0.5]}, {"reliability": [0.5, -0.1]}, {"reliability": [1, math.nan]}]
)
def test_features_that_break_their_promise_are_refused(broken: dict) -> None:
    points0 = spread(2)
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        PROTOCOL.measure(pair(IDENTITY), features(points0, **broken), features(points0), diagonal(2))


def test_rounding_beyond_1_is_forgiven() -> None:
    points0 = spread(2)
    found = features(points0, reliability=[1.0 + 1e-6, 0.5])
    assert found.reliability.max() > 1
    row = PROTOCOL.measure(pair(IDENTITY), found, features(points0), diagonal(2))
    assert torch.tensor(Samples.unpacked(row["keypoint_samples"]).probabilities).max() == 1.0


@pytest.mark.parametrize("options", [{"match_px": 0.0}, {"best_k": ()}, {"keep": 0}, {"bins": 0}])
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError):
        ReliabilityProtocol(**options)


def test_consecutive_frames_of_a_real_walk_tell_right_matches(shared: Path) -> None:
    """The depth of 7-Scenes is of another camera, which three frames of a walk forgive: AUROC is well above chance."""
    from semkey.evaluation.data.posed import posed_sequence_sets
    from semkey.evaluation.running.methods import create_method

    (found,) = posed_sequence_sets(shared / "data/7scenes/redkitchen/seq-01", gaps=[1], stride=120, use_depth=True)
    method, protocol = create_method("compact", device="cpu"), ReliabilityProtocol()
    rows = []
    for one in found.pairs:
        features0, features1 = method.extract(one.image0.read()), method.extract(one.image1.read())
        rows.append(protocol.measure(one, features0, features1, method.match(features0, features1)))
    metrics = protocol.summarise(rows).metrics
    assert metrics["precision"] > 0.6
    assert metrics["auroc_product"] > 0.6  # 0.67 over seven pairs
