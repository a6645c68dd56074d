"""Keypoints moved to where a frame shows what its landmarks looked like when they were first seen.

A detector does not find a point at exactly the same place twice: keypoints of consecutive frames differ by half a pixel
to a whole one, which is the largest error of all. What a landmark is can be held exactly by the patch of image around
it in its first keyframe. Keyframes are aligned as well, so that all that see a landmark see the same point.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, transform_points
from semkey.matching.alignment.lucas_kanade import align_patches
from semkey.matching.alignment.patches import cut_patches, local_deformations
from semkey.slam.config import image_scale
from semkey.slam.frames.frame import PATCHES, ObservedFrame
from semkey.slam.map.association import Associations
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.placing.placement import Placement
from semkey.slam.placing.placing import refine_placement
from semkey.slam.solvers.pose import PosePrior
from semkey.slam.timing import StageTimer

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# Standard deviation of what no patch tells, pixels of an image 640 wide: surroundings do not lie in one plane, light
# changes.
_LEAST_SIGMA_PX = 0.1
# Alignment that makes fewer of the landmarks agree than this share has gone wrong, and is not used.
_KEPT_SHARE = 0.8


def align_placement(
    slam_map: SlamMap,
    frame: ObservedFrame,
    placement: Placement,
    camera: PinholeCamera,
    *,
    prior: PosePrior | None = None,
    timer: StageTimer | None = None,
) -> tuple[ObservedFrame, Placement]:
    """A placed frame with its keypoints aligned, and the pose that follows from these.

    Args:
        slam_map: the map.
        frame: with its image, else nothing changes.
        placement: of the frame, believed.
        camera: of the frame.
        prior: where the pose is expected.
        timer: where the time of ``align`` and ``pose`` is added up.
    """
    if frame.grey is None:
        return frame, placement
    timer = timer or StageTimer()
    with timer.stage("align"):
        aligned = align_frame(slam_map, frame, placement.associations, placement.T_world_cam, camera)
    with timer.stage("pose"):
        refined = refine_placement(
            slam_map,
            aligned,
            placement.associations,
            placement.T_world_cam,
            camera=camera,
            prior=prior,
            lines=placement.lines,
            uses_depth=placement.depth_factor is None,
        )
    if np.count_nonzero(refined.inliers) < _KEPT_SHARE * np.count_nonzero(placement.inliers):
        return frame, placement
    return aligned, replace(
        placement,
        T_world_cam=refined.T_world_cam,
        inliers=refined.inliers,
        information=refined.information,
        scatter=refined.scatter,
        lines=refined.lines,
    )


def align_frame(
    slam_map: SlamMap, frame: ObservedFrame, found: Associations, T_world_cam: Array, camera: PinholeCamera
) -> ObservedFrame:
    """A frame with those keypoints moved that see landmarks of the map.

    Patches are those of the keyframe that each landmark refers to, deformed as a small plane that faced that keyframe
    looks from the frame. Keypoints whose surroundings do not look alike stay where they are.

    Args:
        slam_map: the map.
        frame: with its image, else nothing moves.
        found: which keypoint sees which landmark.
        T_world_cam: (4, 4) where the frame was taken, roughly.
        camera: of the frame.
    """
    if frame.grey is None or not len(found):
        return frame
    patches, rows, deformations = _patches_of(slam_map, found.landmark_ids, T_world_cam, camera)
    if not len(rows):
        return frame
    return _moved(frame, frame.grey, found.keypoint_indices[rows], patches, deformations, camera)


def align_pair(first: ObservedFrame, second: ObservedFrame, matches: Indices, camera: PinholeCamera) -> ObservedFrame:
    """The second of two frames with its keypoints aligned to those of the first, where no map tells how they look.

    Args:
        first: with its image, else nothing moves.
        second: likewise.
        matches: (M, 2) keypoints of the first and of the second.
        camera: of both.
    """
    if first.grey is None or second.grey is None or not len(matches):
        return second
    points = first.keypoints[matches[:, 0]]
    deformations, _ = local_deformations(points, second.keypoints[matches[:, 1]])
    patches = cut_patches(first.grey, points, PATCHES.radius)
    return _moved(second, second.grey, matches[:, 1], patches, deformations, camera)


def _moved(
    frame: ObservedFrame,
    grey: NDArray[np.float32],
    indices: Indices,
    patches: NDArray[np.uint8],
    deformations: Array,
    camera: PinholeCamera,
) -> ObservedFrame:
    alignment = align_patches(patches, grey, frame.keypoints[indices], deformations, PATCHES)
    keypoints, covariances = frame.keypoints.copy(), frame.covariances.copy()
    moved = alignment.moved
    keypoints[indices[moved]] = alignment.points1[moved]
    least = _LEAST_SIGMA_PX * image_scale(camera)
    covariances[indices[moved]] = alignment.covariances[moved] + least**2 * np.eye(2)
    return frame.with_keypoints(keypoints, covariances)


def _patches_of(
    slam_map: SlamMap, landmark_ids: Indices, T_world_cam: Array, camera: PinholeCamera
) -> tuple[NDArray[np.uint8], Indices, Array]:
    """Patches (K, S, S) of landmarks (M,), which landmarks (K,) have one, and how patches are deformed (K, 2, 2)."""
    references = slam_map.landmarks.references[landmark_ids]
    keypoints = slam_map.landmarks.observations.keypoints_in(landmark_ids, references)
    patches, rows, deformations = [], [], []
    for keyframe_id in np.unique(references[keypoints >= 0]).tolist():
        keyframe = slam_map.keyframes[keyframe_id]
        if keyframe.frame.patches is None:
            continue
        here = np.flatnonzero((references == keyframe_id) & (keypoints >= 0))
        points = slam_map.landmarks.positions[landmark_ids[here]]
        patches.append(keyframe.frame.patches[keypoints[here]])
        rows.append(here)
        deformations.append(_deformations(points, keyframe.T_world_cam, T_world_cam, slam_map.camera, camera))
    if not rows:
        return np.zeros((0, 0, 0), np.uint8), np.zeros(0, np.int64), np.zeros((0, 2, 2))
    return np.concatenate(patches), np.concatenate(rows), np.concatenate(deformations)


def _deformations(
    points_world: Array, T_world_first: Array, T_world_cam: Array, first: PinholeCamera, camera: PinholeCamera
) -> Array:
    """Derivatives (M, 2, 2) of pixels by those of the first camera, on planes through points (M, 3) that face it."""
    depth = np.maximum(transform_points(inverse(T_world_first), points_world)[:, 2], 1e-6)
    T_cam_world = inverse(T_world_cam)
    x, y, z = transform_points(T_cam_world, points_world).T
    z = np.maximum(z, 1e-6)
    projection = np.zeros((len(z), 2, 3))
    projection[:, 0, 0], projection[:, 0, 2] = camera.fx / z, -camera.fx * x / z**2
    projection[:, 1, 1], projection[:, 1, 2] = camera.fy / z, -camera.fy * y / z**2
    steps = (T_cam_world[:3, :3] @ T_world_first[:3, :2]) / np.array([first.fx, first.fy])
    return (projection @ steps) * depth[:, None, None]
