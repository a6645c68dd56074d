"""Place a frame against the map: how every frame gets its pose, while tracking, after a loss, at a loop, as a photo.

Matches of landmarks and keypoints, however they were found, give a pose by PnP-RANSAC (or by RANSAC over points and
lines); the pose is refined over pixels and depths; landmarks that should be near are looked for around their
projections, and the pose is refined again. Whether what then agrees is enough is decided in :func:`accept` alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, transform_points
from semkey.matching.robust import estimate_absolute_pose
from semkey.slam.frames.depth import is_constant
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.association import Associations, match_by_projection
from semkey.slam.map.fusion import predicted_residual_noise
from semkey.slam.map.image_cells import coverage
from semkey.slam.map.line_association import SeenLines
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.map.support import evidence_of_pose
from semkey.slam.solvers.evidence import Evidence, log10_sample_nfa, log10_samples, needed_log10_nfa
from semkey.slam.solvers.pose import PoseObservations, PosePrior, pose_covariance, refine_pose
from semkey.slam.timing import StageTimer

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# A match counts at least by so much, however little its descriptors have in common: no weight may be zero.
_SMALLEST_SIMILARITY = 1e-3

# Depths that differ from the map's by more than a fifth throughout are not those of this camera and this place; depths
# that scatter by more than a quarter around the map's are no measurement.
_LARGEST_LOG_FACTOR = float(np.log(1.2))
_LARGEST_SCATTER = 0.25
_FEWEST_DEPTHS = 20
_TWO_TESTS = float(np.log10(2))
# Depths that are all the same are believed as long as the landmarks' own differ by no more than this share: a wall
# that is looked at straight.
_TILT = 0.01
# The refinement after RANSAC is the start of a search, and made only so exact that the search is around the right
# places; those after it end where the pose moves by less than a twentieth of its standard deviation.
_ROUGH_TOLERANCE = 1e-2
_TOLERANCE = 1e-5
# A pose errs by more than the noise of its own image: errors of landmarks have parts in common, those of the keyframes
# that they are from. Variances of compact and nano in three rendered rooms ask for 1.3 (mean) to 1.75 (95 % within).
_SHARED_ERRORS = 1.5

NearbyLandmarks = Callable[["Placement"], Indices]
"""``nearby(placement)``: ids of the landmarks that a frame may see from there."""


@dataclass(frozen=True, kw_only=True)
class PlacingRules:
    """How frames are placed; tracking, loops and single photos differ in this only.

    Attributes:
        min_matches: fewest matches that RANSAC, and each round of the search, goes on with.
        min_sample_inliers: fewest inliers of RANSAC that are gone on with.
        ransac_error_px: inlier threshold of RANSAC, pixels of the image.
        search_radii_px: how far from its projection a landmark is looked for in each round, pixels of the image.
        settled_px: a round that moves landmarks by less than this in the image (the median) is the last; 0 always makes
            all rounds.
        refines_sample: the matches of RANSAC are refined before the first round. A keyframe at a loop has few of them,
            from two keyframes of the place; the search starts from RANSAC's own pose there.
        uses_depth: depths of keypoints count; not between two maps whose units of length may differ.
    """

    min_matches: int
    min_sample_inliers: int
    ransac_error_px: float
    search_radii_px: tuple[float, ...]
    settled_px: float = 0.0
    refines_sample: bool = True
    uses_depth: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Placement:
    """A pose of a frame with what speaks for it.

    Attributes:
        T_world_cam: (4, 4) the pose.
        associations: landmarks and keypoints that the pose was estimated from.
        inliers: (M,) bool, which of them agree with it.
        information: (6, 6) inverse covariance in the camera's tangent space ``[rho, phi]`` by the claimed noise; zero
            before a refinement.
        scatter: how the residuals compare with that noise, see :class:`semkey.slam.solvers.pose.RefinedPose`.
        visible: (V,) landmarks that were looked for near their projections; none before the first round.
        pixels: (V, 2) where they were expected by the pose before the last refinement.
        radius_px: how far from there they were looked for.
        sample_similarity: median similarity of the matches that RANSAC found to agree.
        lines: lines that were looked for; None where lines are not used or too few are in view.
        evidence: how improbable all that is by chance; None where nothing was looked for.
        depth_factor: by how much the measured depths contradict the map, as the median ratio of the two; None where
            they do not. They have no say in the pose then.
        is_contested: most of what is in view speaks for another pose, and long established landmarks decided.
    """

    T_world_cam: Array
    associations: Associations
    inliers: NDArray[np.bool_]
    information: Array = field(default_factory=lambda: np.zeros((6, 6)))
    scatter: float = 1.0
    visible: Indices = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    pixels: Array = field(default_factory=lambda: np.zeros((0, 2)))
    radius_px: float = 0.0
    sample_similarity: float = 0.0
    lines: SeenLines | None = None
    evidence: Evidence | None = None
    depth_factor: float | None = None
    is_contested: bool = False

    @property
    def log10_nfa(self) -> float:
        """Logarithm of the number of false alarms, a decade lower for every line that agrees; 0 without evidence."""
        if self.evidence is None:
            return 0.0
        return self.evidence.log10_nfa - (0 if self.lines is None else self.lines.inlier_count)

    @property
    def inlier_count(self) -> int:
        """Landmarks and lines that agree with the pose."""
        return int(np.count_nonzero(self.inliers)) + (0 if self.lines is None else self.lines.inlier_count)

    @property
    def covariance(self) -> Array:
        """(6, 6) of the pose in the map, see :mod:`semkey.geometry.pose_covariance`."""
        return _SHARED_ERRORS * pose_covariance(self.information, self.scatter)

    @property
    def quality(self) -> float:
        """Of the landmarks that should be in view, the share that was seen where it should be, in [0, 1]."""
        return min(1.0, np.count_nonzero(self.inliers) / len(self.visible)) if len(self.visible) else 0.0

    @property
    def inlier_associations(self) -> Associations:
        """The associations that agree with the pose."""
        return self.associations.select(self.inliers)


class LineFinder(Protocol):
    """Finds lines of the map in a frame."""

    def find(
        self, frame: ObservedFrame, T_world_cam: Array, landmark_ids: Indices, *, radius_px: float
    ) -> SeenLines | None:
        """The lines of keyframes that see these landmarks, near where the pose sees them; None for too few."""
        ...

    def solve(
        self, frame: ObservedFrame, associations: Associations, seen: SeenLines, *, max_error_px: float, seed: int
    ) -> tuple[Array, NDArray[np.bool_]] | None:
        """T_world_cam (4, 4) by RANSAC over points and lines, and which points agree with it; None for too few."""
        ...


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
    """The pose of a frame, from matches with landmarks of the map; believed or not, see :func:`accept`.

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
    depth_factor, scatter = _depth_ratio(slam_map, frame, sampled) if rules.uses_depth else (1.0, 0.0)
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
            chance = _chance_of_sample(slam_map, frame, matches, sampled, camera, rules.ransac_error_px)
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


