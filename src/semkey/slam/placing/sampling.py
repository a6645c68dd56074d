"""The first pose of a frame, by RANSAC, and what can be told of it before any refinement."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, transform_points
from semkey.matching.robust import estimate_absolute_pose
from semkey.slam.frames.depth import is_constant
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.association import Associations
from semkey.slam.map.line_association import SeenLines
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.placing.placement import LineFinder, Placement, PlacingRules

Array = NDArray[np.float64]

_FEWEST_DEPTHS = 20
# Depths that are all the same are believed as long as the landmarks' own differ by no more than this share: a wall
# that is looked at straight.
_TILT = 0.01


def sample_pose(
    slam_map: SlamMap,
    frame: ObservedFrame,
    matches: Associations,
    rules: PlacingRules,
    camera: PinholeCamera,
    seed: int,
    line_finder: LineFinder | None = None,
    lines: SeenLines | None = None,
) -> Placement | None:
    """By PnP-RANSAC over points, or where they are too few over points and lines: the pose and what agrees."""
    found: tuple[Array, NDArray[np.bool_]] | None = None
    if len(matches) >= rules.min_matches:
        solved = estimate_absolute_pose(
            slam_map.landmarks.positions[matches.landmark_ids],
            frame.keypoints[matches.keypoint_indices],
            camera,
            max_error_px=rules.ransac_error_px,
            seed=seed,
        )
        if solved.model is not None and solved.inlier_count >= rules.min_sample_inliers:
            found = inverse(solved.model), solved.inliers
    enough = len(matches) + (0 if lines is None else len(lines.associations)) >= rules.min_matches
    if found is None and enough and line_finder is not None and lines is not None:
        found = line_finder.solve(frame, matches, lines, max_error_px=rules.ransac_error_px, seed=seed)
    if found is None:
        return None
    associations = matches.select(found[1])
    return Placement(
        T_world_cam=found[0],
        associations=associations,
        inliers=np.ones(len(associations), dtype=bool),
        sample_similarity=float(np.median(associations.similarity)) if len(associations) else 0.0,
    )


def chance_of_sample(
    slam_map: SlamMap,
    frame: ObservedFrame,
    matches: Associations,
    sampled: Placement,
    camera: PinholeCamera,
    error_px: float,
) -> float:
    """Probability that a keypoint of the frame, any of them, lies within ``error_px`` of where a pose puts a landmark.

    Keypoints crowd on structures, and so do landmarks: those near each projection are counted, without the match
    itself.
    """
    points = transform_points(inverse(sampled.T_world_cam), slam_map.landmarks.positions[matches.landmark_ids])
    pixels = camera.project(points)
    seen = camera.contains(pixels)
    uniform = np.pi * error_px**2 / (camera.width * camera.height)
    if not seen.any():
        return float(uniform)
    near = frame.tree.query_ball_point(pixels[seen], error_px, return_length=True)
    own = np.isin(matches.landmark_ids[seen], sampled.associations.landmark_ids)
    return float(max(np.mean(np.maximum(near - own, 0)) / len(frame), uniform))


def depth_ratio(slam_map: SlamMap, frame: ObservedFrame, sampled: Placement) -> tuple[float, float]:
    """Measured depths over those of the landmarks that RANSAC, which looks at pixels alone, has found to agree.

    Returns:
        The median ratio, and the robust standard deviation of its logarithm; (1, 0) where too few have a depth.
    """
    found = sampled.associations
    measured = frame.depth[found.keypoint_indices]
    points = transform_points(inverse(sampled.T_world_cam), slam_map.landmarks.positions[found.landmark_ids])
    known = (measured > 0) & (points[:, 2] > 0)
    if np.count_nonzero(known) < _FEWEST_DEPTHS:
        return 1.0, 0.0
    low, high = np.quantile(points[known, 2], [0.05, 0.95])
    if is_constant(measured) and high - low > _TILT * high:
        return 1.0, np.inf  # the landmarks lie at different depths from here, and the camera measures one
    ratios = np.log(measured[known] / points[known, 2])
    middle = float(np.median(ratios))
    return float(np.exp(middle)), 1.4826 * float(np.median(np.abs(ratios - middle)))
