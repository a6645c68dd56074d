"""What a surface is made of: depth images with poses, read one at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import transform_points


@dataclass(frozen=True, kw_only=True, eq=False)
class DepthView:
    """A depth image and where it was taken.

    Attributes:
        depth: (H, W) float32 metres along the optical axis, 0 where unknown.
        image: (H, W, 3) uint8 RGB.
        T_world_cam: (4, 4) pose.
    """

    depth: NDArray[np.float32]
    image: NDArray[np.uint8]
    T_world_cam: NDArray[np.float64]

    def points(
        self, camera: PinholeCamera, *, step: int, min_depth: float, max_depth: float
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Points (N, 3) in the world of every ``step``-th pixel in both directions, and their depths (N,)."""
        v, u = np.mgrid[step // 2 : self.depth.shape[0] : step, step // 2 : self.depth.shape[1] : step].reshape(2, -1)
        depth = self.depth[v, u].astype(np.float64)
        known = (depth >= max(min_depth, 1e-6)) & (depth <= max_depth)
        pixels = np.stack([u[known], v[known]], axis=1)
        return transform_points(self.T_world_cam, camera.backproject(pixels, depth[known])), depth[known]


class DepthViews(Protocol):
    """Depth views that are read when they are asked for, possibly several times."""

    @property
    def camera(self) -> PinholeCamera:
        """Of all views."""
        ...

    def __len__(self) -> int: ...

    def view(self, number: int) -> DepthView | None:
        """The view, None where it cannot be read."""
        ...
