"""Is this the same place? A keyframe is placed among the landmarks of a candidate, and the evidence is counted.

Descriptors alone propose matches, PnP-RANSAC finds a pose they agree on, and landmarks looked for near their
projections complete them. Against two places that look alike in part (the same poster in two rooms) stand two checks:
matches must be found wherever both see something, and the keyframe's neighbours must see the place as well, from where
they would have to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.similarity import ScaledTransform
from semkey.geometry.transforms import inverse, transform_points
from semkey.matching.background import background_similarity
from semkey.slam.config import TrackingConfig, image_scale
from semkey.slam.map.association import Associations, match_keyframe, merge_associations
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.places import place_landmarks
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.placing.acceptance import placement_coverage
from semkey.slam.placing.placement import Placement, PlacingRules
from semkey.slam.placing.placing import place_frame

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# Matches and inliers below which there is nothing to complete.
_FEWEST_INLIERS = 12
# After RANSAC landmarks are looked for this close to their projection, and again with the refined pose.
_SEARCH_RADII_PX = (8.0, 6.0)
# A neighbour is placed by odometry, and the loop's pose has its own error: its landmarks may be this far off.
_SUPPORT_RADIUS_PX = 12.0
# Keyframes of the place, most similar first, that are matched by descriptors alone; neighbours that are asked.
_MATCHED_MEMBERS = 2
_SUPPORT_MEMBERS = 2
_ASKED_NEIGHBOURS = 5
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
        placement: the keyframe among the landmarks of the place; its inliers are the matches that prove something.
        coverage: of the image cells where both have something, the share with a match, in [0, 1].
        log_scale_sigma: standard deviation of the logarithm of the scale.
    """

    query: int
    matched: int
    S_place_query: ScaledTransform
    placement: Placement
    coverage: float
    log_scale_sigma: float

    @property
    def associations(self) -> Associations:
        """Landmarks of the place and the keypoints of ``query`` that see them from there."""
        return self.placement.inlier_associations

    @property
    def inliers(self) -> int:
        """Number of matches."""
        return len(self.associations)


def match_place(
    slam_map: SlamMap,
    query: Keyframe,
    place: Sequence[Keyframe],
    *,
    ransac_error_px: float = TrackingConfig.ransac_error_px,
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
        ransac_error_px: inlier threshold of RANSAC for an image 640 pixels wide.
        with_scale: the two sides may have different units of length (monocular maps).
        seed: of RANSAC.

    Returns:
        What was found, convincing or not; None where no pose was.
    """
    frame = query.frame
    matches = merge_associations(
        [match_keyframe(frame, keyframe, slam_map.landmarks) for keyframe in place[:_MATCHED_MEMBERS]]
    )
    # What both see anyway proves nothing new.
    matches = matches.select(~np.isin(matches.landmark_ids, query.landmark_ids))
    landmark_ids = np.setdiff1d(place_landmarks(slam_map, place), query.landmark_ids)
    rules = place_rules(slam_map.camera, ransac_error_px=ransac_error_px, with_scale=with_scale)
    placement = place_frame(slam_map, frame, matches, lambda _: landmark_ids, rules, seed=seed)
    if placement is None:
        return None
    associations = placement.inlier_associations
    unrelated = background_similarity(frame.descriptors, place[0].frame.descriptors)
    needed = unrelated + _PROVING_SIMILARITY * max(placement.sample_similarity - unrelated, 0.0)
    proving = associations.select(associations.similarity >= needed)
    if len(proving) < _FEWEST_INLIERS:
        return None
    scale, log_scale_sigma = (1.0, _LOG_SCALE_FLOOR)
    if with_scale:
        scale, log_scale_sigma = _scale(slam_map, query, associations, placement.T_world_cam)
    placement = replace(placement, associations=proving, inliers=np.ones(len(proving), dtype=bool))
    return PlaceMatch(
        query=query.id,
        matched=_most_shared(place, associations.landmark_ids),
        S_place_query=ScaledTransform(T=placement.T_world_cam, scale=scale),
        placement=placement,
        coverage=placement_coverage(placement, frame, slam_map.camera, placement.pixels),
        log_scale_sigma=log_scale_sigma,
    )


def place_rules(camera: PinholeCamera, *, ransac_error_px: float, with_scale: bool) -> PlacingRules:
    """How keyframes are placed among the landmarks of other places; arguments as of :func:`match_place`."""
    pixel = image_scale(camera)
    return PlacingRules(
        min_matches=_FEWEST_INLIERS,
        min_sample_inliers=_FEWEST_INLIERS,
        ransac_error_px=ransac_error_px * pixel,
        search_radii_px=tuple(radius * pixel for radius in _SEARCH_RADII_PX),
        refines_sample=False,
        uses_depth=not with_scale,
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
    for neighbour, _ in slam_map.covisibility.neighbours(query.id)[:_ASKED_NEIGHBOURS]:
        if supporters >= wanted:
            break
        seen = _sees_place(slam_map, query, slam_map.keyframes[neighbour], place, match.S_place_query)
        supporters += seen >= inliers
    return supporters


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
    if np.count_nonzero(positive) < _FEWEST_INLIERS:
        return 1.0, 1.0
    ratios = np.log(there[positive] / here[positive])
    middle = float(np.median(ratios))
    spread = 1.4826 * float(np.median(np.abs(ratios - middle)))
    return float(np.exp(middle)), max(1.25 * spread / np.sqrt(len(ratios)) * _SIGMA_INFLATION, _LOG_SCALE_FLOOR)


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
    return int(np.count_nonzero(distance < _SUPPORT_RADIUS_PX * image_scale(slam_map.camera)))


def _most_shared(place: Sequence[Keyframe], landmark_ids: Indices) -> int:
    shared = [int(np.isin(keyframe.landmark_ids, landmark_ids).sum()) for keyframe in place]
    return place[int(np.argmax(shared))].id
