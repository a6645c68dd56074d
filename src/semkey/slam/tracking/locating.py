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
from semkey.slam.map.placing import Placement, PlacingRules, accept, place_frame, refine_placement
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.solvers.pose import PosePrior
from semkey.slam.timing import StageTimer
from semkey.slam.tracking.lines import LineTracker
from semkey.slam.tracking.motion import Prediction

Array = NDArray[np.float64]

# After RANSAC the pose is good to a few pixels, and landmarks are looked for once more this close to their projection.
_POLISH_RADIUS_PX = 6.0
# ... at most this often, and not again once the pose moves landmarks by less than this in the image.
_POLISH_ROUNDS = 3
_SETTLED_PX = 0.5


class FrameLocator:
    """Places frames among the landmarks of a map; of the map only the counts of views change.

    Args:
        slam_map: the map.
        config: settings.
        pixel: scale factor of the pixel values of the settings.
        seed: of RANSAC.
        lines: finds lines in frames; None where lines are not used.
        timer: where the time per stage is added up.
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
    ) -> None:
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

    def by_prediction(
        self, frame: ObservedFrame, prediction: Prediction, last_ids: NDArray[np.int64]
    ) -> Placement | None:
        """The pose by landmarks looked for where the prediction sees them; None if it is too vague for that."""
        with self._timer.stage("match"):
            pose = prediction.T_world_cam
            local_ids = self._map.local_landmarks(last_ids, pose)
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
        return self._place(frame, associations, self._config.min_inliers, prior=prediction.as_prior(), lines=lines)

    def by_keyframes(
        self, frame: ObservedFrame, keyframes: list[Keyframe], min_inliers: int, *, prior: PosePrior | None = None
    ) -> Placement | None:
        """The pose by descriptors alone against the landmarks of ``keyframes`` together."""
        with self._timer.stage("match"):
            matched = [match_keyframe(frame, keyframe, self._map.landmarks) for keyframe in keyframes]
            associations = merge_associations(matched)
        return self._place(frame, associations, min_inliers, prior=prior)

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
    ) -> Placement | None:
        """Place the frame, and keep count of what was in view and of what was found."""
        rules = replace(self._rules, min_matches=min_inliers, min_sample_inliers=min_inliers)
        placement = place_frame(
            self._map,
            frame,
            associations,
            self._nearby,
            rules,
            seed=self._seed,
            prior=prior,
            line_finder=self._lines,
            lines=lines,
            timer=self._timer,
        )
        if placement is None or not accept(placement, frame, self._camera, min_inliers=min_inliers):
            return None
        self._map.count_views(placement.visible, placement.inlier_associations.landmark_ids)
        if self._lines is not None and placement.lines is not None:
            self._lines.count_views(placement.lines)
        return placement

    def _nearby(self, placement: Placement) -> NDArray[np.int64]:
        return self._map.local_landmarks(placement.inlier_associations.landmark_ids, placement.T_world_cam)
