"""The map of the odometry: keyframes and the landmarks they see, and which of them matter now."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, transform_points
from semkey.slam.association import Associations, background_similarity
from semkey.slam.config import OdometryConfig
from semkey.slam.keyframe import Keyframe, ObservedFrame
from semkey.slam.landmarks import LandmarkMap
from semkey.slam.pose import PoseObservations, residuals_and_jacobian

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# Strongest descriptors compared when keyframes are ranked by appearance without a global descriptor.
_RANKING_KEYPOINTS = 300


class OdometryMap:
    """Keyframes and landmarks.

    Args:
        camera: of all frames.
        config: settings.
        pixel_sigma: standard deviation of a keypoint's position in this image size, pixels.
    """

    def __init__(self, camera: PinholeCamera, config: OdometryConfig, *, pixel_sigma: float) -> None:
        self.keyframes: list[Keyframe] = []
        self._camera = camera
        self._config = config
        self._pixel_sigma = pixel_sigma
        self._landmarks: LandmarkMap | None = None

    @property
    def landmarks(self) -> LandmarkMap:
        """The landmarks; there are some as soon as there is a keyframe."""
        if self._landmarks is None:
            raise RuntimeError("the map has no landmarks before its first keyframe")
        return self._landmarks

    def add_keyframe(
        self, frame: ObservedFrame, T_world_cam: Array, found: Associations | None, segment: int
    ) -> Keyframe:
        """Keep a frame: landmarks it sees get more certain, its other keypoints with depth become landmarks."""
        if self._landmarks is None:
            self._landmarks = LandmarkMap(frame.descriptors.shape[1])
        landmark_ids = np.full(len(frame), -1, dtype=np.int64)
        if found is not None:
            self._fuse(frame, T_world_cam, found)
            landmark_ids[found.keypoint_indices] = found.landmark_ids
            self._landmarks.describe(found.landmark_ids, frame.descriptors[found.keypoint_indices], T_world_cam[:3, 3])
        fresh = np.flatnonzero((landmark_ids < 0) & (frame.depth > 0))
        points_cam = frame.points_cam(fresh, self._camera)
        landmark_ids[fresh] = self._landmarks.add(
            transform_points(T_world_cam, points_cam),
            self._information(points_cam, frame.depth_sigma[fresh], frame.weights[fresh], T_world_cam),
            frame.descriptors[fresh],
            T_world_cam[:3, 3],
            keyframe_number=len(self.keyframes),
        )
        self._landmarks.end_probation(len(self.keyframes))
        keyframe = Keyframe(frame=frame, T_world_cam=T_world_cam, landmark_ids=landmark_ids, segment=segment)
        self.keyframes.append(keyframe)
        return keyframe

    def covisibility(self, landmark_ids: Indices) -> Indices:
        """How many of these landmarks each keyframe sees, (K,)."""
        wanted = np.zeros(len(self.landmarks) + 1, dtype=np.int64)
        wanted[landmark_ids] = 1
        # Row -1 is the extra one and stays 0: keypoints without a landmark count for nothing.
        wanted[-1] = 0
        return np.array([wanted[keyframe.landmark_ids].sum() for keyframe in self.keyframes], dtype=np.int64)

    def nearest_keyframe(self, landmark_ids: Indices) -> int:
        """The keyframe that shares most landmarks; the newest of equals."""
        shared = self.covisibility(landmark_ids)
        return len(shared) - 1 - int(np.argmax(shared[::-1]))

    def local_landmarks(self, landmark_ids: Indices) -> Indices:
        """All landmarks of the keyframes that share most with ``landmark_ids``, and of the newest keyframe."""
        shared = self.covisibility(landmark_ids)
        newest_first = np.arange(len(shared))[::-1]
        ranked = newest_first[np.argsort(-shared[::-1], kind="stable")]
        local = [k for k in ranked[: self._config.local_keyframes] if shared[k] > 0]
        wanted = np.zeros(len(self.landmarks) + 1, dtype=bool)
        for k in local:
            wanted[self.keyframes[k].landmark_ids] = True
        return np.flatnonzero(wanted[:-1])

    def similar_keyframes(self, frame: ObservedFrame, count: int) -> list[Keyframe]:
        """The ``count`` keyframes that look most like the frame.

        By cosine of the global descriptors where the features have one, otherwise by how many of the strongest
        keypoints find a similar descriptor.
        """
        if frame.features.global_descriptor.numel():
            query = frame.features.global_descriptor.numpy()
            scores = [float(keyframe.frame.features.global_descriptor.numpy() @ query) for keyframe in self.keyframes]
        else:
            scores = [self._votes(frame, keyframe.frame) for keyframe in self.keyframes]
        ranked = np.argsort(-np.asarray(scores), kind="stable")[:count]
        return [self.keyframes[k] for k in ranked]

    def predicted_sigmas(self, ids: Indices, T_world_cam: Array, measured_depth_sigma: Array) -> tuple[Array, Array]:
        """Standard deviations of pixel (M,) and depth (M,) residuals of landmarks ``ids`` seen from a pose.

        The measurement's own noise plus what the landmark's uncertain position adds to it.
        """
        T_cam_world = inverse(T_world_cam)
        points = transform_points(T_cam_world, self.landmarks.positions[ids])
        covariance = np.linalg.inv(self.landmarks.information[ids])
        rotation = T_cam_world[:3, :3]
        covariance = rotation @ covariance @ rotation.T
        z = np.maximum(points[:, 2], 1e-3)
        row_u = np.stack([self._camera.fx / z, np.zeros_like(z), -self._camera.fx * points[:, 0] / z**2], axis=1)
        row_v = np.stack([np.zeros_like(z), self._camera.fy / z, -self._camera.fy * points[:, 1] / z**2], axis=1)
        variance_u = np.einsum("ni,nij,nj->n", row_u, covariance, row_u)
        variance_v = np.einsum("ni,nij,nj->n", row_v, covariance, row_v)
        pixel = np.sqrt(self._pixel_sigma**2 + 0.5 * (variance_u + variance_v))
        return pixel, np.sqrt(np.square(measured_depth_sigma) + covariance[:, 2, 2])

    def _information(self, points_cam: Array, depth_sigma: Array, weights: Array, T_world_cam: Array) -> Array:
        """Inverse covariance (M, 3, 3) in world axes of points back-projected from a keypoint and its depth."""
        observations = PoseObservations(
            points_world=points_cam,
            keypoints=self._camera.project(points_cam),
            pixel_sigma=np.full(len(points_cam), self._pixel_sigma),
            depth=points_cam[:, 2],
            depth_sigma=depth_sigma,
            weights=weights,
        )
        # In camera axes (identity pose) the derivative by the point is the one by the translation.
        jacobian = residuals_and_jacobian(np.eye(4), observations, self._camera)[1][:, :, :3]
        jacobian = jacobian @ T_world_cam[:3, :3].T * np.sqrt(weights)[:, None, None]
        return jacobian.transpose(0, 2, 1) @ jacobian

    def _fuse(self, frame: ObservedFrame, T_world_cam: Array, found: Associations) -> None:
        ids, keypoints = found.landmark_ids, found.keypoint_indices
        weights = frame.weights[keypoints] * found.similarity
        observations = PoseObservations(
            points_world=self.landmarks.positions[ids],
            keypoints=frame.keypoints[keypoints],
            pixel_sigma=np.full(len(ids), self._pixel_sigma),
            depth=frame.depth[keypoints],
            depth_sigma=frame.depth_sigma[keypoints],
            weights=weights,
        )
        residuals, jacobian = residuals_and_jacobian(inverse(T_world_cam), observations, self._camera)
        to_world = jacobian[:, :, :3] @ T_world_cam[:3, :3].T
        root = np.sqrt(weights)[:, None]
        # A depth far off (an edge, a reflection) must not drag the landmark along.
        trusted = np.abs(residuals) < 3.0
        residuals, to_world = np.where(trusted, residuals, 0.0), np.where(trusted[:, :, None], to_world, 0.0)
        self.landmarks.fuse(ids, to_world * root[:, :, None], residuals * root)

    @staticmethod
    def _votes(frame: ObservedFrame, other: ObservedFrame) -> float:
        if not len(frame) or not len(other):
            return 0.0
        query, reference = frame.descriptors[:_RANKING_KEYPOINTS], other.descriptors[:_RANKING_KEYPOINTS]
        best = (query @ reference.T).max(axis=1)
        return float(np.maximum(best - background_similarity(query, reference), 0.0).sum())
