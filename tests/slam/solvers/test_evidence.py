"""The number of false alarms: what chance gives, what true matches give, and that more and better is more."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import binom

from semkey.slam.solvers.evidence import (
    MAX_LOG10_NFA,
    Evidence,
    depth_agreement,
    log10_binomial_tail,
    log10_nfa,
    log10_sample_nfa,
    log10_samples,
    needed_log10_nfa,
    similarity_tail,
)

SIZE = (640, 480)
RADIUS = 6.0


def chance(rng: np.random.Generator, landmarks: int, keypoints: int) -> tuple[np.ndarray, ...]:
    """What a pose that has nothing to do with the image finds: keypoints anywhere, descriptors that are unrelated."""
    pixels = rng.uniform(0, SIZE, (landmarks, 2))
    seen = rng.uniform(0, SIZE, (keypoints, 2))
    distances = np.linalg.norm(pixels[:, None] - seen, axis=2)
    near = distances < RADIUS
    candidates = near.sum(axis=1)
    # The rank of a pair among unrelated ones is uniform; of several candidates the most similar one is taken.
    tails = np.where(near, rng.uniform(0, 1, near.shape), np.inf)
    chosen = tails.argmin(axis=1)
    rows = np.arange(landmarks)
    found = candidates > 0
    share = np.where(found, (distances[rows, chosen] / RADIUS) ** 2, np.inf)
    return share, np.where(found, tails[rows, chosen], 1.0), candidates.astype(float), pixels


@pytest.mark.parametrize(("landmarks", "keypoints", "trials"), [(60, 200, 500), (300, 600, 60)])
def test_chance_gives_as_many_false_alarms_as_the_number_says(landmarks: int, keypoints: int, trials: int) -> None:
    rng = np.random.default_rng(0)
    scores = np.array([log10_nfa(*chance(rng, landmarks, keypoints), image_size=SIZE) for _ in range(trials)])
    # In so many trials of one pose each the expected number with NFA <= e is at most as many times e.
    for log10_e in (-0.5, -1.0, -2.0):
        assert np.count_nonzero(scores <= log10_e) <= trials * 10.0**log10_e
    assert scores.mean() > 0


def true_matches(rng: np.random.Generator, landmarks: int, found: int, sigma: float) -> tuple[np.ndarray, ...]:
    share, tail, candidates, pixels = chance(rng, landmarks, 1024)
    right = rng.choice(landmarks, found, replace=False)
    share[right] = (np.hypot(*rng.normal(0, sigma, (2, found))) / RADIUS) ** 2
    tail[right] = rng.uniform(0, 0.01, found)
    candidates[right] += 1
    return share, tail, candidates, pixels


def test_true_matches_are_far_from_chance_and_more_of_them_are_farther() -> None:
    scores = [
        log10_nfa(*true_matches(np.random.default_rng(1), 1000, found, 1.3), image_size=SIZE, log10_tests=8)
        for found in (0, 30, 60, 120, 240, 480)
    ]
    assert scores[0] > 5
    assert scores[2] < -20
    assert all(later < earlier for earlier, later in pairwise(scores))
    precise = log10_nfa(*true_matches(np.random.default_rng(1), 1000, 120, 0.5), image_size=SIZE, log10_tests=8)
    assert precise < scores[3]


def test_landmarks_that_are_missing_count_against_a_pose() -> None:
    share, tail, candidates, pixels = true_matches(np.random.default_rng(2), 100, 60, 1.3)
    few = log10_nfa(share, tail, candidates, pixels, image_size=SIZE)
    missing = np.full(2000, np.inf)
    extra = np.random.default_rng(3).uniform(0, SIZE, (2000, 2))
    many = log10_nfa(
        np.concatenate([share, missing]),
        np.concatenate([tail, np.ones(2000)]),
        np.concatenate([candidates, np.full(2000, candidates.mean())]),
        np.concatenate([pixels, extra]),
        image_size=SIZE,
    )
    assert few + 40 < many < MAX_LOG10_NFA


def test_a_poster_is_less_than_the_same_matches_all_over_the_image() -> None:
    share, tail, candidates, pixels = true_matches(np.random.default_rng(4), 300, 200, 1.3)
    spread = log10_nfa(share, tail, candidates, pixels, image_size=SIZE)
    poster = log10_nfa(share, tail, candidates, 200 + 0.2 * pixels, image_size=SIZE)
    assert spread < 3 * poster < 0


def test_more_tests_are_less_evidence_by_as_many_decades() -> None:
    given = true_matches(np.random.default_rng(5), 300, 100, 1.3)
    one = log10_nfa(*given, image_size=SIZE)
    assert log10_nfa(*given, image_size=SIZE, log10_tests=6.5) == pytest.approx(one + 6.5)
    assert log10_samples(10) == pytest.approx(math.log10(120))
    assert log10_samples(2) == 0.0


def test_the_bound_is_above_the_binomial_tail_and_near_it() -> None:
    for hits, trials, rate in ((5, 20, 0.1), (30, 100, 0.05), (120, 1000, 0.01), (3, 4, 0.2)):
        exact = binom.logsf(hits - 1, trials, rate) / math.log(10)
        bound = log10_binomial_tail(hits, trials, rate)
        assert exact <= bound <= exact + 1.6
    assert log10_binomial_tail(10, 100, 0.1) == 0.0
    assert log10_binomial_tail(5, 5, 0.5) == pytest.approx(5 * math.log10(0.5))
    assert log10_binomial_tail(1000, 1000, 1e-3) == pytest.approx(-3000)


def test_what_a_sample_agrees_with_by_chance_is_no_evidence() -> None:
    # The best of many samples over random matches: 3 of its own, and whatever lies within the chance.
    rng = np.random.default_rng(6)
    scores = []
    for _ in range(200):
        agree = 3 + rng.binomial(97, 0.01, size=500)  # 500 samples of 100 matches
        scores.append(log10_sample_nfa(100, int(agree.max()), 0.01))
    assert np.count_nonzero(np.array(scores) <= 0) <= 10
    assert log10_sample_nfa(100, 3, 0.01) == 0.0
    # log10 of 97 * C(100, 20) * C(20, 3) * 0.001^17
    assert log10_sample_nfa(100, 20, 1e-3) == pytest.approx(
        math.log10(97 * math.comb(100, 20) * math.comb(20, 3)) - 51, abs=1e-6
    )
    assert log10_sample_nfa(100, 30, 1e-3) < log10_sample_nfa(100, 20, 1e-3)


def test_nothing_to_see_is_no_evidence() -> None:
    nothing = np.zeros(0)
    assert log10_nfa(nothing, nothing, nothing, np.zeros((0, 2)), image_size=SIZE) > 0
    assert Evidence(log10_nfa=0.0, visible=0, found=0).found_share == 0.0
    assert Evidence(log10_nfa=-9.0, visible=80, found=20).found_share == 0.25


def test_tails_are_shares_of_unrelated_pairs_and_never_zero() -> None:
    background = np.linspace(0, 1, 99)
    assert similarity_tail(background, np.array([2.0, 0.495, -1.0])) == pytest.approx([0.01, 0.51, 1.0])


def test_depths_agree_within_four_sigma() -> None:
    agree = depth_agreement(np.array([2.0, 2.1, 1.7]), np.full(3, 2.0), np.full(3, 0.05))
    assert list(agree) == [True, True, False]


def test_it_is_the_definition_spelt_out() -> None:
    """Threshold by threshold, as the module's documentation has it."""
    rng = np.random.default_rng(3)
    share, tail, candidates, pixels = true_matches(rng, 200, 60, 1.0)
    tail[::9] = 0.05  # one of the thresholds itself
    cells = (pixels / SIZE * (8, 6)).astype(int) @ (6, 1)
    best = 0.0
    for area in 0.5 ** np.arange(9):
        for level in (1.0, 0.2, 0.05, 0.01, 0.002):
            agree = (share <= area) & (tail <= level)
            hits = sum(min(np.count_nonzero(agree & (cells == cell)), 10) for cell in range(48))
            p = np.mean(1 - (1 - min(area * level, 1 - 1e-9)) ** candidates)
            if hits > 3:
                best = min(best, log10_binomial_tail(float(hits) - 3, 200 - 3, float(p)))
    assert log10_nfa(share, tail, candidates, pixels, image_size=SIZE) == pytest.approx(best + math.log10(45))


