"""How well a number predicts that a match is right: ranking (AUROC, average precision) and calibration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError


class RankedLabels:
    """Labels ranked by a predictor; equal predictions are one rank, so ties favour nobody.

    Sorted once, so that a bootstrap can weigh the same samples anew cheaply.

    Args:
        labels: (N,) bool, or 0 and 1.
        predictions: (N,) finite numbers, higher meaning more likely 1.

    Raises:
        InputError: the lengths differ, or a prediction is not finite.
    """

    def __init__(self, labels: ArrayLike, predictions: ArrayLike) -> None:
        truth, values = _checked(labels, predictions)
        self._order = np.argsort(values, kind="stable")
        self._ones = truth[self._order]
        ordered = values[self._order]
        self._first_of_rank = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])[: len(ordered)])

    def _counts(self, weights: ArrayLike | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Weight of the ones and of the zeros per rank, lowest first."""
        if len(self._order) == 0:
            return np.zeros(0), np.zeros(0)
        weight = 1.0 if weights is None else np.asarray(weights, dtype=np.float64)[self._order]
        ones = np.add.reduceat(self._ones * weight, self._first_of_rank)
        return ones, np.add.reduceat((1 - self._ones) * weight, self._first_of_rank)

    def auroc(self, weights: ArrayLike | None = None) -> float:
        """Area under the ROC curve: the probability that a one is ranked above a zero, ties counting half.

        Args:
            weights: (N,) >= 0, how often each sample counts; ``None`` for once.

        Returns:
            In [0, 1], 0.5 for a predictor that says nothing; NaN if there are only ones or only zeros.
        """
        ones, zeros = self._counts(weights)
        if ones.sum() == 0 or zeros.sum() == 0:
            return float("nan")
        below = np.cumsum(zeros) - zeros
        return float(ones @ (below + zeros / 2) / (ones.sum() * zeros.sum()))

    def average_precision(self, weights: ArrayLike | None = None) -> float:
        """Sum over ranks, best first, of the recall gained times the precision there (no interpolation).

        Args:
            weights: as in :meth:`auroc`.

        Returns:
            In [0, 1]; the share of ones for a predictor that says nothing, NaN if there are none.
        """
        ones, zeros = (counts[::-1] for counts in self._counts(weights))
        if ones.sum() == 0:
            return float("nan")
        taken = np.cumsum(ones + zeros)
        precision = np.cumsum(ones) / np.where(taken > 0, taken, 1)
        return float(ones @ precision / ones.sum())


def auroc(labels: ArrayLike, predictions: ArrayLike) -> float:
    """See :meth:`RankedLabels.auroc`."""
    return RankedLabels(labels, predictions).auroc()


def average_precision(labels: ArrayLike, predictions: ArrayLike) -> float:
    """See :meth:`RankedLabels.average_precision`."""
    return RankedLabels(labels, predictions).average_precision()


def precision_of_best(labels: ArrayLike, predictions: ArrayLike, k: int) -> float:
    """Share of ones among the ``k`` highest predictions.

    Where equal predictions straddle the cut, the mean over every choice among them, so that a constant predictor gives
    the share of ones whatever the order of the samples.

    Returns:
        In [0, 1]; of all samples if there are at most ``k``; NaN without samples.

    Raises:
        InputError: ``k`` is below 1, the lengths differ, or a prediction is not finite.
    """
    truth, values = _checked(labels, predictions)
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}")
    if len(truth) <= k:
        return float(truth.mean()) if len(truth) else float("nan")
    cut = np.partition(values, len(values) - k)[len(values) - k]
    above, tied = values > cut, values == cut
    return float((truth[above].sum() + (k - above.sum()) * truth[tied].mean()) / k)


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """Predicted probability against what happened, in bins of equal width over [0, 1].

    Attributes:
        predicted: (B,) mean prediction of the samples of each bin; NaN for an empty one.
        observed: (B,) share of ones; NaN for an empty bin.
        counts: (B,) number of samples.
    """

    predicted: NDArray[np.float64]
    observed: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def expected_error(self) -> float:
        """ECE (Guo et al. 2017, eq. 3): mean of abs(observed - predicted) over the samples; NaN without samples."""
        if self.counts.sum() == 0:
            return float("nan")
        filled = self.counts > 0
        gaps = np.abs(self.observed[filled] - self.predicted[filled])
        return float(gaps @ self.counts[filled] / self.counts.sum())


def calibration(labels: ArrayLike, probabilities: ArrayLike, *, bins: int = 10) -> Calibration:
    """Calibration curve of predicted probabilities.

    Args:
        labels: (N,) bool, or 0 and 1.
        probabilities: (N,) in [0, 1]; a bin holds its lower end but not its upper one, the last holds 1 too.
        bins: number of bins, >= 1.

    Raises:
        InputError: the lengths differ, a probability is outside [0, 1], or ``bins`` is below 1.
    """
    truth, values = _checked(labels, probabilities)
    if bins < 1:
        raise InputError(f"bins must be at least 1, got {bins}")
    if len(values) and (values.min() < 0 or values.max() > 1):
        raise InputError("probabilities lie in [0, 1]")
    index = np.minimum((values * bins).astype(np.int64), bins - 1)
    counts = np.bincount(index, minlength=bins)
    divisor = np.where(counts > 0, counts, np.nan)
    return Calibration(
        predicted=np.bincount(index, values, bins) / divisor,
        observed=np.bincount(index, truth, bins) / divisor,
        counts=counts,
    )


def _checked(labels: ArrayLike, predictions: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    truth, values = np.asarray(labels, dtype=np.float64), np.asarray(predictions, dtype=np.float64)
    if truth.ndim != 1 or truth.shape != values.shape:
        raise InputError(f"labels and predictions have shapes {truth.shape} and {values.shape}, expected (N,) twice")
    if not np.isin(truth, (0.0, 1.0)).all():
        raise InputError("labels are 0 or 1")
    if not np.isfinite(values).all():
        raise InputError("predictions must be finite")
    return truth, values
