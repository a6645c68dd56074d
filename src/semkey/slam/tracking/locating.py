"""Where one frame was taken: landmarks are found in it, and the pose follows from them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from semkey.slam.config import TrackingConfig
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.association import Associations, match_by_projection, match_keyframe, merge_associations
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.line_association import SeenLines
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.placing.acceptance import accept
from semkey.slam.placing.doubts import Doubts
from semkey.slam.placing.placement import Placement, PlacingRules
from semkey.slam.placing.placing import place_frame, refine_placement
from semkey.slam.solvers.pose import PosePrior
from semkey.slam.timing import StageTimer
from semkey.slam.tracking.lines import LineTracker
from semkey.slam.tracking.motion import Prediction, Reach
from semkey.slam.tracking.newcomers import counted_views

Array = NDArray[np.float64]

# After RANSAC the pose is good to a few pixels, and landmarks are looked for once more this close to their projection.
_POLISH_RADIUS_PX = 6.0
# ... at most this often, and not again once the pose moves landmarks by less than this in the image.
_POLISH_ROUNDS = 3
_SETTLED_PX = 0.5
# Established landmarks decide alone with at least so much evidence; where they pull against the new, this share of
# those that agree with their own pose has to agree with that of all.
_DECIDING_LOG10_NFA = -12.0
_HELD_SHARE = 0.9
# A pose contradicts the established landmarks where fewer than this share of those that agree with each other agree
# with it too. Right poses may miss 10 to 20 % by mismatches alone; a thing that fills the view leaves hardly any.
_CONTRADICTED_SHARE = 0.5
# Nor is a pose contradicted whose landmarks lie so near where theirs puts them: matches slide along edges.
_CONTRADICTED_PX = 3.0
# A pose that no prediction backs has to explain the view: in this share of the cells with landmarks and keypoints
# something agrees. Opposite sides of a cabinet agree in 0.27 to 0.47 of them, true poses in 0.7 to 1.
_LEAST_COVERAGE = 0.5
# Without depth such a pose has so many decades for each landmark found, however many: true ones of nano have 1.4 or
# more, one of a room upside down had 0.4 with 149 landmarks, from where the camera had just been.
_DECADES_EACH_WITHOUT_DEPTH = 0.6
# Once established landmarks have decided against the rest, a pose by all needs them as this share of what agrees.
_BACKING_SHARE = 0.25


class FrameLocator:
    """Places frames among the landmarks of a map; of the map only the counts of views change.

    Args:
        slam_map: the map.
        config: settings.
        pixel: scale factor of the pixel values of the settings.
        seed: of RANSAC.
        lines: finds lines in frames; None where lines are not used.
        timer: where the time per stage is added up.
        established_first: while tracking, long established landmarks are placed first. Not without depth: there new
            landmarks are what drift of scale is held by, and few become established.
        has_depth: keypoints have depths, which a pose has to agree with. Without, a pose that no prediction backs is
            asked for more.
    """

    def __init__(
        self,
        slam_map: SlamMap,
        config: TrackingConfig,
        *,
        pixel: float,
        seed: int,
        lines: LineTracker | None,
        timer: StageTimer,
        established_first: bool = True,
        has_depth: bool = True,
    ) -> None:
        self._established_first = established_first
        self._has_depth = has_depth
        self._map = slam_map
        self._camera = slam_map.camera
        self._config = config
        self._pixel = pixel
        self._rules = PlacingRules(
            min_matches=config.min_inliers,
            min_sample_inliers=config.min_inliers,
            ransac_error_px=config.ransac_error_px * pixel,
            search_radii_px=(_POLISH_RADIUS_PX * pixel,) * _POLISH_ROUNDS,
            settled_px=_SETTLED_PX * pixel,
        )
        self._seed = seed
        self._lines = lines
        self._timer = timer
        self._doubts = Doubts(slam_map, pixel=pixel, seed=seed, timer=timer)
        self._was_contested = False

    def by_prediction(
        self, frame: ObservedFrame, prediction: Prediction, last_ids: NDArray[np.int64]
    ) -> Placement | None:
        """The pose by landmarks looked for where the prediction sees them; None if it is too vague for that."""
        with self._timer.stage("match"):
            pose = prediction.T_world_cam
            local_ids = self._map.covisibility.local_landmarks(last_ids, pose)
            visible, pixels = self._map.landmarks.visible_from(local_ids, pose, self._camera)
            if len(visible) >= self._config.min_inliers:
                distances = np.linalg.norm(self._map.landmarks.positions[visible] - pose[:3, 3], axis=1)
                distance = float(np.median(distances))
            else:
                distance = 0.0 if self._lines is None else self._lines.typical_distance(pose, last_ids)
            if not distance:
                return None
            angle = prediction.rotation_sigma + prediction.translation_sigma / distance
            radius = self._config.search_radius_px * self._pixel + angle * self._camera.fx
            if radius > self._config.max_search_radius_px * self._pixel:
                return None
            associations = match_by_projection(frame, self._map.landmarks, visible, pixels, radius_px=radius)
            lines = None if self._lines is None else self._lines.find(frame, pose, last_ids, radius_px=radius)
        return self._place(
            frame, associations, self._config.min_inliers, prior=prediction.as_prior(), lines=lines, is_guided=True
        )

    def by_keyframes(
        self,
        frame: ObservedFrame,
        keyframes: list[Keyframe],
        min_inliers: int,
        *,
        prior: PosePrior | None = None,
        reach: Reach | None = None,
    ) -> Placement | None:
        """The pose by descriptors alone against the landmarks of ``keyframes`` together.

        Where the camera can have come (``reach``) tells what keyframes just seen can back; None backs anything.
        """
        with self._timer.stage("match"):
            matched = [match_keyframe(frame, keyframe, self._map.landmarks) for keyframe in keyframes]
            associations = merge_associations(matched)
        return self._place(frame, associations, min_inliers, prior=prior, place=keyframes, reach=reach)

    def begin(self) -> None:
        """A map begins: nothing in it is contested, and nothing established."""
        self._was_contested = False

    def refine(self, frame: ObservedFrame, associations: Associations, T_world_cam: Array) -> Placement:
        """The pose that associations agree on best, from ``T_world_cam`` (4, 4) on."""
        with self._timer.stage("pose"):
            return refine_placement(self._map, frame, associations, T_world_cam)

    def _place(
        self,
        frame: ObservedFrame,
        associations: Associations,
        min_inliers: int,
        *,
        prior: PosePrior | None,
        lines: SeenLines | None = None,
        is_guided: bool = False,
        place: list[Keyframe] | None = None,
        reach: Reach | None = None,
    ) -> Placement | None:
        """Place the frame, and keep count of what was in view and of what was found."""
        rules = replace(self._rules, min_matches=min_inliers, min_sample_inliers=min_inliers)
        placement = self._place_among(frame, associations, rules, prior, lines, is_guided=is_guided, reach=reach)
        held = None
        if self._established_first and (is_guided or self._was_contested):
            held = self._place_by_established(frame, associations, rules, prior, placement)
        placement = placement if held is None else held
        if placement is None or self._is_doubtful(
            frame, associations, placement, rules, place, is_held=held is not None
        ):
            return None
        self._was_contested = placement.is_contested
        in_view = counted_views(frame, self._map.landmarks, placement, self._camera, pixel=self._pixel)
        self._map.count_views(in_view, placement.inlier_associations.landmark_ids)
        if self._lines is not None and placement.lines is not None and not self._map.is_fixed:
            self._lines.count_views(placement.lines)
        return placement

    def _is_doubtful(
        self,
        frame: ObservedFrame,
        associations: Associations,
        placement: Placement,
        rules: PlacingRules,
        place: list[Keyframe] | None,
        *,
        is_held: bool,
    ) -> bool:
        """Whether something else explains the frame as well as a pose does; established landmarks may hold that one."""
        if self._was_contested and not is_held:
            # What was held off so far must not win the moment that the established landmarks are out of view.
            backing = self._count_established(placement)
            if backing < max(rules.min_matches, _BACKING_SHARE * np.count_nonzero(placement.inliers)):
                return True
        if not is_held and self._doubts.has_rival(frame, associations, placement, rules):
            return True
        is_relocalised = place is not None and rules.min_matches > self._config.min_inliers
        if self._doubts.is_fixed_to_image(frame, associations, placement, rules, is_relocalised=is_relocalised):
            return True
        if place is None or not (is_relocalised or self._doubts.seems_repeated(placement)):
            return False
        return self._doubts.repeats(frame, place, placement, rules)

    def _place_by_established(
        self,
        frame: ObservedFrame,
        associations: Associations,
        rules: PlacingRules,
        prior: PosePrior | None,
        by_all: Placement | None,
    ) -> Placement | None:
        """The pose by landmarks that have long been where they are, where the pose by all contradicts those.

        What came into view a moment ago may be a hand or a passer-by, and fill most of the image: it must not carry the
        pose away from what has stayed where it was. None where the established landmarks are too few to tell, or where
        the pose by all, which is the more exact one, agrees with most of them.
        """
        old = self._map.landmarks.established(associations.landmark_ids)
        agreeing = 0 if by_all is None else self._count_established(by_all)
        count = np.count_nonzero(old)
        # Where half of the established matches agree, what their own pose would find cannot contradict this one.
        if old.all() or count < rules.min_matches or agreeing >= _CONTRADICTED_SHARE * count:
            return None
        placement = self._place_among(
            frame, associations.select(old), rules, prior, None, established=True, is_guided=True
        )
        if placement is None or placement.log10_nfa > _DECIDING_LOG10_NFA:
            return None
        if agreeing >= _CONTRADICTED_SHARE * self._count_established(placement):
            return None
        apart = by_all is None or self._doubts.is_apart(frame, by_all, placement, _CONTRADICTED_PX)
        pose = placement.T_world_cam
        visible, pixels = self._map.landmarks.visible_from(self._nearby(placement), pose, self._camera)
        found = match_by_projection(frame, self._map.landmarks, visible, pixels, radius_px=placement.radius_px)
        lines = None
        if self._lines is not None:
            known = placement.inlier_associations.landmark_ids
            lines = self._lines.find(frame, pose, known, radius_px=placement.radius_px)
        with self._timer.stage("pose"):
            everything = refine_placement(self._map, frame, found, pose, prior=prior, lines=lines)
        if self._count_established(everything) < _HELD_SHARE * self._count_established(placement):
            # The new pulls the pose away from the old.
            return replace(placement, visible=visible, is_contested=apart)
        return replace(
            everything,
            visible=visible,
            pixels=pixels,
            radius_px=placement.radius_px,
            evidence=placement.evidence,
            depth_factor=placement.depth_factor,
            is_contested=apart and 2 * len(found) < len(associations),
        )

    def _count_established(self, placement: Placement) -> int:
        return int(self._map.landmarks.established(placement.inlier_associations.landmark_ids).sum())

    def _place_among(
        self,
        frame: ObservedFrame,
        associations: Associations,
        rules: PlacingRules,
        prior: PosePrior | None,
        lines: SeenLines | None,
        *,
        established: bool = False,
        is_guided: bool,
        reach: Reach | None = None,
    ) -> Placement | None:
        """A pose that is believed, by all landmarks or by established ones alone; None for none."""

        def nearby(placement: Placement) -> NDArray[np.int64]:
            ids = self._nearby(placement)
            return ids[self._map.landmarks.established(ids)] if established else ids

        placement = place_frame(
            self._map,
            frame,
            associations,
            nearby,
            rules,
            seed=self._seed,
            prior=prior,
            line_finder=None if established else self._lines,
            lines=lines,
            timer=self._timer,
            # After a loss, where no keyframe was just seen, more is asked.
            counts_sample=not is_guided and rules.min_matches <= self._config.min_inliers,
        )
        if placement is None:
            return None
        if not is_guided and placement.depth_factor is not None:
            return None  # rather the wrong pose than a camera whose unit has changed
        found = 0 if placement.evidence is None else placement.evidence.found
        if not (is_guided or self._has_depth) and placement.log10_nfa > -_DECADES_EACH_WITHOUT_DEPTH * found:
            return None
        is_believed = accept(
            placement,
            frame,
            self._camera,
            min_inliers=rules.min_matches,
            min_coverage=0.0 if is_guided else _LEAST_COVERAGE,
            is_expected=is_guided or rules.min_matches <= self._config.min_inliers,
            is_within_reach=is_guided or reach is None or reach.contains(placement.T_world_cam),
        )
        return placement if is_believed else None

    def _nearby(self, placement: Placement) -> NDArray[np.int64]:
        return self._map.covisibility.local_landmarks(placement.inlier_associations.landmark_ids, placement.T_world_cam)
