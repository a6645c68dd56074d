"""Where one frame was taken: landmarks are found in it, and the pose follows from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.transforms import inverse, transform_points
from semkey.matching.robust import estimate_absolute_pose
from semkey.slam.config import TrackingConfig
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.map.association import Associations, match_by_projection, match_keyframe, merge_associations
from semkey.slam.map.fusion import predicted_sigmas
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.solvers.pose import PoseObservations, PosePrior, refine_pose
from semkey.slam.timing import StageTimer
from semkey.slam.tracking.lines import LineTracker, SeenLines
from semkey.slam.tracking.motion import Prediction

Array = NDArray[np.float64]

# After RANSAC the pose is good to a few pixels, and landmarks are looked for once more this close to their projection.
_POLISH_RADIUS_PX = 6.0
# ... at most this often, and not again once the pose moves landmarks by less than this in the image.
_POLISH_ROUNDS = 3
_SETTLED_PX = 0.5


@dataclass(frozen=True, kw_only=True)
class PoseEstimate:
    """A pose with the associations that speak for it."""

    T_world_cam: Array
    associations: Associations
    inliers: NDArray[np.bool_]
    lines: SeenLines | None = None

    @property
    def inlier_count(self) -> int:
        """Landmarks and lines that agree with the pose."""
        return int(np.count_nonzero(self.inliers)) + (0 if self.lines is None else self.lines.inlier_count)

    @property
    def inlier_associations(self) -> Associations:
        """The associations that agree with the pose."""
        return self.associations.select(self.inliers)


class FrameLocator:
    """Places frames among the landmarks of a map; of the map only the counts of views change.

    Args:
        slam_map: the map.
        config: settings.
        pixel: by what the pixel values of the settings are multiplied.
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
        self._seed = seed
        self._lines = lines
        self._timer = timer

    def by_prediction(
        self, frame: ObservedFrame, prediction: Prediction, last_ids: NDArray[np.int64]
    ) -> PoseEstimate | None:
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
            lines = self._look_for_lines(frame, pose, last_ids, radius)
        return self._solve_and_polish(
            frame, associations, self._config.min_inliers, prior=prediction.as_prior(), lines=lines
        )

    def by_keyframes(
        self, frame: ObservedFrame, keyframes: list[Keyframe], min_inliers: int, *, prior: PosePrior | None = None
    ) -> PoseEstimate | None:
        """The pose by descriptors alone against the landmarks of ``keyframes`` together."""
        with self._timer.stage("match"):
            matched = [match_keyframe(frame, keyframe, self._map.landmarks) for keyframe in keyframes]
            associations = merge_associations(matched)
        return self._solve_and_polish(frame, associations, min_inliers, prior=prior)

    def _solve_and_polish(
        self,
        frame: ObservedFrame,
        associations: Associations,
        min_inliers: int,
        *,
        prior: PosePrior | None,
        lines: SeenLines | None = None,
    ) -> PoseEstimate | None:
        """PnP-RANSAC and refinement, then again until it settles: look for local landmarks near their projections.

        RANSAC is not left out where the prediction explains nearly everything: to start from the prediction saves 5 ms
        a frame, and the error in rendered rooms grows by half, since wrong pairs lie around the prediction.
        """
        with self._timer.stage("pose"):
            solved = self._solve(frame, associations, min_inliers, lines)
            if solved is None:
                return None
            pose, associations = solved
            estimate = self.refine(frame, associations, pose, prior, lines)
        for _ in range(_POLISH_ROUNDS):
            pose = estimate.T_world_cam
            with self._timer.stage("match"):
                local_ids = self._map.local_landmarks(estimate.inlier_associations.landmark_ids, pose)
                visible, pixels = self._map.landmarks.visible_from(local_ids, pose, self._camera)
                radius = _POLISH_RADIUS_PX * self._pixel
                nearby = match_by_projection(frame, self._map.landmarks, visible, pixels, radius_px=radius)
                lines = self._look_for_lines(frame, pose, estimate.inlier_associations.landmark_ids, radius)
            if len(nearby) + (0 if lines is None else len(lines.associations)) < min_inliers:
                return None
            with self._timer.stage("pose"):
                estimate = self.refine(frame, nearby, pose, prior, lines)
            if self._pixel_shift(visible, pixels, estimate.T_world_cam) < _SETTLED_PX * self._pixel:
                break
        if estimate.inlier_count < min_inliers:
            return None
        self._map.count_views(visible, estimate.inlier_associations.landmark_ids)
        if self._lines is not None and estimate.lines is not None:
            self._lines.count_views(estimate.lines)
        return estimate

    def _solve(
        self, frame: ObservedFrame, associations: Associations, min_inliers: int, lines: SeenLines | None
    ) -> tuple[Array, Associations] | None:
        """PnP-RANSAC by points, or where they are too few by points and lines: the pose and the points that agree."""
        max_error_px = self._config.ransac_error_px * self._pixel
        if len(associations) >= min_inliers:
            solved = estimate_absolute_pose(
                self._map.landmarks.positions[associations.landmark_ids],
                frame.keypoints[associations.keypoint_indices],
                self._camera,
                max_error_px=max_error_px,
                seed=self._seed,
            )
            if solved.model is not None and solved.inlier_count >= min_inliers:
                return inverse(solved.model), associations.select(solved.inliers)
        if self._lines is None or lines is None or len(associations) + len(lines.associations) < min_inliers:
            return None
        found = self._lines.solve(frame, associations, lines, max_error_px=max_error_px, seed=self._seed)
        return None if found is None else (found[0], associations.select(found[1]))

    def _look_for_lines(
        self, frame: ObservedFrame, T_world_cam: Array, landmark_ids: NDArray[np.int64], radius_px: float
    ) -> SeenLines | None:
        if self._lines is None:
            return None
        return self._lines.look(frame, T_world_cam, landmark_ids, radius_px=radius_px)

    def _pixel_shift(self, landmark_ids: NDArray[np.int64], pixels: Array, T_world_cam: Array) -> float:
        """How far landmarks that were projected to ``pixels`` (M, 2) move in the image with a new pose: the median."""
        points = transform_points(inverse(T_world_cam), self._map.landmarks.positions[landmark_ids])
        if not len(points):
            return np.inf
        return float(np.median(np.linalg.norm(self._camera.project(points) - pixels, axis=1)))

    def refine(
        self,
        frame: ObservedFrame,
        associations: Associations,
        T_world_cam: Array,
        prior: PosePrior | None = None,
        lines: SeenLines | None = None,
    ) -> PoseEstimate:
        """The pose that associations, and lines, agree on best, from ``T_world_cam`` (4, 4) on."""
        ids, keypoints = associations.landmark_ids, associations.keypoint_indices
        pixel_sigma, depth_sigma = predicted_sigmas(
            self._map.landmarks,
            ids,
            T_world_cam,
            self._camera,
            frame.depth_sigma[keypoints],
            pixel_sigma=self._map.pixel_sigma,
        )
        observations = PoseObservations(
            points_world=self._map.landmarks.positions[ids],
            keypoints=frame.keypoints[keypoints],
            pixel_sigma=pixel_sigma,
            depth=frame.depth[keypoints],
            depth_sigma=depth_sigma,
            weights=frame.weights[keypoints] * associations.similarity,
        )
        refined = refine_pose(
            inverse(T_world_cam),
            observations,
            self._camera,
            prior=prior,
            lines=None if lines is None else lines.observations,
        )
        return PoseEstimate(
            T_world_cam=inverse(refined.T_cam_world),
            associations=associations,
            inliers=refined.inliers,
            lines=None if lines is None else lines.judged(refined.line_inliers),
        )
