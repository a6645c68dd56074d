"""The state of tracking and what happens to one frame: predict, associate, solve, refine, keep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.sequence import Sensor
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, rotation_angle_deg, transform_points
from semkey.matching.robust import estimate_absolute_pose
from semkey.slam.association import Associations, match_by_projection, match_keyframe, merge_associations
from semkey.slam.config import SlamConfig
from semkey.slam.events import LoopRecord
from semkey.slam.fusion import predicted_sigmas
from semkey.slam.keyframe import Keyframe, ObservedFrame
from semkey.slam.line_tracking import LineTracker, SeenLines
from semkey.slam.local_mapping import LocalMapping
from semkey.slam.loop_closing import LoopCloser
from semkey.slam.map import SlamMap
from semkey.slam.mono import MonoStarter, begin_submap
from semkey.slam.motion import ConstantVelocity, Prediction
from semkey.slam.new_landmarks import triangulate_new_landmarks
from semkey.slam.pose import PoseObservations, PosePrior, refine_pose
from semkey.slam.submaps import LostClock
from semkey.slam.timing import StageTimer

Array = NDArray[np.float64]

# The width for which the configuration's pixel values are meant.
_REFERENCE_WIDTH = 640
# After RANSAC the pose is good to a few pixels, and landmarks are looked for once more this close to their projection.
_POLISH_RADIUS_PX = 6.0
# ... at most this often, and not again once the pose moves landmarks by less than this in the image.
_POLISH_ROUNDS = 3
_SETTLED_PX = 0.5
# Newest keyframes whose landmarks are matched together by descriptors alone when guided matching has failed.
_RECENT_KEYFRAMES = 3
# Keyframes of a place whose landmarks are matched together when the camera is lost.
_PLACE_KEYFRAMES = 3
# Cells across and down in which landmarks should be tracked wherever there is something to track.
_COVERAGE_GRID = (8, 6)
# A guided result with fewer inliers than this share of the last frame's is checked against one by descriptors alone.
_SURE_INLIER_SHARE = 0.6
# A predicted pose needs no RANSAC if this share of what was found around it agrees after refinement. Of pairs scattered
# evenly over the search circle a third would.
_CONFIRMED_SHARE = 0.75


@dataclass(frozen=True, kw_only=True)
class FrameRecord:
    """What became of one frame.

    Attributes:
        index: position in the sequence.
        timestamp: seconds.
        T_world_cam: (4, 4) pose as it was known when the frame was done, None where tracking was lost.
        reference_keyframe: id of the keyframe that the frame moves with when the map is corrected, None where lost.
        T_keyframe_cam: (4, 4) pose as seen from that keyframe, for :meth:`semkey.slam.map.SlamMap.absolute_pose`.
        matches: associations that the pose was estimated from.
        inliers: landmarks and lines within the 95 % bound of the refined pose; 0 where lost.
        keypoints: extracted keypoints.
        method: ``start``, ``guided``, ``keyframe`` (descriptors alone against a recent keyframe), ``relocalised``,
            ``initialised`` (placed when a later frame had started a map without depth), ``lost`` or ``unreadable``
            (there was no image).
        is_keyframe: whether the frame was kept.
        submap: which part of the map the pose belongs to, from 0; the motion between submaps is unknown.
    """

    index: int
    timestamp: float
    T_world_cam: Array | None
    reference_keyframe: int | None = None
    T_keyframe_cam: Array | None = None
    matches: int = 0
    inliers: int = 0
    keypoints: int
    method: str
    is_keyframe: bool = False
    submap: int


@dataclass(frozen=True, kw_only=True)
class _Estimate:
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
        return self.associations.select(self.inliers)


def image_scale(camera: PinholeCamera) -> float:
    """By what the configuration's pixel values, which are for images 640 pixels wide, are multiplied."""
    return camera.width / _REFERENCE_WIDTH


