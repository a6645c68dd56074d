"""Which keypoint of a frame sees which landmark: guided by a predicted pose, or by descriptors alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from semkey.matching import match
from semkey.matching.background import background_similarity, first_of_each, pair_similarity
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.landmarks import LandmarkMap

Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Associations:
    """M pairs of a landmark and a keypoint; each occurs once at most.

    Attributes:
        landmark_ids: (M,) rows of the landmark map.
        keypoint_indices: (M,) rows of the frame.
        similarity: (M,) cosine of the descriptors, clipped to [0, 1].
    """

    landmark_ids: Indices
    keypoint_indices: Indices
    similarity: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.landmark_ids)

    def select(self, mask: NDArray[np.bool_]) -> Associations:
        """The pairs where ``mask`` (M,) holds."""
        return Associations(
            landmark_ids=self.landmark_ids[mask],
            keypoint_indices=self.keypoint_indices[mask],
            similarity=self.similarity[mask],
        )


def match_by_projection(
    frame: ObservedFrame,
    landmarks: LandmarkMap,
    visible_ids: Indices,
    pixels: NDArray[np.float64],
    *,
    radius_px: float,
) -> Associations:
    """Mutually best pairs among those within ``radius_px`` of where a landmark should be seen.

    Args:
        frame: the frame.
        landmarks: the map.
        visible_ids: (V,) landmarks expected in view.
        pixels: (V, 2) where they are expected.
        radius_px: search radius, pixels.
    """
    if not len(visible_ids) or not len(frame):
        return _no_associations()
    nearby = KDTree(pixels).sparse_distance_matrix(frame.tree, radius_px, output_type="coo_matrix")
    rows, columns = nearby.row.astype(np.int64), nearby.col.astype(np.int64)
    descriptors = landmarks.descriptors[visible_ids]
    similarity = pair_similarity(descriptors, frame.descriptors, rows, columns)
    strong = similarity > background_similarity(descriptors, frame.descriptors)
    rows, columns, similarity = rows[strong], columns[strong], similarity[strong]
    # Most similar first; ties go to the older landmark and the stronger keypoint, not to the order of the tree.
    order = np.lexsort((columns, rows, -similarity))
    rows, columns, similarity = rows[order], columns[order], similarity[order]
    mutual = first_of_each(rows) & first_of_each(columns)
    return Associations(
        landmark_ids=visible_ids[rows[mutual]],
        keypoint_indices=columns[mutual],
        similarity=np.clip(similarity[mutual], 0.0, 1.0).astype(np.float64),
    )


def match_keyframe(frame: ObservedFrame, keyframe: Keyframe, landmarks: LandmarkMap) -> Associations:
    """Mutual nearest neighbours of a frame's and a keyframe's descriptors, wherever they lie in the image."""
    matches = match(keyframe.frame.features, frame.features)
    indices = matches.indices.numpy()
    ids = keyframe.landmark_ids[indices[:, 0]]
    similarity = matches.scores.numpy().astype(np.float64)
    usable = ids >= 0
    usable[usable] = landmarks.alive[ids[usable]]
    usable &= similarity > background_similarity(keyframe.frame.descriptors, frame.descriptors)
    return Associations(landmark_ids=ids[usable], keypoint_indices=indices[usable, 1], similarity=similarity[usable])


def merge_associations(parts: Sequence[Associations]) -> Associations:
    """All pairs of several sets; of pairs that share a landmark or a keypoint only the most similar one stays."""
    ids = np.concatenate([part.landmark_ids for part in parts])
    keypoints = np.concatenate([part.keypoint_indices for part in parts])
    similarity = np.concatenate([part.similarity for part in parts])
    order = np.argsort(-similarity, kind="stable")
    chosen = order[first_of_each(ids[order]) & first_of_each(keypoints[order])]
    return Associations(landmark_ids=ids[chosen], keypoint_indices=keypoints[chosen], similarity=similarity[chosen])


def pixels_moved(frame: ObservedFrame, found: Associations, keyframe: Keyframe) -> NDArray[np.float64]:
    """How far landmarks lie in a frame from where a keyframe saw them, pixels, (M,), of those that it saw."""
    ordered = np.argsort(keyframe.landmark_ids, kind="stable")
    rows = np.searchsorted(keyframe.landmark_ids, found.landmark_ids, sorter=ordered)
    rows = ordered[np.minimum(rows, len(ordered) - 1)]
    known = keyframe.landmark_ids[rows] == found.landmark_ids
    here, there = frame.keypoints[found.keypoint_indices[known]], keyframe.frame.keypoints[rows[known]]
    return np.linalg.norm(here - there, axis=1)


def _no_associations() -> Associations:
    nothing = np.zeros(0, dtype=np.int64)
    return Associations(landmark_ids=nothing, keypoint_indices=nothing, similarity=np.zeros(0))
