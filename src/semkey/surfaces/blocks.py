"""Space in blocks of 8 x 8 x 8 voxels, and which of them depth images say something about."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.surfaces.config import SurfaceConfig
from semkey.surfaces.views import DepthView

Keys = NDArray[np.int64]

#: Voxels along an edge of a block.
SIDE = 8
# Coordinates of a block, in blocks from the origin, are packed into one number of 21 bits each.
_BITS = 21
_HALF = 1 << (_BITS - 1)
_MASK = (1 << _BITS) - 1
# Pixels whose depths choose the blocks: every fourth lies far nearer to the next than a block is wide.
_STEP = 4


def pack(coordinates: NDArray[np.int64]) -> Keys:
    """One number (N,) for each block (N, 3); their order is that of x, then y, then z."""
    x, y, z = (coordinates + _HALF).T
    return (x << (2 * _BITS)) | (y << _BITS) | z


def unpack(keys: Keys) -> NDArray[np.int64]:
    """The blocks (N, 3) of :func:`pack`."""
    return np.stack([keys >> (2 * _BITS), (keys >> _BITS) & _MASK, keys & _MASK], axis=1) - _HALF


def find(keys: Keys, wanted: Keys) -> NDArray[np.int64]:
    """Rows (M,) of ``wanted`` (M,) in sorted ``keys`` (N,), -1 for those that are not in it."""
    if not len(keys):
        return np.full(len(wanted), -1)
    rows = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[rows] == wanted, rows, -1)


def touched_blocks(view: DepthView, camera: PinholeCamera, config: SurfaceConfig) -> Keys:
    """Blocks, sorted, that lie within the truncation of a view's measured depths."""
    points, depth = view.points(camera, step=_STEP, min_depth=config.min_depth, max_depth=config.max_depth)
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    band = config.truncation * config.voxel_size
    block = SIDE * config.voxel_size
    # Steps of at most half a block through the band, along the ray.
    offsets = np.linspace(-band, band, 2 * int(np.ceil(2 * band / block)) + 1)
    rays = (points - view.T_world_cam[:3, 3]) / depth[:, None]
    places = points[:, None] + rays[:, None] * offsets[None, :, None]
    return np.unique(pack(np.floor(places.reshape(-1, 3) / block).astype(np.int64)))


def split(keys: Keys, most: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Boxes of blocks, (3,) lowest and (3,) highest, that hold at most ``most`` of the blocks each, and all together.

    Boxes do not overlap and are cut where half of the blocks lies on either side, across the longest edge.
    """
    coordinates = unpack(keys)
    waiting = [np.arange(len(keys))]
    boxes = []
    while waiting:
        rows = waiting.pop()
        inside = coordinates[rows]
        low, high = inside.min(axis=0), inside.max(axis=0)
        axis = int(np.argmax(high - low))
        if len(rows) <= most or high[axis] == low[axis]:
            boxes.append((low, high))
            continue
        cut = min(int(np.median(inside[:, axis])), int(high[axis]) - 1)
        waiting += [rows[inside[:, axis] > cut], rows[inside[:, axis] <= cut]]
    return boxes
