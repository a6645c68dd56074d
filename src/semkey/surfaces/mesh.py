"""The surface as coloured triangles, by marching cubes through the signed distances."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.files import atomic_write_bytes
from semkey.surfaces.blocks import SIDE, find, pack, split, touched_blocks, unpack
from semkey.surfaces.config import SurfaceConfig
from semkey.surfaces.views import DepthViews
from semkey.surfaces.volume import BLOCK_BYTES, Volume

Progress = Callable[..., None]
MESH_SUFFIXES = (".ply", ".obj", ".glb", ".stl")

# Blocks along an edge of what marching cubes sees at a time.
_GROUP = 4
# Steps of a voxel by which vertices of two groups are told to be the same.
_STEPS = 256
_MEGABYTE = 1e6
# Connected triangles fewer than these are noise.
_SMALLEST_PIECE = 40


@dataclass(frozen=True, kw_only=True, eq=False)
class SurfaceMesh:
    """A coloured triangle mesh.

    Attributes:
        vertices: (V, 3) float64 in the world, metres.
        faces: (F, 3) int64 rows of vertices, counter-clockwise as seen from where the cameras were.
        normals: (V, 3) float64 unit norm, towards the cameras.
        colors: (V, 3) uint8 RGB.
    """

    vertices: NDArray[np.float64]
    faces: NDArray[np.int64]
    normals: NDArray[np.float64]
    colors: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.faces)


def fuse(views: DepthViews, config: SurfaceConfig, progress: Progress | None = None) -> SurfaceMesh:
    """Fuse depth images into one surface.

    All views are read twice, and again for every further part where the voxels need more than ``config.memory``; what
    else is kept grows with the surface, not with the number of views.

    Args:
        views: depth images with poses.
        config: settings.
        progress: called with steps done, their number and what is done.

    Raises:
        InputError: scikit-image is not installed; no view has a depth within the range; no surface was seen by
            ``config.min_views`` views.
    """
    _marching_cubes()  # told before the work that it is missing
    spans: list[tuple[NDArray[np.int64], NDArray[np.int64]] | None] = []
    keys = np.zeros(0, dtype=np.int64)
    for number in range(len(views)):
        view = views.view(number)
        touched = np.zeros(0, np.int64) if view is None else touched_blocks(view, views.camera, config)
        places = unpack(touched)
        spans.append((places.min(axis=0), places.max(axis=0)) if len(touched) else None)
        keys = np.union1d(keys, touched)
        if progress is not None:
            progress(number + 1, 2 * len(views), "Reading depth")
    if not len(keys):
        raise InputError(f"no depth between {config.min_depth:g} and {config.max_depth:g} m in any of the views")
    parts = split(keys, max(int(config.memory * _MEGABYTE / BLOCK_BYTES), 1))
    pieces: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
    places = unpack(keys)
    for part, (low, high) in enumerate(parts):
        # Cubes at the upper faces of a part reach into the next one.
        inside = ((places >= low) & (places <= high + 1)).all(axis=1)
        volume = Volume(keys[inside], config)
        for number, span in enumerate(spans):
            if span is not None and (span[0] <= high + 1).all() and (span[1] >= low).all():
                view = views.view(number)
                if view is not None:
                    volume.integrate(view, views.camera, touched_blocks(view, views.camera, config))
            if progress is not None:
                done = len(views) + (part * len(views) + number + 1) // len(parts)
                progress(done, 2 * len(views), "Fusing depth")
        pieces += list(_pieces(volume, low, high))
    if not pieces:
        raise InputError(f"no surface was measured by {config.min_views} views or more; lower --min-views")
    return _joined(pieces, config.voxel_size)


def write_mesh(path: str | Path, mesh: SurfaceMesh) -> None:
    """Write a mesh with colours and normals, atomically, in the format that the name tells.

    Raises:
        InputError: an unknown ending, trimesh is not installed, or the file cannot be written.
    """
    suffix = check_mesh_path(path)
    data = _trimesh().Trimesh(
        vertices=mesh.vertices,
        faces=mesh.faces,
        vertex_normals=mesh.normals,
        vertex_colors=mesh.colors,
        process=False,
    )
    written = data.export(file_type=suffix[1:])
    atomic_write_bytes(path, written.encode() if isinstance(written, str) else written)


def check_mesh_path(path: str | Path) -> str:
    """The ending of a mesh file.

    Raises:
        InputError: no format of that ending is written, or trimesh is not installed.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in MESH_SUFFIXES:
        raise InputError(f"cannot write {path}: a mesh ends in one of {', '.join(MESH_SUFFIXES)}")
    _trimesh()
    return suffix


