"""Recognising places again: candidates for a lost frame, loops inside a submap, meetings of submaps."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

import numpy as np

from semkey.slam.config import LoopConfig, TrackingConfig, image_scale
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.loops.plausibility import is_plausible
from semkey.slam.loops.retrieval import ConsistencyFilter, PlaceIndex, place_groups
from semkey.slam.loops.verification import PlaceMatch, count_supporters, match_place, place_rules
from semkey.slam.map.association import pixels_moved
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.placing.acceptance import accept
from semkey.slam.placing.doubts import Doubts
from semkey.slam.timing import StageTimer

logger = logging.getLogger(__name__)

# What is fixed to the image lies at the same pixel of both, to within so much, for more than this share of a match, and
# leaves out part of the view: where this share of its cells agrees, the camera stands.
_FIXED_PX = 1.0
_FIXED_SHARE = 0.7
_WHOLE_VIEW = 0.8


class PlaceRecognition:
    """Finds again what the map has seen before; the map is not changed.

    Keeps an index of the map's keyframes by appearance, which notices by itself at the next question which keyframes
    were added, removed or loaded.

    Args:
        slam_map: the map.
        config: settings.
        ransac_error_px: inlier threshold of PnP-RANSAC for images 640 pixels wide.
        with_scale: the map's unit of length may drift (monocular).
        seed: of RANSAC.
    """

    def __init__(
        self,
        slam_map: SlamMap,
        config: LoopConfig,
        *,
        ransac_error_px: float = TrackingConfig.ransac_error_px,
        with_scale: bool = False,
        seed: int = 0,
    ) -> None:
        self._map = slam_map
        self._config = config
        self._with_scale = with_scale
        self._ransac_error_px = ransac_error_px
        self._seed = seed
        self._index = PlaceIndex(keypoints=config.retrieval_keypoints, prefilter=config.retrieval_prefilter)
        self._filter = ConsistencyFilter(config.consistency)
        self._doubts = Doubts(slam_map, pixel=image_scale(slam_map.camera), seed=seed, timer=StageTimer())

    def places_like(self, frame: ObservedFrame) -> list[list[Keyframe]]:
        """Groups of keyframes that a lost frame may be seeing again, the most promising first."""
        self._update_index()
        groups = place_groups(
            self._scores(frame, exclude=()),
            self._map.covisibility.neighbours,
            count=self._config.relocalisation_candidates,
            group_size=self._config.group_size,
        )
        return [[self._map.keyframes[key] for key in group.members] for group in groups]

    def find_loop(self, keyframe: Keyframe) -> PlaceMatch | None:
        """A place that a new keyframe sees again, with all checks passed; None where there is none."""
        if not self._config.enabled:
            return None
        self._update_index()
        groups = place_groups(
            self._scores(keyframe.frame, exclude=self._near(keyframe)),
            self._map.covisibility.neighbours,
            count=self._config.candidates,
            group_size=self._config.group_size,
        )
        for group in self._filter.update(groups):
            place = [self._map.keyframes[key] for key in group.members]
            match = match_place(
                self._map,
                keyframe,
                place,
                ransac_error_px=self._ransac_error_px,
                with_scale=self._with_scale,
                seed=self._seed,
            )
            if match is not None and self._is_convincing(match, place):
                self._filter.reset()
                return match
        return None

    def _update_index(self) -> None:
        """Take in keyframes that were added or loaded, and forget those that were removed."""
        for key in self._index.keys:
            if key not in self._map.keyframes:
                self._index.remove(key)
        for key, keyframe in self._map.keyframes.items():
            if key not in self._index:
                frame = keyframe.frame
                self._index.add(key, frame.descriptors, frame.features.global_descriptor.numpy())

    def _scores(self, frame: ObservedFrame, exclude: Collection[int]) -> dict[int, float]:
        descriptor = frame.features.global_descriptor.numpy()
        return self._index.scores(frame.descriptors, descriptor, exclude=exclude, by=self._config.retrieval)

    def _near(self, keyframe: Keyframe) -> set[int]:
        """Keyframes that a keyframe is connected to already, or follows too closely to have drifted from."""
        near = {keyframe.id, *(key for key, _ in self._map.covisibility.neighbours(keyframe.id))}
        for key, other in self._map.keyframes.items():
            age = abs(keyframe.frame.timestamp - other.frame.timestamp)
            if other.submap == keyframe.submap and age < self._config.min_gap_seconds:
                near.add(key)
        return near

    def _is_convincing(self, match: PlaceMatch, place: Sequence[Keyframe]) -> bool:
        """Whether a match passes all checks, the cheap ones first."""
        config, frame = self._config, self._map.keyframes[match.query].frame
        logger.debug(
            "keyframe %d at %d: %d inliers, coverage %.2f", match.query, match.matched, match.inliers, match.coverage
        )
        if not accept(
            match.placement,
            frame,
            self._map.camera,
            min_inliers=config.min_inliers,
            expected=match.placement.pixels,
            min_coverage=config.min_coverage,
        ):
            return False
        if not is_plausible(self._map, match, config, with_scale=self._with_scale):
            return False
        if self._is_fixed_to_image(match):
            return False
        # Two maps whose relation nothing tells, and a pattern that repeats: which of its periods they share is a guess.
        rules = place_rules(self._map.camera, ransac_error_px=self._ransac_error_px, with_scale=self._with_scale)
        if self._doubts.repeats(frame, place, match.placement, rules):
            logger.info("keyframe %d fits keyframe %d at another pose about as well", match.query, match.matched)
            return False
        supporters = count_supporters(
            self._map, match, place, wanted=config.min_supporters, inliers=config.supporter_inliers
        )
        return supporters >= config.min_supporters

    def _is_fixed_to_image(self, match: PlaceMatch) -> bool:
        """Whether two submaps agree in what lies at the same pixels of both images only, as a picture before the lens.

        A camera that stands where it stood sees the same in the rest of the image too.
        """
        query, matched = self._map.keyframes[match.query], self._map.keyframes[match.matched]
        if query.submap == matched.submap or match.coverage >= _WHOLE_VIEW:
            return False
        moved = pixels_moved(query.frame, match.associations, matched)
        pixel = image_scale(self._map.camera)
        return bool(len(moved) and np.mean(moved < _FIXED_PX * pixel) > _FIXED_SHARE)
