"""The state of tracking and what happens to one frame: it is located, kept or not, or the camera is lost."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.sequence import Sensor
from semkey.slam.config import SlamConfig, image_scale
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.loops.closing import LoopCloser
from semkey.slam.loops.submaps import LostClock
from semkey.slam.map.association import Associations
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.mapping.local_mapping import LocalMapping
from semkey.slam.mapping.new_landmarks import triangulate_new_landmarks
from semkey.slam.records import FrameRecord, LoopRecord
from semkey.slam.timing import StageTimer
from semkey.slam.tracking.keyframe_choice import needs_keyframe
from semkey.slam.tracking.lines import LineTracker, SeenLines
from semkey.slam.tracking.locating import FrameLocator, PoseEstimate
from semkey.slam.tracking.mono_start import MonoStarter, begin_submap
from semkey.slam.tracking.motion import ConstantVelocity, Prediction

Array = NDArray[np.float64]

# Newest keyframes whose landmarks are matched together by descriptors alone when guided matching has failed.
_RECENT_KEYFRAMES = 3
# Keyframes of a place whose landmarks are matched together when the camera is lost.
_PLACE_KEYFRAMES = 3
# A guided result with fewer inliers than this share of the last frame's is checked against one by descriptors alone.
_SURE_INLIER_SHARE = 0.6


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
        self._config = config.tracking
        self._timer = timer or StageTimer()
        self._pixel = image_scale(slam_map.camera)
        self._lines = LineTracker(slam_map, config.lines, pixel=self._pixel) if config.lines.enabled else None
        self._locator = FrameLocator(
            slam_map, config.tracking, pixel=self._pixel, seed=config.seed, lines=self._lines, timer=self._timer
        )
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
        is_keyframe = method != "guided" or needs_keyframe(
            self._map, self._config, frame, estimate, reference=reference, peak_inliers=self._peak_inliers
        )
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
            placed = self._locator.by_keyframes(earlier, [first, second], self._config.min_inliers)
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
            return self._locator.refine(frame, left, T_world_cam).T_world_cam

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

    def _record_located(self, frame: ObservedFrame, estimate: PoseEstimate, method: str) -> FrameRecord:
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

    def _locate(self, frame: ObservedFrame) -> tuple[str, PoseEstimate | None]:
        if self._clock.lost_frames == 0:
            prediction = self._predict(frame.timestamp)
            guided = self._locator.by_prediction(frame, prediction, self._last_ids) if prediction is not None else None
            if guided is not None and guided.inlier_count >= _SURE_INLIER_SHARE * self._last_inliers:
                return "guided", guided
            # A weak result may come from a wrong prediction that looked for landmarks in the wrong places.
            recent = [keyframe for keyframe in self._map.keyframes.values() if keyframe.submap == self._submap]
            prior = prediction.as_prior() if prediction is not None else None
            unguided = self._locator.by_keyframes(
                frame, recent[-_RECENT_KEYFRAMES:], self._config.min_inliers, prior=prior
            )
            if unguided is not None and (guided is None or unguided.inlier_count > guided.inlier_count):
                return "keyframe", unguided
            if guided is not None:
                return "guided", guided
        with self._timer.stage("relocalise"):
            places = self._places.places_like(frame)
        for place in places:
            found = self._locator.by_keyframes(frame, place[:_PLACE_KEYFRAMES], self._config.min_relocalisation_inliers)
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
        depth = self._map.landmarks.median_depth(self._last_ids, last_pose)
        return self._motion.predict(timestamp, velocity_change=self._mono.velocity_change * depth)
