"""The map as a point cloud for other programs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

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
    has_points = bool(slam_map.keyframes)
    ids = slam_map.landmarks.ids if has_points else np.zeros(0, dtype=np.int64)
    vertices = np.zeros(len(ids), dtype=[("xyz", "<f4", 3), ("rgb", "u1", 3)])
    vertices["rgb"] = _GREY
    if has_points:
        vertices["xyz"] = slam_map.landmarks.positions[ids]
    if colors is not None:
        vertices["rgb"] = colors[ids]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        "comment semkey map",
        f"element vertex {len(ids)}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {color}" for color in ("red", "green", "blue")),
        "end_header",
    ]
    atomic_write_bytes(path, ("\n".join(header) + "\n").encode("ascii") + vertices.tobytes())
    return len(ids)
