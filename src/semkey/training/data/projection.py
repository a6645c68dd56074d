"""Correspondences between views with depth and pose, and the choice of pairs by how much they share."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from semkey.geometry.transforms import inverse
from semkey.training.data.augment import relight
from semkey.training.data.config import DataConfig
from semkey.training.data.pair import (
    MARGIN,
    MAX_TARGETS,
    OWN_SHARE,
    Pair,
    good_corners,
    inside,
    to_gray_values,
    view_entries,
)

Array = NDArray[np.float64]

_NEAREST_M = 0.05
_OVERLAP_BINS = 5
_SEEN_GRID = 8  # overlap is measured on every eighth pixel of every eighth row


@dataclass(frozen=True, kw_only=True, eq=False)
class DepthView:
    """A view whose every pixel's place in space is known.

    Attributes:
        image: (H, W) uint8 grey, or (H, W, 3) where it is needed in colour.
        depth: (H, W) float32 metres along the optical axis, 0 where unknown.
        T_world_cam: (4, 4) float64.
        K: (3, 3) float64, camera coordinates to pixels; its last row is 0 0 1, a mirrored view has a negative focal
            length.
        valid: (H, W) bool, where the source covers the view; None: everywhere.
        mix: (3,) float32, what the channels of a coloured image weigh in its grey values; None for the usual weights.
    """

    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    T_world_cam: Array
    K: Array
    valid: NDArray[np.bool_] | None = None
    mix: NDArray[np.float32] | None = None

    def mirrored(self) -> DepthView:
        """The view as a mirror shows it, left and right exchanged."""
        flip = np.array([[-1.0, 0.0, self.image.shape[1] - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        return self._turned((slice(None), slice(None, None, -1)), flip)

    def upside_down(self) -> DepthView:
        """The view turned by 180 degrees."""
        height, width = self.image.shape[:2]
        turn = np.array([[-1.0, 0.0, width - 1.0], [0.0, -1.0, height - 1.0], [0.0, 0.0, 1.0]])
        return self._turned((slice(None, None, -1), slice(None, None, -1)), turn)

    def _turned(self, order: tuple[slice, slice], change: Array) -> DepthView:
        return DepthView(
            image=np.ascontiguousarray(self.image[order]),
            depth=np.ascontiguousarray(self.depth[order]),
            T_world_cam=self.T_world_cam,
            K=change @ self.K,
            valid=None if self.valid is None else np.ascontiguousarray(self.valid[order]),
            mix=self.mix,
        )


def dense_warp(view0: DepthView, view1: DepthView, tolerance: float, step: int = 1) -> NDArray[np.float32]:
    """Where each pixel of view 0 lies in view 1, from its depth and both poses.

    A point counts as seen if it lies inside view 1, before the camera, and at the depth that view 1 has there; at depth
    edges of view 1, where the interpolated depth belongs to neither side, it mostly does not.

    Args:
        view0: first view.
        view1: second view.
        tolerance: depths may differ by this share (occlusion check).
        step: only every so manyth row and column of view 0, starting in the middle of the first cell.

    Returns:
        (H / step, W / step, 2) float32 pixels x y; NaN where the pixel's depth is unknown or the point is not seen.
    """
    height, width = view0.depth.shape
    u = np.arange(step // 2, width, step, dtype=np.float64)[None, :]
    v = np.arange(step // 2, height, step, dtype=np.float64)[:, None]
    z = view0.depth[step // 2 :: step, step // 2 :: step].astype(np.float64)
    T_cam1_cam0 = inverse(view1.T_world_cam) @ view0.T_world_cam
    turn = view1.K @ T_cam1_cam0[:3, :3] @ np.linalg.inv(view0.K)
    shift = view1.K @ T_cam1_cam0[:3, 3]
    x, y, depth = ((turn[k, 0] * u + (turn[k, 1] * v + turn[k, 2])) * z + shift[k] for k in range(3))
    safe = np.where(depth > _NEAREST_M, depth, 1.0)
    x, y = x / safe, y / safe
    seen_height, seen_width = view1.depth.shape
    visible = (z > 0) & (depth > _NEAREST_M) & (x >= 0) & (y >= 0) & (x <= seen_width - 1) & (y <= seen_height - 1)
    place_x, place_y = (np.where(visible, value, -1.0).astype(np.float32) for value in (x, y))
    seen = cv2.remap(view1.depth, place_x, place_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT)
    visible &= np.abs(seen - depth) < tolerance * depth
    return np.where(visible[..., None], np.stack([x, y], axis=-1), np.nan).astype(np.float32)


def overlap(view0: DepthView, view1: DepthView, tolerance: float) -> float:
    """Share in [0, 1] of the pixels of view 0 that view 1 sees."""
    return float(np.isfinite(dense_warp(view0, view1, tolerance, _SEEN_GRID)[..., 0]).mean())


def depth_pair(
    rng: np.random.Generator, view0: DepthView, view1: DepthView, config: DataConfig, tolerance: float
) -> Pair | None:
    """A pair of two views of the configured size, or None where too little is seen in both; keys as in :mod:`.pair`.

    There are no targets. Points are corners of view 0 and places anywhere in it, all at whole pixels, where the depth
    is known exactly.
    """
    warp = dense_warp(view0, view1, tolerance)
    corners = np.rint(good_corners(to_gray_values(view0.image, view0.mix), config.points)).astype(int)
    corners = corners[rng.permutation(len(corners))[: int(OWN_SHARE * config.points)]]
    low, high = int(MARGIN) + 1, np.array(config.size) - 1 - int(MARGIN)
    points0 = np.concatenate([corners, rng.integers(low, high, (6 * config.points, 2))])
    _, first = np.unique(points0[:, 1] * config.width + points0[:, 0], return_index=True)
    points0 = points0[np.sort(first)]  # a point that occurs twice would be its own wrong match
    points1 = warp[points0[:, 1], points0[:, 0]]
    good = inside(points0, config.size) & inside(points1, config.size)
    points0, points1 = points0[good][: config.points], points1[good][: config.points]
    if len(points0) < config.points:
        return None
    everywhere = np.ones((config.height, config.width), bool)
    valid0, valid1 = (everywhere if view.valid is None else view.valid for view in (view0, view1))
    return {
        **view_entries([relight(rng, view.image, config.light) for view in (view0, view1)], view0.mix),
        "H10": torch.full((3, 3), float("nan"), dtype=torch.float64),
        "warp10": torch.from_numpy(warp),
        "is_scene": torch.tensor(1.0),
        "points0": torch.from_numpy(points0).float(),
        "points1": torch.from_numpy(points1).float(),
        "targets0": torch.zeros(MAX_TARGETS, 3),
        "targets1": torch.zeros(MAX_TARGETS, 3),
        "valid0": torch.from_numpy(valid0.copy()),
        "valid1": torch.from_numpy(valid1.copy()),
    }


def draw_by_overlap(rng: np.random.Generator, overlaps: NDArray[np.floating]) -> int:
    """Index of a pair such that all overlaps between the least and the greatest are about equally frequent.

    Most pairs of a sequence are neighbours that share nearly everything; drawn evenly, training would see little else.

    Args:
        rng: source of randomness.
        overlaps: (N,) of the pairs, N >= 1.
    """
    low, high = float(overlaps.min()), float(overlaps.max())
    bins = np.minimum(((overlaps - low) / max(high - low, 1e-9) * _OVERLAP_BINS).astype(int), _OVERLAP_BINS - 1)
    chosen = rng.choice(np.unique(bins))
    return int(rng.choice(np.flatnonzero(bins == chosen)))
