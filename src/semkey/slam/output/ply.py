"""The map as a point cloud for other programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.files import atomic_write_bytes
from semkey.slam.map.slam_map import SlamMap

_GREY = 160


def write_ply(path: str | Path, slam_map: SlamMap, colors: NDArray[np.uint8] | None = None) -> int:
    """Write the landmarks as a binary PLY file (float32 ``x y z``, uint8 ``red green blue``); returns how many.

    Args:
        path: written atomically.
        slam_map: the map; metres (map units without metric scale).
        colors: (L, 3) uint8 RGB of the landmark rows; None writes grey.

    Raises:
        InputError: the file cannot be written.
    """
    if not slam_map.keyframes:
        return write_points(path, np.zeros((0, 3)))
    ids = slam_map.landmarks.ids
    return write_points(path, slam_map.landmarks.positions[ids], None if colors is None else colors[ids])


def write_points(
    path: str | Path,
    points: ArrayLike,
    colors: NDArray[np.uint8] | None = None,
    normals: ArrayLike | None = None,
) -> int:
    """Write points as a binary PLY file (float32 ``x y z`` [``nx ny nz``], uint8 ``red green blue``); returns how many.

    Args:
        path: written atomically.
        points: (N, 3).
        colors: (N, 3) uint8 RGB; None writes grey.
        normals: (N, 3) unit norm; None writes none.

    Raises:
        InputError: the file cannot be written.
    """
    xyz = np.asarray(points)
    directions = [] if normals is None else [("normal", "<f4", 3)]
    vertices = np.zeros(len(xyz), dtype=[("xyz", "<f4", 3), *directions, ("rgb", "u1", 3)])
    vertices["xyz"] = xyz
    if normals is not None:
        vertices["normal"] = normals
    vertices["rgb"] = _GREY if colors is None else colors
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment semkey map",
        f"element vertex {len(xyz)}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property float n{axis}" for axis in "xyz" if normals is not None),
        *(f"property uchar {color}" for color in ("red", "green", "blue")),
        "end_header",
    ]
    atomic_write_bytes(path, ("\n".join(header) + "\n").encode("ascii") + vertices.tobytes())
    return len(xyz)
