"""Keypoints and matches on pairs with a known homography: repeatability, matching accuracy, homography accuracy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from semkey.errors import ConfigError
from semkey.evaluation.data.pairs import HomographyTruth, ImagePair
from semkey.evaluation.running.estimators import HOMOGRAPHY_ESTIMATORS, check_estimators
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
from semkey.geometry.homography import corner_error
from semkey.matching.mutual import Matches
from semkey.metrics.keypoints import (
    correct_counts,
    localisation_error,
    matching_accuracy,
    matching_score,
    repeatability,
)
from semkey.model.features import Features
from semkey.settings import Settings


@dataclass(frozen=True, kw_only=True)
class PlanarProtocol(Settings):
    """Measures of pairs with a homography; pixels are those of the images as they are read.

    Attributes:
        kind: ``planar`` or ``homographies``; the measures are the same.
        repeatability_px: distances up to which a keypoint is repeated.
        mma_px: distances up to which a match is correct, for the curve of the mean matching accuracy.
        correct_px: the same for the counts of correct matches.
        match_px: up to this a match is correct for the matching score and for the MMA of the table, and a keypoint is
            repeated for the localisation error; one of ``mma_px``.
        auc_px: corner errors up to which the area under the recall curve is taken.
        estimators: of ``poselib``, ``opencv`` (USAC_MAGSAC) and ``dlt`` (weighted least squares over all matches);
            the first one ranks pairs and says which have failed.
        max_error_px: inlier threshold of the robust estimators.
        seed: of the robust estimators and of the bootstrap.

    Raises:
        ConfigError: an option is out of its range.
    """

    kind: str = "planar"
    repeatability_px: tuple[float, ...] = (1.0, 3.0, 5.0)
    mma_px: tuple[float, ...] = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0)
    correct_px: tuple[float, ...] = (1.0, 3.0, 5.0)
    match_px: float = 3.0
    auc_px: tuple[float, ...] = (1.0, 3.0, 5.0, 10.0)
    estimators: tuple[str, ...] = ("poselib", "opencv", "dlt")
    max_error_px: float = 3.0
    seed: int = 0

    curve_labels: ClassVar[Mapping[str, tuple[str, str]]] = {
        "mma": ("threshold, px", "mean matching accuracy"),
        "homography": ("corner error, px", "share of pairs"),
    }

    def __post_init__(self) -> None:
        check_thresholds("repeatability_px", self.repeatability_px)
        check_thresholds("mma_px", self.mma_px)
        check_thresholds("correct_px", self.correct_px)
        check_thresholds("auc_px", self.auc_px)
        check_thresholds("max_error_px", [self.max_error_px])
        check_estimators(self.estimators, HOMOGRAPHY_ESTIMATORS)
        if self.match_px not in self.mma_px:
            raise ConfigError(f"match_px must be one of mma_px, got {self.match_px}")

    @property
    def metrics(self) -> Sequence[Metric]:
        """See :class:`semkey.evaluation.running.results.Metric`."""
        near = at(self.match_px)
        first = self.estimators[0]
        return [
            *(
                Metric(
                    name=f"repeatability@{at(px)}",
                    label=f"repeatability @{at(px)} px, %",
                    percent=True,
                    headline=px == self.match_px,
                )
                for px in self.repeatability_px
            ),
            Metric(
                name="localisation_error",
                label="localisation error, px",
                higher_is_better=False,
                digits=3,
                headline=True,
            ),
            Metric(name=f"mma@{near}", label=f"MMA @{near} px, %", percent=True, headline=True),
            Metric(name=f"matching_score@{near}", label=f"matching score @{near} px, %", percent=True, headline=True),
            *(Metric(name=f"correct@{at(px)}", label=f"correct matches @{at(px)} px") for px in self.correct_px),
            *(
                Metric(
                    name=f"auc_{estimator}@{at(px)}",
                    label=f"homography AUC @{at(px)} px ({estimator}), %",
                    percent=True,
                    headline=estimator == first,
                )
                for estimator in self.estimators
                for px in self.auc_px
            ),
            Metric(name="keypoints", label="keypoints", higher_is_better=None),
            Metric(name="matches", label="matches", higher_is_better=None),
        ]

    def measure(self, pair: ImagePair, features0: Features, features1: Features, matches: Matches) -> Row:
        """Measures of one pair.

        Returns:
            ``error`` is the corner error of the first estimator, pixels of image 1, ``inf`` where it found no
            homography (then ``failed`` is true).

        Raises:
            ConfigError: the pair has no homography.
        """
        truth = truth_of_kind(pair, HomographyTruth, "homography")
        view0, view1 = map_keypoints(truth, features0, features1)
        indices = matched_indices(matches)
        distances = judged_distances(truth, view0, view1, indices)
        points0, points1 = view0.keypoints[indices[:, 0]], view1.keypoints[indices[:, 1]]
        weights = to_array(matches.scores)
        errors = {}
        for name in self.estimators:
            estimate = HOMOGRAPHY_ESTIMATORS[name](
                points0, points1, weights, max_error_px=self.max_error_px, seed=self.seed
            )
            errors[f"corner_error_{name}"] = corner_error(estimate.model, truth.H10, *features0.image_size)
        error = errors[f"corner_error_{self.estimators[0]}"]
        return {
            "name": pair.name,
            "group": pair.group,
            "error": error,
            "failed": not np.isfinite(error),
            "keypoints": (len(view0) + len(view1)) / 2,
            "matches": len(indices),
            "repeatability": repeatability(view0, view1, self.repeatability_px),
            "localisation_error": localisation_error(view0, view1, self.match_px),
            "mma": matching_accuracy(distances, self.mma_px),
            "matching_score": matching_score(view0, view1, indices, self.match_px),
            "correct": correct_counts(distances, self.correct_px),
            **errors,
        }

    def summarise(self, rows: Sequence[Row]) -> SetResult:
        """Metrics of a set: means over its pairs (of the localisation error, over those with a repeated keypoint)."""
        near = at(self.match_px)
        columns = Columns.of(
            rows,
            means={
                **{f"repeatability@{at(px)}": ("repeatability", i) for i, px in enumerate(self.repeatability_px)},
                "localisation_error": ("localisation_error", None),
                f"mma@{near}": ("mma", self.mma_px.index(self.match_px)),
                f"matching_score@{near}": ("matching_score", None),
                **{f"correct@{at(px)}": ("correct", i) for i, px in enumerate(self.correct_px)},
                "keypoints": ("keypoints", None),
                "matches": ("matches", None),
            },
            areas={
                f"corner_error_{name}": {f"auc_{name}@{at(px)}": px for px in self.auc_px} for name in self.estimators
            },
        )
        return SetResult(
            count=len(rows),
            failures=sum(bool(row["failed"]) for row in rows),
            metrics=columns.metrics(),
            intervals=columns.intervals(seed=self.seed),
            groups={name: columns.metrics(indices) for name, indices in group_indices(rows).items()},
            curves=self._curves(rows),
            rows=rows,
        )

    def _curves(self, rows: Sequence[Row]) -> dict[str, Curve]:
        if not rows:
            return {}
        accuracy = np.array([row["mma"] for row in rows], dtype=np.float64).mean(axis=0)
        errors = np.array([row["error"] for row in rows], dtype=np.float64)
        steps = np.linspace(0, self.auc_px[-1], 101)
        return {
            "mma": Curve(x=list(self.mma_px), y=accuracy.tolist()),
            "homography": Curve(x=steps.tolist(), y=[float((errors <= step).mean()) for step in steps]),
        }
