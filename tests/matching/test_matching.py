from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semkey.errors import InputError
from semkey.matching import Matches, match, match_guided, mutual
from semkey.model.features import Features


def make_features(descriptors: torch.Tensor, keypoints: torch.Tensor | None = None) -> Features:
    count = len(descriptors)
    return Features(
        keypoints=torch.zeros((count, 2)) if keypoints is None else keypoints,
        scores=torch.ones(count),
        reliability=torch.ones(count),
        descriptors=descriptors,
        global_descriptor=torch.zeros(0),
        image_size=(640, 480),
    )


def random_features(count: int, width: int = 16, seed: int = 0, binary: bool = False) -> Features:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn((count, width), generator=generator)
    unit = values.sign() / width**0.5 if binary else torch.nn.functional.normalize(values, dim=1)
    return make_features(unit, torch.rand((count, 2), generator=generator) * 100)


def brute_force(features0: Features, features1: Features) -> set[tuple[int, int]]:
    """Mutual nearest neighbours, one pair at a time."""
    similarity = (features0.descriptors @ features1.descriptors.T).tolist()
    pairs = set()
    for i, row in enumerate(similarity):
        j = row.index(max(row))
        column = [other[j] for other in similarity]
        if column.index(max(column)) == i:
            pairs.add((i, j))
    return pairs


def as_set(matches: Matches) -> set[tuple[int, int]]:
    return {(i, j) for i, j in matches.indices.tolist()}


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 10**6), st.booleans())
def test_matches_are_the_mutual_nearest_neighbours(count0: int, count1: int, seed: int, binary: bool) -> None:
    features0, features1 = random_features(count0, 8, seed, binary), random_features(count1, 8, seed + 1, binary)
    matches = match(features0, features1)
    assert as_set(matches) == brute_force(features0, features1)
    assert matches.indices.dtype == torch.int64
    assert matches.scores.dtype == torch.float32
    for column in (0, 1):
        assert len(set(matches.indices[:, column].tolist())) == len(matches), "no keypoint may be matched twice"
    cosine = (features0.descriptors[matches.indices[:, 0]] * features1.descriptors[matches.indices[:, 1]]).sum(dim=1)
    torch.testing.assert_close(matches.scores, cosine.clamp(0, 1), atol=1e-6, rtol=0)


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 10**6))
def test_binary_matching_is_symmetric_even_with_ties(count0: int, count1: int, seed: int) -> None:
    features0, features1 = random_features(count0, 4, seed, True), random_features(count1, 4, seed + 1, True)
    assert as_set(match(features0, features1)) == {(i, j) for j, i in as_set(match(features1, features0))}


def test_permuted_features_are_found_again() -> None:
    features = random_features(300, 64)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(3))
    matches = match(features, features.select(order))
    assert len(matches) == 300
    assert torch.equal(order[matches.indices[:, 1]], matches.indices[:, 0])
    torch.testing.assert_close(matches.scores, torch.ones(300))


def test_matching_is_deterministic() -> None:
    features0, features1 = random_features(500, 64, 1), random_features(400, 64, 2)
    first, second = match(features0, features1), match(features0, features1)
    assert torch.equal(first.indices, second.indices)
    assert torch.equal(first.scores, second.scores)


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("ratio", [None, 0.9])
def test_blocks_give_the_same_result(monkeypatch: pytest.MonkeyPatch, binary: bool, ratio: float | None) -> None:
    features0, features1 = random_features(103, 16, 1, binary), random_features(77, 16, 2, binary)
    whole = match(features0, features1, ratio=ratio)
    guided = match_guided(features0, features1, features0.keypoints, 30)
    monkeypatch.setattr(mutual, "MAX_BLOCK_SIMILARITIES", 10 * 77)
    assert as_set(match(features0, features1, ratio=ratio)) == as_set(whole)
    assert as_set(match_guided(features0, features1, features0.keypoints, 30)) == as_set(guided)
    monkeypatch.setattr(mutual, "MAX_BLOCK_SIMILARITIES", 1)
    assert as_set(match(features0, features1, ratio=ratio)) == as_set(whole)


@pytest.mark.parametrize(("count0", "count1"), [(0, 0), (0, 5), (5, 0)])
def test_empty_features_give_empty_matches(count0: int, count1: int) -> None:
    features0, features1 = random_features(count0), random_features(count1)
    for matches in (
        match(features0, features1, ratio=0.8),
        match_guided(features0, features1, torch.zeros((count0, 2)), 5),
    ):
        assert matches.indices.shape == (0, 2)
        assert matches.indices.dtype == torch.int64
        assert matches.scores.shape == (0,)


def test_ratio_test_uses_distances() -> None:
    angles0, angles1 = torch.tensor([0.0]), torch.tensor([0.30, 0.40])
    features0 = make_features(torch.stack([angles0.cos(), angles0.sin()], dim=1))
    features1 = make_features(torch.stack([angles1.cos(), angles1.sin()], dim=1))
    true_ratio = float(np.sin(0.15) / np.sin(0.20))  # chords of the two angles
    assert len(match(features0, features1, ratio=true_ratio + 1e-3)) == 1
    assert len(match(features0, features1, ratio=true_ratio - 1e-3)) == 0


