"""What an observation says about a landmark's position, and the landmark's position about where it will be seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, transform_points
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.association import Associations
from semkey.slam.map.landmarks import LandmarkMap
from semkey.slam.solvers.pose import PoseObservations, residuals_and_jacobian

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# A residual of more standard deviations (an edge, a reflection) must not drag the landmark along.
_LARGEST_RESIDUAL = 3.0


def point_information(
    points_cam: Array,
    depth_sigma: Array,
    weights: Array,
    T_world_cam: Array,
    camera: PinholeCamera,
    covariances: Array,
) -> Array:
    """Inverse covariance (M, 3, 3) in world axes of points (M, 3) back-projected from a keypoint and its depth.

    Args:
        points_cam: (M, 3) in camera coordinates, metres.
        depth_sigma: (M,) standard deviation of the depth, metres.
        weights: (M,) information multiplier.
        T_world_cam: (4, 4) pose of the camera.
        camera: its intrinsics.
        covariances: (M, 2, 2) of the keypoints' positions, pixels^2.
    """
    observations = PoseObservations(
        points_world=points_cam,
        keypoints=camera.project(points_cam),
        covariances=covariances,
        depth=points_cam[:, 2],
        depth_sigma=depth_sigma,
        weights=weights,
    )
    # In camera axes (identity pose) the derivative by the point is the one by the translation.
    jacobian = residuals_and_jacobian(np.eye(4), observations, camera)[1][:, :, :3]
    jacobian = jacobian @ T_world_cam[:3, :3].T * np.sqrt(weights)[:, None, None]
    return jacobian.transpose(0, 2, 1) @ jacobian


def fuse_observations(
    landmarks: LandmarkMap,
    frame: ObservedFrame,
    T_world_cam: Array,
    found: Associations,
    camera: PinholeCamera,
) -> None:
    """Move landmarks to where they are most likely, given one more observation of each from a known pose."""
    ids, keypoints = found.landmark_ids, found.keypoint_indices
    weights = frame.weights[keypoints] * found.similarity
    observations = PoseObservations(
        points_world=landmarks.positions[ids],
        keypoints=frame.keypoints[keypoints],
        covariances=frame.covariances[keypoints],
        depth=frame.depth[keypoints],
        depth_sigma=frame.depth_sigma[keypoints],
        weights=weights,
    )
    residuals, jacobian = residuals_and_jacobian(inverse(T_world_cam), observations, camera)
    to_world = jacobian[:, :, :3] @ T_world_cam[:3, :3].T
    root = np.sqrt(weights)[:, None]
    trusted = np.abs(residuals) < _LARGEST_RESIDUAL
    residuals, to_world = np.where(trusted, residuals, 0.0), np.where(trusted[:, :, None], to_world, 0.0)
    landmarks.fuse(ids, to_world * root[:, :, None], residuals * root)


def predicted_residual_noise(
    landmarks: LandmarkMap,
    ids: Indices,
    T_world_cam: Array,
    camera: PinholeCamera,
    covariances: Array,
    depth: Array,
    depth_sigma: Array,
) -> tuple[Array, Array]:
    """How far landmarks ``ids`` may be from where a frame at a pose sees them: what a residual is judged by.

    The measurement's own noise plus what the landmark's uncertain position adds to it, in the image and in depth.

    Args:
        landmarks: the map's.
        ids: (M,) landmarks.
        T_world_cam: (4, 4) pose of the frame.
        camera: its intrinsics.
        covariances: (M, 2, 2) of the keypoints, pixels^2.
        depth: (M,) measured, metres, 0 where there is none.
        depth_sigma: (M,) of the measured depths, metres.

    Returns:
        Covariances (M, 2, 2) of pixel residuals, pixels^2, and standard deviations (M,) of depth residuals, metres.
    """
    T_cam_world = inverse(T_world_cam)
    points = transform_points(T_cam_world, landmarks.positions[ids])
    position = np.linalg.inv(landmarks.information[ids])
    rotation = T_cam_world[:3, :3]
    position = rotation @ position @ rotation.T
    z = np.maximum(points[:, 2], 1e-3)
    projection = np.zeros((len(ids), 2, 3))
    projection[:, 0, 0], projection[:, 0, 2] = camera.fx / z, -camera.fx * points[:, 0] / z**2
    projection[:, 1, 1], projection[:, 1, 2] = camera.fy / z, -camera.fy * points[:, 1] / z**2
    pixel = covariances + projection @ position @ projection.transpose(0, 2, 1)
    # Depths are compared by their inverses: what the landmark adds is that of its own inverse depth.
    to_measured = np.square(np.where(depth > 0, depth, z) / z)
    return pixel, np.sqrt(np.square(depth_sigma) + np.square(to_measured) * position[:, 2, 2])
