"""Whether a keypoint's score and reliability, and a match's similarity, say which matches are right."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from semkey.errors import ConfigError, InputError
from semkey.evaluation.data.pairs import ImagePair, PoseTruth
from semkey.evaluation.kinds.reliability_samples import Samples, pooled_intervals, pooled_metrics
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
)
from semkey.matching import Matches, match
from semkey.metrics.keypoints import MappedKeypoints, correct_counts, matching_accuracy, matching_score
from semkey.metrics.reliability import precision_of_best
from semkey.model.features import Features
from semkey.settings import Settings

KEYPOINT_PREDICTORS = ("score", "reliability", "product")
MATCH_PREDICTORS = (*KEYPOINT_PREDICTORS, "similarity")
SELECTIONS = ("score", "product")

_LABELS = {
    "score": "score",
    "reliability": "reliability",
    "product": "score x reliability",
    "similarity": "similarity",
}
_SUFFIXES = {"keypoint_samples": "", "match_samples": "_match"}
"""Where the rows hold the samples of each question, and what the names of its metrics carry."""

_ROUNDING = 1e-5


@dataclass(frozen=True, kw_only=True)
class ReliabilityProtocol(Settings):
    """How well predictions that come with keypoints and matches say which matches are right.

    Two questions are asked:

    - *Keypoint*: which of the co-visible keypoints of image 0 get a right match? Label 1 if a keypoint is matched at
      most ``match_px`` from its true place, 0 if its match is further away or it has none. Predictors are the score,
      the reliability and their product.
    - *Match*: which matches are right, of those whose truth is known? Predictors are the geometric means of the two
      keypoints' scores, of their reliabilities and of their products, and the match's similarity.

    The samples of all pairs of a set are pooled. A detector's scores may be comparable within one image only, so the
    mean of the single images' AUROCs is given as well. Calibration compares the reliability that the keypoint of image
    0 claims with the labels of either question; semkey defines it as the probability of the second.

    Attributes:
        kind: name of the evaluation.
        match_px: largest distance of a right match from its true place, pixels of image 1.
        best_k: how many of a pair's matches are kept where the precision of the best is asked for; a pair with fewer
            gives all of them.
        keep: how many of each image's keypoints are kept, once by score and once by score x reliability, and matched
            anew as mutual nearest neighbours, whatever the method's own matcher is.
        bins: of the calibration curves.
        seed: of the bootstrap.

    Raises:
        ConfigError: an option is out of its range.
    """

    kind: str = "reliability"
    match_px: float = 3.0
    best_k: tuple[int, ...] = (128, 256, 512)
    keep: int = 512
    bins: int = 10
    seed: int = 0

    curve_labels: ClassVar[Mapping[str, tuple[str, str]]] = {
        "calibration": ("predicted reliability", "share of keypoints with a right match"),
        "calibration_match": ("predicted reliability", "share of matches that are right"),
        **{f"best_{name}": (f"best matches kept by {_LABELS[name]}", "precision") for name in MATCH_PREDICTORS},
    }

    def __post_init__(self) -> None:
        check_thresholds("match_px", [self.match_px])
        check_thresholds("best_k", self.best_k)
        if self.keep < 1 or self.bins < 1:
            raise ConfigError(f"keep and bins must be at least 1, got {self.keep} and {self.bins}")

    @property
    def metrics(self) -> Sequence[Metric]:
        """See :class:`semkey.evaluation.running.results.Metric`."""
        near = at(self.match_px)
        return [
            *(
                Metric(name=f"auroc_{name}", label=f"AUROC of {_LABELS[name]}", digits=3, headline=True)
                for name in KEYPOINT_PREDICTORS
            ),
            *(
                Metric(name=f"auroc_image_{name}", label=f"AUROC of {_LABELS[name]}, mean of images", digits=3)
                for name in KEYPOINT_PREDICTORS
            ),
            *(
                Metric(name=f"ap_{name}", label=f"average precision of {_LABELS[name]}", digits=3)
                for name in KEYPOINT_PREDICTORS
            ),
            Metric(name="ece", label="calibration error", higher_is_better=False, digits=3),
            *(
                Metric(name=f"auroc_match_{name}", label=f"AUROC of {_LABELS[name]}, given a match", digits=3)
                for name in MATCH_PREDICTORS
            ),
            *(
                Metric(name=f"ap_match_{name}", label=f"average precision of {_LABELS[name]}, given a match", digits=3)
                for name in MATCH_PREDICTORS
            ),
            Metric(
                name="ece_match",
                label="calibration error, given a match",
                higher_is_better=False,
                digits=3,
                headline=True,
            ),
            *(
                Metric(
                    name=f"precision_{name}@{k}", label=f"precision of the best {k} by {_LABELS[name]}, %", percent=True
                )
                for k in self.best_k
                for name in MATCH_PREDICTORS
            ),
            *(
                Metric(
                    name=f"{measure}_by_{by}",
                    label=f"{label}, best {self.keep} by {_LABELS[by]}{', %' if percent else ''}",
                    percent=percent,
                )
                for measure, label, percent in (
                    ("matching_score", f"matching score @{near} px", True),
                    ("correct", f"correct matches @{near} px", False),
                    ("precision", f"precision @{near} px", True),
                )
                for by in SELECTIONS
            ),
            Metric(
                name="matching_score_gain",
                label=f"matching score gained by reliability, best {self.keep}, %",
                percent=True,
                digits=2,
                headline=True,
            ),
            Metric(name="matched", label=f"keypoints with a right match @{near} px, %", percent=True),
            Metric(name="precision", label=f"precision of all matches @{near} px, %", percent=True),
            Metric(name="keypoints", label="keypoints", higher_is_better=None),
            Metric(name="matches", label="matches", higher_is_better=None),
        ]

    def measure(self, pair: ImagePair, features0: Features, features1: Features, matches: Matches) -> Row:
        """Measures of one pair, and its labels and predictions, packed, for pooling.

        Returns:
            ``error`` is the share of co-visible keypoints of image 0 without a right match; a pair without any match
            has ``failed``, and a precision of 0.

        Raises:
            ConfigError: the truth of the pair does not say where points lie (poses without depth).
        """
        if isinstance(pair.truth, PoseTruth) and not pair.truth.has_depth:
            raise ConfigError(
                f"pair {pair.name} has no depth that says which matches are right (--depth takes unregistered one)"
            )
        view0, view1 = map_keypoints(pair.truth, features0, features1)
        indices = matched_indices(matches)
        distances = judged_distances(pair.truth, view0, view1, indices)
        keypoints = self._keypoint_samples(features0, view0, indices, distances)
        found = self._match_samples(features0, features1, matches, distances)
        matched = float(keypoints.labels.mean()) if len(keypoints) else 0.0
        best = {
            f"best_{name}": [precision_of_best(found.labels, found.predicted(name), k) for k in self.best_k]
            for name in MATCH_PREDICTORS
        }
        if len(indices) == 0:
            best = {name: [0.0] * len(values) for name, values in best.items()}
        selected = {}
        for by in SELECTIONS:
            selected |= self._selected(pair, features0, features1, by)
        return {
            "name": pair.name,
            "group": pair.group,
            "error": 1.0 - matched,
            "failed": len(indices) == 0,
            "keypoints": (len(view0) + len(view1)) / 2,
            "matches": len(indices),
            "matched": matched,
            "precision": matching_accuracy(distances, [self.match_px])[0],
            **{f"auroc_image_{name}": keypoints.ranked(name).auroc() for name in KEYPOINT_PREDICTORS},
            **best,
            **selected,
            "matching_score_gain": selected["matching_score_by_product"] - selected["matching_score_by_score"],
            "keypoint_samples": keypoints.packed(),
            "match_samples": found.packed(),
        }

    def _keypoint_samples(
        self, features0: Features, view0: MappedKeypoints, indices: NDArray[Any], distances: NDArray[Any]
    ) -> Samples:
        """The co-visible keypoints of image 0."""
        has_right_match = np.zeros(len(view0), dtype=bool)
        has_right_match[indices[distances <= self.match_px, 0]] = True
        reliability = _share(features0.reliability, "reliability")[view0.visible]
        return Samples(
            labels=has_right_match[view0.visible],
            predictions={"score": _share(features0.scores, "scores")[view0.visible], "reliability": reliability},
            probabilities=reliability,
        )

    def _match_samples(
        self, features0: Features, features1: Features, matches: Matches, distances: NDArray[Any]
    ) -> Samples:
        """The matches whose truth is known."""
        judged = ~np.isnan(distances)
        index0, index1 = matched_indices(matches)[judged].T
        ends = ((features0, index0), (features1, index1))
        scores0, scores1 = (_share(features.scores, "scores")[index] for features, index in ends)
        claimed0, claimed1 = (_share(features.reliability, "reliability")[index] for features, index in ends)
        return Samples(
            labels=distances[judged] <= self.match_px,
            predictions={
                "score": np.sqrt(scores0 * scores1),
                "reliability": np.sqrt(claimed0 * claimed1),
                "similarity": to_array(matches.scores)[judged].astype(np.float32),
            },
            probabilities=claimed0,
        )

    def _selected(self, pair: ImagePair, features0: Features, features1: Features, by: str) -> Row:
        """Measures when only the best ``keep`` keypoints of each image by ``by`` are left."""
        chosen0, chosen1 = (_best(features, by, self.keep) for features in (features0, features1))
        view0, view1 = map_keypoints(pair.truth, chosen0, chosen1)
        indices = matched_indices(match(chosen0, chosen1))
        distances = judged_distances(pair.truth, view0, view1, indices)
        return {
            f"matching_score_by_{by}": matching_score(view0, view1, indices, self.match_px),
            f"correct_by_{by}": correct_counts(distances, [self.match_px])[0],
            f"precision_by_{by}": matching_accuracy(distances, [self.match_px])[0],
        }

    def summarise(self, rows: Sequence[Row]) -> SetResult:
        """Metrics of a set: AUROC, average precision and calibration of pooled samples, means over pairs of the rest.

        The samples are left out of the rows of the result.
        """
        columns = Columns.of(
            rows,
            means={
                **{
                    f"precision_{name}@{k}": (f"best_{name}", i)
                    for i, k in enumerate(self.best_k)
                    for name in MATCH_PREDICTORS
                },
                **{f"auroc_image_{name}": (f"auroc_image_{name}", None) for name in KEYPOINT_PREDICTORS},
                **{
                    f"{measure}_by_{by}": (f"{measure}_by_{by}", None)
                    for measure in ("matching_score", "correct", "precision")
                    for by in SELECTIONS
                },
                **{
                    name: (name, None)
                    for name in ("matching_score_gain", "matched", "precision", "keypoints", "matches")
                },
            },
        )
        samples = {key: [Samples.unpacked(row[key]) for row in rows] for key in _SUFFIXES}
        metrics, intervals = columns.metrics(), columns.intervals(seed=self.seed)
        groups = {name: columns.metrics(indices) for name, indices in group_indices(rows).items()}
        for key, suffix in _SUFFIXES.items():
            metrics |= pooled_metrics(samples[key], suffix, bins=self.bins)
            intervals |= pooled_intervals(samples[key], suffix, seed=self.seed)
            for name, indices in group_indices(rows).items():
                groups[name] |= pooled_metrics([samples[key][i] for i in indices], suffix, bins=self.bins)
        return SetResult(
            count=len(rows),
            failures=sum(bool(row["failed"]) for row in rows),
            metrics=metrics,
            intervals=intervals,
            groups=groups,
            curves=self._curves(samples, metrics),
            rows=[{name: value for name, value in row.items() if name not in _SUFFIXES} for row in rows],
        )

    def _curves(self, samples: Mapping[str, Sequence[Samples]], metrics: Mapping[str, float]) -> dict[str, Curve]:
        curves = {}
        for key, suffix in _SUFFIXES.items():
            if samples[key]:
                curve = Samples.pooled(samples[key]).calibration(self.bins)
                filled = curve.counts > 0
                points = Curve(x=curve.predicted[filled].tolist(), y=curve.observed[filled].tolist())
                curves[f"calibration{suffix}"] = points
        for name in MATCH_PREDICTORS:
            precision = [metrics[f"precision_{name}@{k}"] for k in self.best_k]
            if np.isfinite(precision).all():
                curves[f"best_{name}"] = Curve(x=list(self.best_k), y=precision)
        return curves


def _best(features: Features, by: str, count: int) -> Features:
    """The ``count`` best keypoints by score or by score x reliability, best first."""
    values = features.scores if by == "score" else features.scores * features.reliability
    order = torch.sort(values, descending=True, stable=True).indices[:count]
    return features.select(order)


def _share(tensor: torch.Tensor, what: str) -> NDArray[np.float32]:
    """Values in [0, 1] as :class:`Features` promises them, up to rounding.

    Raises:
        InputError: a value is not finite or out of range: a method of somebody's own breaks the promise.
    """
    values = to_array(tensor)
    if len(values) and not (values.min() >= -_ROUNDING and values.max() <= 1 + _ROUNDING):
        raise InputError(f"{what} must lie in [0, 1], got values from {values.min():g} to {values.max():g}")
    return np.clip(values, 0, 1).astype(np.float32)
