"""The numbers of the protocols against the same numbers computed another way, on real images.

The other way uses OpenCV and plain loops, and nothing of ``semkey.metrics``, ``semkey.evaluation`` or
``semkey.matching.robust``. Only the features and the data's own images, matrices, poses and depths are shared.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import poselib
import pytest
from scipy.spatial.transform import Rotation

import semkey
from semkey.evaluation.data.pairs import HomographyTruth, PairSet, PoseTruth
from semkey.evaluation.data.planar import planar_sets
from semkey.evaluation.data.posed import posed_sequence_sets
from semkey.evaluation.kinds.planar import PlanarProtocol
from semkey.evaluation.kinds.posed import PosedProtocol
from semkey.evaluation.running.results import Row
from semkey.extractors import create_extractor

KEYPOINTS = 300


def area(errors: Sequence[float], end: float) -> float:
    """Area under the recall from 0 to ``end``, over ``end``: straight lines through (error, share of pairs up to it),
    level after the last error below ``end``; summed trapezoid by trapezoid.
    """
    total, x, y = 0.0, 0.0, 0.0
    for rank, error in enumerate(sorted(errors), start=1):
        if error >= end:
            break
        total += (error - x) * (y + rank / len(errors)) / 2
        x, y = error, rank / len(errors)
    return (total + (end - x) * y) / end


def measure(protocol: PlanarProtocol | PosedProtocol, pair_set: PairSet, name: str) -> tuple[list[Row], list[tuple]]:
    """The protocol's rows, and per pair (keypoints 0, keypoints 1, indices, size 0, size 1) as plain arrays."""
    extractor = create_extractor(name, max_keypoints=KEYPOINTS, device="cpu")
    rows, plain = [], []
    for pair in pair_set.pairs:
        features0, features1 = extractor.extract(pair.image0.read()), extractor.extract(pair.image1.read())
        found = semkey.match(features0, features1)
        rows.append(protocol.measure(pair, features0, features1, found))
        points = [features.keypoints.numpy().astype(np.float64) for features in (features0, features1)]
        plain.append((*points, found.indices.numpy(), features0.image_size, features1.image_size))
    return rows, plain


def through(H: np.ndarray, points: np.ndarray) -> np.ndarray:
    return cv2.perspectiveTransform(points[None], H)[0] if len(points) else points


def test_planar_agrees_with_opencv_and_loops(shared: Path) -> None:
    protocol = PlanarProtocol()
    for pair_set in planar_sets(shared / "data" / "planar"):
        rows, plain = measure(protocol, pair_set, "orb")
        corner_errors, accuracies, repeated_shares, scores, corrects = [], [], [], [], []
        for pair, (points0, points1, indices, size0, size1) in zip(pair_set.pairs, plain, strict=True):
            assert isinstance(pair.truth, HomographyTruth)
            H = pair.truth.H10
            matched0, matched1 = points0[indices[:, 0]], points1[indices[:, 1]]
            estimate, _ = cv2.findHomography(
                matched0, matched1, cv2.USAC_MAGSAC, 3.0, maxIters=10_000, confidence=0.9999
            )
            (width, height) = size0
            corners = np.array([[0.0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]])
            moved = through(estimate, corners) - through(H, corners)
            corner_errors.append(float(np.hypot(*moved.T).mean()))

            errors = [math.dist(p, q) for p, q in zip(through(H, matched0), matched1, strict=True)]
            accuracies.append([sum(error <= px for error in errors) / len(errors) for px in range(1, 11)])
            corrects.append(sum(error <= 3 for error in errors))

            repeated = seen = 0
            recalls = []
            for source, target, matrix, (w, h), column in (
                (points0, points1, H, size1, 0),
                (points1, points0, np.linalg.inv(H), size0, 1),
            ):
                places = through(matrix, source)
                inside = [i for i, (x, y) in enumerate(places) if 0 <= x <= w - 1 and 0 <= y <= h - 1]
                seen += len(inside)
                for i in inside:
                    repeated += min(math.dist(places[i], q) for q in target) <= 3
                right = [
                    pair_of[column] in set(inside)
                    and math.dist(places[pair_of[column]], target[pair_of[1 - column]]) <= 3
                    for pair_of in indices.tolist()
                ]
                recalls.append(sum(right) / len(inside))
            repeated_shares.append(repeated / seen)
            scores.append(sum(recalls) / 2)
        result = protocol.summarise(rows)
        for px in protocol.auc_px:
            assert result.metrics[f"auc_opencv@{px:g}"] == pytest.approx(area(corner_errors, px), abs=1e-9)
        np.testing.assert_allclose(result.curves["mma"].y, np.mean(accuracies, axis=0))
        assert result.metrics["mma@3"] == pytest.approx(np.mean(accuracies, axis=0)[2])
        assert result.metrics["correct@3"] == pytest.approx(np.mean(corrects))
        assert result.metrics["repeatability@3"] == pytest.approx(np.mean(repeated_shares))
        assert result.metrics["matching_score@3"] == pytest.approx(np.mean(scores))


