"""Which keyframes look like an image: votes of local descriptors, summed over keyframes that see the same place."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.slam.config import Retrieval

Covisible = Callable[[int], Sequence[tuple[int, int]]]
"""``covisible(keyframe_id)``: ids of the keyframes that share landmarks with it and how many, most first."""

# A descriptor votes with what it exceeds this quantile of its best similarities in all keyframes by: what looks the
# same everywhere says nothing about the place.
_COMMON_QUANTILE = 0.8
# With fewer keyframes than this there is no such quantile, and votes count from the similarity of unrelated pairs.
_FEWEST_FOR_COMMON = 8
_UNRELATED_STRIDE = 16
# Groups are made around so many best keyframes; votes below this share of the best group's are no candidates.
_GROUP_SEEDS = 20
_KEPT_SHARE = 0.5


class PlaceIndex:
    """Keyframes by appearance; grows and shrinks with the map.

    Every keyframe is known by the descriptors of its strongest keypoints. There is no vocabulary to be trained, so that
    any feature works from the first keyframe on; a query costs one matrix product (about 0.05 ms per keyframe).

    Args:
        keypoints: strongest keypoints of an image that are compared, >= 1.
        prefilter: a larger index is reduced to so many keyframes by global descriptor first, where there is one.
    """

    def __init__(self, *, keypoints: int = 160, prefilter: int = 300) -> None:
        self._keypoints, self._prefilter = keypoints, prefilter
        self._rows: dict[int, int] = {}
        self._free: list[int] = []
        self._local = np.zeros((0, keypoints, 0), dtype=np.float32)
        self._global = np.zeros((0, 0), dtype=np.float32)

    def __len__(self) -> int:
        return len(self._rows)

    def __contains__(self, key: int) -> bool:
        return key in self._rows

    @property
    def keys(self) -> list[int]:
        """Ids of all keyframes, increasing."""
        return sorted(self._rows)

    def add(self, key: int, descriptors: NDArray[np.float32], global_descriptor: NDArray[np.float32]) -> None:
        """Take in a keyframe.

        Args:
            key: its id.
            descriptors: (N, D) unit norm, strongest keypoint first; N may be 0.
            global_descriptor: (G,) unit norm; G is 0 where the features have none.

        Raises:
            InputError: the id is known already, or the widths differ from those of earlier keyframes.
        """
        if key in self._rows:
            raise InputError(f"keyframe {key} is in the index already")
        self._check_width(descriptors, global_descriptor)
        if not self._free:
            self._grow(descriptors.shape[1], len(global_descriptor))
        row = self._free.pop()
        self._rows[key] = row
        strongest = descriptors[: self._keypoints]
        # Rows that are not filled stay zero: similar to nothing.
        self._local[row] = 0.0
        self._local[row, : len(strongest)] = strongest
        self._global[row] = global_descriptor

    def remove(self, key: int) -> None:
        """Forget a keyframe; one that is not known is no error."""
        row = self._rows.pop(key, None)
        if row is not None:
            self._free.append(row)

    def scores(
        self,
        descriptors: NDArray[np.float32],
        global_descriptor: NDArray[np.float32],
        *,
        exclude: Collection[int] = (),
        by: Retrieval = "votes",
    ) -> dict[int, float]:
        """How much each keyframe looks like an image: score >= 0 by id, most similar first, equal ones older first.

        Args:
            descriptors: (N, D) of the image, strongest keypoint first.
            global_descriptor: (G,) of the image.
            exclude: ids that are not asked for.
            by: "votes" of local descriptors; "global" similarity, what exceeds that of most keyframes; or "joined", the
                sum of both, each as a share of its best. Without a global descriptor all are votes.

        Raises:
            InputError: the widths differ from those of the keyframes.
        """
        keys = np.array([key for key in self.keys if key not in set(exclude)], dtype=np.int64)
        if not len(keys) or not len(descriptors):
            return {}
        self._check_width(descriptors, global_descriptor)
        rows = np.array([self._rows[int(key)] for key in keys])
        if len(keys) > self._prefilter and len(global_descriptor):
            cosine = self._global[rows] @ global_descriptor
            kept = np.sort(np.argsort(-cosine, kind="stable")[: self._prefilter])
            keys, rows = keys[kept], rows[kept]
        votes = self._votes(descriptors, rows) if by != "global" or not len(global_descriptor) else None
        if by != "votes" and len(global_descriptor):
            seen = _uncommon(self._global[rows] @ global_descriptor)
            votes = seen if votes is None else _share(votes) + _share(seen)
        assert votes is not None
        order = np.argsort(-votes, kind="stable")
        return {int(keys[k]): float(votes[k]) for k in order}

    def _votes(self, descriptors: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """(R,) votes of an image's local descriptors (N, D) for the keyframes in some rows."""
        query = np.ascontiguousarray(descriptors[: self._keypoints], dtype=np.float32)
        similarity = query @ self._local[rows].reshape(-1, query.shape[1]).T
        best = similarity.reshape(len(query), len(rows), self._keypoints).max(axis=2)
        if len(rows) >= _FEWEST_FOR_COMMON:
            common = np.quantile(best, _COMMON_QUANTILE, axis=1, keepdims=True)
        else:
            common = np.quantile(similarity[:, ::_UNRELATED_STRIDE], _COMMON_QUANTILE)
        return np.maximum(best - common, 0.0).sum(axis=0)

    def _check_width(self, descriptors: NDArray[np.float32], global_descriptor: NDArray[np.float32]) -> None:
        widths = (descriptors.shape[-1], len(global_descriptor))
        known = (self._local.shape[2], self._global.shape[1])
        if len(self._local) and widths != known:
            raise InputError(f"descriptors have widths {widths}, those of the index {known} (local, global)")

    def _grow(self, local_width: int, global_width: int) -> None:
        old = len(self._local)
        capacity = max(16, 2 * old)
        local = np.zeros((capacity, self._keypoints, local_width), dtype=np.float32)
        whole = np.zeros((capacity, global_width), dtype=np.float32)
        if old:
            local[:old], whole[:old] = self._local, self._global
        self._local, self._global = local, whole
        self._free = list(range(capacity - 1, old - 1, -1))


