"""Labels (right or wrong) with what was predicted of them: packed into rows, pooled over pairs, and judged."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey.evaluation.running.summary import MIN_PAIRS_FOR_INTERVAL, finite_intervals
from semkey.metrics.bootstrap import bootstrap_intervals
from semkey.metrics.reliability import Calibration, RankedLabels, calibration

PRODUCT = "product"
"""The predictor that is score times reliability; computed, not stored."""

_RESAMPLES = 300
"""Fewer than for means: each draw ranks every keypoint of a set anew."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Samples:
    """Samples of one pair, or of several.

    Attributes:
        labels: (N,) bool, whether the match is right.
        predictions: (N,) float32 by predictor, higher meaning more likely right; ``score`` and ``reliability`` are
            there.
        probabilities: (N,) float32 in [0, 1], the reliability that the keypoint of image 0 claims.
    """

    labels: NDArray[np.bool_]
    predictions: Mapping[str, NDArray[np.float32]]
    probabilities: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def predictors(self) -> tuple[str, ...]:
        """Names of the predictors, with ``product`` after ``score`` and ``reliability``."""
        others = [name for name in self.predictions if name not in ("score", "reliability")]
        return ("score", "reliability", PRODUCT, *others)

    def predicted(self, name: str) -> NDArray[np.float64]:
        """The predictions (N,) of a predictor."""
        if name == PRODUCT:
            return self.predicted("score") * self.predicted("reliability")
        return self.predictions[name].astype(np.float64)

    def ranked(self, name: str) -> RankedLabels:
        """The labels, ranked by a predictor."""
        return RankedLabels(self.labels, self.predicted(name))

    def calibration(self, bins: int) -> Calibration:
        """What the claimed reliability is worth as a probability."""
        return calibration(self.labels, self.probabilities, bins=bins)

    def packed(self) -> dict[str, str | int]:
        """For JSON: float32 values and the bits of the labels as base64, so that nothing is rounded."""
        predictions = {f"predicted_{name}": _encode(values) for name, values in self.predictions.items()}
        return {
            "count": len(self),
            "labels": _encode(np.packbits(self.labels)),
            **predictions,
            "probabilities": _encode(self.probabilities),
        }

    @classmethod
    def unpacked(cls, stored: Mapping[str, str | int]) -> Samples:
        """What :meth:`packed` packed."""
        bits = np.frombuffer(base64.b64decode(str(stored["labels"])), dtype=np.uint8)
        prefix = "predicted_"
        return cls(
            labels=np.unpackbits(bits, count=int(stored["count"])).astype(bool),
            predictions={
                name.removeprefix(prefix): _decode(str(value))
                for name, value in stored.items()
                if name.startswith(prefix)
            },
            probabilities=_decode(str(stored["probabilities"])),
        )

    @classmethod
    def pooled(cls, parts: Sequence[Samples]) -> Samples:
        """The samples of all parts (at least one), in their order."""
        return cls(
            labels=np.concatenate([part.labels for part in parts]),
            predictions={
                name: np.concatenate([part.predictions[name] for part in parts]) for name in parts[0].predictions
            },
            probabilities=np.concatenate([part.probabilities for part in parts]),
        )


def pooled_metrics(parts: Sequence[Samples], suffix: str, *, bins: int) -> dict[str, float]:
    """AUROC and average precision of each predictor and the calibration error, over the samples of all parts.

    Names are ``auroc{suffix}_{predictor}``, ``ap{suffix}_{predictor}`` and ``ece{suffix}``.
    """
    if not parts:
        return {}
    samples = Samples.pooled(parts)
    metrics = {f"ece{suffix}": samples.calibration(bins).expected_error}
    for name in samples.predictors:
        ranked = samples.ranked(name)
        metrics[f"auroc{suffix}_{name}"] = ranked.auroc()
        metrics[f"ap{suffix}_{name}"] = ranked.average_precision()
    return metrics


def pooled_intervals(parts: Sequence[Samples], suffix: str, *, seed: int) -> dict[str, tuple[float, float]]:
    """95 % bootstrap intervals of the AUROCs over the parts: the samples of a pair are drawn together."""
    if len(parts) < MIN_PAIRS_FOR_INTERVAL:
        return {}
    samples = Samples.pooled(parts)
    part_of = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
    ranked = {f"auroc{suffix}_{name}": samples.ranked(name) for name in samples.predictors}

    def aurocs(drawn: NDArray[np.int64]) -> list[float]:
        weights = np.bincount(drawn, minlength=len(parts))[part_of]
        return [labels.auroc(weights) for labels in ranked.values()]

    ends = bootstrap_intervals(aurocs, len(parts), resamples=_RESAMPLES, seed=seed)
    return finite_intervals(list(ranked), ends)


def _encode(values: NDArray[Any]) -> str:
    little_endian = values.astype(values.dtype.newbyteorder("<"))
    return base64.b64encode(little_endian.tobytes()).decode("ascii")


def _decode(text: str) -> NDArray[np.float32]:
    return np.frombuffer(base64.b64decode(text), dtype="<f4").astype(np.float32)
