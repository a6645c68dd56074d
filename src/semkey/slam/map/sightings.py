"""Which keyframes see which landmark, and with which of their keypoints."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

_FIRST_WIDTH = 8


class ObservationTable:
    """Observers of every landmark row, in the order in which they were added.

    Each row holds the ids of keyframes and the indices of their keypoints, padded with -1; all operations work on
    whole arrays of landmarks at once.
    """

    def __init__(self) -> None:
        self._keyframes = np.full((0, _FIRST_WIDTH), -1, dtype=np.int64)
        self._keypoints = np.full((0, _FIRST_WIDTH), -1, dtype=np.int64)
        self._counts = np.zeros(0, dtype=np.int64)

    @property
    def counts(self) -> Indices:
        """Number of observers of every row."""
        return self._counts

    def reserve(self, rows: int) -> None:
        """Have at least so many rows."""
        if rows > len(self._counts):
            self._grow(rows, self._keyframes.shape[1])

    def add(self, keyframe_id: int, landmark_ids: Indices, keypoint_indices: Indices) -> None:
        """A keyframe sees M distinct landmarks, none of which it was known to see before."""
        columns = self._counts[landmark_ids]
        if len(columns) and columns.max() >= self._keyframes.shape[1]:
            self._grow(len(self._counts), 2 * self._keyframes.shape[1])
        self._keyframes[landmark_ids, columns] = keyframe_id
        self._keypoints[landmark_ids, columns] = keypoint_indices
        self._counts[landmark_ids] += 1

    def remove(self, keyframe_id: int, landmark_ids: Indices) -> None:
        """A keyframe sees M distinct landmarks no longer; the order of the other observers is kept."""
        keyframes = self._keyframes[landmark_ids]
        gone = keyframes == keyframe_id
        order = np.argsort(gone, axis=1, kind="stable")
        emptied = np.take_along_axis(gone, order, axis=1)
        keypoints = self._keypoints[landmark_ids]
        self._keyframes[landmark_ids] = np.where(emptied, -1, np.take_along_axis(keyframes, order, axis=1))
        self._keypoints[landmark_ids] = np.where(emptied, -1, np.take_along_axis(keypoints, order, axis=1))
        self._counts[landmark_ids] -= gone.sum(axis=1)

    def clear(self, landmark_ids: Indices) -> None:
        """Nobody sees these landmarks any more."""
        self._keyframes[landmark_ids] = -1
        self._keypoints[landmark_ids] = -1
        self._counts[landmark_ids] = 0

    def first_observers(self, landmark_ids: Indices) -> Indices:
        """The keyframe (M,) that has seen each landmark for longest, -1 where there is none."""
        return self._keyframes[landmark_ids, 0]

    def lookup(self, landmark_ids: Indices) -> tuple[Indices, Indices, Indices]:
        """All observations of M landmarks: positions in ``landmark_ids``, keyframe ids and keypoint indices, (O,)."""
        rows = self._keyframes[landmark_ids]
        positions, columns = np.nonzero(rows >= 0)
        return positions, rows[positions, columns], self._keypoints[landmark_ids[positions], columns]

    def keypoints_in(self, landmark_ids: Indices, keyframe_ids: Indices) -> Indices:
        """The keypoint (M,) by which each landmark is seen in a keyframe (M,), -1 where it is not."""
        rows = self._keyframes[landmark_ids] == keyframe_ids[:, None]
        found = np.take_along_axis(self._keypoints[landmark_ids], rows.argmax(axis=1)[:, None], axis=1)[:, 0]
        return np.where(rows.any(axis=1), found, -1)

    def votes(self, landmark_ids: Indices) -> tuple[Indices, Indices]:
        """The keyframes (K,) that see some of M distinct landmarks, by id, and how many of them each sees (K,)."""
        seen_by = self._keyframes[landmark_ids]
        counts = np.bincount(seen_by[seen_by >= 0])
        seeing = np.flatnonzero(counts)
        return seeing, counts[seeing]

    def _grow(self, rows: int, width: int) -> None:
        old_rows, old_width = self._keyframes.shape
        rows = max(rows, 2 * old_rows) if rows > old_rows else old_rows
        for name in ("_keyframes", "_keypoints"):
            grown = np.full((rows, width), -1, dtype=np.int64)
            grown[:old_rows, :old_width] = getattr(self, name)
            setattr(self, name, grown)
        counts = np.zeros(rows, dtype=np.int64)
        counts[:old_rows] = self._counts
        self._counts = counts
