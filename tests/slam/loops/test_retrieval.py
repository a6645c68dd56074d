"""Which keyframes look like an image."""

from __future__ import annotations

from typing import get_args

import numpy as np
import pytest

from semkey.errors import InputError
from semkey.slam.config import Retrieval
from semkey.slam.loops.retrieval import ConsistencyFilter, PlaceGroup, PlaceIndex, place_groups

NOTHING = np.zeros(0, dtype=np.float32)


def unit(rng: np.random.Generator, count: int, width: int = 32) -> np.ndarray:
    rows = rng.normal(size=(count, width))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def no_neighbours(_: int) -> list[tuple[int, int]]:
    return []


def group(best: int, *others: int) -> PlaceGroup:
    return PlaceGroup(best=best, members=(best, *others), score=1.0)


def test_the_keyframe_with_the_same_descriptors_comes_first(rng: np.random.Generator) -> None:
    index = PlaceIndex(keypoints=40)
    places = [unit(rng, 50) for _ in range(20)]
    for key, descriptors in enumerate(places):
        index.add(10 * key, descriptors, NOTHING)
    noisy = places[7] + 0.02 * rng.normal(size=(50, 32)).astype(np.float32)
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    scores = index.scores(noisy[rng.permutation(40)], NOTHING)
    assert next(iter(scores)) == 70
    assert list(scores.values()) == sorted(scores.values(), reverse=True)
    assert scores[70] > 3 * sorted(scores.values())[-2]


def test_what_looks_the_same_everywhere_does_not_vote(rng: np.random.Generator) -> None:
    """Nine places share 30 of 40 descriptors; the tenth shares the other ten with the query, and nothing more."""
    common = unit(rng, 30)
    index = PlaceIndex(keypoints=40)
    for key in range(9):
        index.add(key, np.concatenate([common, unit(rng, 10)]), NOTHING)
    own = unit(rng, 10)
    index.add(9, np.concatenate([own, unit(rng, 30)]), NOTHING)
    scores = index.scores(np.concatenate([common, own]), NOTHING)
    assert next(iter(scores)) == 9


def test_removed_and_excluded_keyframes_are_not_found_and_rows_are_used_again(rng: np.random.Generator) -> None:
    index = PlaceIndex(keypoints=8)
    places = [unit(rng, 8) for _ in range(200)]
    for key, descriptors in enumerate(places):
        index.add(key, descriptors, NOTHING)
        index.remove(key - 10)
    assert index.keys == list(range(190, 200))
    assert len(index) == 10
    assert 189 not in index
    assert index._local.shape[0] == 16
    for key in index.keys:
        assert next(iter(index.scores(places[key], NOTHING))) == key
        assert key not in index.scores(places[key], NOTHING, exclude=[key])


def test_a_short_keyframe_in_a_used_row_has_no_descriptors_of_the_old_one(rng: np.random.Generator) -> None:
    index = PlaceIndex(keypoints=8)
    old = unit(rng, 8)
    index.add(0, old, NOTHING)
    index.remove(0)
    index.add(1, unit(rng, 1), NOTHING)
    index.add(2, old, NOTHING)
    assert next(iter(index.scores(old, NOTHING))) == 2
    assert index.scores(old, NOTHING)[1] < 0.2 * index.scores(old, NOTHING)[2]


def test_a_large_index_is_reduced_by_global_descriptor(rng: np.random.Generator) -> None:
    index = PlaceIndex(keypoints=8, prefilter=5)
    whole = unit(rng, 12, 16)
    places = [unit(rng, 8) for _ in range(12)]
    for key in range(12):
        index.add(key, places[key], whole[key])
    scores = index.scores(places[3], whole[3])
    assert len(scores) == 5
    assert next(iter(scores)) == 3
    nearest = set(np.argsort(-whole @ whole[3])[:5].tolist())
    assert set(scores) == nearest


def tie(rng: np.random.Generator, count: int) -> tuple[PlaceIndex, np.ndarray, np.ndarray]:
    """Keyframes 3 and 5 have the query's local descriptors; 5 and 7 look like it as a whole; (local, global)."""
    index = PlaceIndex(keypoints=8)
    local, whole = unit(rng, 8), unit(rng, 1, 16)[0]
    for key in range(count):
        other = unit(rng, 1, 16)[0]
        index.add(key, local if key in (3, 5) else unit(rng, 8), whole if key in (5, 7) else other)
    return index, local, whole


