"""Who sees what: sightings of landmarks, and the keyframes and landmarks that belong together by them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.slam.config import MapConfig
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.landmarks import LandmarkMap

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
        covariances: (O, 2, 2) of where, pixels^2.
        depth: (O,) metres, 0 where unknown.
        depth_sigma: (O,) metres.
        weights: (O,) information multiplier.
    """

    keyframe_ids: Indices
    keypoint_indices: Indices
    landmark_ids: Indices
    keypoints: Array
    covariances: Array
    depth: Array
    depth_sigma: Array
    weights: Array

    def __len__(self) -> int:
        return len(self.landmark_ids)

    def select(self, mask: NDArray[np.bool_]) -> Observations:
        """The sightings where ``mask`` (O,) holds."""
        return Observations(**{field.name: getattr(self, field.name)[mask] for field in fields(self)})


class CovisibilityGraph:
    """Keyframes that are connected by the landmarks they share.

    Args:
        keyframes: of the map, by id.
        landmarks: what they see.
        camera: of all frames.
        config: settings.
    """

    def __init__(
        self, keyframes: Mapping[int, Keyframe], landmarks: LandmarkMap, camera: PinholeCamera, config: MapConfig
    ) -> None:
        self._keyframes = keyframes
        self._landmarks = landmarks
        self._camera = camera
        self._config = config

    def neighbours(self, keyframe_id: int, min_shared: int = 15) -> list[tuple[int, int]]:
        """Keyframes that share at least so many landmarks with one: (id, shared), most first, newest of equals."""
        keyframe = self._keyframes[keyframe_id]
        ranked = self.observers(keyframe.landmark_ids[keyframe.observed])
        return [(other, shared) for other, shared in ranked if other != keyframe_id and shared >= min_shared]

    def observers(self, landmark_ids: Indices) -> list[tuple[int, int]]:
        """Keyframes that see some of these landmarks: (id, how many), most first, newest of equals."""
        keyframes, shared = self._landmarks.observations.votes(landmark_ids)
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
            submap = self._keyframes[local[0]].submap
            local += self.nearby_keyframes(T_world_cam, submap, self._config.nearby_keyframes, without=local)
        wanted = np.zeros(len(self._landmarks) + 1, dtype=bool)
        for keyframe_id in local:
            wanted[self._keyframes[keyframe_id].landmark_ids] = True
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
        candidates = [k for k, keyframe in self._keyframes.items() if keyframe.submap == submap and k not in skipped]
        if not candidates or not count:
            return []
        pose = np.asarray(T_world_cam, dtype=np.float64)
        poses = np.stack([self._keyframes[k].T_world_cam for k in candidates])
        depths = np.array([self._keyframes[k].median_depth for k in candidates])
        distances = np.linalg.norm(poses[:, :3, 3] - pose[:3, 3], axis=1) / depths
        angles = np.arccos(np.clip(poses[:, :3, 2] @ pose[:3, 2], -1.0, 1.0))
        offsets = distances + angles
        order = np.argsort(offsets, kind="stable")[:count]
        limit = 0.25 * self._camera.width / self._camera.fx
        return [candidates[k] for k in order if offsets[k] < limit]

    def observations(
        self, *, keyframe_ids: Iterable[int] | None = None, landmark_ids: Indices | None = None
    ) -> Observations:
        """Sightings by these keyframes, or of these landmarks, or of these by those; None stands for all."""
        if landmark_ids is None:
            wanted = self._keyframes if keyframe_ids is None else sorted(set(keyframe_ids))
            parts = [(k, self._keyframes[k].observed) for k in wanted]
            keypoints = np.concatenate([indices for _, indices in parts]) if parts else np.zeros(0, dtype=np.int64)
            keyframes = np.repeat(np.array([k for k, _ in parts], dtype=np.int64), [len(i) for _, i in parts])
            landmarks = [self._keyframes[k].landmark_ids[indices] for k, indices in parts]
            ids = np.concatenate(landmarks) if parts else np.zeros(0, dtype=np.int64)
        else:
            positions, keyframes, keypoints = self._landmarks.observations.lookup(np.asarray(landmark_ids))
            ids = np.asarray(landmark_ids)[positions]
            if keyframe_ids is not None:
                chosen = np.isin(keyframes, list(keyframe_ids))
                ids, keyframes, keypoints = ids[chosen], keyframes[chosen], keypoints[chosen]
            order = np.argsort(keyframes, kind="stable")
            ids, keyframes, keypoints = ids[order], keyframes[order], keypoints[order]
        return self._observations(keyframes, keypoints, ids)

    def _observations(self, keyframes: Indices, keypoints: Indices, landmark_ids: Indices) -> Observations:
        """Look up what is measured; ``keyframes`` (O,) is sorted."""
        where, covariances = np.empty((len(keyframes), 2)), np.empty((len(keyframes), 2, 2))
        depth, sigma, weights = np.empty(len(keyframes)), np.empty(len(keyframes)), np.empty(len(keyframes))
        for keyframe_id in np.unique(keyframes).tolist():
            first, last = np.searchsorted(keyframes, [keyframe_id, keyframe_id + 1])
            frame, indices = self._keyframes[keyframe_id].frame, keypoints[first:last]
            where[first:last], covariances[first:last] = frame.keypoints[indices], frame.covariances[indices]
            depth[first:last], sigma[first:last] = frame.depth[indices], frame.depth_sigma[indices]
            weights[first:last] = frame.weights[indices]
        return Observations(
            keyframe_ids=keyframes,
            keypoint_indices=keypoints,
            landmark_ids=landmark_ids,
            keypoints=where,
            covariances=covariances,
            depth=depth,
            depth_sigma=sigma,
            weights=weights,
        )
