from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semkey.errors import InputError
from semkey.metrics.keypoints import (
    MappedKeypoints,
    correct_counts,
    localisation_error,
    match_distances,
    matching_accuracy,
    matching_score,
    nearest_distances,
    repeatability,
)

NAN = float("nan")


def view(keypoints: list, mapped: list, visible: list[bool] | None = None) -> MappedKeypoints:
    places = np.array(mapped, dtype=float).reshape(-1, 2)
    seen = np.isfinite(places[:, 0]) if visible is None else np.array(visible, dtype=bool)
    return MappedKeypoints(keypoints=np.array(keypoints, dtype=float).reshape(-1, 2), mapped=places, visible=seen)


def shifted(points0: list, points1: list, dx: float) -> tuple[MappedKeypoints, MappedKeypoints]:
    """Two views whose truth is a shift by ``dx`` to the right, everything visible."""
    return view(points0, [[x + dx, y] for x, y in points0]), view(points1, [[x - dx, y] for x, y in points1])


# -- by hand -------------------------------------------------------------------------------------------------------


def test_repeatability_adds_the_counts_of_both_directions() -> None:
    # True places in image 1: (10, 0), (20, 0), (30, 0). Image 1 has keypoints at distances 0, 2 and one far away, and
    # a fourth one beside the first.
    view0, view1 = shifted([[0, 0], [10, 0], [20, 0]], [[10, 0], [20, 2], [90, 90], [10, 1]], 10)
    # Forward: 0, 2, and (30, 0) is sqrt(104) from (20, 2). Back: 0, 2, far, 1.
    assert repeatability(view0, view1, [0.5, 1.0, 2.0, 5.0]) == [2 / 7, 3 / 7, 5 / 7, 5 / 7]


def test_repeatability_counts_only_what_both_images_see() -> None:
    view0 = view([[0, 0], [5, 5]], [[0, 0], [500, 5]], [True, False])
    view1 = view([[0, 0], [8, 8]], [[0, 0], [NAN, NAN]])
    assert repeatability(view0, view1, [1.0]) == [1.0]


def test_a_keypoint_repeated_at_a_hole_of_the_other_depth_is_repeated() -> None:
    view0, view1 = view([[4, 4]], [[4, 4]]), view([[4, 4]], [[NAN, NAN]])
    assert repeatability(view0, view1, [1.0]) == [1.0]


def test_finding_nothing_is_no_advantage() -> None:
    nothing, something = view([], []), view([[1, 1]], [[1, 1]])
    assert repeatability(nothing, nothing, [1.0, 3.0]) == [0.0, 0.0]
    assert repeatability(nothing, something, [1.0]) == [0.0]
    assert repeatability(something, nothing, [1e9]) == [0.0]
    assert math.isnan(localisation_error(nothing, something, 3.0))
    assert math.isnan(localisation_error(something, nothing, 3.0))
    assert matching_accuracy(match_distances(nothing, something, []), [3.0]) == [0.0]
    assert matching_score(nothing, something, [], 3.0) == 0.0
    assert correct_counts([], [1.0, 2.0]) == [0, 0]


def test_localisation_error_is_one_to_one() -> None:
    # Both keypoints of image 0 have (10, 0) as their nearest; only the nearer of them is repeated there.
    view0, view1 = shifted([[0, 0.5], [0, 2]], [[10, 0], [50, 50]], 10)
    assert localisation_error(view0, view1, 3.0) == 0.5


def test_localisation_error_leaves_out_what_is_too_far() -> None:
    view0, view1 = shifted([[0, 0], [40, 0]], [[10, 1], [50, 3.5]], 10)
    assert localisation_error(view0, view1, 3.0) == 1.0
    assert localisation_error(view0, view1, 4.0) == (1.0 + 3.5) / 2


def test_localisation_error_counts_keypoints_in_the_same_place_once() -> None:
    # SIFT gives a place two keypoints of different orientation.
    view0, view1 = shifted([[0, 0], [0, 0], [30, 0]], [[11, 0], [40, 3]], 10)
    assert localisation_error(view0, view1, 3.0) == (1.0 + 3.0) / 2


def test_match_distances_are_pixels_of_image_1() -> None:
    view0 = view([[0, 0], [1, 0], [2, 0]], [[10, 0], [NAN, NAN], [-5, 0]], [True, False, False])
    view1 = view([[10, 4], [13, 0]], [[0, 0], [0, 0]])
    distances = match_distances(view0, view1, [[0, 1], [0, 0], [1, 0], [2, 1]])
    np.testing.assert_array_equal(distances, [3.0, 4.0, NAN, 18.0])
    assert matching_accuracy(distances, [2.9, 3.0, 4.0]) == [0.0, 1 / 3, 2 / 3]
    assert correct_counts(distances, [2.9, 3.0, 4.0]) == [0, 1, 2]


def test_matches_of_unknown_truth_say_nothing() -> None:
    assert all(math.isnan(value) for value in matching_accuracy([NAN, NAN], [1.0, 3.0]))
    assert matching_accuracy([NAN, 0.5, np.inf], [1.0]) == [0.5]
    assert correct_counts([NAN, 0.5, np.inf], [1.0]) == [1]