def _uncommon(cosines: NDArray[np.float32]) -> NDArray[np.float32]:
    """What similarities exceed that of half the keyframes by; few keyframes have no such half, and all are possible."""
    common = np.median(cosines) if len(cosines) >= _FEWEST_FOR_COMMON else -1.0
    return np.maximum(cosines - common, 0.0)


def _share(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scores as shares of the highest."""
    return scores / max(float(scores.max(initial=0.0)), 1e-9)


@dataclass(frozen=True, kw_only=True)
class PlaceGroup:
    """Keyframes that see one place.

    Attributes:
        best: id of the one most similar to the image.
        members: ids of the group, ``best`` first, then those that share most landmarks with the group's seed.
        score: sum of the members' scores.
    """

    best: int
    members: tuple[int, ...]
    score: float


def place_groups(
    scores: Mapping[int, float], covisible: Covisible, *, count: int, group_size: int = 8
) -> list[PlaceGroup]:
    """The places that look most like an image: scores summed over each keyframe and those covisible with it.

    One keyframe may look like an image by accident; several that see the same landmarks hardly do (Mur-Artal and
    Tardos, *ORB-SLAM*, section V.E; groups are by covisibility, not by time).

    Args:
        scores: by id, only of keyframes that may be chosen, as :meth:`PlaceIndex.scores` gives them.
        covisible: neighbours in the covisibility graph.
        count: groups at most.
        group_size: neighbours in a group at most.
    """
    ranked = sorted((key for key in scores if scores[key] > 0), key=lambda key: (-scores[key], key))
    groups: list[PlaceGroup] = []
    for seed in ranked[:_GROUP_SEEDS]:
        neighbours = [key for key, _ in covisible(seed) if key in scores]
        members = [seed, *neighbours[:group_size]]
        best = min(members, key=lambda key: (-scores[key], key))
        others = tuple(key for key in members if key != best)
        groups.append(PlaceGroup(best=best, members=(best, *others), score=sum(scores[key] for key in members)))
    groups.sort(key=lambda group: (-group.score, group.best))
    chosen: list[PlaceGroup] = []
    for group in groups:
        if len(chosen) == count or group.score < _KEPT_SHARE * groups[0].score:
            break
        # A group whose best keyframe is in an earlier one is the same place.
        if not any(group.best in earlier.members for earlier in chosen):
            chosen.append(group)
    return chosen


class ConsistencyFilter:
    """Which places were found by several consecutive keyframes."""

    def __init__(self, required: int) -> None:
        self._required = required
        self._streaks: list[tuple[frozenset[int], int]] = []

    def update(self, groups: Sequence[PlaceGroup]) -> list[PlaceGroup]:
        """Those of the groups of a new keyframe whose place the last ``required - 1`` keyframes have found as well.

        Two groups are of the same place if they share a keyframe.
        """
        streaks: list[tuple[frozenset[int], int]] = []
        consistent: list[PlaceGroup] = []
        for group in groups:
            members = frozenset(group.members)
            length = 1 + max((count for earlier, count in self._streaks if earlier & members), default=0)
            streaks.append((members, length))
            if length >= self._required:
                consistent.append(group)
        self._streaks = streaks
        return consistent

    def reset(self) -> None:
        """Forget what earlier keyframes found."""
        self._streaks = []