def test_where_little_of_what_should_be_seen_is_found_more_evidence_is_needed() -> None:
    assert needed_log10_nfa(60, 200) == needed_log10_nfa(20, 200, coverage=1.0) == MAX_LOG10_NFA
    assert needed_log10_nfa(0, 0) == MAX_LOG10_NFA
    assert needed_log10_nfa(10, 200, coverage=1.0) == pytest.approx(4 * MAX_LOG10_NFA)
    # Bricks upside down, and a room through 10 % of white pixels.
    assert needed_log10_nfa(53, 1844) < -10 - 30
    assert needed_log10_nfa(166, 3131, coverage=1.0) > -253 + 200


def test_matches_that_agree_before_any_pose_stand_in_for_landmarks_that_are_missing() -> None:
    # ORB across a turn, then nano in a room upside down: 3 % of what should be seen in both.
    assert needed_log10_nfa(33, 1198, sampled=24, matched=83) == MAX_LOG10_NFA
    assert needed_log10_nfa(67, 2016, sampled=19, matched=432) < -16.3 - 10
    # By either share the pose is usual; matches that were not made by descriptors alone say nothing.
    assert needed_log10_nfa(60, 200, sampled=1, matched=400) == MAX_LOG10_NFA
    assert needed_log10_nfa(10, 200, sampled=50, matched=0, coverage=1.0) == pytest.approx(4 * MAX_LOG10_NFA)


