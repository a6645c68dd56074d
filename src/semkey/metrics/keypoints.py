"""Keypoint and match measures where the true place of every keypoint in the other image is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.spatial import KDTree

from semkey.errors import InputError


@dataclass(frozen=True, kw_only=True, eq=False)
class MappedKeypoints:
    """Keypoints of one image of a pair, and where the truth puts them in the other image.

    Attributes:
        keypoints: (N, 2) pixels x y in their own image.
        mapped: (N, 2) pixels in the other image; NaN where the truth is unknown.
        visible: (N,) bool, co-visible: the true place is known, inside the other image and not occluded.

    Raises:
        InputError: the shapes do not fit, or a visible keypoint has no true place.
    """

    keypoints: NDArray[np.float64]
    mapped: NDArray[np.float64]
    visible: NDArray[np.bool_]

    def __post_init__(self) -> None:
        keypoints = np.asarray(self.keypoints, dtype=np.float64).reshape(-1, 2)
        mapped = np.asarray(self.mapped, dtype=np.float64).reshape(-1, 2)
        visible = np.asarray(self.visible, dtype=bool)
        if mapped.shape != keypoints.shape or visible.shape != (len(keypoints),):
            shapes = f"{keypoints.shape}, {mapped.shape} and {visible.shape}"
            raise InputError(
                f"keypoints, their true places and visibility have shapes {shapes}, expected (N, 2) x 2, N"
            )
        if not np.isfinite(mapped[visible]).all():
            raise InputError("a visible keypoint has no true place in the other image")
        object.__setattr__(self, "keypoints", keypoints)
        object.__setattr__(self, "mapped", mapped)
        object.__setattr__(self, "visible", visible)

    def __len__(self) -> int:
        return len(self.keypoints)

    @property
    def visible_count(self) -> int:
        """Number of co-visible keypoints."""
        return int(self.visible.sum())


def nearest_distances(points: ArrayLike, candidates: ArrayLike) -> NDArray[np.float64]:
    """Distance (N,) of each of ``points`` (N, 2) to the nearest of ``candidates`` (M, 2); ``inf`` if there are none."""
    queries, targets = (np.asarray(values, dtype=np.float64).reshape(-1, 2) for values in (points, candidates))
    if len(targets) == 0 or len(queries) == 0:
        return np.full(len(queries), np.inf)
    return KDTree(targets).query(queries)[0]


def repeatability(view0: MappedKeypoints, view1: MappedKeypoints, thresholds: Sequence[float]) -> list[float]:
    """Share of the co-visible keypoints of both images that have a keypoint of the other image at their true place.

    As in SuperPoint (DeTone et al. 2018, section 4.2): counts of both directions are added before they are divided.
    Each direction is measured in the pixels of the image it leads to, and every keypoint there is a candidate, also
    one whose own true place is unknown (where depth has a hole, a repeated keypoint is repeated all the same).

    Args:
        view0: keypoints of image 0, mapped to image 1.
        view1: keypoints of image 1, mapped to image 0.
        thresholds: largest distance of a repeated keypoint, pixels; a distance equal to it counts.

    Returns:
        One share in [0, 1] per threshold; 0 where no keypoint is co-visible, so that finding none is no advantage.
    """
    distances = np.concatenate(
        [
            nearest_distances(view0.mapped[view0.visible], view1.keypoints),
            nearest_distances(view1.mapped[view1.visible], view0.keypoints),
        ]
    )
    if len(distances) == 0:
        return [0.0 for _ in thresholds]
    return [float((distances <= threshold).mean()) for threshold in thresholds]


def localisation_error(view0: MappedKeypoints, view1: MappedKeypoints, max_distance: float) -> float:
    """Mean distance of repeated keypoints to the true place, pixels of image 1 (SuperPoint, section 4.2).

    A co-visible keypoint of image 0 and a keypoint of image 1 are repeated if they are each other's nearest in image
    1 and at most ``max_distance`` pixels apart, so that every keypoint counts once.

    Returns:
        NaN if no keypoint is repeated.
    """
    targets = view0.mapped[view0.visible]
    if len(targets) == 0 or len(view1) == 0:
        return float("nan")
    distances, nearest1 = KDTree(view1.keypoints).query(targets)
    _, nearest0 = KDTree(targets).query(view1.keypoints)
    repeated = (nearest0[nearest1] == np.arange(len(targets))) & (distances <= max_distance)
    return float(distances[repeated].mean()) if repeated.any() else float("nan")


def match_distances(view0: MappedKeypoints, view1: MappedKeypoints, indices: ArrayLike) -> NDArray[np.float64]:
    """How far each match is from the truth: pixels of image 1 between the matched keypoint and the true place.

    Args:
        view0: keypoints of image 0, mapped to image 1.
        view1: keypoints of image 1.
        indices: (M, 2) integers, index into the keypoints of image 0 and of image 1.

    Returns:
        (M,), NaN where the true place is unknown. A true place outside image 1 is a place like any other.
    """
    pairs = _pairs(indices)
    return np.linalg.norm(view0.mapped[pairs[:, 0]] - view1.keypoints[pairs[:, 1]], axis=1)


def matching_accuracy(distances: ArrayLike, thresholds: Sequence[float]) -> list[float]:
    """Share of matches at most each threshold from the truth: the precision of one pair, and its part of MMA.

    MMA (mean matching accuracy, Dusmanu et al., D2-Net 2019) is the mean of this over pairs.

    Args:
        distances: (M,) pixels as :func:`match_distances` gives them; NaN (unknown truth) is left out, ``inf`` is wrong.
        thresholds: pixels; a distance equal to one counts as correct.

    Returns:
        One share in [0, 1] per threshold; 0 without any match (D2-Net's rule), NaN if there are matches but the truth
        of none is known.
    """
    values = np.asarray(distances, dtype=np.float64)
    known = values[~np.isnan(values)]
    if len(known) == 0:
        return [0.0 if len(values) == 0 else float("nan") for _ in thresholds]
    return [float((known <= threshold).mean()) for threshold in thresholds]


def correct_counts(distances: ArrayLike, thresholds: Sequence[float]) -> list[int]:
    """Number of matches at most each threshold from the truth; arguments as of :func:`matching_accuracy`."""
    values = np.asarray(distances, dtype=np.float64)
    return [int((values <= threshold).sum()) for threshold in thresholds]


def matching_score(view0: MappedKeypoints, view1: MappedKeypoints, indices: ArrayLike, threshold: float) -> float:
    """Correct matches over co-visible keypoints, mean of both directions (SuperPoint, section 4.2).

    From image 0 to 1 a match is correct if image 0's keypoint is co-visible and the match at most ``threshold``
    pixels of image 1 from its true place; back likewise in pixels of image 0.

    Returns:
        In [0, 1]; a direction without co-visible keypoints counts as 0.
    """
    pairs = _pairs(indices)
    forward = _recall(view0, view1, pairs, threshold)
    return (forward + _recall(view1, view0, pairs[:, ::-1], threshold)) / 2


def _recall(source: MappedKeypoints, target: MappedKeypoints, pairs: NDArray[np.int64], threshold: float) -> float:
    if source.visible_count == 0:
        return 0.0
    correct = source.visible[pairs[:, 0]] & (match_distances(source, target, pairs) <= threshold)
    return float(correct.sum() / source.visible_count)


def _pairs(indices: ArrayLike) -> NDArray[np.int64]:
    pairs = np.asarray(indices, dtype=np.int64)
    if pairs.size == 0:
        return np.zeros((0, 2), dtype=np.int64)
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise InputError(f"match indices have shape {pairs.shape}, expected (M, 2)")
    return pairs
