"""How improbable it is that landmarks agree with a pose by chance: the number of false alarms of an a-contrario test.

The model of chance: keypoints lie anywhere within the discs in which they were looked for, and their descriptors have
nothing to do with those of the landmarks. A landmark that has ``n`` keypoints within the search radius ``R`` of where a
pose puts it then has one within an area ``a``, and at least as similar as ``s``, with probability

    p = 1 - (1 - a / (pi R^2) * S(s))^n,

where ``S(s)`` is the share of unrelated pairs of descriptors that are at least so similar. Of ``V`` visible landmarks
``k`` have one. The number of false alarms is the number of poses that were tried times the probability of ``k`` or
more by chance: how many poses at least so well supported are to be expected where there is nothing to see (Desolneux,
Moisan and Morel 2000; for RANSAC Moisan and Stival 2004, and with thresholds that adapt to the data Moulon, Monasse and
Marlet 2012). By its definition a threshold of ``1e-6`` accepts one in a million poses that chance has made.

Matches that were made by descriptors alone, wherever they lie, have told something before: what RANSAC found among them
has a number of false alarms of its own. The lower of the two counts while tracking, against keyframes just seen; it is
not asked elsewhere, since poses that crowd all landmarks into a corner agree with unrelated photos in 2 % of pairs.

Several ``a`` and ``s`` are tried and the best counts, times their number. So precision is evidence, and so are
landmarks that should be visible and are not found: they are part of ``V``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semkey.slam.solvers.image_cells import GRID, cells_of

Array = NDArray[np.float64]

MAX_LOG10_NFA = -4.0
"""A pose with a higher logarithm of the number of false alarms is not believed, and one by a small part of what should
be seen needs less, see :func:`needed_log10_nfa`: the numbers are in ``docs/slam.md``."""

# A pattern that repeats in itself, such as bricks upside down, breaks the independence that chance is computed by: some
# matches agree wherever the camera is. What should be seen besides is then missing. Where a smaller share than this of
# the landmarks that should be in view is found, the threshold falls with the inverse square of the share: the false
# poses of a wall of bricks have 3 % and 10 decades, 10 % of white pixels leave 5 % and 250 decades to true ones.
_USUAL_SHARE = 0.1
# A pose explains the view where so much of what should be seen is found. Where a camera cannot have come since its last
# pose it has to: false poses of a room upside down have 6 to 16 %, and 11 to 96 decades.
_EXPLAINED_SHARE = 0.25
# It also does where something agrees in so many of the cells with landmarks and keypoints: around a wrong prediction,
# false poses of a rendered room have 0.1 to 0.74, true ones 0.87 to 1. True ones of ORB, which finds 8 to 25 % of what
# should be seen on fr3_cabinet, have 0.62 to 1.
_EXPLAINED_COVERAGE = 0.75
# Of matches by descriptors alone, before any pose, a larger part agrees with a true one: a third with ORB
# across a turn, which finds 3 % of what should be seen there; 3 to 5 % do with poses of a room upside down.
_USUAL_SAMPLE_SHARE = 0.2
# Where no prediction backs a pose, or it does not explain the view, what agrees with it must be as near and as similar
# as true matches are: so many decades each, up to so many altogether. True poses have 0.8 (the median), and beyond 100
# altogether less; those of unrelated photos up to 0.2, those of a rendered room upside down up to 0.46. Around a wrong
# prediction in a rendered room false poses have -0.4 to 0.56 (those 6 to 7 cm off 0.8), and past a large thing in the
# view, where 5 to 25 % of the landmarks are left to see, true ones 0.75 to 1.9.
_DECADES_EACH = 0.6
# A single photo has no next frame that would show a mistake: of the upside down photos of a rendered room one had 62
# landmarks with 0.8 decades each, 3 m from the truth. Photos of a kitchen and of a cabinet that are right have over 110
# landmarks and more than enough altogether.
_DECADES_EACH_ALONE = 1.0
_DECADES_ENOUGH = 60.0

# The most landmarks found in one cell of the image that count: a poster full of keypoints is one thing that can be
# mistaken for another, and not two hundred.
_MOST_IN_CELL = 10
# Shares of the search disc within which a match is looked for, and of unrelated pairs that are more similar.
_AREAS = 0.5 ** np.arange(0, 9)
_TAILS = np.array([1.0, 0.2, 0.05, 0.01, 0.002])
# A pose is determined by so many points; they agree with it whatever they are.
_SAMPLE = 3


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What speaks for a pose.

    Attributes:
        log10_nfa: logarithm of the number of false alarms; the lower, the surer. 0 or more is what chance gives.
        visible: landmarks that should be seen from the pose.
        found: of them, those that agree with it.
        depth_checked: of those found, how many have a measured depth.
        depth_agree: of those, how many have the depth that the pose says.
        matched: matches by descriptors alone that were tried; 0 where those are no evidence.
        sampled: of them, those that agree.
    """

    log10_nfa: float
    visible: int
    found: int
    depth_checked: int = 0
    depth_agree: int = 0
    matched: int = 0
    sampled: int = 0

    @property
    def found_share(self) -> float:
        """Of the visible landmarks, the share that was found; 0 where none should be seen."""
        return self.found / self.visible if self.visible else 0.0


