from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from semkey.errors import InputError
from semkey.metrics.bootstrap import bootstrap_intervals
from semkey.metrics.reliability import RankedLabels, auroc, average_precision, calibration, precision_of_best

samples = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=1, max_size=60)


# -- ranking -------------------------------------------------------------------------------------------------------


def test_auroc_by_hand() -> None:
    assert auroc([0, 0, 1, 1], [0.1, 0.2, 0.3, 0.4]) == 1.0
    assert auroc([1, 1, 0, 0], [0.1, 0.2, 0.3, 0.4]) == 0.0
    # Of the four pairs of a one and a zero, (0.35, 0.1), (0.8, 0.1), (0.8, 0.4) are in order and (0.35, 0.4) is not.
    assert auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == 0.75
    assert auroc([0, 1], [0.5, 0.5]) == 0.5
    assert auroc([0, 1, 1], [0.5, 0.5, 0.6]) == 0.75


def test_average_precision_by_hand() -> None:
    # Best first: 1, 0, 1, 0. Precision where recall grows: 1/1 and 2/3.
    assert average_precision([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8]) == pytest.approx((1 + 2 / 3) / 2)
    # One rank of everything: the share of ones.
    assert average_precision([1, 0, 0, 0], [0.3, 0.3, 0.3, 0.3]) == 0.25


def test_nothing_to_rank_is_undefined() -> None:
    for labels in ([], [1, 1], [0, 0]):
        assert math.isnan(auroc(labels, np.zeros(len(labels))))
    assert math.isnan(average_precision([], []))
    assert math.isnan(average_precision([0, 0], [1, 2]))
    assert average_precision([1, 1], [1, 2]) == 1.0


@settings(max_examples=200, deadline=None)
@given(samples)
def test_auroc_is_the_mann_whitney_statistic(pairs: list[tuple[bool, int]]) -> None:
    labels, values = np.array([label for label, _ in pairs]), np.array([value for _, value in pairs], dtype=float)
    if labels.all() or not labels.any():
        assert math.isnan(auroc(labels, values))
        return
    statistic = mannwhitneyu(values[labels], values[~labels]).statistic
    assert auroc(labels, values) == pytest.approx(statistic / (labels.sum() * (~labels).sum()))


@settings(max_examples=200, deadline=None)
@given(samples)
def test_average_precision_is_the_sum_over_thresholds(pairs: list[tuple[bool, int]]) -> None:
    ones = sum(label for label, _ in pairs)
    if ones == 0:
        return
    expected = recall = 0.0
    for threshold in sorted({value for _, value in pairs}, reverse=True):
        taken = [label for label, value in pairs if value >= threshold]
        expected += (sum(taken) / ones - recall) * sum(taken) / len(taken)
        recall = sum(taken) / ones
    assert average_precision([label for label, _ in pairs], [value for _, value in pairs]) == pytest.approx(expected)


@settings(max_examples=100, deadline=None)
@given(samples, st.integers(0, 1000))
def test_a_weight_is_a_number_of_copies(pairs: list[tuple[bool, int]], seed: int) -> None:
    labels, values = np.array([label for label, _ in pairs]), np.array([value for _, value in pairs], dtype=float)
    copies = np.random.default_rng(seed).integers(0, 4, len(pairs))
    ranked = RankedLabels(labels, values)
    repeated = np.repeat(labels, copies), np.repeat(values, copies)
    assert ranked.auroc(copies) == pytest.approx(auroc(*repeated), nan_ok=True)
    assert ranked.average_precision(copies) == pytest.approx(average_precision(*repeated), nan_ok=True)


# -- the best k ----------------------------------------------------------------------------------------------------


def test_precision_of_the_best() -> None:
    labels, values = [1, 0, 1, 0], [0.9, 0.8, 0.7, 0.1]
    assert [precision_of_best(labels, values, k) for k in (1, 2, 3, 4, 9)] == [1.0, 0.5, 2 / 3, 0.5, 0.5]
    assert math.isnan(precision_of_best([], [], 5))


@settings(max_examples=100, deadline=None)
@given(samples, st.integers(1, 70))
def test_ties_at_the_cut_count_as_the_mean_over_their_orders(pairs: list[tuple[bool, int]], k: int) -> None:
    labels, values = np.array([label for label, _ in pairs], dtype=float), np.array([value for _, value in pairs])
    # Every tied sample carries the mean of its tie: that is what a random order gives on average.
    means = np.array([labels[values == value].mean() for value in values])
    expected = means[np.argsort(-values)][:k].mean()
    assert precision_of_best(labels, values, k) == pytest.approx(expected)