def test_ratio_test_passes_a_single_candidate() -> None:
    assert len(match(random_features(3), random_features(1, seed=5), ratio=0.5)) == 1


def test_min_similarity_is_a_lower_bound() -> None:
    features0, features1 = random_features(200, 8, 1), random_features(200, 8, 2)
    everything = match(features0, features1)
    some = match(features0, features1, min_similarity=0.8)
    assert 0 < len(some) < len(everything)
    assert as_set(some) == {tuple(pair) for pair in everything.indices[everything.scores >= 0.8].tolist()}


def test_negative_similarity_is_clipped_in_scores_only() -> None:
    features0, features1 = make_features(torch.tensor([[1.0, 0.0]])), make_features(torch.tensor([[-1.0, 0.0]]))
    matches = match(features0, features1)
    assert as_set(matches) == {(0, 0)}
    assert matches.scores.tolist() == [0]
    assert len(match(features0, features1, min_similarity=0.0)) == 0


@pytest.mark.parametrize("options", [{"ratio": 0.0}, {"ratio": 1.5}, {"min_similarity": 2.0}])
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        match(random_features(3), random_features(3), **options)


def test_descriptors_of_different_widths_are_refused() -> None:
    with pytest.raises(InputError, match="widths 16 and 8"):
        match(random_features(3, 16), random_features(3, 8))


def test_matches_refuse_other_shapes() -> None:
    with pytest.raises(InputError, match=r"expected \(M, 2\)"):
        Matches(indices=torch.zeros((3, 2), dtype=torch.int64), scores=torch.zeros(2))


def test_guided_matching_equals_plain_matching_for_a_huge_radius() -> None:
    features0, features1 = random_features(100, 16, 1), random_features(90, 16, 2)
    guided = match_guided(features0, features1, features0.keypoints, 1e6)
    assert as_set(guided) == as_set(match(features0, features1))


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 10**6), st.floats(1, 60))
def test_guided_matches_lie_within_the_radius(seed: int, radius: float) -> None:
    features0, features1 = random_features(50, 8, seed), random_features(50, 8, seed + 1)
    predicted = features0.keypoints + 3
    matches = match_guided(features0, features1, predicted, radius)
    distance = (predicted[matches.indices[:, 0]] - features1.keypoints[matches.indices[:, 1]]).norm(dim=1)
    assert bool((distance <= radius + 1e-3).all())
    # Every nearest pair in reach that is mutual in reach must be there.
    reach = torch.cdist(predicted, features1.keypoints, compute_mode="donot_use_mm_for_euclid_dist") <= radius
    similarity = (features0.descriptors @ features1.descriptors.T).masked_fill(~reach, -2)
    nearest0, nearest1 = similarity.argmax(dim=1), similarity.argmax(dim=0)
    expected = {(i, j) for i, j in enumerate(nearest0.tolist()) if nearest1[j] == i and similarity[i, j] > -2}
    assert as_set(matches) == expected


def test_a_look_alike_elsewhere_neither_wins_nor_blocks() -> None:
    one, near_one = [1.0, 0.0], [0.8, 0.6]
    features0 = make_features(torch.tensor([one, one]), torch.tensor([[10.0, 10], [200, 200]]))
    features1 = make_features(torch.tensor([near_one, one]), torch.tensor([[11.0, 10], [201, 200]]))
    assert as_set(match(features0, features1)) == {(0, 1)}
    assert as_set(match_guided(features0, features1, features0.keypoints, 5)) == {(0, 0), (1, 1)}


def test_guided_radius_is_inclusive() -> None:
    features0 = make_features(torch.tensor([[1.0, 0]]))
    features1 = make_features(torch.tensor([[1.0, 0]]), torch.tensor([[3.0, 4.0]]))
    assert len(match_guided(features0, features1, torch.zeros((1, 2)), 5.0)) == 1
    assert len(match_guided(features0, features1, torch.zeros((1, 2)), 4.999)) == 0


def test_points_without_prediction_get_no_match() -> None:
    features = random_features(5)
    predicted = features.keypoints.numpy().astype(np.float64)
    predicted[1], predicted[3, 0] = np.nan, np.inf
    matches = match_guided(features, features, predicted, 1000)
    assert matches.indices[:, 0].tolist() == [0, 2, 4]


def test_guided_matching_refuses_nonsense() -> None:
    features = random_features(5)
    with pytest.raises(InputError, match=r"expected \(5, 2\)"):
        match_guided(features, features, torch.zeros((4, 2)), 5)
    with pytest.raises(InputError, match="radius_px"):
        match_guided(features, features, features.keypoints, 0)


def test_large_problems_go_through_in_blocks() -> None:
    features = random_features(6000, 4)
    assert mutual.MAX_BLOCK_SIMILARITIES < 6000 * 6000
    matches = match(features, features)
    assert torch.equal(matches.indices[:, 0], matches.indices[:, 1])
    assert len(matches) > 5900