def needed_log10_nfa(
    found: int,
    visible: int,
    *,
    is_expected: bool = True,
    is_within_reach: bool = True,
    sampled: int = 0,
    matched: int = 0,
    coverage: float = 0.0,
    is_alone: bool = False,
) -> float:
    """The highest logarithm of the number of false alarms of a pose that is believed.

    A pose that is found around a prediction is the best of all that lie there, and near a wrong one that is some pose
    by which a few landmarks agree, more than chance has: what shares a look lies together. A pose that explains the
    view is not of that kind: it finds a quarter of what should be seen, or agrees all over the image, or with a fifth
    of what descriptors alone have matched. Of any other each landmark found must be evidence.

    Args:
        found: landmarks that agree with the pose.
        visible: landmarks that should be in view.
        is_expected: a prediction, or keyframes just seen, back the pose; not after a loss, at loops and for photos.
        is_within_reach: the camera can have come there since its last pose.
        sampled: matches made by descriptors alone that agree with it.
        matched: such matches that were tried; 0 where they are no evidence.
        coverage: of the image's cells with landmarks and keypoints, the share in which something agrees.
        is_alone: no frame before or after can tell.
    """
    has_usual_share = found >= _EXPLAINED_SHARE * visible
    if not is_within_reach and not has_usual_share:
        return -math.inf
    has_usual_sample = matched > 0 and sampled >= _USUAL_SAMPLE_SHARE * matched
    missing = _USUAL_SHARE * visible / max(found, 1e-3) if visible and not has_usual_sample else 1.0
    needed = MAX_LOG10_NFA * max(1.0, missing) ** 2
    if is_expected and (has_usual_share or has_usual_sample or coverage >= _EXPLAINED_COVERAGE):
        return needed
    each = _DECADES_EACH_ALONE if is_alone else _DECADES_EACH
    return min(needed, -min(each * found, _DECADES_ENOUGH))


def similarity_tail(background: Array, similarity: Array) -> Array:
    """The share of unrelated pairs that are at least as similar as each of ``similarity`` (M,), never 0.

    Args:
        background: (B,) cosines of unrelated pairs of descriptors.
        similarity: (M,) cosines.
    """
    ordered = np.sort(background)
    above = len(ordered) - np.searchsorted(ordered, similarity, side="left")
    return (1.0 + above) / (1.0 + len(ordered))


