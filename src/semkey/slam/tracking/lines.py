"""What tracking does with lines: find them, place frames by them, keep them in the map."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.transforms import compose, inverse
from semkey.matching.robust import estimate_absolute_pose_with_lines
from semkey.slam.config import LineConfig
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.frames.observed_lines import ObservedLines
from semkey.slam.map.association import Associations
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.line_association import (
    LineAssociations,
    SeenLines,
    VisibleLines,
    complete_by_triangulation,
    line_observations,
    match_lines,
)
from semkey.slam.map.lines import LineMap
from semkey.slam.map.slam_map import SlamMap

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# Segments without depth are looked for in so many of the keyframes before.
_TRIANGULATED_WITH = 4


class LineTracker:
    """Lines beside the points of a map.

    Args:
        slam_map: its keyframes hold the lines; those that it has are gone on with.
        config: settings of lines.
        pixel: scale factor of pixel values, which are for images 640 pixels wide.

    Attributes:
        lines: the lines of the map.
    """

    def __init__(self, slam_map: SlamMap, config: LineConfig, *, pixel: float) -> None:
        self.lines: LineMap = LineMap(
            slam_map.tree, slam_map.camera, config, pixel_sigma=config.pixel_sigma * pixel, pixel=pixel
        )
        if slam_map.lines is not None:  # of an earlier run, perhaps with other settings
            arrays, made = slam_map.lines.to_arrays(), slam_map.lines.made
            self.lines = LineMap.from_arrays(slam_map.tree, slam_map.camera, config, arrays, made=made)
        self._map = slam_map
        slam_map.lines = self.lines
        self._config = config
        self._pixel_sigma = config.pixel_sigma * pixel

    def find(
        self, frame: ObservedFrame, T_world_cam: Array, landmark_ids: Indices, *, radius_px: float
    ) -> SeenLines | None:
        """The lines of keyframes that see these landmarks, looked for near where the pose sees them.

        None where there are too few to say anything.
        """
        if frame.lines is None or not len(frame.lines) or not len(self.lines):
            return None
        visible = self._visible(T_world_cam, landmark_ids)
        associations = match_lines(frame.lines, visible, self._config, radius_px=radius_px)
        if len(associations) < self._config.min_lines:
            return None
        observations = line_observations(
            frame.lines, visible, associations, T_world_cam, self._map.camera, pixel_sigma=self._pixel_sigma
        )
        return SeenLines(
            observed=frame.lines,
            visible=visible,
            associations=associations,
            observations=observations,
            inliers=np.zeros(len(associations), dtype=bool),
        )

    def solve(
        self, frame: ObservedFrame, associations: Associations, seen: SeenLines, *, max_error_px: float, seed: int
    ) -> tuple[Array, NDArray[np.bool_]] | None:
        """A pose T_world_cam (4, 4) by RANSAC over points and lines together, and which points agree with it.

        None where fewer than half of the lines and the points agree.
        """
        solved, line_inliers = estimate_absolute_pose_with_lines(
            self._map.landmarks.positions[associations.landmark_ids],
            frame.keypoints[associations.keypoint_indices],
            seen.observations.points_world,
            seen.observed.segments.endpoints[seen.associations.segments],
            self._map.camera,
            max_error_px=max_error_px,
            seed=seed,
        )
        support = solved.inlier_count + int(np.count_nonzero(line_inliers))
        if solved.model is None or support < 0.5 * (len(associations) + len(seen.associations)):
            return None
        return inverse(solved.model), solved.inliers

    def typical_distance(self, T_world_cam: Array, landmark_ids: Indices) -> float:
        """Median distance of the lines that a pose should see, metres; 0 where there are too few to track by."""
        visible = self._visible(T_world_cam, landmark_ids)
        if len(visible) < self._config.min_lines:
            return 0.0
        return float(np.median(np.linalg.norm(visible.points_cam, axis=2)))

    def count_views(self, seen: SeenLines) -> None:
        """Keep count of which lines were in view, and which of them were found."""
        self.lines.count_views(seen.visible.rows, seen.visible.rows[seen.associations.lines[seen.inliers]])

    def add_keyframe(self, keyframe: Keyframe, seen: SeenLines | None) -> None:
        """Take the lines of a new keyframe into the map."""
        observed = keyframe.frame.lines
        if observed is None:
            return
        if seen is None:
            visible = self._visible(keyframe.T_world_cam, keyframe.landmark_ids[keyframe.observed])
            nothing = np.zeros(0, dtype=np.int64)
            found = LineAssociations(lines=nothing, segments=nothing, similarity=np.zeros(0))
        else:
            visible, found = seen.visible, seen.associations.select(seen.inliers)
        self.lines.add_keyframe(keyframe.id, self._completed(keyframe, observed, found), visible, found)

    def _completed(self, keyframe: Keyframe, observed: ObservedLines, found: LineAssociations) -> ObservedLines:
        """The segments of a keyframe, those of new lines without depth triangulated with earlier keyframes."""
        spatial = observed.spatial
        # A segment that sees a line of the map already is not placed anew: the line is what two views agreed on.
        withheld = spatial.valid.copy()
        withheld[found.segments] = True
        completed = replace(observed, spatial=replace(spatial, valid=withheld))
        before = [k for k, other in self._map.keyframes.items() if other.submap == keyframe.submap and k != keyframe.id]
        for other in (self._map.keyframes[k] for k in reversed(before[-_TRIANGULATED_WITH:])):
            if completed.spatial.valid.all():
                break
            if other.frame.lines is not None:
                T_other_cam = compose(inverse(other.T_world_cam), keyframe.T_world_cam)
                completed = complete_by_triangulation(
                    completed,
                    other.frame.lines,
                    T_other_cam,
                    self._map.camera,
                    self._config,
                    pixel_sigma=self._pixel_sigma,
                )
        valid = completed.spatial.valid.copy()
        valid[found.segments] = spatial.valid[found.segments]
        return replace(completed, spatial=replace(completed.spatial, valid=valid))

    def _visible(self, T_world_cam: Array, landmark_ids: Indices) -> VisibleLines:
        keyframes, _ = self._map.landmarks.observations.votes(landmark_ids)
        return self.lines.visible_from(T_world_cam, keyframes)
