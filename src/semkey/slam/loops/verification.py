"""Is this the same place? A keyframe is placed among the landmarks of a candidate, and the evidence is counted.

Descriptors alone propose matches, PnP-RANSAC finds a pose they agree on, and landmarks looked for near their
projections complete them. Against two places that look alike in part (the same poster in two rooms) stand two checks:
matches must be found wherever both see something, and the keyframe's neighbours must see the place as well, from where
they would have to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, transform_points
from semkey.matching.background import background_similarity
from semkey.matching.robust import estimate_absolute_pose
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.association import Associations, match_by_projection, match_keyframe, merge_associations
from semkey.slam.map.fusion import predicted_sigmas
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.solvers.pose import PoseObservations, RefinedPose, refine_pose
from semkey.slam.solvers.similarity import ScaledTransform

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# The width for which pixel values are meant.
_REFERENCE_WIDTH = 640
_RANSAC_ERROR_PX = 4.0
# Inliers of RANSAC below which there is nothing to complete.
_FEWEST_RANSAC_INLIERS = 12
# After RANSAC landmarks are looked for this close to their projection, and again with the refined pose.
_GROWING_RADII_PX = (8.0, 6.0)
# A neighbour is placed by odometry, and the loop's pose has its own error: its landmarks may be this far off.
_SUPPORT_RADIUS_PX = 12.0
# Keyframes of the place, most similar first, that are matched by descriptors alone; neighbours that are asked.
_MATCHED_MEMBERS = 2
_SUPPORT_MEMBERS = 2
_ASKED_NEIGHBOURS = 5
# Cells across and down in which matches are to be found, and points of a side that make a cell count.
_CELLS = (8, 6)
_POINTS_IN_CELL = 2
# Between the similarity of unrelated descriptors (0) and the median one of the matches RANSAC trusts (1): below this a
# match found near its projection proves nothing.
_PROVING_SIMILARITY = 0.5
# A scale from many points looks surer than it is, since the landmarks of a place err together.
_SIGMA_INFLATION = 3.0
_LOG_SCALE_FLOOR = 0.005


@dataclass(frozen=True, kw_only=True, eq=False)
class PlaceMatch:
    """A keyframe placed among the landmarks of another part of the map.

    Attributes:
        query: id of the keyframe.
        matched: id of the keyframe of the place that shares most of the matches.
        S_place_query: maps camera coordinates of ``query`` to the place's world; its scale is 1 unless asked for.
        associations: landmarks of the place and the keypoints of ``query`` that see them from there.
        coverage: of the image cells where both have something, the share with a match, in [0, 1].
        log_scale_sigma: standard deviation of the logarithm of the scale.
    """

    query: int
    matched: int
    S_place_query: ScaledTransform
    associations: Associations
    coverage: float
    log_scale_sigma: float

    @property
    def inliers(self) -> int:
        """Number of matches."""
        return len(self.associations)


def match_place(
    slam_map: SlamMap,
    query: Keyframe,
    place: Sequence[Keyframe],
    *,
    with_scale: bool = False,
    seed: int = 0,
) -> PlaceMatch | None:
    """Place a keyframe among the landmarks of other keyframes, by descriptors and geometry.

    With scale, the similarity is the PnP pose in the place's units and, as its scale, the median ratio of the depths
    at which both maps have the matched points: the seven degrees of freedom of a Sim(3) from points on both sides
    (Horn 1987), of which six come from all matches and not only from those with a landmark on either side.

    Args:
        slam_map: the map; it is not changed.
        query: the keyframe; may lie in another submap than the place.
        place: keyframes of one submap that see the place, most similar first; not empty.
        with_scale: the two sides may have different units of length (monocular maps).
        seed: of RANSAC.

    Returns:
        What was found, convincing or not; None where no pose was.
    """
    pixel = slam_map.camera.width / _REFERENCE_WIDTH
    found = _solve(slam_map, query, place, seed=seed)
    if found is None:
        return None
    pose, associations, similarity_needed = found
    landmark_ids = np.setdiff1d(place_landmarks(slam_map, place), query.landmark_ids)
    refined: RefinedPose | None = None
    visible, pixels = landmark_ids, np.zeros((0, 2))
    for radius in _GROWING_RADII_PX:
        visible, pixels = slam_map.landmarks.visible_from(landmark_ids, pose, slam_map.camera)
        associations = match_by_projection(query.frame, slam_map.landmarks, visible, pixels, radius_px=radius * pixel)
        if len(associations) < _FEWEST_RANSAC_INLIERS:
            return None
        refined = _refine(slam_map, query.frame, associations, pose, use_depth=not with_scale)
        pose = inverse(refined.T_cam_world)
    assert refined is not None
    associations = associations.select(refined.inliers)
    proving = associations.select(associations.similarity >= similarity_needed)
    if len(proving) < _FEWEST_RANSAC_INLIERS:
        return None
    scale, log_scale_sigma = (1.0, _LOG_SCALE_FLOOR)
    if with_scale:
        scale, log_scale_sigma = _scale(slam_map, query, associations, pose)
    S_place_query = ScaledTransform(T=pose, scale=scale)
    return PlaceMatch(
        query=query.id,
        matched=_most_shared(place, associations.landmark_ids),
        S_place_query=S_place_query,
        associations=proving,
        coverage=coverage(query.frame, pixels, proving.keypoint_indices, slam_map.camera),
        log_scale_sigma=log_scale_sigma,
    )


def count_supporters(
    slam_map: SlamMap, match: PlaceMatch, place: Sequence[Keyframe], *, wanted: int, inliers: int
) -> int:
    """How many neighbours of the query see the place from where they would have to be.

    Args:
        slam_map: the map.
        match: what was found for the query.
        place: keyframes that see the place, most similar first.
        wanted: no more are looked for than so many.
        inliers: landmarks of the place that a supporter sees, at least. Matches that are nearest in descriptor among
            all keypoints of an image lie where a wrong pose puts them in one case of a few hundred.
    """
    query = slam_map.keyframes[match.query]
    supporters = 0
    for neighbour, _ in slam_map.covisible(query.id)[:_ASKED_NEIGHBOURS]:
        if supporters >= wanted:
            break
        seen = _sees_place(slam_map, query, slam_map.keyframes[neighbour], place, match.S_place_query)
        supporters += seen >= inliers
    return supporters


def place_landmarks(slam_map: SlamMap, place: Sequence[Keyframe]) -> Indices:
    """The landmarks (L,) that keyframes see, each once."""
    seen = np.unique(np.concatenate([keyframe.landmark_ids for keyframe in place]))
    seen = seen[seen >= 0]
    return seen[slam_map.landmarks.alive[seen]]


def _solve(
    slam_map: SlamMap, query: Keyframe, place: Sequence[Keyframe], *, seed: int
) -> tuple[Array, Associations, float] | None:
    """T_place_cam (4, 4) by descriptors alone, its inliers, and the least similarity of a match that counts."""
    frame = query.frame
    matched = [match_keyframe(frame, keyframe, slam_map.landmarks) for keyframe in place[:_MATCHED_MEMBERS]]
    associations = merge_associations(matched)
    # What both see anyway proves nothing new.
    associations = associations.select(~np.isin(associations.landmark_ids, query.landmark_ids))
    if len(associations) < _FEWEST_RANSAC_INLIERS:
        return None
    solved = estimate_absolute_pose(
        slam_map.landmarks.positions[associations.landmark_ids],
        frame.keypoints[associations.keypoint_indices],
        slam_map.camera,
        max_error_px=_RANSAC_ERROR_PX * slam_map.camera.width / _REFERENCE_WIDTH,
        seed=seed,
    )
    if solved.model is None or solved.inlier_count < _FEWEST_RANSAC_INLIERS:
        return None
    trusted = associations.select(solved.inliers)
    unrelated = background_similarity(frame.descriptors, place[0].frame.descriptors)
    needed = unrelated + _PROVING_SIMILARITY * max(float(np.median(trusted.similarity)) - unrelated, 0.0)
    return inverse(solved.model), trusted, needed


def _refine(
    slam_map: SlamMap, frame: ObservedFrame, associations: Associations, T_world_cam: Array, *, use_depth: bool
) -> RefinedPose:
    ids, keypoints = associations.landmark_ids, associations.keypoint_indices
    pixel_sigma, depth_sigma = predicted_sigmas(
        slam_map.landmarks,
        ids,
        T_world_cam,
        slam_map.camera,
        frame.depth_sigma[keypoints],
        pixel_sigma=slam_map.pixel_sigma,
    )
    observations = PoseObservations(
        points_world=slam_map.landmarks.positions[ids],
        keypoints=frame.keypoints[keypoints],
        pixel_sigma=pixel_sigma,
        depth=frame.depth[keypoints] if use_depth else np.zeros(len(ids)),
        depth_sigma=depth_sigma,
        weights=frame.weights[keypoints] * associations.similarity,
    )
    return refine_pose(inverse(T_world_cam), observations, slam_map.camera)


def _scale(slam_map: SlamMap, query: Keyframe, associations: Associations, T_place_cam: Array) -> tuple[float, float]:
    """Units of the place per unit of the query's map, and the standard deviation of its logarithm.

    The median ratio of the depths that both maps give to the points seen by the same keypoint. Without any such point
    the scale is 1 and unknown.
    """
    own = query.landmark_ids[associations.keypoint_indices]
    both = own >= 0
    both[both] = slam_map.landmarks.alive[own[both]]
    positions = slam_map.landmarks.positions
    here = transform_points(inverse(query.T_world_cam), positions[own[both]])[:, 2]
    there = transform_points(inverse(T_place_cam), positions[associations.landmark_ids[both]])[:, 2]
    positive = (here > 0) & (there > 0)
    if np.count_nonzero(positive) < _FEWEST_RANSAC_INLIERS:
        return 1.0, 1.0
    ratios = np.log(there[positive] / here[positive])
    middle = float(np.median(ratios))
    spread = 1.4826 * float(np.median(np.abs(ratios - middle)))
    return float(np.exp(middle)), max(1.25 * spread / np.sqrt(len(ratios)) * _SIGMA_INFLATION, _LOG_SCALE_FLOOR)


def coverage(frame: ObservedFrame, expected: Array, matched: Indices, camera: PinholeCamera) -> float:
    """Of the image cells with expected landmarks and with keypoints, the share with a matched keypoint, in [0, 1].

    Args:
        frame: its keypoints.
        expected: (V, 2) pixels where landmarks should be seen.
        matched: (M,) keypoints that see one of them.
        camera: of the frame.
    """
    both = (_cell_counts(expected, camera) >= _POINTS_IN_CELL) & (
        _cell_counts(frame.keypoints, camera) >= _POINTS_IN_CELL
    )
    hit = _cell_counts(frame.keypoints[matched], camera) > 0
    return float(hit[both].mean()) if both.any() else 0.0


def _cell_counts(pixels: Array, camera: PinholeCamera) -> Indices:
    """How many of the pixels (N, 2) lie in each cell of the image."""
    cells = (pixels / np.array([camera.width, camera.height]) * _CELLS).astype(np.int64)
    cells = np.clip(cells, 0, np.array(_CELLS) - 1)
    return np.bincount(cells[:, 0] * _CELLS[1] + cells[:, 1], minlength=_CELLS[0] * _CELLS[1])


def _sees_place(
    slam_map: SlamMap, query: Keyframe, neighbour: Keyframe, place: Sequence[Keyframe], S_place_query: ScaledTransform
) -> int:
    """How many matches by descriptors alone of a neighbour of the query lie where the loop would put them."""
    T_query_neighbour = ScaledTransform(T=inverse(query.T_world_cam) @ neighbour.T_world_cam)
    T_place_neighbour = (S_place_query @ T_query_neighbour).T
    matched = [match_keyframe(neighbour.frame, member, slam_map.landmarks) for member in place[:_SUPPORT_MEMBERS]]
    associations = merge_associations(matched)
    points = transform_points(inverse(T_place_neighbour), slam_map.landmarks.positions[associations.landmark_ids])
    seen = neighbour.frame.keypoints[associations.keypoint_indices]
    # Points behind the camera have no pixel (NaN) and are near nothing.
    distance = np.linalg.norm(slam_map.camera.project(points) - seen, axis=1)
    return int(np.count_nonzero(distance < _SUPPORT_RADIUS_PX * slam_map.camera.width / _REFERENCE_WIDTH))


def _most_shared(place: Sequence[Keyframe], landmark_ids: Indices) -> int:
    shared = [int(np.isin(keyframe.landmark_ids, landmark_ids).sum()) for keyframe in place]
    return place[int(np.argmax(shared))].id
