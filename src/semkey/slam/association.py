"""Which keypoint of a frame sees which landmark: guided by a predicted pose, or by descriptors alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from semkey.matching import match
from semkey.slam.keyframe import Keyframe, ObservedFrame
from semkey.slam.landmarks import LandmarkMap

Indices = NDArray[np.int64]

# Rows and columns of the sample of unrelated pairs that tells how similar unrelated descriptors are.
_BACKGROUND_SAMPLE = 64
_BACKGROUND_QUANTILE = 0.8
# A pair on its own costs as much as so many pairs of a product of two matrices (64 to 256 columns).
_GATHERING_COST = 80


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


def background_similarity(descriptors0: NDArray[np.float32], descriptors1: NDArray[np.float32]) -> float:
    """A cosine that most unrelated descriptors of these two sets (N, D) and (M, D) do not exceed.

    The 80th percentile over a sample of all pairs, nearly all of which are unrelated. It adapts itself to descriptor
    and scene: cosines of unrelated SIFT descriptors lie near 0.6 (0.9 on blank walls), those of ORB near 0.
    """
    if not len(descriptors0) or not len(descriptors1):
        return 0.0
    rows = descriptors0[:: max(1, len(descriptors0) // _BACKGROUND_SAMPLE)]
    columns = descriptors1[:: max(1, len(descriptors1) // _BACKGROUND_SAMPLE)]
    return float(np.quantile(rows @ columns.T, _BACKGROUND_QUANTILE))


def pair_similarity(
    descriptors0: NDArray[np.float32], descriptors1: NDArray[np.float32], rows: Indices, columns: Indices
) -> NDArray[np.float32]:
    """Cosines (P,) of P pairs of descriptors, (N, D) and (M, D), given by their rows (P,) in either set."""
    if len(rows) * _GATHERING_COST > len(descriptors0) * len(descriptors1):
        return (descriptors0 @ descriptors1.T)[rows, columns]
    return np.einsum("pd,pd->p", descriptors0[rows], descriptors1[columns])


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


def first_of_each(values: Indices) -> NDArray[np.bool_]:
    """Which entries of ``values`` occur there for the first time."""
    first = np.zeros(len(values), dtype=bool)
    first[np.unique(values, return_index=True)[1]] = True
    return first


def _no_associations() -> Associations:
    nothing = np.zeros(0, dtype=np.int64)
    return Associations(landmark_ids=nothing, keypoint_indices=nothing, similarity=np.zeros(0))
