"""What all sources of training pairs share: the pair's keys, and how images, targets and points are made ready.

A pair is a dictionary of tensors with these keys; ``torch.utils.data.default_collate`` makes a batch of it.

| key | shape | meaning |
|---|---|---|
| ``image0``, ``image1`` | (1, H, W) float32 | zero mean, unit variance, as :mod:`semkey.model.preprocess` |
| ``H10`` | (3, 3) float64 | view 0 -> view 1, NaN where there is no homography |
| ``warp10`` | (H, W, 2) float32 | where each pixel of view 0 lies in view 1, NaN: not seen; 0 where ``H10`` says it |
| ``is_scene`` | float32 | 0 for drawn shapes, whose corners descriptors cannot tell apart, else 1 |
| ``points0``, ``points1`` | (P, 2) float32 | corresponding pixels x y, inside both views |
| ``targets0``, ``targets1`` | (T, 3) float32 | x y strength of the keypoints to detect; strength 0 is padding |
| ``valid0``, ``valid1`` | (H, W) bool | where the source covers the view |
| ``color0``, ``color1`` | (3, H, W) uint8 | only for a backbone: the same views as RGB |
| ``plain0`` | float32 | with them: 1 where view 0 is the photo itself, which recurs in other pairs, else 0 |
| ``scene`` | int64 | only beside clips or posed photos: the same for pairs of the same place, -1 where unknown |
| ``clip`` | int64 | likewise: number of the recording, -1 for pairs that are no clip |
| ``frames`` | (T - 2, 1, H, W) float32 | likewise: the frames between view 0, its first, and view 1, its last |
| ``tracks`` | (P, T, 2) float32 | likewise: where each of the points lies in each frame |
| ``frame_colors`` | (T - 2, 3, H, W) uint8 | with them, only for a backbone |
| ``teacher`` | (P, D) float32 | only with ``teacher.descriptors``: unit-norm descriptor of the point, zeros for none |
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import KDTree

from semkey.model.preprocess import LUMA, with_unit_variance

Pair = dict[str, torch.Tensor]

MAX_TARGETS = 1000
MARGIN = 2.0
"""Points and targets keep this distance from the border, pixels: half of a 5x5 window."""
NMS_PX = 3.0
OWN_SHARE = 0.75
"""At most this share of the points are keypoints; the others lie anywhere."""


class PairSource(Protocol):
    """An endless source of pairs; pair ``index`` depends on the source's seed and the index alone."""

    def __getitem__(self, index: int) -> Pair:
        """Pair ``index`` >= 0."""
        ...


def normalize(image: NDArray[np.uint8]) -> torch.Tensor:
    """(H, W) uint8 -> (1, H, W) float32, normalised as the network's input always is."""
    return with_unit_variance(torch.from_numpy(image).float() / 255.0)[0][None]


def view_entries(views: Sequence[NDArray[np.uint8]], mix: NDArray[np.float32] | None, *, plain: bool = False) -> Pair:
    """``image0`` and ``image1`` of a pair; of views in colour also ``color0``, ``color1`` and ``plain0``.

    Args:
        views: both, (H, W) or (H, W, 3) uint8.
        mix: (3,) weights of the channels in the grey values of colours; None takes the usual ones.
        plain: view 0 is a photo as it is.
    """
    weights = np.array(LUMA, np.float32) if mix is None else mix
    entries: Pair = {}
    for number, view in enumerate(views):
        is_color = view.ndim == 3
        entries[f"image{number}"] = normalize(to_gray_values(view, weights))
        if is_color:
            entries[f"color{number}"] = torch.from_numpy(np.ascontiguousarray(view.transpose(2, 0, 1)))
            entries["plain0"] = torch.tensor(float(plain))
    return entries


def to_gray_values(image: NDArray[np.uint8], weights: NDArray[np.float32] | None = None) -> NDArray[np.uint8]:
    """Grey values (H, W) of an image (H, W, 3) under weights (3,) of its channels; a grey image as it is."""
    if image.ndim == 2:
        return image
    return np.asarray(cv2.transform(image, np.array(LUMA if weights is None else weights, np.float32)[None]), np.uint8)


def inside(points: NDArray[np.floating], size: tuple[int, int], margin: float = MARGIN) -> NDArray[np.bool_]:
    """Which points (N, 2) lie inside an image of ``size`` (width, height) by more than a margin; NaN does not."""
    high = np.array(size) - 1 - margin
    return np.asarray(((points > margin) & (points < high)).all(axis=1))


def suppress(points: NDArray[np.floating], strengths: NDArray[np.floating], radius: float) -> NDArray[np.int64]:
    """Non-maximum suppression.

    Args:
        points: (N, 2).
        strengths: (N,).
        radius: of two points closer than this the weaker one goes, unless a stronger third one took the first.

    Returns:
        Indices of the points that stay, strongest first (equal ones in the order given).
    """
    order = np.argsort(-strengths, kind="stable")
    if len(points) == 0:
        return order
    close = KDTree(points[order]).query_pairs(radius, output_type="ndarray")
    keep = np.ones(len(points), bool)
    # Pairs (i, j) have i < j in order of strength: when the i-th is visited, its fate is settled.
    for i, j in close[np.argsort(close[:, 0], kind="stable")]:
        if keep[i]:
            keep[j] = False
    return order[keep]


def choose_targets(
    points: NDArray[np.float64], strengths: NDArray[np.floating], size: tuple[int, int]
) -> NDArray[np.int64]:
    """Indices of the keypoints that become targets: inside, after suppression, the strongest :data:`MAX_TARGETS`."""
    candidates = np.flatnonzero(inside(points, size) & (strengths > 0))
    return candidates[suppress(points[candidates], strengths[candidates], NMS_PX)][:MAX_TARGETS]


def pad_targets(points: NDArray[np.float64], strengths: NDArray[np.floating]) -> torch.Tensor:
    """(T, 3) float32 targets x y strength from at most T points (N, 2) and strengths (N,)."""
    padded = torch.zeros(MAX_TARGETS, 3)
    padded[: len(points), :2] = torch.from_numpy(points).float()
    padded[: len(points), 2] = torch.from_numpy(strengths).float()
    return padded


def good_corners(image: NDArray[np.uint8], count: int) -> NDArray[np.float64]:
    """At most ``count`` corners (N, 2) of a grey image (H, W), strongest first: points where there are no targets."""
    corners = cv2.goodFeaturesToTrack(image, count, 0.005, 4)
    return np.zeros((0, 2)) if corners is None else corners.reshape(-1, 2).astype(np.float64)