def test_around_a_prediction_a_pose_explains_the_view_or_its_matches_are_as_good_as_true_ones() -> None:
    """A rendered room searched around wrong predictions; past large things in the view; ORB between few keyframes."""
    for found, visible, coverage, false in (
        (50, 598, 0.36, -13.9),  # random order: 24 cm off, and taken for the pose of established landmarks
        (78, 1007, 0.54, -18.2),
        (105, 1038, 0.68, -40.3),
        (108, 1001, 0.65, -50.5),
        (88, 544, 0.60, -49.0),
    ):
        assert false > needed_log10_nfa(found, visible, coverage=coverage)
    for found, visible, coverage, true in (
        (28, 322, 0.32, -31.2),
        (65, 746, 0.33, -87.0),
        (106, 692, 0.45, -179.9),
        (92, 624, 0.87, -12.4),  # ORB
        (121, 503, 0.89, -27.1),
        (120, 410, 0.96, -44.9),
    ):
        assert true < needed_log10_nfa(found, visible, coverage=coverage)


def test_without_a_prediction_matches_must_be_as_good_as_true_ones() -> None:
    # Rendered rooms upside down and an unrelated photo, then a distant true view and weak and strong ones.
    for found, visible, false in ((86, 762, -30.2), (89, 714, -39.9), (62, 574, -28.3), (165, 1553, -5.7)):
        assert false > needed_log10_nfa(found, visible, is_expected=False)
    for found, visible, true in ((317, 1089, -148), (174, 480, -231.8), (30, 90, -30.0)):
        assert true < needed_log10_nfa(found, visible, is_expected=False)
    assert needed_log10_nfa(900, 1000, is_expected=False) == -60
    # A single photo, upside down, 3 m off; and one that is right.
    assert needed_log10_nfa(62, 589, is_expected=False, is_alone=True) < -50.2
    assert needed_log10_nfa(62, 589, is_expected=False) > -50.2
    assert needed_log10_nfa(147, 900, is_expected=False, is_alone=True) > -65


def test_beyond_reach_a_quarter_of_what_should_be_seen_has_to_be_found() -> None:
    """Rooms upside down: 59 of 589 with 38 decades, 96 of 1634 with 73, 99 of 614 with 96."""
    for found, visible, decades in ((59, 589, 38), (96, 1634, 73), (99, 614, 96)):
        assert -decades > needed_log10_nfa(found, visible, is_expected=False, is_within_reach=False)
    assert needed_log10_nfa(300, 800, is_within_reach=False) == MAX_LOG10_NFA
    assert needed_log10_nfa(100, 800, coverage=0.9) == MAX_LOG10_NFA