def test_matching_score_is_the_mean_of_both_directions() -> None:
    # Image 1 is twice as large: 2 px there are 1 px here.
    points0, points1 = [[10, 10], [20, 20], [30, 30]], [[20, 20], [40, 42], [90, 90], [95, 95]]
    view0 = view(points0, (2 * np.array(points0)).tolist())
    view1 = view(points1, (np.array(points1) / 2).tolist(), [True, True, True, False])
    indices = [[0, 0], [1, 1], [2, 2]]
    assert matching_score(view0, view1, indices, 3.0) == (2 / 3 + 2 / 3) / 2
    # 2 px of image 1 are too far at 1 px, and 1 px of image 0 is not.
    assert matching_score(view0, view1, indices, 1.0) == (1 / 3 + 2 / 3) / 2


def test_a_match_outside_the_shared_region_is_no_part_of_the_matching_score() -> None:
    view0 = view([[0, 0], [5, 0]], [[0, 0], [5, 0]], [True, False])
    view1 = view([[0, 0], [5, 0]], [[0, 0], [5, 0]], [True, False])
    assert matching_score(view0, view1, [[1, 1]], 3.0) == 0.0
    assert matching_score(view0, view1, [[0, 0], [1, 1]], 3.0) == 1.0


@pytest.mark.parametrize(
    "arrays",
    [
        {"keypoints": np.zeros((2, 2)), "mapped": np.zeros((1, 2)), "visible": np.ones(2, bool)},
        {"keypoints": np.zeros((2, 2)), "mapped": np.zeros((2, 2)), "visible": np.ones(1, bool)},
        {"keypoints": np.zeros((1, 2)), "mapped": np.full((1, 2), np.nan), "visible": np.ones(1, bool)},
    ],
)
def test_views_that_contradict_themselves_are_refused(arrays: dict) -> None:
    with pytest.raises(InputError):
        MappedKeypoints(**arrays)


def test_indices_of_a_wrong_shape_are_refused() -> None:
    both = view([[0, 0]], [[0, 0]])
    with pytest.raises(InputError, match=r"\(M, 2\)"):
        match_distances(both, both, [[0, 0, 0]])


# -- against loops -------------------------------------------------------------------------------------------------


def loops(view0: MappedKeypoints, view1: MappedKeypoints, pairs: np.ndarray, px: float) -> tuple[float, ...]:
    """Repeatability, localisation error and matching score, written out."""

    def distance(a: np.ndarray, b: np.ndarray) -> float:
        return math.hypot(a[0] - b[0], a[1] - b[1])

    repeated = total = 0
    for source, target in ((view0, view1), (view1, view0)):
        for i in range(len(source)):
            if source.visible[i]:
                total += 1
                repeated += any(distance(source.mapped[i], q) <= px for q in target.keypoints)
    errors = []
    visible = [i for i in range(len(view0)) if view0.visible[i]]
    for i in visible:
        to_all = [distance(view0.mapped[i], q) for q in view1.keypoints]
        if not to_all or min(to_all) > px:
            continue
        j = to_all.index(min(to_all))
        back = [distance(view0.mapped[k], view1.keypoints[j]) for k in visible]
        if visible[back.index(min(back))] == i:
            errors.append(min(to_all))
    recalls = []
    for source, target, columns in ((view0, view1, (0, 1)), (view1, view0, (1, 0))):
        correct = sum(
            bool(source.visible[pair[columns[0]]])
            and distance(source.mapped[pair[columns[0]]], target.keypoints[pair[columns[1]]]) <= px
            for pair in pairs
        )
        recalls.append(correct / source.visible.sum() if source.visible.any() else 0.0)
    return repeated / max(total, 1), float(np.mean(errors)) if errors else NAN, sum(recalls) / 2


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count0=st.integers(0, 30), count1=st.integers(0, 30), px=st.floats(0.5, 20))
def test_measures_equal_plain_loops(seed: int, count0: int, count1: int, px: float) -> None:
    rng = np.random.default_rng(seed)
    views = []
    for count in (count0, count1):
        mapped = rng.uniform(0, 60, (count, 2))
        mapped[rng.random(count) < 0.2] = np.nan
        seen = np.isfinite(mapped).all(axis=1) & (rng.random(count) < 0.8)
        views.append(MappedKeypoints(keypoints=rng.uniform(0, 60, (count, 2)), mapped=mapped, visible=seen))
    many = min(count0, count1)
    pairs = np.stack([rng.permutation(count0)[:many], rng.permutation(count1)[:many]], axis=1)
    repeated, error, score = loops(*views, pairs, px)
    assert repeatability(*views, [px])[0] == pytest.approx(repeated)
    assert localisation_error(*views, px) == pytest.approx(error, nan_ok=True)
    assert matching_score(*views, pairs, px) == pytest.approx(score)
    assert nearest_distances(views[0].keypoints, views[1].keypoints) == pytest.approx(
        np.linalg.norm(views[0].keypoints[:, None] - views[1].keypoints[None], axis=2).min(axis=1, initial=np.inf)
    )
