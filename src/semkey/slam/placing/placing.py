"""Place a frame against the map: how every frame gets its pose, while tracking, after a loss, at a loop, as a photo.

Matches of landmarks and keypoints, however they were found, give a pose by PnP-RANSAC (or by RANSAC over points and
lines); the pose is refined over pixels and depths; landmarks that should be near are looked for around their
projections, and the pose is refined again. Whether what then agrees is enough is decided in
:func:`semkey.slam.placing.acceptance.accept` alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, transform_points
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.association import Associations, match_by_projection
from semkey.slam.map.fusion import predicted_residual_noise
from semkey.slam.map.line_association import SeenLines
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.map.support import evidence_of_pose
from semkey.slam.placing.placement import LineFinder, NearbyLandmarks, Placement, PlacingRules
from semkey.slam.placing.sampling import chance_of_sample, depth_ratio, sample_pose
from semkey.slam.solvers.evidence import log10_sample_nfa, log10_samples
from semkey.slam.solvers.pose import PoseObservations, PosePrior, refine_pose
from semkey.slam.timing import StageTimer

Array = NDArray[np.float64]

# A match counts at least by so much, however little its descriptors have in common: no weight may be zero.
_SMALLEST_SIMILARITY = 1e-3

# Depths that differ from the map's by more than a fifth throughout are not those of this camera and this place; depths
# that scatter by more than a quarter around the map's are no measurement.
_LARGEST_LOG_FACTOR = float(np.log(1.2))
_LARGEST_SCATTER = 0.25
_TWO_TESTS = float(np.log10(2))
# The refinement after RANSAC is the start of a search, and made only so exact that the search is around the right
# places; those after it end where the pose moves by less than a twentieth of its standard deviation.
_ROUGH_TOLERANCE = 1e-2
_TOLERANCE = 1e-5


def place_frame(
    slam_map: SlamMap,
    frame: ObservedFrame,
    matches: Associations,
    nearby: NearbyLandmarks,
    rules: PlacingRules,
    *,
    camera: PinholeCamera | None = None,
    seed: int = 0,
    prior: PosePrior | None = None,
    line_finder: LineFinder | None = None,
    lines: SeenLines | None = None,
    timer: StageTimer | None = None,
    counts_sample: bool = False,
) -> Placement | None:
    """The pose of a frame, from matches with landmarks of the map, to be believed or not.

    RANSAC is not left out where a prediction explains nearly everything: to start from the prediction saves 5 ms a
    frame, and the error in rendered rooms grows by half, since wrong pairs lie around the prediction.

    Args:
        slam_map: the map; it is not changed.
        frame: the frame.
        matches: landmarks and keypoints, right and wrong ones.
        nearby: which landmarks to look for around their projections, once there is a pose.
        rules: thresholds and radii.
        camera: of the frame; None for that of the map.
        seed: of RANSAC.
        prior: where the pose is expected.
        line_finder: finds lines; None where lines are not used.
        lines: lines that were found with the matches.
        timer: where the time of ``match`` and ``pose`` is added up.
        counts_sample: what RANSAC found among matches made by descriptors alone is evidence too. For the keyframes that
            the camera has just seen only: of unrelated photos against any place 2 % have as much.

    Returns:
        None where too few matches agree to go on.
    """
    camera, timer = camera or slam_map.camera, timer or StageTimer()
    with timer.stage("pose"):
        sampled = sample_pose(slam_map, frame, matches, rules, camera, seed, line_finder, lines)
    if sampled is None:
        return None
    depth_factor, scatter = depth_ratio(slam_map, frame, sampled) if rules.uses_depth else (1.0, 0.0)
    contradicts = abs(np.log(depth_factor)) > _LARGEST_LOG_FACTOR
    if scatter > _LARGEST_SCATTER:
        return None
    if contradicts:
        rules = replace(rules, uses_depth=False)

    def refine(
        associations: Associations, pose: Array, lines: SeenLines | None, tolerance: float = _TOLERANCE
    ) -> Placement:
        with timer.stage("pose"):
            return refine_placement(
                slam_map,
                frame,
                associations,
                pose,
                camera=camera,
                prior=prior,
                lines=lines,
                uses_depth=rules.uses_depth,
                tolerance=tolerance,
            )

    placement = sampled
    if rules.refines_sample:
        placement = refine(sampled.associations, sampled.T_world_cam, lines, _ROUGH_TOLERANCE)
    for radius in rules.search_radii_px:
        pose = placement.T_world_cam
        with timer.stage("match"):
            visible, pixels = slam_map.landmarks.visible_from(nearby(placement), pose, camera)
            found = match_by_projection(frame, slam_map.landmarks, visible, pixels, radius_px=radius)
            if line_finder is not None:
                known = placement.inlier_associations.landmark_ids
                lines = line_finder.find(frame, pose, known, radius_px=radius)
        if len(found) + (0 if lines is None else len(lines.associations)) < rules.min_matches:
            return None
        placement = replace(refine(found, pose, lines), visible=visible, pixels=pixels, radius_px=radius)
        if rules.settled_px and _pixel_shift(slam_map, placement, camera) < rules.settled_px:
            break
    with timer.stage("pose"):
        evidence = evidence_of_pose(
            frame,
            slam_map.landmarks,
            placement.visible,
            placement.inlier_associations,
            placement.T_world_cam,
            camera,
            radius_px=placement.radius_px,
            log10_tests=log10_samples(len(matches)),
        )
        if counts_sample and len(sampled.associations):
            chance = chance_of_sample(slam_map, frame, matches, sampled, camera, rules.ransac_error_px)
            by_sample = log10_sample_nfa(len(matches), len(sampled.associations), chance)
            evidence = replace(
                evidence,
                log10_nfa=min(evidence.log10_nfa, by_sample) + _TWO_TESTS,
                matched=len(matches),
                sampled=len(sampled.associations),
            )
    return replace(
        placement,
        sample_similarity=sampled.sample_similarity,
        evidence=evidence,
        depth_factor=depth_factor if contradicts else None,
    )


def refine_placement(
    slam_map: SlamMap,
    frame: ObservedFrame,
    associations: Associations,
    T_world_cam: Array,
    *,
    camera: PinholeCamera | None = None,
    prior: PosePrior | None = None,
    lines: SeenLines | None = None,
    uses_depth: bool = True,
    tolerance: float = _TOLERANCE,
) -> Placement:
    """The pose that associations, and lines, agree on best, from ``T_world_cam`` (4, 4) on.

    Args:
        slam_map: the map.
        frame: the frame.
        associations: landmarks and keypoints.
        T_world_cam: (4, 4) a pose near the right one.
        camera: of the frame; None for that of the map.
        prior: where the pose is expected.
        lines: lines seen near there.
        uses_depth: depths of keypoints count.
        tolerance: see :func:`semkey.slam.solvers.pose.refine_pose`.
    """
    camera = camera or slam_map.camera
    ids, keypoints = associations.landmark_ids, associations.keypoint_indices
    covariances, depth_sigma = predicted_residual_noise(
        slam_map.landmarks,
        ids,
        T_world_cam,
        camera,
        frame.covariances[keypoints],
        frame.depth[keypoints],
        frame.depth_sigma[keypoints],
    )
    observations = PoseObservations(
        points_world=slam_map.landmarks.positions[ids],
        keypoints=frame.keypoints[keypoints],
        covariances=covariances,
        depth=frame.depth[keypoints] if uses_depth else np.zeros(len(ids)),
        depth_sigma=depth_sigma,
        weights=frame.weights[keypoints] * np.maximum(associations.similarity, _SMALLEST_SIMILARITY),
    )
    refined = refine_pose(
        inverse(T_world_cam),
        observations,
        camera,
        prior=prior,
        lines=None if lines is None else lines.observations,
        tolerance=tolerance,
    )
    return Placement(
        T_world_cam=inverse(refined.T_cam_world),
        associations=associations,
        inliers=refined.inliers,
        information=refined.information,
        scatter=refined.scatter,
        lines=None if lines is None else lines.with_inliers(refined.line_inliers),
    )


def _pixel_shift(slam_map: SlamMap, placement: Placement, camera: PinholeCamera) -> float:
    """How far the last refinement has moved the visible landmarks in the image: the median, pixels."""
    if not len(placement.visible):
        return np.inf
    points = transform_points(inverse(placement.T_world_cam), slam_map.landmarks.positions[placement.visible])
    return float(np.median(np.linalg.norm(camera.project(points) - placement.pixels, axis=1)))
