"""Truncated signed distances to the surface in sparse blocks of voxels, fused from depth images.

Curless and Levoy, *A Volumetric Method for Building Complex Models from Range Images* (SIGGRAPH 1996), eq. 3 and 4; in
blocks only where there is surface, as Niessner et al., *Real-time 3D Reconstruction at Scale using Voxel Hashing*
(2013). Which blocks there are is known before any is filled, so that a sorted list stands for the hash table.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse
from semkey.surfaces.blocks import SIDE, Keys, find, unpack
from semkey.surfaces.config import SurfaceConfig
from semkey.surfaces.views import DepthView

#: Bytes that a block takes: distance, weight and colour of its voxels in float32.
BLOCK_BYTES = SIDE**3 * 4 * 5
# Blocks whose voxels are handled at a time: more does not make it faster, and takes working memory.
_CHUNK = 512
# Nearer than this all depths count alike, metres; beyond, the variance of a depth grows with its fourth power.
_FULL_WEIGHT_DEPTH = 1.0
# A block that so many times more views look through than measure a surface in was left by what moves.
_SEEN_THROUGH = 2


class Volume:
    """Signed distances, in voxels' truncation, of the blocks of a region.

    Args:
        keys: (B,) sorted blocks, see :func:`semkey.surfaces.blocks.pack`.
        config: settings.

    Attributes:
        keys: the blocks.
        distance: (B, 8, 8, 8) float32 in [-1, 1], positive in front of the surface; the mean of all views.
        weight: (B, 8, 8, 8) float32, 0 where no view says anything.
        color: (B, 8, 8, 8, 3) float32 RGB.
        views: (B,) how many views measured a surface in the block.
        through: (B,) how many views looked through all of it.
    """

    def __init__(self, keys: Keys, config: SurfaceConfig) -> None:
        shape = (len(keys), SIDE, SIDE, SIDE)
        self.keys = keys
        self.distance = np.zeros(shape, dtype=np.float32)
        self.weight = np.zeros(shape, dtype=np.float32)
        self.color = np.zeros((*shape, 3), dtype=np.float32)
        self.views = np.zeros(len(keys), dtype=np.int32)
        self.through = np.zeros(len(keys), dtype=np.int32)
        self._config = config
        # Voxel values stand for the voxels' lower corners; those of a block are at these places from its own corner.
        local = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
        self._local = (local * config.voxel_size).astype(np.float32)
        self._corners = unpack(keys) * (SIDE * config.voxel_size)

    @property
    def is_kept(self) -> NDArray[np.bool_]:
        """Which blocks (B,) enough views measured, and few enough looked through."""
        return (self.views >= self._config.min_views) & (self.through <= _SEEN_THROUGH * self.views)

    def integrate(self, view: DepthView, camera: PinholeCamera, touched: Keys) -> None:
        """Take in a view.

        Args:
            view: the depth image.
            camera: of the view.
            touched: from :func:`semkey.surfaces.blocks.touched_blocks`.
        """
        rows = find(self.keys, touched)
        rows = rows[rows >= 0]
        T_cam_world = inverse(view.T_world_cam)
        self._count_views_through(view, camera, T_cam_world, rows)
        self.views[rows] += 1
        for start in range(0, len(rows), _CHUNK):
            self._update(rows[start : start + _CHUNK], view, camera, T_cam_world)

    def _update(
        self, rows: NDArray[np.int64], view: DepthView, camera: PinholeCamera, T_cam_world: NDArray[np.float64]
    ) -> None:
        config = self._config
        rotation, translation = T_cam_world[:3, :3], T_cam_world[:3, 3]
        origins = (self._corners[rows] @ rotation.T + translation).astype(np.float32)
        points = origins[:, None] + (self._local @ rotation.T.astype(np.float32))[None]
        x, y, z = points[..., 0], points[..., 1], points[..., 2]
        with np.errstate(divide="ignore", invalid="ignore"):
            u = np.float32(camera.fx) * x / z + np.float32(camera.cx)
            v = np.float32(camera.fy) * y / z + np.float32(camera.cy)
        inside = (z > 0) & (u > -0.5) & (u < camera.width - 0.5) & (v > -0.5) & (v < camera.height - 0.5)
        columns = np.rint(np.where(inside, u, 0)).astype(np.intp)
        lines = np.rint(np.where(inside, v, 0)).astype(np.intp)
        depth = view.depth[lines, columns]
        band = np.float32(config.truncation * config.voxel_size)
        gap = depth - z
        # What is hidden by more than the truncation may be anything.
        says = inside & (depth >= max(config.min_depth, 1e-6)) & (depth <= config.max_depth) & (gap > -band)
        block, voxel = np.nonzero(says)
        if not len(block):
            return
        d = depth[block, voxel]
        new = np.minimum(gap[block, voxel] / band, np.float32(1.0))
        share = np.minimum(np.float32(1.0), (np.float32(_FULL_WEIGHT_DEPTH) / d) ** 4)
        flat = rows[block] * SIDE**3 + voxel
        weights, distances = self.weight.reshape(-1), self.distance.reshape(-1)
        total = weights[flat] + share
        part = share / total
        distances[flat] += part * (new - distances[flat])
        colors = self.color.reshape(-1, 3)
        seen = view.image[lines[block, voxel], columns[block, voxel]].astype(np.float32)
        colors[flat] += part[:, None] * (seen - colors[flat])
        weights[flat] = total

    def _count_views_through(
        self, view: DepthView, camera: PinholeCamera, T_cam_world: NDArray[np.float64], touched: NDArray[np.int64]
    ) -> None:
        """Blocks that a view looks through as a whole: what it measured there lies behind them."""
        config = self._config
        edge = SIDE * config.voxel_size
        centres = (self._corners + 0.5 * edge) @ T_cam_world[:3, :3].T + T_cam_world[:3, 3]
        pixels = camera.project(centres)
        with np.errstate(invalid="ignore"):
            near = camera.contains(pixels) & (centres[:, 2] < config.max_depth)
        near[touched] = False
        rows = np.flatnonzero(near)
        columns, lines = np.rint(pixels[rows]).astype(np.intp).T
        depth = view.depth[lines, columns]
        behind = depth - centres[rows, 2] > config.truncation * config.voxel_size + 0.87 * edge  # half of its diagonal
        self.through[rows[behind & (depth >= config.min_depth) & (depth <= config.max_depth)]] += 1