# -- calibration ---------------------------------------------------------------------------------------------------


def test_calibration_by_hand() -> None:
    curve = calibration([0, 1, 1, 1, 0], [0.1, 0.1, 0.8, 1.0, 0.5], bins=2)
    np.testing.assert_array_equal(curve.counts, [2, 3])
    np.testing.assert_allclose(curve.predicted, [0.1, (0.8 + 1.0 + 0.5) / 3])
    np.testing.assert_allclose(curve.observed, [0.5, 2 / 3])
    assert curve.expected_error == pytest.approx(2 / 5 * 0.4 + 3 / 5 * (2.3 / 3 - 2 / 3))


def test_empty_bins_count_for_nothing() -> None:
    curve = calibration([1, 1], [0.95, 0.95], bins=10)
    assert np.isnan(curve.observed[:9]).all()
    assert curve.expected_error == pytest.approx(0.05)
    assert math.isnan(calibration([], []).expected_error)


def test_true_probabilities_are_calibrated(rng: np.random.Generator) -> None:
    probabilities = rng.random(200_000)
    labels = rng.random(200_000) < probabilities
    assert calibration(labels, probabilities).expected_error < 0.01
    assert calibration(labels, probabilities**2).expected_error > 0.1


@pytest.mark.parametrize(
    ("labels", "values"), [([0, 1], [0.5]), ([0, 2], [0.1, 0.2]), ([0, 1], [0.1, np.nan]), ([0, 1], [0.1, np.inf])]
)
def test_unusable_samples_are_refused(labels: list, values: list) -> None:
    for function in (auroc, average_precision, calibration):
        with pytest.raises(InputError):
            function(labels, values)


def test_options_out_of_range_are_refused() -> None:
    with pytest.raises(InputError, match=r"\[0, 1\]"):
        calibration([1], [1.5])
    with pytest.raises(InputError, match="bins"):
        calibration([1], [0.5], bins=0)
    with pytest.raises(InputError, match="k must"):
        precision_of_best([1], [0.5], 0)


# -- bootstrap -----------------------------------------------------------------------------------------------------


def test_interval_of_a_mean_is_that_of_the_normal_distribution(rng: np.random.Generator) -> None:
    values = rng.normal(3.0, 2.0, 400)
    ((low, high),) = bootstrap_intervals(lambda drawn: values[drawn].mean(), 400, resamples=4000)
    half = 1.96 * values.std() / 20
    assert low == pytest.approx(values.mean() - half, abs=0.03)
    assert high == pytest.approx(values.mean() + half, abs=0.03)


def test_intervals_hold_the_truth_95_times_of_100() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(400):
        values = rng.random(60)
        ((low, high),) = bootstrap_intervals(lambda drawn, v=values: v[drawn].mean(), 60, resamples=400, seed=seed)
        held += low <= 0.5 <= high
    assert 0.91 <= held / 400 <= 0.98


def test_several_statistics_share_their_draws_and_the_seed_decides() -> None:
    values = np.arange(10.0)

    def both(drawn: np.ndarray) -> list[float]:
        return [values[drawn].mean(), -values[drawn].mean()]

    first = bootstrap_intervals(both, 10, resamples=100, seed=3)
    np.testing.assert_allclose(first[0], -first[1][::-1])
    np.testing.assert_array_equal(first, bootstrap_intervals(both, 10, resamples=100, seed=3))
    assert (first != bootstrap_intervals(both, 10, resamples=100, seed=4)).any()


def test_a_statistic_that_is_mostly_undefined_has_no_interval() -> None:
    intervals = bootstrap_intervals(lambda drawn: [np.nan, 1.0 if drawn[0] else np.nan], 20, resamples=200)
    assert np.isnan(intervals[0]).all()
    np.testing.assert_array_equal(intervals[1], [1.0, 1.0])


@pytest.mark.parametrize(("count", "resamples"), [(0, 10), (5, 0)])
def test_a_bootstrap_without_pairs_or_draws_is_refused(count: int, resamples: int) -> None:
    with pytest.raises(InputError):
        bootstrap_intervals(lambda drawn: drawn.mean(), count, resamples=resamples)
