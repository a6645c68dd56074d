"""How finely and from which depths a surface is made, and what of it is in a robot's way."""

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


@dataclass(frozen=True, kw_only=True)
class OccupancyConfig(Settings):
    """What is in a robot's way.

    Attributes:
        resolution: edge of a cell, metres.
        min_height: what is lower above the floor can be driven over, metres.
        max_height: what is higher can be driven under, metres.
    """

    resolution: float = 0.05
    min_height: float = 0.1
    max_height: float = 1.8

    def __post_init__(self) -> None:
        require_within(self, "[0.005, 1]", "resolution")
        require(
            0 < self.min_height < self.max_height,
            f"need 0 < min_height < max_height, got {self.min_height} and {self.max_height}",
        )
