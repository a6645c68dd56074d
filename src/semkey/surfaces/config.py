"""How finely and from which depths a surface is made."""

from __future__ import annotations

from dataclasses import dataclass

from semkey.settings import Settings, require, require_within


@dataclass(frozen=True, kw_only=True)
class SurfaceConfig(Settings):
    """How depth images become a surface.

    Attributes:
        voxel_size: edge of a voxel, metres; details below it are lost.
        truncation: how far around a measured depth the surface may lie, in voxels: several times the depth's noise.
        min_depth: nearer depths are left out, metres.
        max_depth: farther depths are left out, metres; the noise of a depth camera grows with the square.
        min_views: surfaces that fewer keyframes measured are left out.
        memory: most memory for voxels at a time, megabytes; what needs more is made part by part.
    """

    voxel_size: float = 0.02
    truncation: float = 4.0
    min_depth: float = 0.2
    max_depth: float = 4.0
    min_views: int = 2
    memory: float = 1000.0

    def __post_init__(self) -> None:
        require_within(self, "[0.001, 1]", "voxel_size")
        require_within(self, "[2, 16]", "truncation")
        require_within(self, "[1, inf)", "min_views")
        require_within(self, "[16, inf)", "memory")
        require(
            0 <= self.min_depth < self.max_depth,
            f"need 0 <= min_depth < max_depth, got {self.min_depth} and {self.max_depth}",
        )