@pytest.fixture(scope="module")
def kitchen(shared: Path) -> PairSet:
    """Every 40th pair of frames 10 apart of 7-Scenes redkitchen."""
    (pair_set,) = posed_sequence_sets(
        shared / "data" / "7scenes" / "redkitchen" / "seq-01", gaps=[10], stride=40, use_depth=True
    )
    return pair_set


def pose_error(R: np.ndarray, t: np.ndarray, T_true: np.ndarray) -> float:
    """The larger of both angles in degrees, by quaternions and by the chord between directions."""
    rotation = math.degrees((Rotation.from_matrix(R).inv() * Rotation.from_matrix(T_true[:3, :3])).magnitude())
    first, second = t.ravel() / np.linalg.norm(t), T_true[:3, 3] / np.linalg.norm(T_true[:3, 3])
    chord = min(np.linalg.norm(first - second), np.linalg.norm(first + second))
    return max(rotation, math.degrees(2 * math.asin(chord / 2)))


@pytest.mark.parametrize("estimator", ["poselib", "opencv"])
def test_pose_areas_agree(kitchen: PairSet, estimator: str) -> None:
    protocol = PosedProtocol(estimator=estimator)
    rows, plain = measure(protocol, kitchen, "sift")
    errors = []
    for pair, (points0, points1, indices, _, _) in zip(kitchen.pairs, plain, strict=True):
        truth = pair.truth
        assert isinstance(truth, PoseTruth)
        camera = truth.camera0
        assert camera == truth.camera1
        matched0, matched1 = points0[indices[:, 0]], points1[indices[:, 1]]
        if estimator == "poselib":
            model = {
                "model": "SIMPLE_PINHOLE",
                "width": 640,
                "height": 480,
                "params": [camera.fx, camera.cx, camera.cy],
            }
            options = {"max_epipolar_error": 1.0, "max_iterations": 10_000, "seed": 0}
            pose, _ = poselib.estimate_relative_pose(matched0, matched1, model, model, options, {})
            errors.append(pose_error(np.asarray(pose.R), np.asarray(pose.t), truth.T_cam1_cam0))
        else:
            K = np.array([[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]])
            rays = [cv2.undistortPoints(points[:, None], K, None)[:, 0] for points in (matched0, matched1)]
            found, mask = cv2.findEssentialMat(
                *rays, np.eye(3), method=cv2.USAC_MAGSAC, prob=0.9999, threshold=1 / camera.fx, maxIters=10_000
            )
            assert found.shape == (3, 3)
            _, R, t, _ = cv2.recoverPose(found, *rays, np.eye(3), mask=mask)
            errors.append(pose_error(R, t, truth.T_cam1_cam0))
    # The trace of a rotation, or an arccos, is good to about 1e-6 degrees here.
    np.testing.assert_allclose([row["error"] for row in rows], errors, rtol=1e-4, atol=1e-4)
    result = protocol.summarise(rows)
    for deg in (5, 10, 20):
        assert result.metrics[f"auc@{deg}"] == pytest.approx(area(errors, deg), abs=1e-5)


def test_precision_with_depth_agrees(kitchen: PairSet) -> None:
    protocol = PosedProtocol()
    rows, plain = measure(protocol, kitchen, "orb")
    for row, pair, (points0, points1, indices, _, _) in zip(rows, kitchen.pairs, plain, strict=True):
        truth = pair.truth
        assert isinstance(truth, PoseTruth)
        assert truth.read_depth0 is not None
        depth = truth.read_depth0()
        K = truth.camera0.matrix
        R, t = truth.T_cam1_cam0[:3, :3], truth.T_cam1_cam0[:3, 3]
        errors = []
        for i, j in indices.tolist():
            x, y = points0[i]
            columns, lines = (math.floor(x), math.ceil(x)), (math.floor(y), math.ceil(y))
            patch = [[float(depth[v, u]) for u in columns] for v in lines]
            nearest, farthest = min(map(min, patch)), max(map(max, patch))
            if nearest == 0 or farthest - nearest > 0.05 * nearest:
                continue
            u, v = x % 1, y % 1
            top, bottom = (line[0] * (1 - u) + line[1] * u for line in patch)
            point = np.linalg.inv(K) @ [x, y, 1] * (top * (1 - v) + bottom * v)
            place, _ = cv2.projectPoints(point[None], cv2.Rodrigues(R)[0], t, K, None)
            if (R @ point + t)[2] > 0:
                errors.append(math.dist(place.ravel(), points1[j]))
        expected = [sum(error <= px for error in errors) / len(errors) for px in (1, 2, 4)]
        assert row["precision"] == pytest.approx(expected)
        assert row["correct"] == [sum(error <= px for error in errors) for px in (1, 2, 4)]