@pytest.mark.parametrize(("by", "winners"), [("votes", {3, 5}), ("global", {5, 7}), ("joined", {5})])
def test_what_candidates_are_chosen_by(by: Retrieval, winners: set[int], rng: np.random.Generator) -> None:
    index, local, whole = tie(rng, 12)
    scores = index.scores(local, whole, by=by)
    best = max(scores.values())
    assert {key for key, score in scores.items() if score > 0.9 * best} == winners
    assert list(scores.values()) == sorted(scores.values(), reverse=True)


def test_joined_scores_are_shares_of_the_best(rng: np.random.Generator) -> None:
    index, local, whole = tie(rng, 12)
    joined = index.scores(local, whole, by="joined")
    assert joined[5] == pytest.approx(2.0, abs=1e-4)
    assert joined[3] < 2.0 > joined[7]
    assert min(joined[3], joined[7]) >= 0.99


def test_the_only_keyframe_can_be_found_by_its_global_descriptor(rng: np.random.Generator) -> None:
    index = PlaceIndex(keypoints=8)
    index.add(0, unit(rng, 8), unit(rng, 1, 16)[0])
    assert index.scores(unit(rng, 8), unit(rng, 1, 16)[0], by="global")[0] > 0


def test_features_without_a_global_descriptor_vote(rng: np.random.Generator) -> None:
    index = PlaceIndex(keypoints=8)
    places = [unit(rng, 8) for _ in range(10)]
    for key, descriptors in enumerate(places):
        index.add(key, descriptors, NOTHING)
    for by in get_args(Retrieval):
        assert index.scores(places[4], NOTHING, by=by) == index.scores(places[4], NOTHING)


def test_an_empty_image_and_an_empty_index() -> None:
    index = PlaceIndex()
    assert index.scores(np.zeros((0, 4), dtype=np.float32), NOTHING) == {}
    index.add(0, np.zeros((0, 4), dtype=np.float32), NOTHING)
    assert index.scores(np.zeros((0, 4), dtype=np.float32), NOTHING) == {}
    assert index.scores(np.eye(4, dtype=np.float32), NOTHING) == {0: 0.0}


def test_other_features_than_the_index_has_are_refused(rng: np.random.Generator) -> None:
    index = PlaceIndex()
    index.add(0, unit(rng, 5), NOTHING)
    with pytest.raises(InputError, match="widths"):
        index.add(1, unit(rng, 5, 16), NOTHING)
    with pytest.raises(InputError, match="widths"):
        index.scores(unit(rng, 5), np.ones(3, dtype=np.float32))
    with pytest.raises(InputError, match="already"):
        index.add(0, unit(rng, 5), NOTHING)


def test_scores_are_summed_over_covisible_keyframes() -> None:
    """Keyframe 9 is the single most similar one; 1, 2 and 3 see the same place and outweigh it together."""
    neighbours = {1: [(2, 50), (3, 20)], 2: [(1, 50)], 3: [(1, 20)], 9: [(8, 40)]}
    scores = {9: 1.0, 2: 0.8, 1: 0.7, 3: 0.6, 8: 0.0}
    groups = place_groups(scores, lambda key: neighbours.get(key, []), count=3)
    assert groups[0].members == (2, 1, 3)
    assert groups[0].score == pytest.approx(2.1)
    assert groups[0].best == 2
    assert [found.best for found in groups] == [2], "keyframe 9 has less than half the votes of the best group"


def test_groups_leave_out_what_was_not_asked_for_and_places_found_twice() -> None:
    neighbours = {1: [(2, 50), (7, 30)], 2: [(1, 50)], 5: [(6, 30)], 6: [(5, 30)]}
    groups = place_groups({1: 1.0, 2: 0.9, 5: 0.8, 6: 0.7}, lambda key: neighbours[key], count=5)
    assert [found.members for found in groups] == [(1, 2), (5, 6)]
    assert place_groups({1: 0.0}, no_neighbours, count=5) == []
    one = place_groups({1: 1.0, 2: 0.9, 5: 0.8}, lambda key: neighbours[key], count=1)
    assert [found.best for found in one] == [1]
    alone = place_groups({1: 1.0, 2: 0.9}, lambda key: neighbours[key], count=1, group_size=0)
    assert alone[0].members == (1,)


def test_a_place_must_be_found_by_consecutive_keyframes() -> None:
    consistent = ConsistencyFilter(required=3)
    assert consistent.update([group(1, 2), group(30)]) == []
    assert consistent.update([group(2, 3)]) == []
    assert [found.best for found in consistent.update([group(3), group(30)])] == [3]
    assert consistent.update([]) == []
    assert consistent.update([group(3)]) == [], "a keyframe that found nothing ends the streak"
    assert ConsistencyFilter(required=1).update([group(5)]) == [group(5)]
    two = ConsistencyFilter(required=2)
    two.update([group(5)])
    two.reset()
    assert two.update([group(5)]) == []
