from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

import semkey
from eval_fakes import SIZE, diagonal, features, matches, pair, through_json
from semkey.errors import ConfigError
from semkey.evaluation.data.pairs import HomographyTruth, PoseTruth
from semkey.evaluation.kinds.planar import PlanarProtocol
from semkey.evaluation.running.results import Row
from semkey.evaluation.running.summary import map_keypoints, matched_indices
from semkey.extractors import create_extractor
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.homography import warp_points

H_TRUE = np.array([[0.9, 0.1, 20], [-0.05, 1.1, -10], [1e-4, 5e-5, 1]])
PROTOCOL = PlanarProtocol()


def points(rng: np.random.Generator, count: int = 100, margin: float = 60) -> np.ndarray:
    return rng.uniform(margin, np.array(SIZE) - margin, (count, 2)).astype(np.float32)


def measured(truth: np.ndarray, points0: np.ndarray, points1: np.ndarray, name: str = "pair", group: str = "") -> Row:
    """A pair whose keypoints of the same index are matched."""
    count = min(len(points0), len(points1))
    return PROTOCOL.measure(pair(truth, name, group), features(points0), features(points1), diagonal(count))


def test_identity_is_perfect(rng: np.random.Generator) -> None:
    points0 = points(rng)
    row = measured(np.eye(3), points0, points0)
    assert row["repeatability"] == [1.0, 1.0, 1.0]
    assert row["localisation_error"] == 0.0
    assert row["mma"] == [1.0] * 10
    assert row["matching_score"] == 1.0
    assert row["correct"] == [100, 100, 100]
    assert row["keypoints"] == row["matches"] == 100
    assert all(row[f"corner_error_{name}"] < 1e-6 for name in ("poselib", "opencv", "dlt"))
    assert not row["failed"]
    metrics = PROTOCOL.summarise([row]).metrics
    assert metrics["repeatability@1"] == metrics["mma@3"] == metrics["matching_score@3"] == 1.0
    for name in ("poselib", "opencv", "dlt"):
        assert [metrics[f"auc_{name}@{px}"] for px in (1, 3, 5, 10)] == pytest.approx([1.0] * 4, abs=1e-6)


def test_known_homography_with_a_known_error(rng: np.random.Generator) -> None:
    points0 = points(rng, margin=120)
    points1 = warp_points(H_TRUE, points0) + np.array([1.08, 1.44])  # 1.8 px, the same for all
    row = measured(H_TRUE, points0, points1)
    assert row["mma"] == [0.0] + [1.0] * 9
    assert row["correct"] == [0, 100, 100]
    assert row["localisation_error"] == pytest.approx(1.8, abs=0.1)  # a neighbour may happen to be nearer
    for name in ("poselib", "opencv", "dlt"):
        assert row[f"corner_error_{name}"] == pytest.approx(1.8, abs=0.01)
    areas = PROTOCOL.summarise([row]).metrics
    # One pair of error 1.8: recall rises from 0 to 1 over [0, 1.8] and stays.
    assert [areas[f"auc_dlt@{px}"] for px in (1, 3, 5, 10)] == pytest.approx([0, 0.7, 0.82, 0.91], abs=0.01)


def test_outliers_only(rng: np.random.Generator) -> None:
    points0 = points(rng)
    row = PROTOCOL.measure(
        pair(np.eye(3)), features(points0), features(points0), matches([[i, (i + 50) % 100] for i in range(100)])
    )
    assert max(row["mma"][:5]) < 0.02
    assert row["matching_score"] == row["mma"][2]
    assert row["repeatability"] == [1.0, 1.0, 1.0]
    assert row["error"] > 10
    assert PROTOCOL.summarise([row]).metrics["auc_poselib@10"] == 0.0


