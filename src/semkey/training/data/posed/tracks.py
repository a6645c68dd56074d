"""Tracks of a scene: points in space, and which photos see them.

A COLMAP model has its own. Where only poses are known, SIFT keypoints are matched between photos that look at the same
place, matches that do not fit the poses are dropped, and what is left is joined and triangulated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.errors import SemkeyError
from semkey.geometry.transforms import skew
from semkey.losses.rewards import sampson_distances
from semkey.training.data.depthless_config import PosedConfig
from semkey.training.data.photos import Progress
from semkey.training.data.posed.colmap_points import read_colmap_points
from semkey.training.data.posed.scene import PosedPhoto, PosedScene

Array = NDArray[np.float64]

_KEYPOINTS = 3000
_RATIO = 0.85
_LONGEST_SIDE = 1024


@dataclass(frozen=True, kw_only=True, eq=False)
class Tracks:
    """Points that several photos see.

    Attributes:
        points: (N, 3) in the world of the poses.
        rows: (K,) int32 point of each sighting.
        photos: (K,) int32 place of the photo in the scene.
    """

    points: Array
    rows: NDArray[np.int32]
    photos: NDArray[np.int32]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(N,) how many photos see each point."""
        return np.bincount(self.rows, minlength=len(self.points))

    def seen_by(self, photo: int) -> NDArray[np.int32]:
        """Points that a photo sees, increasing."""
        return np.sort(self.rows[self.photos == photo])


def find_tracks(scene: PosedScene, config: PosedConfig, progress: Progress | None = None) -> Tracks:
    """The tracks of a scene that ``config`` lets count.

    Raises:
        DatasetError: the points of a COLMAP model are damaged.
    """
    if scene.points_file is not None:
        points, rows, images = read_colmap_points(scene.points_file)
        place = {photo.number: index for index, photo in enumerate(scene.photos)}
        known = np.array([place.get(int(image), -1) for image in images], dtype=np.int64)
        there = known >= 0
        tracks = Tracks(points=points, rows=rows[there].astype(np.int32), photos=known[there].astype(np.int32))
        return _good(scene.photos, tracks, None, config)
    return _made(scene, config, progress)


def _made(scene: PosedScene, config: PosedConfig, progress: Progress | None) -> Tracks:
    """Tracks from matches that fit the poses."""
    photos = scene.photos
    found = []
    for number, photo in enumerate(photos):
        found.append(_keypoints(photo))
        if progress is not None:
            progress(number + 1, len(photos), f"keypoints of {scene.path.name}")
    pairs = _neighbours(photos, config.neighbours)
    starts = np.cumsum([0, *(len(points) for points, _ in found)])
    links = []
    for number, (first, second) in enumerate(pairs):
        own, other = _matches(photos, found, first, second, config.max_error_px)
        links.append(np.stack([starts[first] + own, starts[second] + other], axis=1))
        if progress is not None:
            progress(number + 1, len(pairs), f"matches of {scene.path.name}")
    all_links = np.concatenate(links) if links else np.zeros((0, 2), np.int64)
    roots = _joined(int(starts[-1]), all_links)
    pixels = np.concatenate([points for points, _ in found])
    photo_of = np.repeat(np.arange(len(photos)), np.diff(starts))
    rows, chosen = _without_doubles(roots, photo_of)
    points = _triangulated(photos, pixels[chosen], photo_of[chosen], rows)
    tracks = Tracks(points=points, rows=rows.astype(np.int32), photos=photo_of[chosen].astype(np.int32))
    return _good(photos, tracks, pixels[chosen], config)


def _keypoints(photo: PosedPhoto) -> tuple[Array, NDArray[np.float32]]:
    """SIFT keypoints (N, 2) and descriptors (N, 128) of a photo; none where it cannot be read."""
    try:
        gray = cv2.cvtColor(photo.read(), cv2.COLOR_RGB2GRAY)
    except SemkeyError:
        return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
    scale = min(1.0, _LONGEST_SIDE / max(gray.shape))
    if scale < 1.0:
        size = (round(gray.shape[1] * scale), round(gray.shape[0] * scale))
        gray = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    keypoints, descriptors = cv2.SIFT.create(nfeatures=_KEYPOINTS, enable_precise_upscale=True).detectAndCompute(
        gray, None
    )
    if not keypoints:
        return np.zeros((0, 2)), np.zeros((0, 128), np.float32)
    points = (np.array([keypoint.pt for keypoint in keypoints], dtype=np.float64) + 0.5) / scale - 0.5
    # the same place with another orientation is no other keypoint
    _, kept = np.unique(points.round(2), axis=0, return_index=True)
    roots = np.sqrt(np.asarray(descriptors, np.float32)[kept] / 512.0)
    return points[kept], roots / np.maximum(np.linalg.norm(roots, axis=1, keepdims=True), 1e-6)


