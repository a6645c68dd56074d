"""The map: how keyframes and the landmarks they see come, move and go."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from copy import deepcopy

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import compose, inverse, transform_points
from semkey.slam.config import MapConfig
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.association import Associations
from semkey.slam.map.covisibility import CovisibilityGraph
from semkey.slam.map.fusion import fuse_observations, point_information
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.keyframe_tree import KeyframeTree, RemovedKeyframe, scaled_transform
from semkey.slam.map.landmarks import LandmarkMap
from semkey.slam.map.lines import LineMap

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


class SlamMap:
    """Keyframes and landmarks: how they come, move and go.

    Only the methods here change who sees what; positions and poses may be read freely and are moved by
    :meth:`set_poses`, :meth:`join_submaps` and :func:`semkey.slam.mapping.adjustment.apply_bundle`.

    Args:
        camera: of all frames.
        config: settings.
        pixel_sigma: standard deviation of a keypoint's position in this image size, pixels.
        landmarks: to begin with; None for none.

    Attributes:
        camera: of all frames.
        tree: the keyframes as a tree, and where what hangs on them lies.
        keyframes: those of the tree, by id, in the order in which they were made; removed ones are gone.
        landmarks: the points that keyframes see.
        covisibility: which keyframes belong together by what they see.
        loop_links: pairs of keyframes that were recognised to see the same place, and by how many landmarks.
        lines: the lines that the keyframes hold; None where lines are not used.
        is_fixed: frames are placed in the map without leaving a trace in it: views are not counted, nothing is dropped.
    """

    def __init__(
        self, camera: PinholeCamera, config: MapConfig, *, pixel_sigma: float, landmarks: LandmarkMap | None = None
    ) -> None:
        self.camera = camera
        self.tree: KeyframeTree = KeyframeTree()
        self.keyframes: dict[int, Keyframe] = self.tree.keyframes
        self.landmarks: LandmarkMap = LandmarkMap() if landmarks is None else landmarks
        self.covisibility: CovisibilityGraph = CovisibilityGraph(self.keyframes, self.landmarks, camera, config)
        self.loop_links: list[tuple[int, int, int]] = []
        self.pixel_sigma = pixel_sigma
        self.lines: LineMap | None = None
        self.is_fixed = False
        self._next_id = 0
        self._next_submap = 0

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
            removed: see :class:`KeyframeTree`.
            loop_links: see :class:`SlamMap`.
            counters: see :attr:`counters`.
        """
        slam_map = cls(camera, config, pixel_sigma=pixel_sigma, landmarks=landmarks)
        for keyframe in keyframes:
            slam_map.keyframes[keyframe.id] = keyframe
            seen = keyframe.observed
            landmarks.observations.add(keyframe.id, keyframe.landmark_ids[seen], seen)
        slam_map.tree.removed.update(removed)
        slam_map.loop_links = list(loop_links)
        slam_map._next_id, slam_map._next_submap = counters["next_keyframe"], counters["next_submap"]
        return slam_map

    def copy(self) -> SlamMap:
        """A map that changes without this one; the frames themselves, which never change, are shared."""
        shared = {id(keyframe.frame): keyframe.frame for keyframe in self.keyframes.values()}
        return deepcopy(self, shared)

    @property
    def counters(self) -> dict[str, int]:
        """The numbers that the next keyframe, submap and landmark will get, for :meth:`restored`."""
        keyframe, submap = self._next_id, self._next_submap
        return {"next_keyframe": keyframe, "next_submap": submap, "landmarks_made": self.landmarks.made}

    @property
    def next_submap(self) -> int:
        """A number that no submap has had."""
        return self._next_submap

    # -- growing -------------------------------------------------------------------------------------------------

    def add_keyframe(
        self,
        frame: ObservedFrame,
        T_world_cam: Array,
        found: Associations | None,
        submap: int,
        *,
        covariance: Array | None = None,
    ) -> Keyframe:
        """Keep a frame: landmarks it sees get more certain, its other keypoints with depth become landmarks.

        Args:
            frame: the frame.
            T_world_cam: (4, 4) its pose.
            found: the landmarks that it sees; None for none.
            submap: the submap.
            covariance: (6, 6) of the pose, ``[rho, phi]`` in the camera's axes; None where it is exact.
        """
        frame = frame.kept()
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
            keyframe.parent = self.covisibility.nearest_keyframe(found.landmark_ids)
        self.keyframes[keyframe.id] = keyframe
        if found is not None:
            fuse_observations(self.landmarks, frame, T_world_cam, found, self.camera, covariance)
            self.add_sightings(keyframe.id, found.landmark_ids, found.keypoint_indices)
        fresh = np.flatnonzero((keyframe.landmark_ids < 0) & (frame.depth > 0))
        points_cam = frame.points_cam(fresh, self.camera)
        information = point_information(
            points_cam,
            frame.depth_sigma[fresh],
            frame.weights[fresh],
            T_world_cam,
            self.camera,
            frame.covariances[fresh],
            covariance,
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

    def add_sightings(self, keyframe_id: int, landmark_ids: Indices, keypoint_indices: Indices) -> None:
        """A keyframe sees landmarks (M,) with keypoints (M,), both distinct and not yet used by it."""
        keyframe = self.keyframes[keyframe_id]
        keyframe.landmark_ids[keypoint_indices] = landmark_ids
        self.landmarks.observations.add(keyframe_id, landmark_ids, keypoint_indices)
        descriptors = keyframe.frame.descriptors[keypoint_indices]
        self.landmarks.describe(landmark_ids, descriptors, keyframe.T_world_cam[:3, 3])

    def count_views(self, visible: Indices, found: Indices) -> None:
        """Keep count of which landmarks were in view and which were found there, and drop those rarely found."""
        if not self.is_fixed:
            self.remove_landmarks(self.landmarks.count_views(visible, found))

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
        poses = {k: compose(transform, scaled_transform(keyframe.T_world_cam, scale)) for k, keyframe in moving.items()}
        self.set_poses(poses, dict.fromkeys(poses, scale))
        for keyframe in moving.values():
            keyframe.submap = into
        if bridge is not None:
            self.tree.attach(bridge[1], bridge[0])

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

        Frames whose reference it was are still placed by :meth:`KeyframeTree.absolute_pose`, which goes by its parent.

        Raises:
            InputError: it is the root of its submap.
        """
        keyframe = self.keyframes[keyframe_id]
        self.tree.remove(keyframe_id)
        self._lose_observer(keyframe_id, keyframe.landmark_ids[keyframe.observed])

    # -- details -------------------------------------------------------------------------------------------------

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
        successors = self.landmarks.observations.first_observers(landmark_ids)
        orphaned = self.landmarks.references[landmark_ids] == keyframe_id
        self.landmarks.refer(landmark_ids[orphaned], successors[orphaned])
        self.landmarks.remove(landmark_ids[successors < 0])