def _pieces(
    volume: Volume, low: NDArray[np.int64], high: NDArray[np.int64]
) -> Iterator[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]]:
    """Vertices in voxels from the origin, faces and colours of each group of blocks in a box."""
    marching_cubes = _marching_cubes()
    places = unpack(volume.keys)
    kept = volume.is_kept
    inside = ((places >= low) & (places <= high)).all(axis=1) & kept
    span = np.stack(np.meshgrid(*[np.arange(_GROUP + 1)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    for group in np.unique(places[inside] // _GROUP, axis=0):
        first = group * _GROUP
        rows = find(volume.keys, pack(first + span))
        rows[rows >= 0] = np.where(kept[rows[rows >= 0]], rows[rows >= 0], -1)
        distance, weight, color = _dense(volume, rows, span)
        # A cube belongs to the box of the block that holds its lower corner.
        owner = first + np.stack(np.meshgrid(*[np.arange(_GROUP * SIDE) // SIDE] * 3, indexing="ij"), axis=-1)
        known = _all_corners(weight > 0) & ((owner >= low) & (owner <= high)).all(axis=-1)
        if not known.any() or distance.min() >= 0 or distance.max() <= 0:
            continue
        vertices, faces, _, _ = marching_cubes(distance, 0.0, gradient_direction="descent")
        cell = np.floor(vertices[faces].mean(axis=1)).astype(np.int64)
        faces = faces[known[tuple(np.clip(cell, 0, _GROUP * SIDE - 1).T)]]
        used, faces = np.unique(faces, return_inverse=True)
        if len(used):
            yield vertices[used] + first * SIDE, faces.reshape(-1, 3), _interpolated(color, weight, vertices[used])


def _dense(
    volume: Volume, rows: NDArray[np.int64], span: NDArray[np.int64]
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Distance, weight and colour of a group of blocks and the first voxels of those behind it."""
    side = (_GROUP + 1) * SIDE
    distance = np.ones((side, side, side), dtype=np.float32)
    weight = np.zeros_like(distance)
    color = np.zeros((side, side, side, 3), dtype=np.float32)
    for row, place in zip(rows.tolist(), (span * SIDE).tolist(), strict=True):
        if row >= 0:
            x, y, z = (slice(start, start + SIDE) for start in place)
            known = volume.weight[row] > 0
            distance[x, y, z] = np.where(known, volume.distance[row], 1.0)
            weight[x, y, z] = volume.weight[row]
            color[x, y, z] = volume.color[row]
    end = _GROUP * SIDE + 1
    return distance[:end, :end, :end], weight[:end, :end, :end], color[:end, :end, :end]


def _all_corners(known: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which cubes (N - 1, N - 1, N - 1) have eight known corners."""
    for axis in range(3):
        lower, upper = (np.take(known, np.arange(known.shape[axis] - 1) + one, axis=axis) for one in (0, 1))
        known = lower & upper
    return known


def _interpolated(
    color: NDArray[np.float32], weight: NDArray[np.float32], vertices: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Colours (V, 3) at vertices (V, 3): between the two voxels of the edge that each lies on."""
    lower = np.floor(vertices).astype(np.intp)
    upper = np.minimum(np.ceil(vertices).astype(np.intp), np.array(weight.shape) - 1)
    share = np.abs(vertices - lower).sum(axis=1)
    first, second = (1 - share) * (weight[tuple(lower.T)] > 0), share * (weight[tuple(upper.T)] > 0)
    total = np.maximum(first + second, 1e-6)
    return (first[:, None] * color[tuple(lower.T)] + second[:, None] * color[tuple(upper.T)]) / total[:, None]


def _joined(pieces: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]], voxel_size: float) -> SurfaceMesh:
    """One mesh of all pieces: what lies on the faces between two groups is the same vertex of both."""
    counts = np.cumsum([0, *(len(vertices) for vertices, _, _ in pieces)])
    vertices = np.concatenate([vertices for vertices, _, _ in pieces]).astype(np.float64)
    faces = np.concatenate([faces + start for (_, faces, _), start in zip(pieces, counts, strict=False)])
    colors = np.concatenate([colors for _, _, colors in pieces])
    steps = np.rint(vertices * _STEPS).astype(np.int64)
    shared = np.flatnonzero((steps % (_STEPS * SIDE) == 0).any(axis=1))
    _, first, inverse = np.unique(steps[shared], axis=0, return_index=True, return_inverse=True)
    same = np.arange(len(vertices))
    same[shared] = shared[first][inverse.reshape(-1)]
    faces = same[faces]
    faces = faces[(faces != np.roll(faces, 1, axis=1)).all(axis=1)]
    faces = _without_crumbs(faces, len(vertices))
    used, faces = np.unique(faces, return_inverse=True)
    faces = faces.reshape(-1, 3)
    vertices = vertices[used] * voxel_size
    return SurfaceMesh(
        vertices=vertices,
        faces=faces,
        normals=_normals(vertices, faces),
        colors=np.clip(np.rint(colors[used]), 0, 255).astype(np.uint8),
    )


def _without_crumbs(faces: NDArray[np.int64], vertices: int) -> NDArray[np.int64]:
    """The faces of pieces that are large enough to be more than noise."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, columns = np.concatenate([faces[:, :2], faces[:, 1:]]).T
    graph = coo_array((np.ones(len(rows), dtype=np.int8), (rows, columns)), shape=(vertices, vertices))
    _, labels = connected_components(graph, directed=False)
    sizes = np.bincount(labels[faces[:, 0]], minlength=labels.max(initial=0) + 1)
    return faces[sizes[labels[faces[:, 0]]] >= _SMALLEST_PIECE]


def _normals(vertices: NDArray[np.float64], faces: NDArray[np.int64]) -> NDArray[np.float64]:
    """Unit normals (V, 3): those of the faces around each vertex by their areas."""
    a, b, c = (vertices[faces[:, corner]] for corner in range(3))
    across = np.cross(b - a, c - a)
    normals = np.zeros_like(vertices)
    for corner in range(3):
        for axis in range(3):
            normals[:, axis] += np.bincount(faces[:, corner], across[:, axis], minlength=len(vertices))
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def _marching_cubes() -> Any:
    try:
        from skimage.measure import marching_cubes
    except ImportError:
        raise InputError("a dense map needs scikit-image: pip install 'semkey[mesh]'") from None
    return marching_cubes


def _trimesh() -> Any:
    try:
        import trimesh
    except ImportError:
        raise InputError("a mesh file needs trimesh: pip install 'semkey[mesh]'") from None
    return trimesh
