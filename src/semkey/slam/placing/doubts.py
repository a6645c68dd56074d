"""What speaks against a pose that is well supported: another one that explains what it does not."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, transform_points
from semkey.matching.background import background_similarity
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.association import Associations, pixels_moved
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.places import place_landmarks
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.map.support import contradicted_share
from semkey.slam.placing.acceptance import accept, placement_coverage
from semkey.slam.placing.placement import Placement, PlacingRules
from semkey.slam.placing.placing import place_frame
from semkey.slam.placing.sampling import chance_of_sample, sample_pose
from semkey.slam.solvers.evidence import MAX_LOG10_NFA, log10_sample_nfa
from semkey.slam.solvers.image_cells import cells_of
from semkey.slam.timing import StageTimer

Array = NDArray[np.float64]

# Another pose is looked for where so many matches disagree, as a share of those that agree; it is a rival where it has
# this share of the decades of evidence.
_RIVAL_SHARE = 0.5
_RIVAL_EVIDENCE = 0.7
_RIVAL_DISTANCE_PX = 30.0
# After a loss nothing tells one period of a pattern from the next: two fifths of the decades are enough to doubt. Where
# nothing repeats, no other pose is believed at all.
_REPEATED_EVIDENCE = 0.4
# Where a pattern repeats, a pose finds what it looks for, and descriptors have matched the same keypoints to landmarks
# elsewhere: on wallpaper they agree with a tenth to a fifth of those found, in a room with all.
_REPEATED_SAMPLE_SHARE = 0.5
# What is fixed to the image lies where the keyframe saw it, to within so much, for at least this share of a pose.
_FIXED_PX = 1.0
_FIXED_SHARE = 0.7
# Where it is seen again after a loss, of the cells with landmarks and keypoints this share has what agrees: a picture
# over half of the view has 0.3 to 0.84, a camera that stands 1.
_BACK_COVERAGE = 0.85
# ... and of the landmarks beside which a depth is measured at most this share at another one: before a large thing that
# moves with the camera it is 0.28 to 0.39, with true poses of a rendered room 0 to 0.07.
_BACK_CONTRADICTED = 0.15
_BESIDE_PX = 15.0
# What else moves is believed with this share of the matches, and by at least so much.
_MOVING_SHARE = 0.15
# ... or over so much of the image, in cells: a picture full of corners has six to ten times as many as the room beside
# it.
_MOVING_CELLS = 0.3
_MOVING_PX = 3.0


class Doubts:
    """Looks for other explanations of a frame than the pose that was found.

    Args:
        slam_map: the map; it is not changed.
        pixel: scale factor of the pixel values of the settings.
        seed: of RANSAC.
        timer: where the time per stage is added up.
        camera: of the frames; None for that of the map.
    """

    def __init__(
        self,
        slam_map: SlamMap,
        *,
        pixel: float,
        seed: int,
        timer: StageTimer,
        camera: PinholeCamera | None = None,
    ) -> None:
        self._map = slam_map
        self._camera = camera or slam_map.camera
        self._pixel = pixel
        self._seed = seed
        self._timer = timer

    def has_rival(
        self, frame: ObservedFrame, associations: Associations, placement: Placement, rules: PlacingRules
    ) -> bool:
        """Whether the matches that disagree with a pose agree with each other on another one, and nearly as well.

        A pattern that repeats, such as wallpaper: nothing tells which of the two the world is.
        """
        rest = self._disagreeing(frame, associations, placement)
        if len(rest) < max(rules.min_matches, _RIVAL_SHARE * np.count_nonzero(placement.inliers)):
            return False
        rival = self._other_pose(frame, rest, placement, rules, apart_px=_RIVAL_DISTANCE_PX)
        return rival is not None and rival.log10_nfa <= _RIVAL_EVIDENCE * placement.log10_nfa

    def is_fixed_to_image(
        self,
        frame: ObservedFrame,
        associations: Associations,
        placement: Placement,
        rules: PlacingRules,
        *,
        is_relocalised: bool = False,
    ) -> bool:
        """Whether what agrees with a pose has not moved in the image since the keyframe, while the rest has, as one.

        A picture before the lens, a part of the vehicle, text on the screen: it says that the camera stands still,
        with more evidence than the world that it hides. A camera that stands before a large thing that moves sees the
        same; nothing tells the two apart. After a loss (``is_relocalised``) the rest is too far from where it was to be
        matched: a camera that is back where a keyframe was sees what the keyframe saw nearly all over the image.
        """
        reference = self._map.covisibility.nearest_keyframe(placement.inlier_associations.landmark_ids)
        if reference is None:
            return False
        moved = pixels_moved(frame, placement.inlier_associations, self._map.keyframes[reference])
        if len(moved) < rules.min_matches or np.mean(moved < _FIXED_PX * self._pixel) < _FIXED_SHARE:
            return False
        if is_relocalised and not self._is_back(frame, placement):
            return True
        rest = self._disagreeing(frame, associations, placement)
        if len(rest) < rules.min_matches:
            return False
        # What RANSAC finds is not refined among all landmarks: a motion of a few pixels would find what is fixed.
        other = self._sample_elsewhere(frame, rest, placement, rules, apart_px=_MOVING_PX)
        if other is None:
            return False
        count = len(other.associations)
        chance = chance_of_sample(self._map, frame, rest, other, self._camera, rules.ransac_error_px)
        if log10_sample_nfa(len(rest), count, chance) > MAX_LOG10_NFA:
            return False
        if count >= _MOVING_SHARE * np.count_nonzero(placement.inliers):
            return True
        return self._cell_count(frame, other) >= _MOVING_CELLS * self._cell_count(frame, placement)

    def _is_back(self, frame: ObservedFrame, placement: Placement) -> bool:
        """Whether a frame sees all over what a camera back where a keyframe was would see: things and depths."""
        if placement_coverage(placement, frame, self._camera, placement.pixels) < _BACK_COVERAGE:
            return False
        pose, visible = placement.T_world_cam, placement.visible
        radius = _BESIDE_PX * self._pixel
        share = contradicted_share(frame, self._map.landmarks, visible, pose, self._camera, radius_px=radius)
        return share <= _BACK_CONTRADICTED

    def seems_repeated(self, placement: Placement) -> bool:
        """Whether descriptors alone have matched elsewhere what a pose finds where it should be."""
        evidence = placement.evidence
        if evidence is None or not evidence.matched:
            return False
        return evidence.sampled < _REPEATED_SAMPLE_SHARE * evidence.found

    def repeats(
        self, frame: ObservedFrame, place: Sequence[Keyframe], placement: Placement, rules: PlacingRules
    ) -> bool:
        """Whether the frame matches a place at another pose about as well, each keypoint with other landmarks.

        Of two landmarks that look alike a match by descriptors takes one, so that the matches need not show it.
        """
        ids = place_landmarks(self._map, place)
        if not len(ids) or not len(frame):
            return False
        descriptors = self._map.landmarks.descriptors[ids]
        similarity = frame.descriptors @ descriptors.T
        seen = self._project(ids, placement.T_world_cam)
        near = np.abs(frame.keypoints[:, None] - seen).max(axis=2) <= _RIVAL_DISTANCE_PX * self._pixel
        similarity[near] = -1.0
        best = similarity.argmax(axis=1)
        keypoints = np.flatnonzero(similarity.argmax(axis=0)[best] == np.arange(len(frame)))
        strength = similarity[keypoints, best[keypoints]]
        strong = strength > background_similarity(descriptors, frame.descriptors)
        others = Associations(
            landmark_ids=ids[best[keypoints[strong]]],
            keypoint_indices=keypoints[strong],
            similarity=strength[strong].astype(np.float64),
        )
        if len(others) < rules.min_matches:
            return False
        rival = self._other_pose(frame, others, placement, rules, apart_px=_RIVAL_DISTANCE_PX)
        return rival is not None and rival.log10_nfa <= _REPEATED_EVIDENCE * placement.log10_nfa

    def _cell_count(self, frame: ObservedFrame, placement: Placement) -> int:
        """In how many cells of the image something agrees with a pose."""
        keypoints = frame.keypoints[placement.inlier_associations.keypoint_indices]
        return len(np.unique(cells_of(keypoints, (self._camera.width, self._camera.height))))

    def _disagreeing(self, frame: ObservedFrame, associations: Associations, placement: Placement) -> Associations:
        off = self._distances(frame, associations, placement.T_world_cam)
        return associations.select(~(off <= placement.radius_px))

    def _other_pose(
        self,
        frame: ObservedFrame,
        matches: Associations,
        placement: Placement,
        rules: PlacingRules,
        *,
        apart_px: float,
    ) -> Placement | None:
        """A pose that is believed, and puts what agrees with it elsewhere than ``placement`` does."""
        # Most often nothing agrees, or the same pose again, by duplicates of landmarks or by matches that slid along
        # edges: RANSAC alone tells that, in a third of the time.
        if self._sample_elsewhere(frame, matches, placement, rules, apart_px=apart_px) is None:
            return None
        other = place_frame(
            self._map, frame, matches, self._nearby, rules, camera=self._camera, seed=self._seed, timer=self._timer
        )
        if other is None or not accept(other, frame, self._camera, min_inliers=rules.min_matches):
            return None
        return other if self.is_apart(frame, other, placement, apart_px) else None

    def _sample_elsewhere(
        self,
        frame: ObservedFrame,
        matches: Associations,
        placement: Placement,
        rules: PlacingRules,
        *,
        apart_px: float,
    ) -> Placement | None:
        """What RANSAC finds among matches, if that lies elsewhere than ``placement`` puts it."""
        with self._timer.stage("pose"):
            sampled = sample_pose(self._map, frame, matches, rules, self._camera, self._seed)
        return sampled if sampled is not None and self.is_apart(frame, sampled, placement, apart_px) else None

    def is_apart(self, frame: ObservedFrame, other: Placement, placement: Placement, apart_px: float) -> bool:
        """Whether what agrees with another pose lies that far from where a pose puts it."""
        apart = self._distances(frame, other.inlier_associations, placement.T_world_cam)
        return not len(apart) or bool(np.median(apart) > apart_px * self._pixel)

    def _distances(self, frame: ObservedFrame, associations: Associations, T_world_cam: Array) -> Array:
        """How far each keypoint lies from where a pose puts its landmark, pixels; NaN behind the camera."""
        pixels = self._project(associations.landmark_ids, T_world_cam)
        return np.linalg.norm(pixels - frame.keypoints[associations.keypoint_indices], axis=1)

    def _project(self, landmark_ids: NDArray[np.int64], T_world_cam: Array) -> Array:
        points = transform_points(inverse(T_world_cam), self._map.landmarks.positions[landmark_ids])
        return self._camera.project(points)

    def _nearby(self, placement: Placement) -> NDArray[np.int64]:
        return self._map.covisibility.local_landmarks(placement.inlier_associations.landmark_ids, placement.T_world_cam)
