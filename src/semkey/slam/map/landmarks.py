"""The landmarks of the map: positions with their uncertainty, how they look, and from where they can be seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, transform_points
from semkey.slam.map.lifetimes import failed_probation, rarely_found
from semkey.slam.map.sightings import ObservationTable

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# A descriptor seen from more than 60 degrees aside, or from over twice or under half the distance, rarely matches.
_SMALLEST_VIEW_COSINE = 0.5
_LARGEST_DISTANCE_RATIO = 2.0
# A landmark counts as established once it was found this often, and in at least this share of its views: it has stayed
# where it is while the camera moved.
_ESTABLISHED_FOUND = 5
_ESTABLISHED_SHARE = 0.5

# The arrays with a row per landmark, by the name under which they are saved.
_COLUMNS = {
    "position": "_positions",
    "information": "_information",
    "descriptor": "_descriptors",
    "view_direction": "_view_directions",
    "view_distance": "_view_distances",
    "visible": "_visible",
    "found": "_found",
    "alive": "_alive",
    "keyframe_count": "_keyframe_count",
    "birth": "_birth",
    "reference": "_reference",
    "serial": "_serials",
}


class LandmarkMap:
    """Landmarks in growing arrays; a landmark's id is its row and never changes while it is alive.

    Rows of removed landmarks are used again by :meth:`add`, so that memory follows the explored space and not time. A
    row's ``serials`` entry is another number for every landmark that ever was: who keeps ids across calls of
    :meth:`add` compares it.

    Attributes:
        observations: which keyframes see each landmark; kept by :class:`semkey.slam.map.slam_map.SlamMap`.
    """

    def __init__(self) -> None:
        self.observations: ObservationTable = ObservationTable()
        self._count = 0
        self._made = 0
        self._free = np.empty(0, dtype=np.int64)
        self._positions = np.empty((0, 3))
        self._information = np.empty((0, 3, 3))
        self._descriptors = np.empty((0, 0), dtype=np.float32)
        self._view_directions = np.empty((0, 3))
        self._view_distances = np.empty(0)
        self._visible = np.empty(0, dtype=np.int64)
        self._found = np.empty(0, dtype=np.int64)
        self._alive = np.empty(0, dtype=bool)
        self._keyframe_count = np.empty(0, dtype=np.int64)
        self._birth = np.empty(0, dtype=np.int64)
        self._reference = np.empty(0, dtype=np.int64)
        self._serials = np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        """Number of rows, dead ones included."""
        return self._count

    @property
    def made(self) -> int:
        """How many landmarks there ever were."""
        return self._made

    @property
    def ids(self) -> Indices:
        """Rows of the landmarks that are alive."""
        return np.flatnonzero(self.alive)

    @property
    def positions(self) -> Array:
        """Positions (L, 3) in the world, metres."""
        return self._positions[: self._count]

    @property
    def information(self) -> NDArray[np.float64]:
        """Inverse covariances (L, 3, 3) of the positions, world axes, 1/m^2."""
        return self._information[: self._count]

    @property
    def descriptors(self) -> NDArray[np.float32]:
        """Descriptors (L, D) from each one's newest keyframe."""
        return self._descriptors[: self._count]

    @property
    def alive(self) -> NDArray[np.bool_]:
        """Which rows hold a landmark, (L,)."""
        return self._alive[: self._count]

    @property
    def references(self) -> Indices:
        """The keyframe (L,) that each landmark moves with when keyframes are moved: the first that saw it."""
        return self._reference[: self._count]

    @property
    def found(self) -> Indices:
        """In how many frames (L,) each landmark was found, the one that it was made in included."""
        return self._found[: self._count]

    @property
    def serials(self) -> Indices:
        """The running number (L,) of the landmark in each row, from 0; never given twice."""
        return self._serials[: self._count]

    def add(
        self,
        points_world: Array,
        information: Array,
        descriptors: NDArray[np.float32],
        camera_centre: Array,
        keyframe_id: int,
    ) -> Indices:
        """Add M landmarks, in rows of removed ones where there are some; returns their ids (M,).

        Args:
            points_world: (M, 3) positions, metres.
            information: (M, 3, 3) inverse covariances, world axes.
            descriptors: (M, D) how they look; D is that of the first landmarks there ever were.
            camera_centre: (3,) where they were seen from, in the world.
            keyframe_id: their reference keyframe.
        """
        count = len(points_world)
        if not self._count:
            self._descriptors = np.empty((len(self._positions), descriptors.shape[1]), dtype=np.float32)
        reused, self._free = self._free[:count], self._free[count:]
        ids = np.concatenate([reused, np.arange(self._count, self._count + count - len(reused))])
        self._reserve(self._count + count - len(reused))
        self._count += count - len(reused)
        self._positions[ids] = points_world
        self._information[ids] = information
        self._visible[ids] = 1
        self._found[ids] = 1
        self._alive[ids] = True
        self._birth[ids] = keyframe_id
        self._reference[ids] = keyframe_id
        self._serials[ids] = np.arange(self._made, self._made + count)
        self._made += count
        self._keyframe_count[ids] = 0
        self.describe(ids, descriptors, camera_centre)
        return ids

    def remove(self, ids: Indices) -> None:
        """Free the rows of landmarks ``ids`` (M,), distinct and alive."""
        self._alive[ids] = False
        self.observations.clear(ids)
        self._free = np.sort(np.concatenate([self._free, ids]))

    def refer(self, ids: Indices, keyframe_ids: Indices) -> None:
        """Give landmarks ``ids`` (M,) other reference keyframes (M,)."""
        self._reference[ids] = keyframe_ids

    def move(self, ids: Indices, rotation: Array, translation: Array, scale: float = 1.0) -> None:
        """Move landmarks ``ids`` by ``p -> scale * rotation @ p + translation`` with all that is known of them."""
        self._positions[ids] = scale * self._positions[ids] @ rotation.T + translation
        self._information[ids] = rotation @ self._information[ids] @ rotation.T / scale**2
        self._view_directions[ids] = self._view_directions[ids] @ rotation.T
        self._view_distances[ids] *= scale

    def merge_counts(self, keep: Indices, gone: Indices) -> None:
        """Add up how often duplicates (M,) of the same points were in view and found."""
        self._visible[keep] += self._visible[gone]
        self._found[keep] += self._found[gone]
        self._keyframe_count[keep] += self._keyframe_count[gone]

    def describe(self, ids: Indices, descriptors: NDArray[np.float32], camera_centre: Array) -> None:
        """Take over how landmarks ``ids`` look in a new keyframe at ``camera_centre`` (3,) in the world."""
        self._descriptors[ids] = descriptors
        self._keyframe_count[ids] += 1
        rays = camera_centre - self._positions[ids]
        distances = np.maximum(np.linalg.norm(rays, axis=1), 1e-9)
        self._view_directions[ids] = rays / distances[:, None]
        self._view_distances[ids] = distances

    def fuse(self, ids: Indices, jacobian: Array, residual: Array) -> None:
        """Kalman update of positions by measurements of known pose.

        Args:
            ids: (M,) distinct landmarks.
            jacobian: (M, 3, 3) whitened derivative of the measurement by the position in the world.
            residual: (M, 3) whitened predicted minus measured.
        """
        transposed = jacobian.transpose(0, 2, 1)
        self._information[ids] += transposed @ jacobian
        step = np.linalg.solve(self._information[ids], transposed @ residual[:, :, None])[:, :, 0]
        self._positions[ids] -= step

    def visible_from(self, ids: Indices, T_world_cam: Array, camera: PinholeCamera) -> tuple[Indices, Array]:
        """Those of ``ids`` that a camera should see and recognise, and their pixels (M, 2)."""
        ids = ids[self._alive[ids]]
        points = transform_points(inverse(T_world_cam), self._positions[ids])
        pixels = camera.project(points)
        rays = T_world_cam[:3, 3] - self._positions[ids]
        distances = np.maximum(np.linalg.norm(rays, axis=1), 1e-9)
        cosine = (rays * self._view_directions[ids]).sum(axis=1) / distances
        ratio = distances / self._view_distances[ids]
        recognisable = (cosine > _SMALLEST_VIEW_COSINE) & (ratio < _LARGEST_DISTANCE_RATIO)
        recognisable &= ratio > 1 / _LARGEST_DISTANCE_RATIO
        keep = recognisable & camera.contains(pixels)
        return ids[keep], pixels[keep]

    def established(self, ids: Indices) -> NDArray[np.bool_]:
        """Which of landmarks ``ids`` (M,) were found often where they had to be: (M,)."""
        found = self._found[ids]
        return (found >= _ESTABLISHED_FOUND) & (found >= _ESTABLISHED_SHARE * self._visible[ids])

    def median_depth(self, ids: Indices, T_world_cam: Array) -> float:
        """Median depth of landmarks ``ids`` (M,), M > 0, as seen from a pose (4, 4), in map units."""
        points = transform_points(inverse(T_world_cam), self._positions[ids])
        return max(float(np.median(points[:, 2])), 1e-6)

    def count_views(self, visible: Indices, found: Indices) -> Indices:
        """Keep count of which landmarks were in view and which were found there; returns those rarely found."""
        self._visible[visible] += 1
        self._found[found] += 1
        return visible[self.alive[visible] & rarely_found(self._visible[visible], self._found[visible])]

    def failed_probation(self, keyframe_id: int) -> Indices:
        """Landmarks that are several keyframes old and were seen by the first of them only."""
        births, counts = self._birth[: self._count], self._keyframe_count[: self._count]
        return np.flatnonzero(self.alive & failed_probation(births, counts, keyframe_id))

    def to_arrays(self) -> dict[str, NDArray[Any]]:
        """Copies of all arrays with a row per landmark, by name, for :meth:`from_arrays`."""
        return {name: getattr(self, attribute)[: self._count].copy() for name, attribute in _COLUMNS.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[Any]], *, made: int) -> LandmarkMap:
        """Landmarks with the rows of :meth:`to_arrays`, as yet without observations; ``made`` as :attr:`made`."""
        landmarks = cls()
        for name, attribute in _COLUMNS.items():
            setattr(landmarks, attribute, arrays[name].copy())
        landmarks._count = len(arrays["position"])
        landmarks._made = made
        landmarks._free = np.flatnonzero(~landmarks.alive)
        landmarks.observations.reserve(landmarks._count)
        return landmarks

    def _reserve(self, count: int) -> None:
        self.observations.reserve(count)
        capacity = len(self._positions)
        if count <= capacity:
            return
        capacity = max(count, 2 * capacity, 1024)
        for name in _COLUMNS.values():
            old = getattr(self, name)
            grown = np.zeros((capacity, *old.shape[1:]), dtype=old.dtype)
            grown[: self._count] = old[: self._count]
            setattr(self, name, grown)
