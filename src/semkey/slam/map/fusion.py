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
    pose_covariance: Array | None = None,
) -> Array:
    """Inverse covariance (M, 3, 3) in world axes of points (M, 3) back-projected from a keypoint and its depth.

    What a camera sees is no surer than where it stands: a millimetre of its pose is more than a pixel at 0.4 m.

    Args:
        points_cam: (M, 3) in camera coordinates, metres.
        depth_sigma: (M,) standard deviation of the depth, metres.
        weights: (M,) information multiplier.
        T_world_cam: (4, 4) pose of the camera.
        camera: its intrinsics.
        covariances: (M, 2, 2) of the keypoints' positions, pixels^2.
        pose_covariance: (6, 6) of the camera's pose, ``[rho, phi]`` in its axes; None where it is the world's origin.
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
    jacobian = residuals_and_jacobian(np.eye(4), observations, camera)[1] * np.sqrt(weights)[:, None, None]
    to_world = _whitening(jacobian, pose_covariance) @ jacobian[:, :, :3] @ T_world_cam[:3, :3].T
    return to_world.transpose(0, 2, 1) @ to_world


def fuse_observations(
    landmarks: LandmarkMap,
    frame: ObservedFrame,
    T_world_cam: Array,
    found: Associations,
    camera: PinholeCamera,
    pose_covariance: Array | None = None,
) -> None:
    """Move landmarks to where they are most likely, given one more observation of each from a pose.

    Args:
        landmarks: some of which move.
        frame: the observation.
        T_world_cam: (4, 4) its pose.
        found: which keypoint sees which landmark.
        camera: of the frame.
        pose_covariance: (6, 6) of the pose, ``[rho, phi]`` in the camera's axes; None where it is exact.
    """
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
    root = np.sqrt(weights)[:, None]
    trusted = np.abs(residuals) < _LARGEST_RESIDUAL
    residuals, jacobian = np.where(trusted, residuals, 0.0) * root, np.where(trusted[:, :, None], jacobian, 0.0)
    jacobian = jacobian * root[:, :, None]
    whitening = _whitening(jacobian, pose_covariance)
    to_world = whitening @ jacobian[:, :, :3] @ T_world_cam[:3, :3].T
    landmarks.fuse(ids, to_world, (whitening @ residuals[:, :, None])[:, :, 0])


def _whitening(by_pose: Array, pose_covariance: Array | None) -> Array:
    """What makes residuals (M, 3) of unit covariance, and of a pose that is not exact, independent: (M, 3, 3).

    The landmarks of a frame share the error of its pose, so that this is too careful of how they lie to each other;
    how they lie to those of other frames is what counts.

    Args:
        by_pose: (M, 3, 6) derivatives of the residuals by the pose.
        pose_covariance: (6, 6) of the pose; None where it is exact.
    """
    if pose_covariance is None:
        return np.tile(np.eye(3), (len(by_pose), 1, 1))
    total = by_pose @ pose_covariance @ by_pose.transpose(0, 2, 1) + np.eye(3)
    return np.asarray(np.linalg.inv(np.linalg.cholesky(total)), dtype=np.float64)


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
