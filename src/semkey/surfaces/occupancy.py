"""A floor plan for robots: which places are free, occupied or unknown, in the format of ROS's map server."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.files import atomic_write_bytes, atomic_write_text
from semkey.geometry.transforms import transform_points
from semkey.surfaces.config import OccupancyConfig
from semkey.surfaces.floor import Floor
from semkey.surfaces.mesh import SurfaceMesh

FREE, OCCUPIED, UNKNOWN = 0, 100, -1
"""As in ROS's ``OccupancyGrid``."""

# Grey levels that the map server reads as these with the thresholds below: unknown (205) is 0.196 occupied, and that
# must not be below ``free_thresh``.
_GREY = {FREE: 254, OCCUPIED: 0, UNKNOWN: 205}
_OCCUPIED_THRESHOLD, _FREE_THRESHOLD = 0.65, 0.196
# Vertices in a cell that make it occupied; a wall has hundreds.
_FEWEST_VERTICES = 3
# Cells around the map.
_MARGIN = 2
_MOST_CELLS = 100_000_000


@dataclass(frozen=True, kw_only=True, eq=False)
class OccupancyGrid:
    """A floor plan.

    Attributes:
        cells: (H, W) int8: 0 free, 100 occupied, -1 unknown; row 0 has the lowest y, column 0 the lowest x.
        resolution: edge of a cell, metres.
        origin: x and y of the lower left corner of cell (0, 0), metres.
        T_grid_world: (4, 4) from the map's world to the grid's frame.
    """

    cells: NDArray[np.int8]
    resolution: float
    origin: tuple[float, float]
    T_grid_world: NDArray[np.float64]

    def at(self, x: float, y: float) -> int:
        """The cell at a place of the grid's frame; unknown outside."""
        column = int(np.floor((x - self.origin[0]) / self.resolution))
        row = int(np.floor((y - self.origin[1]) / self.resolution))
        inside = 0 <= row < self.cells.shape[0] and 0 <= column < self.cells.shape[1]
        return int(self.cells[row, column]) if inside else UNKNOWN


def occupancy_grid(mesh: SurfaceMesh, floor: Floor, config: OccupancyConfig) -> OccupancyGrid:
    """The floor plan of a surface.

    Occupied is where there is surface between ``min_height`` and ``max_height``, or lower than ``-min_height`` (a step
    down); free is where the floor itself was seen and nothing is above it. What a camera has only looked over is
    unknown: something low may stand there.

    Raises:
        InputError: the map is too large for the resolution.
    """
    points = transform_points(floor.T_grid_world, mesh.vertices)
    height = points[:, 2]
    in_way = ((height > config.min_height) & (height < config.max_height)) | (height < -config.min_height)
    drivable = np.abs(height) <= config.min_height
    relevant = points[in_way | drivable, :2]
    low = np.floor(relevant.min(axis=0) / config.resolution).astype(np.int64) - _MARGIN
    high = np.floor(relevant.max(axis=0) / config.resolution).astype(np.int64) + _MARGIN
    columns, rows = (high - low + 1).tolist()
    if columns * rows > _MOST_CELLS:
        raise InputError(f"the floor plan would have {columns}x{rows} cells; give a larger --resolution")

    def count(chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        cell = np.floor(points[chosen, :2] / config.resolution).astype(np.int64) - low
        return np.bincount(cell[:, 1] * columns + cell[:, 0], minlength=rows * columns).reshape(rows, columns)

    cells = np.full((rows, columns), UNKNOWN, dtype=np.int8)
    cells[_closed(count(drivable) > 0)] = FREE
    cells[count(in_way) >= _FEWEST_VERTICES] = OCCUPIED
    origin = (float(low[0] * config.resolution), float(low[1] * config.resolution))
    return OccupancyGrid(cells=cells, resolution=config.resolution, origin=origin, T_grid_world=floor.T_grid_world)


def check_plan_path(path: str | Path) -> Path:
    """The three files' common name, without ``.pgm``, ``.yaml`` or ``.json``.

    Raises:
        InputError: one of the files is a folder.
    """
    stem = Path(path)
    stem = stem.with_suffix("") if stem.suffix in (".pgm", ".yaml", ".json") else stem
    for suffix in (".pgm", ".yaml", ".json"):
        file = stem.with_name(stem.name + suffix)
        if file.is_dir():
            raise InputError(f"cannot write {file}: it is a folder")
    return stem


def write_occupancy(path: str | Path, grid: OccupancyGrid) -> list[Path]:
    """Write ``NAME.pgm`` and ``NAME.yaml`` for ROS's and Nav2's map server, and ``NAME.json`` with ``T_grid_world``.

    Returns:
        The files.

    Raises:
        InputError: a file cannot be written.
    """
    stem = check_plan_path(path)
    image, description, pose = (stem.with_name(stem.name + suffix) for suffix in (".pgm", ".yaml", ".json"))
    grey = np.full(grid.cells.shape, _GREY[UNKNOWN], dtype=np.uint8)
    for value, level in _GREY.items():
        grey[grid.cells == value] = level
    rows, columns = grid.cells.shape
    # The image's first row is the map's highest y.
    atomic_write_bytes(image, f"P5\n{columns} {rows}\n255\n".encode() + np.ascontiguousarray(grey[::-1]).tobytes())
    lines = [
        f"image: {image.name}",
        "mode: trinary",
        f"resolution: {grid.resolution:.6g}",
        f"origin: [{grid.origin[0]:.6g}, {grid.origin[1]:.6g}, 0.0]",
        "negate: 0",
        f"occupied_thresh: {_OCCUPIED_THRESHOLD}",
        f"free_thresh: {_FREE_THRESHOLD}",
    ]
    atomic_write_text(pose, json.dumps({"T_grid_world": grid.T_grid_world.tolist()}, indent=1) + "\n")
    atomic_write_text(description, "\n".join(lines) + "\n")
    return [image, description, pose]


def _closed(seen: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Seen cells, and single ones between them that the surface's vertices happened to miss."""
    from scipy.ndimage import binary_closing

    padded = np.pad(seen, 1)
    return binary_closing(padded, structure=np.ones((3, 3)))[1:-1, 1:-1] | seen