def log10_nfa(
    area_share: Array,
    tail: Array,
    candidates: Array,
    pixels: Array,
    *,
    image_size: tuple[int, int],
    log10_tests: float = 0.0,
) -> float:
    """The number of false alarms of a pose, as a logarithm.

    Args:
        area_share: (V,) for each visible landmark, the area of the ellipse around its projection on whose border its
            match lies, as a share of the area in which matches were looked for; infinite where it has no match. For
            residuals of one size in all directions that is ``(distance / radius)^2``.
        tail: (V,) share of unrelated descriptors that are at least as similar as the match; ignored without one.
        candidates: (V,) keypoints within the search area.
        pixels: (V, 2) projections of the landmarks.
        image_size: width and height.
        log10_tests: logarithm of the number of poses that were tried.

    Returns:
        The logarithm, at most ``log10_tests`` and that of the number of thresholds; lower for more matches, closer
        ones, more similar ones, and ones that are spread more over the image.
    """
    total, cells = len(pixels), cells_of(pixels, image_size)
    offset = log10_tests + math.log10(len(_AREAS) * len(_TAILS))
    if total <= _SAMPLE:
        return offset
    # Thresholds that each landmark meets: the areas and tails, which descend, up to its own.
    areas_met = np.searchsorted(-_AREAS, -area_share, side="right")
    tails_met = np.searchsorted(-_TAILS, -tail, side="right")
    hits = np.zeros((GRID[0] * GRID[1], len(_AREAS) + 1, len(_TAILS) + 1))
    np.add.at(hits, (cells, areas_met, tails_met), 1.0)
    hits = hits[:, ::-1, ::-1].cumsum(axis=1).cumsum(axis=2)[:, ::-1, ::-1][:, 1:, 1:]
    hits = np.asarray(np.minimum(hits, _MOST_IN_CELL).sum(axis=0), dtype=np.float64)
    # Few numbers of candidates occur: each is asked once.
    numbers, counts = np.unique(candidates, return_counts=True)
    none_of_one = np.log1p(-np.minimum(np.outer(_AREAS, _TAILS), 1 - 1e-9))
    chances = np.moveaxis(-np.expm1(none_of_one[..., None] * numbers), -1, 0)
    chances = np.tensordot(counts / total, chances, axes=1)
    best = 0.0
    for hit, chance in zip(hits.ravel().tolist(), chances.ravel().tolist(), strict=True):
        if hit > _SAMPLE:
            best = min(best, log10_binomial_tail(hit - _SAMPLE, total - _SAMPLE, chance))
    return best + offset


def log10_sample_nfa(matches: int, inliers: int, chance: float) -> float:
    """The number of false alarms of what RANSAC found, as a logarithm (Moisan and Stival 2004, equation 4).

    For matches that were made by descriptors alone: where they lie in the image is evidence of its own.

    Args:
        matches: how many matches there were, right and wrong.
        inliers: how many of them agree with the best sample.
        chance: probability that a match which means nothing agrees with a pose.
    """
    if inliers <= _SAMPLE:
        return 0.0
    count = math.log10(max(matches - _SAMPLE, 1)) + _log10_comb(matches, inliers) + _log10_comb(inliers, _SAMPLE)
    return count + (inliers - _SAMPLE) * math.log10(min(max(chance, 1e-12), 1.0))


def _log10_comb(n: int, k: int) -> float:
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(10)


def log10_binomial_tail(hits: float, trials: float, chance: float) -> float:
    """An upper bound of the logarithm of the probability of ``hits`` or more in ``trials`` of probability ``chance``.

    Chernoff's bound ``exp(-trials * KL(hits / trials || chance))``: within a factor of ``sqrt(trials)`` of the truth,
    and good for logarithms of -1000, where sums underflow. It holds too where trials have different probabilities whose
    mean is ``chance`` (Hoeffding 1956), and is 0 up to the expected number of hits.
    """
    if trials <= 0 or hits <= trials * chance:
        return 0.0
    chance = min(max(chance, 1e-300), 1 - 1e-12)
    rate = min(hits / trials, 1.0)
    divergence = rate * math.log(rate / chance)
    if rate < 1:
        divergence += (1 - rate) * math.log((1 - rate) / (1 - chance))
    return -trials * divergence / math.log(10)


def log10_samples(matches: int) -> float:
    """The logarithm of how many poses RANSAC can make from so many matches, three at a time."""
    return math.log10(max(math.comb(matches, _SAMPLE), 1))


def depth_agreement(measured: Array, predicted: Array, sigma: Array, *, bound: float = 4.0) -> NDArray[np.bool_]:
    """Which measured depths (M,) are those that a pose predicts (M,), within ``bound`` standard deviations (M,)."""
    return np.abs(measured - predicted) <= bound * sigma
