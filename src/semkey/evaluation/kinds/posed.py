"""Relative camera poses from matches, on pairs with known poses; with depth, the matches themselves as well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from semkey.evaluation.data.pairs import ImagePair, PoseTruth
from semkey.evaluation.kinds.position_noise import NOISE_METRICS, NoiseCounts, without_counts
from semkey.evaluation.running.estimators import POSE_ESTIMATORS, check_estimators
from semkey.evaluation.running.results import Curve, Metric, Row, SetResult
from semkey.evaluation.running.summary import (
    Columns,
    at,
    check_thresholds,
    group_indices,
    judged_distances,
    map_keypoints,
    matched_indices,
    to_array,
    truth_of_kind,
)
from semkey.matching.mutual import Matches
from semkey.matching.robust import RobustEstimate
from semkey.metrics.keypoints import correct_counts, matching_accuracy, repeatability
from semkey.metrics.two_view import area_under_curve, epipolar_distances, relative_pose_error
from semkey.model.features import Features
from semkey.settings import Settings


@dataclass(frozen=True, kw_only=True)
class PosedProtocol(Settings):
    """Measures of pairs with known poses.

    The error of a pair is the larger of the angle of the rotation error and the angle between the directions of
    translation (folded to 90 degrees), as in SuperGlue (Sarlin et al. 2020, section 5.2); a pair without an estimate
    has an infinite error and stays in the averages.

    Attributes:
        kind: name of the evaluation.
        auc_deg: errors up to which the area under the recall curve is taken, degrees.
        correct_px: distances up to which a match is correct, where there is depth.
        repeatability_px: distance up to which a keypoint is repeated, where there is depth.
        epipolar_px: distances from the true epipolar lines up to which a match agrees with them; the mean distance is
            over those that agree to the last one.
        estimator: ``poselib`` or ``opencv`` (USAC_MAGSAC).
        max_error_px: inlier threshold of the estimator.
        sweep_px: further inlier thresholds to try; the best one of each method and set is reported beside the fixed
            one. Best on the very pairs it is then reported for, so it bounds what tuning could give and is no fair
            result by itself.
        seed: of the estimator and of the bootstrap.

    Raises:
        ConfigError: an option is out of its range.
    """

    kind: str = "posed-pairs"
    auc_deg: tuple[float, ...] = (5.0, 10.0, 20.0)
    correct_px: tuple[float, ...] = (1.0, 2.0, 4.0)
    repeatability_px: float = 3.0
    epipolar_px: tuple[float, ...] = (1.0, 3.0)
    estimator: str = "poselib"
    max_error_px: float = 1.0
    sweep_px: tuple[float, ...] = ()
    seed: int = 0

    curve_labels: ClassVar[Mapping[str, tuple[str, str]]] = {
        "pose": ("pose error, degrees", "share of pairs"),
        "precision": ("threshold, px", "precision of the matches"),
        "sweep": ("inlier threshold, px", "pose AUC at the largest angle"),
    }

    def __post_init__(self) -> None:
        check_thresholds("auc_deg", self.auc_deg)
        check_thresholds("correct_px", self.correct_px)
        check_thresholds("repeatability_px", [self.repeatability_px])
        check_thresholds("epipolar_px", self.epipolar_px)
        check_thresholds("max_error_px", [self.max_error_px])
        check_thresholds("sweep_px", self.sweep_px, may_be_empty=True)
        check_estimators([self.estimator], POSE_ESTIMATORS)

    @property
    def metrics(self) -> Sequence[Metric]:
        """See :class:`semkey.evaluation.running.results.Metric`; those that need depth are NaN where there is none."""
        swept = [
            *(
                Metric(
                    name=f"sweep_auc@{at(deg)}", label=f"pose AUC @{at(deg)}° at the best threshold, %", percent=True
                )
                for deg in self.auc_deg
            ),
            Metric(name="sweep_px", label="best threshold, px", higher_is_better=None, digits=2),
        ]
        return [
            *(
                Metric(name=f"auc@{at(deg)}", label=f"pose AUC @{at(deg)}°, %", percent=True, headline=True)
                for deg in self.auc_deg
            ),
            *(swept if self.sweep_px else []),
            Metric(name="inliers", label="inliers", headline=True),
            *(
                Metric(
                    name=f"precision@{at(px)}",
                    label=f"precision @{at(px)} px, %",
                    percent=True,
                    headline=px == self.correct_px[-1],
                )
                for px in self.correct_px
            ),
            *(
                Metric(
                    name=f"correct@{at(px)}", label=f"correct matches @{at(px)} px", headline=px == self.correct_px[-1]
                )
                for px in self.correct_px
            ),
            Metric(
                name=f"repeatability@{at(self.repeatability_px)}",
                label=f"repeatability @{at(self.repeatability_px)} px, %",
                percent=True,
            ),
            *NOISE_METRICS,
            *(
                Metric(name=f"epipolar@{at(px)}", label=f"matches @{at(px)} px from the epipolar line, %", percent=True)
                for px in self.epipolar_px
            ),
            Metric(
                name="epipolar_px",
                label=f"mean epipolar distance of those within {at(self.epipolar_px[-1])} px, px",
                higher_is_better=False,
                digits=2,
            ),
            Metric(name="keypoints", label="keypoints", higher_is_better=None),
            Metric(name="matches", label="matches", higher_is_better=None),
        ]

    def measure(self, pair: ImagePair, features0: Features, features1: Features, matches: Matches) -> Row:
        """Measures of one pair.

        With depth, a match counts as correct by the distance in image 1 between its keypoint and the place where the
        depth of image 0 puts the other one; matches whose keypoint in image 0 has no depth, or lies on a depth edge,
        are left out of the precision.

        Returns:
            ``error`` in degrees, ``inf`` without an estimate (then ``failed`` is true).

        Raises:
            ConfigError: the pair has no poses.
        """
        truth = truth_of_kind(pair, PoseTruth, "camera poses")
        indices = matched_indices(matches)
        points0, points1 = truth.straightened(
            to_array(features0.keypoints)[indices[:, 0]], to_array(features1.keypoints)[indices[:, 1]]
        )
        # A lens's polynomial may have no inverse far from the centre.
        known = np.isfinite(points0).all(axis=1) & np.isfinite(points1).all(axis=1)
        points0, points1 = points0[known], points1[known]
        estimate = self._estimate(truth, points0, points1, self.max_error_px)
        rotation, translation = relative_pose_error(estimate.model, truth.T_cam1_cam0)
        swept = [
            max(relative_pose_error(self._estimate(truth, points0, points1, px).model, truth.T_cam1_cam0))
            for px in self.sweep_px
        ]
        error = max(rotation, translation)
        return {
            "name": pair.name,
            "group": pair.group,
            "error": error,
            "failed": not np.isfinite(error),
            "keypoints": (len(features0) + len(features1)) / 2,
            "matches": len(indices),
            "rotation_error": rotation,
            "translation_error": translation,
            "inliers": estimate.inlier_count,
            "sweep": swept,
            **self._epipolar(truth, points0, points1),
            **self._with_depth(pair, truth, features0, features1, indices),
        }

    def _estimate(
        self, truth: PoseTruth, points0: NDArray[Any], points1: NDArray[Any], max_error_px: float
    ) -> RobustEstimate:
        solve = POSE_ESTIMATORS[self.estimator]
        return solve(points0, points1, truth.camera0, truth.camera1, max_error_px=max_error_px, seed=self.seed)

    def _epipolar(self, truth: PoseTruth, points0: NDArray[Any], points1: NDArray[Any]) -> Row:
        distances = epipolar_distances(points0, points1, truth.camera0.matrix, truth.camera1.matrix, truth.T_cam1_cam0)
        near = distances[distances <= self.epipolar_px[-1]]
        return {
            "epipolar": matching_accuracy(distances, self.epipolar_px),
            "epipolar_px": float(near.mean()) if len(near) else float("nan"),
        }

    def _with_depth(
        self, pair: ImagePair, truth: PoseTruth, features0: Features, features1: Features, indices: NDArray[Any]
    ) -> Row:
        if not truth.has_depth:
            unknown = [float("nan")] * len(self.correct_px)
            return {"precision": unknown, "correct": unknown, "repeatability": float("nan"), **NoiseCounts.none().row()}
        view0, view1 = map_keypoints(truth, features0, features1)
        distances = judged_distances(truth, view0, view1, indices)
        noise = NoiseCounts.of(pair.image1.read(), view1.keypoints[indices[:, 1]], view0.mapped[indices[:, 0]])
        return {
            "precision": matching_accuracy(distances, self.correct_px),
            "correct": correct_counts(distances, self.correct_px),
            "repeatability": repeatability(view0, view1, [self.repeatability_px])[0],
            **noise.row(),
        }

    def summarise(self, rows: Sequence[Row]) -> SetResult:
        """Metrics of a set: areas over all its pairs, means over those where a measure is defined."""
        columns = Columns.of(
            rows,
            means={
                "inliers": ("inliers", None),
                **{f"precision@{at(px)}": ("precision", i) for i, px in enumerate(self.correct_px)},
                **{f"correct@{at(px)}": ("correct", i) for i, px in enumerate(self.correct_px)},
                f"repeatability@{at(self.repeatability_px)}": ("repeatability", None),
                **{f"epipolar@{at(px)}": ("epipolar", i) for i, px in enumerate(self.epipolar_px)},
                "epipolar_px": ("epipolar_px", None),
                "keypoints": ("keypoints", None),
                "matches": ("matches", None),
            },
            areas={"error": {f"auc@{at(deg)}": deg for deg in self.auc_deg}},
        )
        noise = NoiseCounts.of_rows(rows)
        swept = np.array([row["sweep"] for row in rows], dtype=np.float64).reshape(len(rows), len(self.sweep_px))
        return SetResult(
            count=len(rows),
            failures=sum(bool(row["failed"]) for row in rows),
            metrics={**columns.metrics(), **noise.metrics(), **self._best_of_sweep(swept)},
            intervals={**columns.intervals(seed=self.seed), **noise.intervals(seed=self.seed)},
            groups={
                name: {
                    **columns.metrics(indices),
                    **noise.metrics(indices),
                    **self._best_of_sweep(swept[indices]),
                }
                for name, indices in group_indices(rows).items()
            },
            curves=self._curves(rows, columns.metrics(), swept),
            rows=[without_counts(row) for row in rows],
        )

    def _best_of_sweep(self, errors: NDArray[np.float64]) -> dict[str, float]:
        """Areas (P, S) errors have at the threshold with the largest area up to the last angle."""
        if errors.size == 0:
            return {}
        areas = [area_under_curve(column, self.auc_deg) for column in errors.T]
        best = max(range(len(areas)), key=lambda index: areas[index][-1])
        named = {f"sweep_auc@{at(deg)}": area for deg, area in zip(self.auc_deg, areas[best], strict=True)}
        return {**named, "sweep_px": self.sweep_px[best]}

    def _curves(
        self, rows: Sequence[Row], metrics: Mapping[str, float], swept: NDArray[np.float64]
    ) -> dict[str, Curve]:
        if not rows:
            return {}
        errors = np.array([row["error"] for row in rows], dtype=np.float64)
        steps = np.linspace(0, self.auc_deg[-1], 101)
        curves = {"pose": Curve(x=steps.tolist(), y=[float((errors <= step).mean()) for step in steps])}
        precision = [metrics[f"precision@{at(px)}"] for px in self.correct_px]
        if np.isfinite(precision).all():
            curves["precision"] = Curve(x=list(self.correct_px), y=precision)
        if swept.size:
            areas = [area_under_curve(column, self.auc_deg[-1:])[0] for column in swept.T]
            curves["sweep"] = Curve(x=list(self.sweep_px), y=areas)
        return curves