def _neighbours(photos: Sequence[PosedPhoto], count: int) -> list[tuple[int, int]]:
    """Pairs of photos that look the same way from near each other, each photo with ``count`` others."""
    rotations = np.array([photo.T_cam_world[:3, :3] for photo in photos])
    centres = np.array([-R.T @ photo.T_cam_world[:3, 3] for R, photo in zip(rotations, photos, strict=True)])
    axes = rotations[:, 2]
    spread = np.median(np.linalg.norm(centres - np.median(centres, axis=0), axis=1))
    gaps = np.linalg.norm(centres[:, None] - centres, axis=-1) / max(float(spread), 1e-12)
    cost = gaps + 3.0 * (1.0 - axes @ axes.T)
    np.fill_diagonal(cost, np.inf)
    nearest = np.argsort(cost, axis=1)[:, : min(count, len(photos) - 1)]
    return sorted({(min(a, int(b)), max(a, int(b))) for a, row in enumerate(nearest) for b in row})


def _matches(
    photos: Sequence[PosedPhoto],
    found: Sequence[tuple[Array, NDArray[np.float32]]],
    first: int,
    second: int,
    max_error_px: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Keypoints of two photos that look alike, clearly more than others, and lie where the poses allow."""
    (points0, own), (points1, other) = found[first], found[second]
    if min(len(own), len(other)) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    similarity = own @ other.T
    best = similarity.argmax(axis=1)
    top = np.partition(similarity, -2, axis=1)[:, -2:]
    distances = np.sqrt(np.maximum(2.0 - 2.0 * top, 0.0))
    mutual = similarity.argmax(axis=0)[best] == np.arange(len(best))
    rows = np.flatnonzero(mutual & (distances[:, 1] < _RATIO * distances[:, 0]))
    T = photos[second].T_cam_world @ np.linalg.inv(photos[first].T_cam_world)
    essential = skew(T[:3, 3]) @ T[:3, :3]
    F = np.linalg.inv(photos[second].K).T @ essential @ np.linalg.inv(photos[first].K)
    near = sampson_distances(F, points0[rows], points1[best[rows]]) < max_error_px
    return rows[near], best[rows][near]


def _joined(count: int, links: NDArray[np.int64]) -> NDArray[np.int64]:
    """(count,) a number per connected component of ``count`` keypoints under links (L, 2)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    ones = np.ones(len(links), np.int8)
    graph = coo_matrix((ones, (links[:, 0], links[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1].astype(np.int64)


def _without_doubles(
    roots: NDArray[np.int64], photos: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and keypoints of the components of two photos or more; one with two keypoints of a photo is none."""
    order = np.lexsort((photos, roots))
    sorted_roots, sorted_photos = roots[order], photos[order]
    same = (sorted_roots[1:] == sorted_roots[:-1]) & (sorted_photos[1:] == sorted_photos[:-1])
    bad = np.unique(sorted_roots[1:][same])
    sizes = np.bincount(roots)
    good = (sizes[roots] >= 2) & ~np.isin(roots, bad)
    chosen = np.flatnonzero(good)
    _, rows = np.unique(roots[chosen], return_inverse=True)
    return rows.astype(np.int64), chosen


def _triangulated(
    photos: Sequence[PosedPhoto], pixels: Array, photo_of: NDArray[np.int64], rows: NDArray[np.int64]
) -> Array:
    """(N, 3) the points whose projections are nearest, by linear least squares (Hartley and Zisserman 12.2)."""
    count = int(rows.max()) + 1 if len(rows) else 0
    cameras = np.array([photo.K @ photo.T_cam_world[:3] for photo in photos]).reshape(-1, 3, 4)
    scale = np.array([np.linalg.norm(photo.K[:2, :2]) for photo in photos])
    P = cameras[photo_of]
    equations = (pixels[:, :, None] * P[:, 2:3] - P[:, :2]) / scale[photo_of][:, None, None]  # (K, 2, 4)
    normal = np.zeros((count, 4, 4))
    np.add.at(normal, rows, equations.transpose(0, 2, 1) @ equations)
    solution = np.linalg.eigh(normal)[1][:, :, 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        return solution[:, :3] / solution[:, 3:]


def _good(photos: Sequence[PosedPhoto], tracks: Tracks, pixels: Array | None, config: PosedConfig) -> Tracks:
    """Tracks whose point lies before every photo and near where it was seen, with enough photos; those alone."""
    good: NDArray[np.bool_] = np.asarray(np.isfinite(tracks.points).all(axis=1))
    for number, photo in enumerate(photos):
        at = np.flatnonzero(tracks.photos == number)
        rows = tracks.rows[at]
        places, depth = photo.project(tracks.points[rows])
        fits = depth > 0
        if pixels is not None:
            with np.errstate(invalid="ignore"):
                fits &= np.linalg.norm(places - pixels[at], axis=1) < config.max_error_px
        good[rows[~fits]] = False
    good &= tracks.lengths >= config.min_views
    kept = good[tracks.rows]
    number_of = (np.cumsum(good) - 1).astype(np.int32)
    return Tracks(points=tracks.points[good], rows=number_of[tracks.rows[kept]], photos=tracks.photos[kept])


def shared_points(tracks: Tracks, photos: int) -> NDArray[np.int32]:
    """(photos, photos) how many points every two photos share; with itself each shares none."""
    from scipy.sparse import csr_matrix

    ones = np.ones(len(tracks.rows), np.int32)
    seen = csr_matrix((ones, (tracks.photos, tracks.rows)), shape=(photos, len(tracks.points)))
    counts = np.asarray((seen @ seen.T).todense(), np.int32)
    np.fill_diagonal(counts, 0)
    return counts