@pytest.mark.parametrize(("count0", "count1"), [(0, 0), (0, 50), (50, 0), (50, 50)])
def test_no_matches_is_a_failure_that_counts(count0: int, count1: int, rng: np.random.Generator) -> None:
    same = points(rng)
    good = measured(np.eye(3), same, same, "good")
    empty = PROTOCOL.measure(
        pair(np.eye(3), "empty"), features(points(rng, count0)), features(points(rng, count1)), matches([])
    )
    assert empty["failed"]
    assert empty["error"] == math.inf
    assert empty["mma"] == [0.0] * 10
    assert empty["matching_score"] == 0.0
    result = PROTOCOL.summarise(through_json([good, empty]))
    assert (result.count, result.failures) == (2, 1)
    assert result.metrics["auc_poselib@10"] == pytest.approx(0.5)
    assert result.metrics["mma@3"] == 0.5


def test_keypoints_outside_the_shared_region_do_not_count() -> None:
    shift = np.array([[1, 0, 600], [0, 1, 0], [0, 0, 1]])  # image 1 sees the left 40 columns at its right end
    points0 = np.array([[10, 100], [30, 200], [300, 300], [500, 50]])
    points1 = np.array([[610, 100], [20, 20]])
    row = PROTOCOL.measure(pair(shift), features(points0), features(points1), matches([[0, 0], [2, 1]]))
    # Co-visible: two of image 0 (one repeated), one of image 1 (repeated).
    assert row["repeatability"] == [2 / 3] * 3
    assert row["matching_score"] == (1 / 2 + 1) / 2
    assert row["mma"] == [0.5] * 10


def test_a_point_beyond_the_horizon_is_wrongly_matched_not_unknown() -> None:
    tilted = np.array([[1, 0, 0], [0, 1, 0], [-1 / 320, 0, 1]])  # the horizon is at x = 320
    row = PROTOCOL.measure(
        pair(tilted), features([[100, 100], [500, 100]]), features([[145.45, 145.45], [9, 9]]), diagonal(2)
    )
    assert row["mma"] == [0.5] * 10


def test_corner_error_is_measured_at_the_own_size_of_the_image(rng: np.random.Generator) -> None:
    points0 = points(rng, margin=10)
    wrong = np.diag([1.01, 1.0, 1.0])
    for size in (SIZE, (320, 240)):
        scaled = points0 * size[0] / 640
        row = PROTOCOL.measure(
            pair(np.eye(3)), features(scaled, size=size), features(warp_points(wrong, scaled), size=size), diagonal(100)
        )
        # The two right corners move by 1 % of the width, the left ones stay.
        assert row["corner_error_dlt"] == pytest.approx(0.01 * (size[0] - 1) / 2, rel=1e-3)


def test_the_order_of_estimators_says_which_error_ranks(rng: np.random.Generator) -> None:
    protocol = PlanarProtocol(estimators=("dlt", "poselib"))
    points0 = points(rng)
    points1 = points0.copy()
    points1[:30] = points(rng, 30)
    row = protocol.measure(pair(np.eye(3)), features(points0), features(points1), diagonal(100))
    assert row["error"] == row["corner_error_dlt"] > row["corner_error_poselib"]
    names = {metric.name for metric in protocol.metrics if metric.headline}
    assert "auc_dlt@3" in names
    assert "auc_poselib@3" not in names
    assert set(protocol.summarise([row]).metrics) == {metric.name for metric in protocol.metrics}


def test_rows_read_back_give_the_same_result_with_groups_and_intervals(rng: np.random.Generator) -> None:
    rows = []
    for index in range(8):
        points0 = points(rng)
        points1 = warp_points(H_TRUE, points0) + rng.normal(0, 1 + index / 2, (100, 2))
        rows.append(measured(H_TRUE, points0, points1, f"pair {index}", "viewpoint" if index % 2 else "illumination"))
    rows.append(PROTOCOL.measure(pair(H_TRUE, "empty", "viewpoint"), features([]), features([]), matches([])))
    fresh, again = PROTOCOL.summarise(rows), PROTOCOL.summarise(through_json(rows))
    assert fresh.metrics == again.metrics
    assert fresh.intervals == again.intervals
    assert fresh.groups == again.groups
    assert set(fresh.groups) == {"illumination", "viewpoint"}
    for values in (fresh.metrics, *fresh.groups.values()):
        assert set(values) == {metric.name for metric in PROTOCOL.metrics}
    for name in ("mma@3", "repeatability@1", "correct@3"):
        both = [fresh.groups["illumination"][name] * 4, fresh.groups["viewpoint"][name] * 5]
        assert fresh.metrics[name] == pytest.approx(sum(both) / 9)
    for name, (low, high) in fresh.intervals.items():
        assert low <= fresh.metrics[name] <= high, name
    assert fresh.intervals["mma@3"][0] < fresh.intervals["mma@3"][1]
    assert list(fresh.curves["mma"].x) == list(range(1, 11))
    assert fresh.curves["mma"].y[2] == pytest.approx(fresh.metrics["mma@3"])
    assert set(fresh.curves) <= set(PROTOCOL.curve_labels)
    assert fresh.curves["homography"].y[-1] <= 8 / 9


