"""Relative poses of frames that fit their images: recorded poses and clocks are off by several pixels.

Motion capture drifts against the camera, poses are interpolated between other clocks, and some depth maps belong to a
camera beside the one that took the images. Measured on TUM fr3_cabinet and 7-Scenes redkitchen, points that optical
flow can follow lie 1 to 9 and 1 to 23 px from where recorded depth and poses put them, and mostly 0.3 to 2 px after
this.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.datasets import Frame
from semkey.extractors import Extractor
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, rotation_angle_deg, transform_points
from semkey.matching.guided import match_guided
from semkey.matching.robust import estimate_absolute_pose
from semkey.model.features import Features

Array = NDArray[np.float64]

KEYPOINTS = 768
_LEAST_SIMILARITY = 0.5
_SEARCH_PX = 40.0  # about twice the largest error of recorded poses that was seen
_MAX_ERROR_PX = 2.0  # at a width of 640 pixels, as all pixels here
_LEAST_INLIERS = 40
_LEAST_SPREAD = 0.08  # share of the image inside the convex hull of the inliers
_MAX_DISAGREEMENT_PX = 2.0
_MAX_ROTATION_DEG, _MAX_SHIFT_M = 6.0, 0.25  # from the recorded pose: further away it is another place


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameKeypoints:
    """Keypoints of a frame with their depth.

    Attributes:
        features: N features.
        depth: (N,) float64 metres, NaN where unknown.
    """

    features: Features
    depth: Array


def find_keypoints(frame: Frame, extractor: Extractor) -> FrameKeypoints:
    """Keypoints of a frame that has depth; at depth edges, where a keypoint may lie on either side, it is unknown."""
    assert frame.depth is not None
    features = extractor.extract(frame.image)
    window = np.ones((3, 3), np.uint8)
    nearest, farthest = cv2.erode(frame.depth, window), cv2.dilate(frame.depth, window)
    is_flat = (nearest > 0) & (farthest - nearest < 0.03 * nearest)
    known = np.where(is_flat, frame.depth, np.nan).astype(np.float64)
    column, row = np.rint(features.keypoints.cpu().numpy()).astype(int).T
    return FrameKeypoints(features=features, depth=known[row, column])


def refine_relative_pose(
    frame0: FrameKeypoints, frame1: FrameKeypoints, camera: PinholeCamera, T_cam1_cam0: Array
) -> Array | None:
    """The relative pose that matches between two frames say.

    It is estimated twice, from the depth of either frame (PnP), and taken only if both estimates put points within
    2 px of each other, lie near the recorded pose and rest on many matches all over the image.

    Args:
        frame0: keypoints of frame 0.
        frame1: keypoints of frame 1.
        camera: of both.
        T_cam1_cam0: (4, 4) recorded pose.

    Returns:
        (4, 4) T_cam1_cam0, or None where it cannot be told reliably.
    """
    scale = camera.width / 640
    keypoints0, keypoints1 = (frame.features.keypoints.cpu().numpy().astype(np.float64) for frame in (frame0, frame1))
    predicted = camera.project(transform_points(T_cam1_cam0, camera.backproject(keypoints0, frame0.depth)))
    matches = match_guided(
        frame0.features, frame1.features, predicted, _SEARCH_PX * scale, min_similarity=_LEAST_SIMILARITY
    )
    index0, index1 = matches.indices.cpu().numpy().T
    pixels0, pixels1 = keypoints0[index0], keypoints1[index1]
    forth = _estimate(pixels0, frame0.depth[index0], pixels1, camera)
    back = _estimate(pixels1, frame1.depth[index1], pixels0, camera)
    if forth is None or back is None:
        return None
    (T_forth, points, inliers), (T_back, _, _) = forth, back
    change = T_forth @ inverse(T_cam1_cam0)
    if rotation_angle_deg(change) > _MAX_ROTATION_DEG or np.linalg.norm(change[:3, 3]) > _MAX_SHIFT_M:
        return None
    first, second = (camera.project(transform_points(T, points[inliers])) for T in (T_forth, inverse(T_back)))
    disagreement = float(np.median(np.linalg.norm(first - second, axis=1)))
    return T_forth if disagreement <= _MAX_DISAGREEMENT_PX * scale else None


def _estimate(
    pixels0: Array, depth0: Array, pixels1: Array, camera: PinholeCamera
) -> tuple[Array, Array, NDArray[np.bool_]] | None:
    """T_cam1_cam0, the points (M, 3) in camera 0 it rests on and which of them agree (M,); None: not enough."""
    known = np.isfinite(depth0)
    if known.sum() < _LEAST_INLIERS:
        return None
    points = camera.backproject(pixels0[known], depth0[known])
    estimate = estimate_absolute_pose(points, pixels1[known], camera, max_error_px=_MAX_ERROR_PX * camera.width / 640)
    if estimate.model is None or estimate.inlier_count < _LEAST_INLIERS:
        return None
    hull = cv2.convexHull(pixels0[known][estimate.inliers].astype(np.float32))
    if cv2.contourArea(hull) < _LEAST_SPREAD * camera.width * camera.height:
        return None
    return estimate.model, points, estimate.inliers