def accept(
    placement: Placement,
    frame: ObservedFrame,
    camera: PinholeCamera,
    *,
    min_inliers: int,
    expected: Array | None = None,
    min_coverage: float = 0.0,
) -> bool:
    """Whether enough agrees with a pose to believe it; whoever places frames decides by this and nothing else.

    Chance must not explain it: the number of false alarms is at most ``10^-4``, and less where hardly anything of what
    should be seen is found, see :func:`semkey.slam.solvers.evidence.needed_log10_nfa`. The fewest inliers are a floor
    for what a pose can be computed from.

    Args:
        placement: of the frame.
        frame: the frame.
        camera: of the frame.
        min_inliers: fewest landmarks and lines that agree.
        expected: (V, 2) pixels where landmarks of the place should be seen; None where a prediction backs the pose.
        min_coverage: where both the place has landmarks and the frame has keypoints, inliers must be found in at least
            this share of the image cells: two rooms with the same poster agree in the poster's cells only.
    """
    evidence = placement.evidence
    found, visible, sampled, matched = 0, 0, 0, 0
    if evidence is not None:
        found, visible, sampled, matched = evidence.found, evidence.visible, evidence.sampled, evidence.matched
    if placement.lines is not None and placement.lines.inlier_count:
        found, visible = 0, 0  # where there are few points lines speak for the pose, and none is counted as missing
    needed = needed_log10_nfa(found, visible, is_expected=expected is None, sampled=sampled, matched=matched)
    if placement.inlier_count < min_inliers or placement.log10_nfa > needed:
        return False
    if expected is None:
        return True
    return placement_coverage(placement, frame, camera, expected) >= min_coverage


def placement_coverage(placement: Placement, frame: ObservedFrame, camera: PinholeCamera, expected: Array) -> float:
    """In which share of the cells where both sides have something inliers are found, see :func:`coverage`."""
    matched = frame.keypoints[placement.inlier_associations.keypoint_indices]
    return coverage(frame.keypoints, expected, matched, camera)


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


def _chance_of_sample(
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


def _depth_ratio(slam_map: SlamMap, frame: ObservedFrame, sampled: Placement) -> tuple[float, float]:
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


def _pixel_shift(slam_map: SlamMap, placement: Placement, camera: PinholeCamera) -> float:
    """How far the last refinement has moved the visible landmarks in the image: the median, pixels."""
    if not len(placement.visible):
        return np.inf
    points = transform_points(inverse(placement.T_world_cam), slam_map.landmarks.positions[placement.visible])
    return float(np.median(np.linalg.norm(camera.project(points) - placement.pixels, axis=1)))