def test_few_pairs_have_no_intervals_and_no_pairs_no_numbers(rng: np.random.Generator) -> None:
    points0 = points(rng)
    assert PROTOCOL.summarise([measured(np.eye(3), points0, points0)] * 4).intervals == {}
    nothing = PROTOCOL.summarise([])
    assert nothing.count == 0
    assert all(math.isnan(value) for value in nothing.metrics.values())


@pytest.mark.parametrize(
    "options",
    [
        {"auc_px": ()},
        {"mma_px": (1.0, 1.0)},
        {"match_px": 2.5},
        {"max_error_px": 0.0},
        {"repeatability_px": (3.0, 1.0)},
        {"correct_px": (math.nan,)},
        {"estimators": ("magsac",)},
    ],
)
def test_options_out_of_range_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError):
        PlanarProtocol(**options)


def test_pairs_with_poses_are_refused() -> None:
    camera = PinholeCamera(fx=500, fy=500, cx=320, cy=240, width=640, height=480)
    truth = PoseTruth(T_cam1_cam0=np.eye(4), camera0=camera, camera1=camera)
    with pytest.raises(ConfigError, match="street has no homography"):
        PROTOCOL.measure(pair(truth, "street"), features([]), features([]), matches([]))


# -- half a pixel --------------------------------------------------------------------------------------------------


def textured(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """Blobs of many sizes, without structure finer than about 3 px."""
    layers = [cv2.GaussianBlur(rng.standard_normal((height, width)), (0, 0), sigma) * sigma for sigma in (1.5, 3, 6)]
    gray = np.sum(layers, axis=0)
    gray = (gray - gray.min()) / np.ptp(gray) * 255
    return np.repeat(gray.astype(np.uint8)[..., None], 3, axis=2)


def test_an_upscaled_image_tells_half_a_pixel(rng: np.random.Generator) -> None:
    # From image to truth, through extraction and matching, with SIFT as the most exact instrument here. (OpenCV's ORB
    # is none: it scales the positions of its pyramid's levels without the half-pixel shift.)
    image0 = textured(rng, 320, 240)
    image1 = cv2.resize(image0, (640, 480), interpolation=cv2.INTER_CUBIC)
    extractor = create_extractor("sift", max_keypoints=1000, device="cpu")
    features0, features1 = extractor.extract(image0), extractor.extract(image1)
    found = semkey.match(features0, features1)
    half_pixel, corner_based = np.array([[2, 0, 0.5], [0, 2, 0.5], [0, 0, 1]]), np.diag([2.0, 2.0, 1.0])
    for H, bias in ((half_pixel, 0.0), (corner_based, 0.5)):
        view0, view1 = map_keypoints(HomographyTruth(H10=H), features0, features1)
        indices = matched_indices(found)
        differences = view1.keypoints[indices[:, 1]] - view0.mapped[indices[:, 0]]
        correct = np.linalg.norm(differences, axis=1) < 3
        assert correct.sum() > 400
        np.testing.assert_allclose(np.median(differences[correct], axis=0), [bias, bias], atol=0.02)
        row = PROTOCOL.measure(pair(H), features0, features1, found)
        assert row["error"] == pytest.approx(bias * np.sqrt(2), abs=0.05)
