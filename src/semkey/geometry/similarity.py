"""Similarity transforms: rigid transforms with a scale, for maps whose unit of length is unknown."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError
from semkey.geometry.transforms import inverse, make_transform, nearest_rotation

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ScaledTransform:
    """The map ``p_a = scale * R p_b + t`` from frame ``b`` to frame ``a``; rigid where ``scale`` is 1.

    Attributes:
        T: (4, 4) with ``R`` and ``t``.
        scale: how many units of frame ``a`` one unit of frame ``b`` is, positive.
    """

    T: Array
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.T.shape != (4, 4):
            raise InputError(f"a transform has shape {self.T.shape}, expected (4, 4)")
        if not (np.isfinite(self.scale) and self.scale > 0):
            raise InputError(f"a scale must be positive and finite, got {self.scale}")

    def apply(self, points: ArrayLike) -> Array:
        """Points (N, 3) of frame ``b`` in frame ``a``."""
        rows = np.asarray(points, dtype=np.float64).reshape(-1, 3)
        return self.scale * rows @ self.T[:3, :3].T + self.T[:3, 3]

    def inverse(self) -> ScaledTransform:
        """The map from frame ``a`` to frame ``b``."""
        turned_back = inverse(self.T)
        turned_back[:3, 3] /= self.scale
        return ScaledTransform(T=turned_back, scale=1.0 / self.scale)

    def __matmul__(self, other: ScaledTransform) -> ScaledTransform:
        """``S_a_b @ S_b_c`` is ``S_a_c``."""
        rotation = nearest_rotation(self.T[:3, :3] @ other.T[:3, :3])
        translation = self.scale * self.T[:3, :3] @ other.T[:3, 3] + self.T[:3, 3]
        return ScaledTransform(T=make_transform(rotation, translation), scale=self.scale * other.scale)