class Tracker:
    """Places one frame after the other in the map, and makes keyframes of some.

    Args:
        slam_map: the map, which grows here.
        mapping: what is done with the map around new keyframes.
        config: settings.
        timer: where the time per stage is added up.
        sensor: where depth comes from.
    """

    def __init__(
        self,
        slam_map: SlamMap,
        mapping: LocalMapping,
        config: SlamConfig,
        timer: StageTimer | None = None,
        *,
        sensor: Sensor = "rgbd",
    ) -> None:
        self._map = slam_map
        self._mapping = mapping
        self._camera = slam_map.camera
        self._seed = config.seed
        self._config = config.tracking
        self._timer = timer or StageTimer()
        self._pixel = image_scale(slam_map.camera)
        self._lines = LineTracker(slam_map, config.lines, pixel=self._pixel) if config.lines.enabled else None
        self._motion = ConstantVelocity()
        self._places = LoopCloser(slam_map, config.loops, with_scale=sensor == "mono", seed=config.seed)
        self._adjusted_after_loops = config.loops.adjusted_keyframes
        self._clock = LostClock(config.loops.new_submap_seconds)
        self._loop: LoopRecord | None = None
        self._submap = 0
        self._peak_inliers = 0
        self._last_inliers = 0
        self._last_ids = np.zeros(0, dtype=np.int64)
        self._anchor: tuple[int, Array] | None = None
        self._tracked_landmarks = np.zeros(0, dtype=np.int64)
        self._mono = config.mono
        self._sensor = sensor
        self._starter = MonoStarter(
            slam_map.camera,
            config.mono,
            image_scale=self._pixel,
            pixel_sigma=slam_map.pixel_sigma,
            seed=config.seed,
        )
        self._late_records: list[FrameRecord] = []

    @property
    def loop(self) -> LoopRecord | None:
        """The loop that the last frame closed, or the submaps that it brought together; None for most frames."""
        return self._loop

    @property
    def tracked_landmarks(self) -> NDArray[np.int64]:
        """The landmark (N,) by which each keypoint of the last frame was tracked, -1 for none."""
        return self._tracked_landmarks

    def take_late_records(self) -> list[FrameRecord]:
        """Records of earlier frames that the last frame has made it possible to place; each is handed over once."""
        late, self._late_records = self._late_records, []
        return late

    def follow(self, records: Sequence[FrameRecord]) -> None:
        """Go on behind frames of an earlier part of the run; without any, a map that is there is to be found first.

        Args:
            records: earlier frames, placed in the map that the tracker was given; possibly none.
        """
        if not self._map.keyframes:
            return
        tracked = [row for row, record in enumerate(records) if record.T_world_cam is not None]
        for record in records[tracked[-2:][0] :] if tracked else ():
            if record.reference_keyframe is None or record.T_keyframe_cam is None:
                self._motion.lose()
                continue
            pose = self._map.absolute_pose(record.reference_keyframe, record.T_keyframe_cam)
            self._motion.update(record.timestamp, pose)
            self._anchor = (record.reference_keyframe, record.T_keyframe_cam)
            self._last_inliers = self._peak_inliers = record.inliers
            nearest = self._map.keyframes.get(record.reference_keyframe, self._map.newest)
            # Its submap may have been merged into another since the record was made.
            self._submap = nearest.submap
            self._last_ids = nearest.landmark_ids[nearest.observed]
        self._clock.resume(
            lost_frames=len(records) - tracked[-1] - 1 if tracked else 1 + len(records),
            tracked_frames=sum(records[row].submap == self._submap for row in tracked),
        )

    def track(self, frame: ObservedFrame) -> FrameRecord:
        """Estimate the pose of one frame."""
        self._tracked_landmarks = np.full(len(frame), -1, dtype=np.int64)
        self._loop = None
        if not self._map.keyframes:
            return self._start(frame, np.eye(4))
        self._mapping.before_frame()
        self._follow_map()
        method, estimate = self._locate(frame)
        if estimate is None:
            return self._lose(frame)
        found = estimate.inlier_associations
        self._tracked_landmarks[found.keypoint_indices] = found.landmark_ids
        reference = self._map.nearest_keyframe(found.landmark_ids)
        if reference is None:  # the pose came from lines alone
            reference = self._last_reference()
        if method == "relocalised":
            self._submap = self._map.keyframes[reference].submap
        self._starter.reset()
        self._clock.tracked()
        self._last_inliers = estimate.inlier_count
        if len(found):  # else the pose came from lines, and what was last seen is still near
            self._last_ids = found.landmark_ids
        # Where prediction failed, the motion is large, and the next frame may see too little of older keyframes.
        is_keyframe = method != "guided" or self._needs_keyframe(frame, estimate, reference)
        pose = estimate.T_world_cam
        if is_keyframe:
            T_reference_cam = self._map.relative_pose(reference, pose)
            self._mapping.before_keyframe()
            self._follow_map()
            pose = self._place_again(frame, found, self._map.absolute_pose(reference, T_reference_cam))
            keyframe = self._keep(frame, pose, found, estimate.lines)
            reference, pose = keyframe.id, keyframe.T_world_cam
        else:
            self._peak_inliers = max(self._peak_inliers, estimate.inlier_count)
        if method == "relocalised":
            self._motion.lose()
        self._motion.update(frame.timestamp, pose)
        if is_keyframe:
            pose = self._close_loop(self._map.keyframes[reference])
        self._anchor = (reference, self._map.relative_pose(reference, pose))
        return FrameRecord(
            index=frame.index,
            timestamp=frame.timestamp,
            T_world_cam=pose,
            reference_keyframe=reference,
            T_keyframe_cam=self._anchor[1],
            matches=len(estimate.associations),
            inliers=estimate.inlier_count,
            keypoints=len(frame),
            method=method,
            is_keyframe=is_keyframe,
            submap=self._submap,
        )

    def skip(self, index: int, timestamp: float) -> FrameRecord:
        """The record of a frame that could not be read; the camera is taken to have moved on as before."""
        self._loop = None
        self._tracked_landmarks = np.zeros(0, dtype=np.int64)
        return FrameRecord(
            index=index, timestamp=timestamp, T_world_cam=None, keypoints=0, method="unreadable", submap=self._submap
        )

    def _start(self, frame: ObservedFrame, T_world_cam: Array) -> FrameRecord:
        """Make the frame the first keyframe of a submap, if it has enough keypoints with depth to be tracked by."""
        if self._sensor == "mono":
            return self._start_without_depth(frame, T_world_cam)
        if np.count_nonzero(frame.depth > 0) < self._config.min_relocalisation_inliers:
            return self._record_lost(frame)
        self._mapping.before_keyframe()
        keyframe = self._keep(frame, T_world_cam, None)
        self._motion.lose()
        self._motion.update(frame.timestamp, T_world_cam)
        self._anchor = (keyframe.id, np.eye(4))
        self._clock.started()
        self._last_inliers = 0
        return self._record_start(keyframe)

    def _start_without_depth(self, frame: ObservedFrame, T_world_cam: Array) -> FrameRecord:
        """Begin a submap with two keyframes as soon as an earlier frame and this one tell motion and structure."""
        with self._timer.stage("initialise"):
            start = self._starter.offer(frame)
        if start is None:
            return self._record_lost(frame)
        self._mapping.before_keyframe()
        with self._timer.stage("map"):
            first, second = begin_submap(self._map, start, T_world_cam, self._submap)
        self._motion.lose()
        self._motion.update(first.frame.timestamp, first.T_world_cam)
        self._motion.update(frame.timestamp, second.T_world_cam)
        self._anchor = (second.id, np.eye(4))
        self._clock.started(frames=2)
        self._peak_inliers = 0
        self._last_inliers = 0
        self._last_ids = second.landmark_ids[second.observed]
        self._tracked_landmarks = second.landmark_ids.copy()
        self._late_records = [self._record_start(first)]
        for earlier in start.between:
            placed = self._locate_by_keyframes(earlier, [first, second], self._config.min_inliers)
            if placed is not None:
                self._late_records.append(self._record_located(earlier, placed, "initialised"))
        record = self._record_start(second)
        self._mapping.after_keyframe(second.id)
        return record

    def _keep(
        self, frame: ObservedFrame, T_world_cam: Array, found: Associations | None, lines: SeenLines | None = None
    ) -> Keyframe:
        with self._timer.stage("map"):
            keyframe = self._map.add_keyframe(frame, T_world_cam, found, self._submap)
            if self._sensor != "rgbd":
                triangulate_new_landmarks(self._map, keyframe.id, self._mono, image_scale=self._pixel)
            if found is not None and keyframe.parent is None:
                keyframe.parent = self._last_reference(before=keyframe.id)
            if self._lines is not None:
                self._lines.add_keyframe(keyframe, lines)
        self._peak_inliers = 0
        if len(keyframe.observed):
            self._last_ids = keyframe.landmark_ids[keyframe.observed]
        self._tracked_landmarks = keyframe.landmark_ids.copy()
        self._mapping.after_keyframe(keyframe.id)
        return keyframe

    def _follow_map(self) -> None:
        """Take the last pose along to wherever the map has moved since."""
        if self._anchor is not None:
            self._motion.move(self._map.absolute_pose(*self._anchor))

    def _place_again(self, frame: ObservedFrame, found: Associations, T_world_cam: Array) -> Array:
        """The pose of a new keyframe after its landmarks were moved, from where its reference keyframe took it.

        Where the adjustment changed the size of things, as it may without depth, rigid motion is not enough: landmarks
        triangulated from a pose that does not fit the map would carry the misfit on.
        """
        left = found.select(self._map.landmarks.alive[found.landmark_ids])
        if len(left) < self._config.min_inliers:
            return T_world_cam
        with self._timer.stage("pose"):
            return self._refine(frame, left, T_world_cam, None, None).T_world_cam

    def _last_reference(self, *, before: int | None = None) -> int:
        """The keyframe that the last tracked frame hangs on, or what stands in for it; the newest if there is none."""
        if self._anchor is not None:
            return self._map.survivor(self._anchor[0])
        return next(k for k in reversed(self._map.keyframes) if k != before)

    def _close_loop(self, keyframe: Keyframe) -> Array:
        """See whether a new keyframe shows a place again; its pose, after the correction if there was one."""
        with self._timer.stage("loops"):
            match = self._places.find(keyframe)
        if match is not None:
            scale = keyframe.scale
            self._mapping.settle()
            with self._timer.stage("loops"):
                self._loop = self._places.correct(match)
            self._motion.move(keyframe.T_world_cam, keyframe.scale / scale)
            self._submap = keyframe.submap
            self._last_ids = keyframe.landmark_ids[keyframe.observed]
            self._tracked_landmarks = keyframe.landmark_ids.copy()
            self._mapping.adjust_submap(keyframe.submap, max_keyframes=self._adjusted_after_loops)
        return keyframe.T_world_cam

    def _lose(self, frame: ObservedFrame) -> FrameRecord:
        self._motion.lose()
        self._clock.lost(frame.timestamp)
        last_pose = self._motion.last_pose
        if self._clock.gives_up(frame.timestamp):
            before = self._submap
            self._submap = self._map.next_submap
            record = self._start(frame, np.eye(4) if last_pose is None else last_pose)
            if record.T_world_cam is not None:
                return record
            self._submap = before
        return self._record_lost(frame)

    def _record_start(self, keyframe: Keyframe) -> FrameRecord:
        return FrameRecord(
            index=keyframe.frame.index,
            timestamp=keyframe.frame.timestamp,
            T_world_cam=keyframe.T_world_cam,
            reference_keyframe=keyframe.id,
            T_keyframe_cam=np.eye(4),
            keypoints=len(keyframe.frame),
            method="start",
            is_keyframe=True,
            submap=keyframe.submap,
        )

    def _record_located(self, frame: ObservedFrame, estimate: _Estimate, method: str) -> FrameRecord:
        """Of a frame that does not become a keyframe."""
        reference = self._map.nearest_keyframe(estimate.inlier_associations.landmark_ids)
        assert reference is not None  # every landmark is seen by some keyframe
        return FrameRecord(
            index=frame.index,
            timestamp=frame.timestamp,
            T_world_cam=estimate.T_world_cam,
            reference_keyframe=reference,
            T_keyframe_cam=self._map.relative_pose(reference, estimate.T_world_cam),
            matches=len(estimate.associations),
            inliers=estimate.inlier_count,
            keypoints=len(frame),
            method=method,
            submap=self._submap,
        )

    def _record_lost(self, frame: ObservedFrame) -> FrameRecord:
        return FrameRecord(
            index=frame.index,
            timestamp=frame.timestamp,
            T_world_cam=None,
            keypoints=len(frame),
            method="lost",
            submap=self._submap,
        )

    def _locate(self, frame: ObservedFrame) -> tuple[str, _Estimate | None]:
        if self._clock.lost_frames == 0:
            prediction = self._predict(frame.timestamp)
            guided = self._locate_guided(frame, prediction) if prediction is not None else None
            if guided is not None and guided.inlier_count >= _SURE_INLIER_SHARE * self._last_inliers:
                return "guided", guided
            # A weak result may come from a wrong prediction that looked for landmarks in the wrong places.
            recent = [keyframe for keyframe in self._map.keyframes.values() if keyframe.submap == self._submap]
            prior = prediction.as_prior() if prediction is not None else None
            unguided = self._locate_by_keyframes(
                frame, recent[-_RECENT_KEYFRAMES:], self._config.min_inliers, prior=prior
            )
            if unguided is not None and (guided is None or unguided.inlier_count > guided.inlier_count):
                return "keyframe", unguided
            if guided is not None:
                return "guided", guided
        with self._timer.stage("relocalise"):
            places = self._places.places_like(frame)
        for place in places:
            found = self._locate_by_keyframes(frame, place[:_PLACE_KEYFRAMES], self._config.min_relocalisation_inliers)
            if found is not None and self._places.explains(
                frame, place, found.T_world_cam, found.inlier_associations.keypoint_indices
            ):
                return "relocalised", found
        return "lost", None

    def _predict(self, timestamp: float) -> Prediction | None:
        """The next pose; without a depth camera, which has a range, speeds are relative to how far away things are."""
        last_pose = self._motion.last_pose
        if self._sensor == "rgbd" or last_pose is None or not len(self._last_ids):
            return self._motion.predict(timestamp)
        depth = self._median_depth(self._last_ids, last_pose)
        return self._motion.predict(timestamp, velocity_change=self._mono.velocity_change * depth)

    def _median_depth(self, landmark_ids: NDArray[np.int64], T_world_cam: Array) -> float:
        """Median depth of landmarks (M,), M > 0, as seen from a pose, in map units."""
        points = transform_points(inverse(T_world_cam), self._map.landmarks.positions[landmark_ids])
        return max(float(np.median(points[:, 2])), 1e-6)

    def _locate_guided(self, frame: ObservedFrame, prediction: Prediction) -> _Estimate | None:
        """The pose by landmarks looked for where the prediction sees them; None if it is too vague for that."""
        with self._timer.stage("match"):
            pose = prediction.T_world_cam
            local_ids = self._map.local_landmarks(self._last_ids, pose)
            visible, pixels = self._map.landmarks.visible_from(local_ids, pose, self._camera)
            if len(visible) >= self._config.min_inliers:
                distances = np.linalg.norm(self._map.landmarks.positions[visible] - pose[:3, 3], axis=1)
                distance = float(np.median(distances))
            else:
                distance = 0.0 if self._lines is None else self._lines.typical_distance(pose, self._last_ids)
            if not distance:
                return None
            angle = prediction.rotation_sigma + prediction.translation_sigma / distance
            radius = self._config.search_radius_px * self._pixel + angle * self._camera.fx
            if radius > self._config.max_search_radius_px * self._pixel:
                return None
            associations = match_by_projection(frame, self._map.landmarks, visible, pixels, radius_px=radius)
            lines = self._look_for_lines(frame, pose, self._last_ids, radius)
        return self._solve_and_polish(
            frame, associations, self._config.min_inliers, prior=prediction.as_prior(), lines=lines, guess=pose
        )

    def _locate_by_keyframes(
        self, frame: ObservedFrame, keyframes: list[Keyframe], min_inliers: int, *, prior: PosePrior | None = None
    ) -> _Estimate | None:
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
        guess: Array | None = None,
    ) -> _Estimate | None:
        """A first pose and refinement, then again until it settles: look for local landmarks near their projections.

        The first pose is ``guess`` where nearly all associations agree with what that is refined to, else PnP-RANSAC's.
        """
        with self._timer.stage("pose"):
            estimate = None if guess is None else self._refine_guess(frame, associations, guess, prior, lines)
            if estimate is None:
                solved = self._solve(frame, associations, min_inliers, lines)
                if solved is None:
                    return None
                pose, associations = solved
                estimate = self._refine(frame, associations, pose, prior, lines)
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
                estimate = self._refine(frame, nearby, pose, prior, lines)
            if self._pixel_shift(visible, pixels, estimate.T_world_cam) < _SETTLED_PX * self._pixel:
                break
        if estimate.inlier_count < min_inliers:
            return None
        self._map.count_views(visible, estimate.inlier_associations.landmark_ids)
        if self._lines is not None and estimate.lines is not None:
            self._lines.count_views(estimate.lines)
        return estimate

    def _refine_guess(
        self,
        frame: ObservedFrame,
        associations: Associations,
        guess: Array,
        prior: PosePrior | None,
        lines: SeenLines | None,
    ) -> _Estimate | None:
        """What a pose is refined to, if that explains so many of the associations that no RANSAC would do better."""
        if len(associations) < self._config.min_relocalisation_inliers:
            return None
        estimate = self._refine(frame, associations, guess, prior, lines)
        return estimate if np.mean(estimate.inliers) >= _CONFIRMED_SHARE else None

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

    def _refine(
        self,
        frame: ObservedFrame,
        associations: Associations,
        T_world_cam: Array,
        prior: PosePrior | None,
        lines: SeenLines | None,
    ) -> _Estimate:
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
        return _Estimate(
            T_world_cam=inverse(refined.T_cam_world),
            associations=associations,
            inliers=refined.inliers,
            lines=None if lines is None else lines.judged(refined.line_inliers),
        )

    def _needs_keyframe(self, frame: ObservedFrame, estimate: _Estimate, reference: int) -> bool:
        config, last = self._config, self._map.keyframes[reference]
        if self._peak_inliers and estimate.inlier_count < config.keyframe_tracked_share * self._peak_inliers:
            return True
        tracked = estimate.inlier_associations.keypoint_indices
        if self._uncovered_share(frame, tracked) > config.keyframe_uncovered_share:
            return True
        relative = inverse(last.T_world_cam) @ estimate.T_world_cam
        distance = float(np.linalg.norm(relative[:3, 3]))
        parallax = distance / self._median_depth(estimate.inlier_associations.landmark_ids, estimate.T_world_cam)
        turned = rotation_angle_deg(relative)
        if parallax > config.keyframe_parallax or turned > config.keyframe_rotation_deg:
            return True
        moved = parallax > 0.2 * config.keyframe_parallax or turned > 0.2 * config.keyframe_rotation_deg
        return moved and frame.timestamp - self._map.newest.frame.timestamp > config.keyframe_seconds

    def _uncovered_share(self, frame: ObservedFrame, tracked: NDArray[np.int64]) -> float:
        """Share of the image's cells with usable keypoints, in none of which a landmark is tracked.

        Landmarks in one strip of the image leave a rotation and a translation indistinguishable, however many they are.
        """
        size = np.array([self._camera.width, self._camera.height])
        cells = np.clip((frame.keypoints / size * _COVERAGE_GRID).astype(np.int64), 0, np.array(_COVERAGE_GRID) - 1)
        flat = cells[:, 0] * _COVERAGE_GRID[1] + cells[:, 1]
        usable = np.unique(flat[frame.depth > 0])
        return float(np.isin(usable, flat[tracked], invert=True).mean()) if len(usable) else 0.0
