"""The map: keyframes, the landmarks they see, which of them belong together, and how all of it moves."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import compose, inverse, make_transform, transform_points
from semkey.slam.association import Associations
from semkey.slam.config import MapConfig
from semkey.slam.fusion import fuse_observations, point_information
from semkey.slam.keyframe import Keyframe, ObservedFrame
from semkey.slam.landmarks import LandmarkMap

if TYPE_CHECKING:
    from semkey.slam.line_map import LineMap

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Observations:
    """O sightings of landmarks by keyframes.

    Attributes:
        keyframe_ids: (O,) who sees.
        keypoint_indices: (O,) with which keypoint.
        landmark_ids: (O,) what.
        keypoints: (O, 2) where, pixels.
        depth: (O,) metres, 0 where unknown.
        depth_sigma: (O,) metres.
        weights: (O,) information multiplier.
    """

    keyframe_ids: Indices
    keypoint_indices: Indices
    landmark_ids: Indices
    keypoints: Array
    depth: Array
    depth_sigma: Array
    weights: Array

    def __len__(self) -> int:
        return len(self.landmark_ids)

    def select(self, mask: NDArray[np.bool_]) -> Observations:
        """The sightings where ``mask`` (O,) holds."""
        return Observations(**{field.name: getattr(self, field.name)[mask] for field in fields(self)})


@dataclass(frozen=True, kw_only=True, eq=False)
class RemovedKeyframe:
    """Where a removed keyframe lies as seen from its parent, in units and scale of the parent."""

    parent: int
    T_parent_keyframe: Array
    scale_ratio: float


class SlamMap:
    """Keyframes and landmarks.

    Only the methods here change who sees what; positions and poses may be read freely and are moved by
    :meth:`set_poses`, :meth:`join_submaps` and :func:`semkey.slam.bundle_adjustment.apply_bundle`.

    Args:
        camera: of all frames.
        config: settings.
        pixel_sigma: standard deviation of a keypoint's position in this image size, pixels.

    Attributes:
        keyframes: by id, in the order in which they were made; removed ones are gone.
        loop_links: pairs of keyframes that were recognised to see the same place, and by how many landmarks.
        lines: the lines that the keyframes hold; None where lines are not used.
    """

    def __init__(self, camera: PinholeCamera, config: MapConfig, *, pixel_sigma: float) -> None:
        self.keyframes: dict[int, Keyframe] = {}
        self.loop_links: list[tuple[int, int, int]] = []
        self.camera = camera
        self.pixel_sigma = pixel_sigma
        self._config = config
        self.lines: LineMap | None = None
        self._landmarks: LandmarkMap | None = None
        self._next_id = 0
        self._next_submap = 0
        self._removed: dict[int, RemovedKeyframe] = {}

    @classmethod
    def restored(
        cls,
        camera: PinholeCamera,
        config: MapConfig,
        *,
        pixel_sigma: float,
        keyframes: Iterable[Keyframe],
        landmarks: LandmarkMap,
        removed: Mapping[int, RemovedKeyframe],
        loop_links: Iterable[tuple[int, int, int]],
        counters: Mapping[str, int],
    ) -> SlamMap:
        """A map put together again from its parts.

        Args:
            camera: of all frames.
            config: settings.
            pixel_sigma: see :class:`SlamMap`.
            keyframes: by increasing id; they tell who sees what.
            landmarks: without observations.
            removed: see :attr:`removed`.
            loop_links: see :class:`SlamMap`.
            counters: see :attr:`counters`.
        """
        slam_map = cls(camera, config, pixel_sigma=pixel_sigma)
        slam_map._landmarks = landmarks
        for keyframe in keyframes:
            slam_map.keyframes[keyframe.id] = keyframe
            seen = keyframe.observed
            landmarks.observations.add(keyframe.id, keyframe.landmark_ids[seen], seen)
        slam_map._removed = dict(removed)
        slam_map.loop_links = list(loop_links)
        slam_map._next_id, slam_map._next_submap = counters["next_keyframe"], counters["next_submap"]
        return slam_map

    @property
    def removed(self) -> Mapping[int, RemovedKeyframe]:
        """Keyframes that were removed, by id: frames that refer to them are placed by these."""
        return self._removed

    @property
    def counters(self) -> dict[str, int]:
        """The numbers that the next keyframe, submap and landmark will get, for :meth:`restored`."""
        made = 0 if self._landmarks is None else self._landmarks.made
        return {"next_keyframe": self._next_id, "next_submap": self._next_submap, "landmarks_made": made}

    @property
    def landmarks(self) -> LandmarkMap:
        """The landmarks; there are some as soon as there is a keyframe."""
        if self._landmarks is None:
            raise RuntimeError("the map has no landmarks before its first keyframe")
        return self._landmarks

    @property
    def newest(self) -> Keyframe:
        """The keyframe made last."""
        return self.keyframes[next(reversed(self.keyframes))]

    @property
    def submaps(self) -> list[int]:
        """Numbers of the submaps that there are, in increasing order."""
        return sorted({keyframe.submap for keyframe in self.keyframes.values()})

    @property
    def next_submap(self) -> int:
        """A number that no submap has had."""
        return self._next_submap

    # -- growing -------------------------------------------------------------------------------------------------

    def add_keyframe(
        self, frame: ObservedFrame, T_world_cam: Array, found: Associations | None, submap: int
    ) -> Keyframe:
        """Keep a frame: landmarks it sees get more certain, its other keypoints with depth become landmarks."""
        if self._landmarks is None:
            self._landmarks = LandmarkMap(frame.descriptors.shape[1])
        keyframe = Keyframe(
            id=self._next_id,
            frame=frame,
            T_world_cam=T_world_cam,
            landmark_ids=np.full(len(frame), -1, dtype=np.int64),
            submap=submap,
            median_depth=self._median_depth(frame, T_world_cam, found),
        )
        self._next_id += 1
        self._next_submap = max(self._next_submap, submap + 1)
        if found is not None:
            found = found.select(self.landmarks.alive[found.landmark_ids])
            keyframe.parent = self.nearest_keyframe(found.landmark_ids)
        self.keyframes[keyframe.id] = keyframe
        if found is not None:
            fuse_observations(self.landmarks, frame, T_world_cam, found, self.camera, pixel_sigma=self.pixel_sigma)
            self.observe(keyframe.id, found.landmark_ids, found.keypoint_indices)
        fresh = np.flatnonzero((keyframe.landmark_ids < 0) & (frame.depth > 0))
        points_cam = frame.points_cam(fresh, self.camera)
        information = point_information(
            points_cam,
            frame.depth_sigma[fresh],
            frame.weights[fresh],
            T_world_cam,
            self.camera,
            pixel_sigma=self.pixel_sigma,
        )
        self.add_landmarks(keyframe.id, fresh, transform_points(T_world_cam, points_cam), information)
        self.remove_landmarks(self.landmarks.failed_probation(keyframe.id))
        return keyframe

    def add_landmarks(
        self, keyframe_id: int, keypoint_indices: Indices, points_world: Array, information: Array
    ) -> Indices:
        """New landmarks (M,) at keypoints (M,) of a keyframe that see none yet; returns their ids.

        Args:
            keyframe_id: their reference keyframe.
            keypoint_indices: (M,) keypoints.
            points_world: (M, 3) positions, metres.
            information: (M, 3, 3) inverse covariances, world axes.
        """
        keyframe = self.keyframes[keyframe_id]
        descriptors = keyframe.frame.descriptors[keypoint_indices]
        ids = self.landmarks.add(points_world, information, descriptors, keyframe.T_world_cam[:3, 3], keyframe_id)
        keyframe.landmark_ids[keypoint_indices] = ids
        self.landmarks.observations.add(keyframe_id, ids, keypoint_indices)
        return ids

    def observe(self, keyframe_id: int, landmark_ids: Indices, keypoint_indices: Indices) -> None:
        """A keyframe sees landmarks (M,) with keypoints (M,), both distinct and not yet used by it."""
        keyframe = self.keyframes[keyframe_id]
        keyframe.landmark_ids[keypoint_indices] = landmark_ids
        self.landmarks.observations.add(keyframe_id, landmark_ids, keypoint_indices)
        descriptors = keyframe.frame.descriptors[keypoint_indices]
        self.landmarks.describe(landmark_ids, descriptors, keyframe.T_world_cam[:3, 3])

    def count_views(self, visible: Indices, found: Indices) -> None:
        """Keep count of which landmarks were in view and which were found there, and drop those rarely found."""
        self.remove_landmarks(self.landmarks.count_views(visible, found))

    # -- what belongs together -----------------------------------------------------------------------------------

    def covisible(self, keyframe_id: int, min_shared: int = 15) -> list[tuple[int, int]]:
        """Keyframes that share at least so many landmarks with one: (id, shared), most first, newest of equals."""
        keyframe = self.keyframes[keyframe_id]
        ranked = self.observers(keyframe.landmark_ids[keyframe.observed])
        return [(other, shared) for other, shared in ranked if other != keyframe_id and shared >= min_shared]

    def observers(self, landmark_ids: Indices) -> list[tuple[int, int]]:
        """Keyframes that see some of these landmarks: (id, how many), most first, newest of equals."""
        keyframes, shared = self.landmarks.observations.votes(landmark_ids)
        order = np.lexsort((-keyframes, -shared))
        return list(zip(keyframes[order].tolist(), shared[order].tolist(), strict=True))

    def nearest_keyframe(self, landmark_ids: Indices) -> int | None:
        """The keyframe that sees most of these landmarks, the newest of equals; None if none sees any."""
        ranked = self.observers(landmark_ids)
        return ranked[0][0] if ranked else None

    def local_landmarks(self, landmark_ids: Indices, T_world_cam: ArrayLike | None = None) -> Indices:
        """All landmarks of the keyframes that see most of ``landmark_ids``, and of those that look from nearby.

        The latter are what a camera meets that comes back to where it has been.

        Args:
            landmark_ids: (M,) what was seen last.
            T_world_cam: (4, 4) where the camera is believed to be; None for no keyframes from nearby.
        """
        local = [k for k, _ in self.observers(landmark_ids)[: self._config.local_keyframes]]
        if T_world_cam is not None and local:
            submap = self.keyframes[local[0]].submap
            local += self.nearby_keyframes(T_world_cam, submap, self._config.nearby_keyframes, without=local)
        wanted = np.zeros(len(self.landmarks) + 1, dtype=bool)
        for keyframe_id in local:
            wanted[self.keyframes[keyframe_id].landmark_ids] = True
        # Row -1 stands for keypoints without a landmark.
        return np.flatnonzero(wanted[:-1])

    def nearby_keyframes(
        self, T_world_cam: ArrayLike, submap: int, count: int, *, without: Iterable[int] = ()
    ) -> list[int]:
        """Keyframes of a submap that look at the same as a camera, by pose alone: ids, nearest first.

        Near is who would see the same points shifted by less than a quarter of the image: the distance between the
        centres as a share of the keyframe's median depth, plus the angle between the optical axes.
        """
        skipped = set(without)
        candidates = [k for k, keyframe in self.keyframes.items() if keyframe.submap == submap and k not in skipped]
        if not candidates or not count:
            return []
        pose = np.asarray(T_world_cam, dtype=np.float64)
        poses = np.stack([self.keyframes[k].T_world_cam for k in candidates])
        depths = np.array([self.keyframes[k].median_depth for k in candidates])
        distances = np.linalg.norm(poses[:, :3, 3] - pose[:3, 3], axis=1) / depths
        angles = np.arccos(np.clip(poses[:, :3, 2] @ pose[:3, 2], -1.0, 1.0))
        offsets = distances + angles
        order = np.argsort(offsets, kind="stable")[:count]
        limit = 0.25 * self.camera.width / self.camera.fx
        return [candidates[k] for k in order if offsets[k] < limit]

    def observations(
        self, *, keyframe_ids: Iterable[int] | None = None, landmark_ids: Indices | None = None
    ) -> Observations:
        """Sightings by these keyframes, or of these landmarks, or of these by those; None stands for all."""
        if landmark_ids is None:
            wanted = self.keyframes if keyframe_ids is None else sorted(set(keyframe_ids))
            parts = [(k, self.keyframes[k].observed) for k in wanted]
            keypoints = np.concatenate([indices for _, indices in parts]) if parts else np.zeros(0, dtype=np.int64)
            keyframes = np.repeat(np.array([k for k, _ in parts], dtype=np.int64), [len(i) for _, i in parts])
            landmarks = [self.keyframes[k].landmark_ids[indices] for k, indices in parts]
            ids = np.concatenate(landmarks) if parts else np.zeros(0, dtype=np.int64)
        else:
            positions, keyframes, keypoints = self.landmarks.observations.lookup(np.asarray(landmark_ids))
            ids = np.asarray(landmark_ids)[positions]
            if keyframe_ids is not None:
                chosen = np.isin(keyframes, list(keyframe_ids))
                ids, keyframes, keypoints = ids[chosen], keyframes[chosen], keypoints[chosen]
            order = np.argsort(keyframes, kind="stable")
            ids, keyframes, keypoints = ids[order], keyframes[order], keypoints[order]
        return self._observations(keyframes, keypoints, ids)

    # -- moving --------------------------------------------------------------------------------------------------

    def set_poses(self, poses: Mapping[int, ArrayLike], scales: Mapping[int, float] | None = None) -> None:
        """Move keyframes, and with each the landmarks whose reference it is.

        Args:
            poses: new T_world_cam (4, 4) by keyframe id.
            scales: by how much the surroundings of a keyframe grow about its centre; absent ones keep their size.
        """
        landmarks = self.landmarks
        alive = landmarks.ids
        order = alive[np.argsort(landmarks.references[alive], kind="stable")]
        references = landmarks.references[order]
        for keyframe_id, pose in poses.items():
            keyframe = self.keyframes[keyframe_id]
            scale = 1.0 if scales is None else float(scales.get(keyframe_id, 1.0))
            new, old = np.array(pose, dtype=np.float64), keyframe.T_world_cam
            rotation = new[:3, :3] @ old[:3, :3].T
            translation = new[:3, 3] - scale * rotation @ old[:3, 3]
            first, last = np.searchsorted(references, [keyframe_id, keyframe_id + 1])
            landmarks.move(order[first:last], rotation, translation, scale)
            keyframe.T_world_cam = new
            keyframe.scale *= scale
            keyframe.median_depth *= scale

    def join_submaps(
        self,
        into: int,
        gone: int,
        T_into_gone: ArrayLike,
        scale: float = 1.0,
        *,
        bridge: tuple[int, int] | None = None,
    ) -> None:
        """Carry all keyframes and landmarks of submap ``gone`` over into submap ``into``.

        Args:
            into: submap that stays where it is.
            gone: submap that moves; its number is free afterwards.
            T_into_gone: (4, 4) rotation and translation of ``p -> scale * R @ p + t``.
            scale: size of ``gone`` in units of ``into``.
            bridge: keyframes (of ``into``, of ``gone``) that see the same place: the spanning trees are connected
                there. None leaves two trees.
        """
        transform = np.asarray(T_into_gone, dtype=np.float64)
        moving = {k: keyframe for k, keyframe in self.keyframes.items() if keyframe.submap == gone}
        poses = {k: compose(transform, _scaled(keyframe.T_world_cam, scale)) for k, keyframe in moving.items()}
        self.set_poses(poses, dict.fromkeys(poses, scale))
        for keyframe in moving.values():
            keyframe.submap = into
        if bridge is not None:
            self._hang(bridge[1], bridge[0])

    # -- shrinking -----------------------------------------------------------------------------------------------

    def remove_landmarks(self, landmark_ids: Indices) -> None:
        """Forget landmarks (M,), distinct; their rows are used again by the next keyframe."""
        ids = np.asarray(landmark_ids)
        ids = ids[self.landmarks.alive[ids]]
        _, keyframes, keypoints = self.landmarks.observations.lookup(ids)
        for keyframe_id in np.unique(keyframes).tolist():
            self.keyframes[keyframe_id].landmark_ids[keypoints[keyframes == keyframe_id]] = -1
        self.landmarks.remove(ids)

    def remove_observations(self, keyframe_id: int, landmark_ids: Indices) -> None:
        """A keyframe does not see landmarks (M,), distinct, after all; those that no other one sees are removed."""
        keyframe = self.keyframes[keyframe_id]
        at = np.flatnonzero(np.isin(keyframe.landmark_ids, landmark_ids))
        ids = keyframe.landmark_ids[at]
        keyframe.landmark_ids[at] = -1
        self._lose_observer(keyframe_id, ids)

    def merge_landmarks(self, keep: Indices, gone: Indices) -> None:
        """Landmarks ``gone`` (M,) are the same points as ``keep`` (M,): what sees them sees the kept ones.

        A keyframe that sees both keeps its sighting of the kept one. All ids are distinct; pairs of which one is no
        longer alive are left alone. Positions stay those of ``keep``.
        """
        keep, gone = np.asarray(keep), np.asarray(gone)
        both = self.landmarks.alive[keep] & self.landmarks.alive[gone]
        keep, gone = keep[both], gone[both]
        positions, keyframes, keypoints = self.landmarks.observations.lookup(gone)
        for keyframe_id in np.unique(keyframes).tolist():
            here = keyframes == keyframe_id
            ids, at = keep[positions[here]], keypoints[here]
            landmark_ids = self.keyframes[keyframe_id].landmark_ids
            new = ~np.isin(ids, landmark_ids)
            landmark_ids[at] = np.where(new, ids, -1)
            self.landmarks.observations.add(keyframe_id, ids[new], at[new])
        self.landmarks.merge_counts(keep, gone)
        self.landmarks.remove(gone)

    def remove_keyframe(self, keyframe_id: int) -> None:
        """Forget a keyframe; landmarks that no other one sees go with it.

        Frames whose reference it was are still placed by :meth:`absolute_pose`, which goes by its parent.

        Raises:
            InputError: it is the root of its submap.
        """
        keyframe = self.keyframes[keyframe_id]
        if keyframe.parent is None:
            raise InputError(f"keyframe {keyframe_id} is the root of submap {keyframe.submap} and cannot be removed")
        parent = self.keyframes[keyframe.parent]
        self._removed[keyframe_id] = RemovedKeyframe(
            parent=parent.id,
            T_parent_keyframe=self.relative_pose(parent.id, keyframe.T_world_cam),
            scale_ratio=keyframe.scale / parent.scale,
        )
        self._lose_observer(keyframe_id, keyframe.landmark_ids[keyframe.observed])
        del self.keyframes[keyframe_id]
        for other in self.keyframes.values():
            if other.parent == keyframe_id:
                other.parent = parent.id

    # -- poses of frames -----------------------------------------------------------------------------------------

    def relative_pose(self, reference: int, T_world_cam: ArrayLike) -> Array:
        """A pose as seen from a keyframe, in map units of when that keyframe was made: what frames keep."""
        keyframe = self.keyframes[reference]
        return _scaled(compose(inverse(keyframe.T_world_cam), T_world_cam), 1.0 / keyframe.scale)

    def absolute_pose(self, reference: int, T_keyframe_cam: ArrayLike) -> Array:
        """T_world_cam (4, 4) of a frame given relative to a keyframe, wherever that one lies now.

        Args:
            reference: the keyframe; it may have been removed since.
            T_keyframe_cam: (4, 4) from :meth:`relative_pose`.
        """
        T_world_keyframe, scale = self.placement(reference)
        return compose(T_world_keyframe, _scaled(T_keyframe_cam, scale))

    def survivor(self, keyframe_id: int) -> int:
        """The keyframe itself, or the nearest one above it in the tree that has not been removed."""
        while keyframe_id not in self.keyframes:
            keyframe_id = self._removed[keyframe_id].parent
        return keyframe_id

    def placement(self, keyframe_id: int) -> tuple[Array, float]:
        """Pose T_world_cam (4, 4) and scale of a keyframe, removed or not."""
        chain: list[RemovedKeyframe] = []
        while keyframe_id not in self.keyframes:
            chain.append(self._removed[keyframe_id])
            keyframe_id = chain[-1].parent
        pose, scale = self.keyframes[keyframe_id].T_world_cam, self.keyframes[keyframe_id].scale
        for removed in reversed(chain):
            pose = compose(pose, _scaled(removed.T_parent_keyframe, scale))
            scale *= removed.scale_ratio
        return pose, scale

    # -- details -------------------------------------------------------------------------------------------------

    def _observations(self, keyframes: Indices, keypoints: Indices, landmark_ids: Indices) -> Observations:
        """Look up what is measured; ``keyframes`` (O,) is sorted."""
        where = np.empty((len(keyframes), 2))
        depth, sigma, weights = np.empty(len(keyframes)), np.empty(len(keyframes)), np.empty(len(keyframes))
        for keyframe_id in np.unique(keyframes).tolist():
            first, last = np.searchsorted(keyframes, [keyframe_id, keyframe_id + 1])
            frame, indices = self.keyframes[keyframe_id].frame, keypoints[first:last]
            where[first:last] = frame.keypoints[indices]
            depth[first:last], sigma[first:last] = frame.depth[indices], frame.depth_sigma[indices]
            weights[first:last] = frame.weights[indices]
        return Observations(
            keyframe_ids=keyframes,
            keypoint_indices=keypoints,
            landmark_ids=landmark_ids,
            keypoints=where,
            depth=depth,
            depth_sigma=sigma,
            weights=weights,
        )

    def _median_depth(self, frame: ObservedFrame, T_world_cam: Array, found: Associations | None) -> float:
        """Of what a frame sees: by its own measurements, else by the landmarks that it was placed by."""
        depth = frame.depth[frame.depth > 0]
        if not len(depth) and found is not None:
            points = transform_points(inverse(T_world_cam), self.landmarks.positions[found.landmark_ids])
            depth = points[points[:, 2] > 0, 2]
        return float(np.median(depth)) if len(depth) else 1.0

    def _lose_observer(self, keyframe_id: int, landmark_ids: Indices) -> None:
        """Take a keyframe out of the observers of landmarks; their next one is their reference, or they go."""
        self.landmarks.observations.remove(keyframe_id, landmark_ids)
        heirs = self.landmarks.observations.first_observers(landmark_ids)
        orphaned = self.landmarks.references[landmark_ids] == keyframe_id
        self.landmarks.refer(landmark_ids[orphaned], heirs[orphaned])
        self.landmarks.remove(landmark_ids[heirs < 0])

    def _hang(self, keyframe_id: int, parent: int) -> None:
        """Make a keyframe the root of its tree, by turning round the edges above it, and hang it below ``parent``."""
        path = [keyframe_id]
        while (above := self.keyframes[path[-1]].parent) is not None:
            path.append(above)
        for child, above in itertools.pairwise(path):
            self.keyframes[above].parent = child
        self.keyframes[keyframe_id].parent = parent


def _scaled(transform: ArrayLike, scale: float) -> Array:
    """A transform (4, 4) with its translation multiplied."""
    matrix = np.asarray(transform, dtype=np.float64)
    return make_transform(matrix[:3, :3], scale * matrix[:3, 3])
