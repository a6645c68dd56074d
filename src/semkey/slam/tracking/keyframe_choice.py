"""When a tracked frame becomes a keyframe."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, rotation_angle_deg
from semkey.slam.config import TrackingConfig
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.placing.placement import Placement
from semkey.slam.solvers.image_cells import cells_of


def needs_keyframe(
    slam_map: SlamMap,
    config: TrackingConfig,
    frame: ObservedFrame,
    placement: Placement,
    *,
    reference: int,
    peak_inliers: int,
) -> bool:
    """Whether a frame shows so much else than its reference keyframe that it should be kept.

    Args:
        slam_map: the map.
        config: settings.
        frame: a frame that was tracked.
        placement: its pose, and what agrees with it.
        reference: the keyframe that sees most of the same.
        peak_inliers: most inliers of a frame since the last keyframe; 0 if there was none yet.
    """
    last = slam_map.keyframes[reference]
    if peak_inliers and placement.inlier_count < config.keyframe_tracked_share * peak_inliers:
        return True
    tracked = placement.inlier_associations.keypoint_indices
    if uncovered_share(frame, tracked, slam_map.camera) > config.keyframe_uncovered_share:
        return True
    relative = inverse(last.T_world_cam) @ placement.T_world_cam
    distance = float(np.linalg.norm(relative[:3, 3]))
    parallax = distance / slam_map.landmarks.median_depth(
        placement.inlier_associations.landmark_ids, placement.T_world_cam
    )
    turned = rotation_angle_deg(relative)
    if parallax > config.keyframe_parallax or turned > config.keyframe_rotation_deg:
        return True
    moved = parallax > 0.2 * config.keyframe_parallax or turned > 0.2 * config.keyframe_rotation_deg
    return moved and frame.timestamp - slam_map.tree.newest.frame.timestamp > config.keyframe_seconds


def uncovered_share(frame: ObservedFrame, tracked: NDArray[np.int64], camera: PinholeCamera) -> float:
    """Share of the image's cells with usable keypoints, in none of which a landmark is tracked.

    Landmarks in one strip of the image leave a rotation and a translation indistinguishable, however many they are.

    Args:
        frame: the frame.
        tracked: (M,) its keypoints that see a landmark.
        camera: its camera.
    """
    cells = cells_of(frame.keypoints, (camera.width, camera.height))
    usable = np.unique(cells[frame.depth > 0])
    return float(np.isin(usable, cells[tracked], invert=True).mean()) if len(usable) else 0.0
