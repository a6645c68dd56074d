"""The algorithm: one observed frame after the other is located in a map, which grows."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.transforms import inverse, transform_points
from semkey.matching.robust import estimate_relative_pose
from semkey.slam.config import image_scale
from semkey.slam.frames.depth import is_constant
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.frames.sensing import CameraSensor
from semkey.slam.loops.closing import LoopCloser
from semkey.slam.loops.place_recognition import PlaceRecognition
from semkey.slam.map.association import match_keyframe
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.mapping.disparity import DisparityWatch
from semkey.slam.mapping.local_mapping import LocalMapping
from semkey.slam.records import FrameRecord, FrameStatus, LoopRecord, TrackedFrame
from semkey.slam.result import SlamResult
from semkey.slam.timing import StageTimer
from semkey.slam.tracking.newcomers import hides_map
from semkey.slam.tracking.outcomes import (
    kept_record,
    landmarks_of_keypoints,
    located_record,
    lost_record,
    start_record,
)
from semkey.slam.tracking.starting import make_starter
from semkey.slam.tracking.tracker import Location, Tracker

Array = NDArray[np.float64]

# In a frame in which something contradicts the map, only so near to what agrees with it do new landmarks begin.
_UNCONTESTED_PX = 30.0

# A wall that is looked at straight is explained by a motion before a plane nearly as well as by one through space.
_FLAT_ERROR_PX = 3.0
_FLAT_SHARE = 0.86


class SlamEngine:
    """Locates observed frames and maps what they show; :class:`semkey.slam.system.Slam` is what a user sees of it.

    Args:
        result: the run so far, with its map and settings; both grow.
        sensor: the kind of camera.
        timer: where the time per stage is added up.
        realtime: take over what is computed in the background as soon as it is there.
    """

    def __init__(
        self, result: SlamResult, slam_map: SlamMap, sensor: CameraSensor, timer: StageTimer, *, realtime: bool
    ) -> None:
        config = result.config
        self.result = result
        self._map = slam_map
        self._camera = slam_map.camera
        self._timer = timer
        with_scale = not sensor.is_metric
        self._places = PlaceRecognition(
            slam_map,
            config.loops,
            ransac_error_px=config.tracking.ransac_error_px,
            with_scale=with_scale,
            seed=config.seed,
        )
        self._loops = LoopCloser(slam_map, config.loops, with_scale=with_scale)
        self._adjusted_after_loops = config.loops.adjusted_keyframes
        self._tracker = Tracker(slam_map, self._places, config, sensor, timer)
        self._tracker.resume(result.frames)
        self._mapping = LocalMapping(
            slam_map,
            sensor.map_config,
            timer,
            realtime=realtime,
            triangulation=config.mono if sensor.triangulates else None,
            distortion_sigma=sensor.distortion_sigma,
        )
        self._starter = make_starter(slam_map, self._mapping, config, sensor, timer)
        self._disparities: DisparityWatch | None = None
        if sensor.baseline is not None:
            self._disparities = DisparityWatch(slam_map, sensor.baseline, config.stereo)
        self._doubted_frame = -2
        # Whether matches have shown that depth which is the same everywhere is not that of a wall.
        self._is_flatness_refuted = False
        self._has_range = sensor.has_range

    def track(self, frame: ObservedFrame) -> TrackedFrame:
        """The pipeline: predict, locate, decide on a keyframe, map, adjust, close loops."""
        tracker, mapping = self._tracker, self._mapping
        if self._disparities is not None:
            frame = self._disparities.corrected(frame)
        is_flat = is_constant(frame.depth)
        if is_flat and self._is_flatness_refuted:
            self._doubt_depth(frame.index, "is the same everywhere, which the images contradict: it is not used")
            return self._lose(frame.without_depth())
        if not self._map.keyframes:
            return self._start(frame, np.eye(4), tracker.submap)
        mapping.before_frame()
        tracker.follow_map()

        prediction = tracker.predict(frame.timestamp)
        location = tracker.locate(frame, prediction)
        if is_flat and location is not None and self._shows_depth(location):
            self._doubt_depth(frame.index, "is the same everywhere, which the images contradict: it is not used")
            self._is_flatness_refuted, location = True, None
        if location is None:
            return self._lose(frame.without_depth() if self._is_flatness_refuted and is_flat else frame)
        self._starter.reset()
        frame = location.frame
        factor = location.placement.depth_factor
        if factor is not None:
            self._doubt_depth(frame.index, f"is {factor:.2f} times what the map says: it is not used")
            frame = frame.without_depth()
        if location.placement.is_contested:
            # What fills much of the view and contradicts the established landmarks gives no landmarks.
            agreeing = location.placement.inlier_associations.keypoint_indices
            frame = frame.with_depth_near(agreeing, _UNCONTESTED_PX * image_scale(self._camera))

        keyframe: Keyframe | None = None
        loop: LoopRecord | None = None
        is_wanted = not self._map.is_fixed and tracker.wants_keyframe(frame, location)
        if is_wanted and self._has_range:
            # What hides the map moves, or was put there: no landmark begins on it, and it alone asks for no keyframe.
            pixel = image_scale(self._camera)
            hides = hides_map(frame, self._map.landmarks, location.placement, self._camera, pixel=pixel)
            frame = frame.without_depth_at(hides)
            is_wanted = not hides.any() or tracker.wants_keyframe(frame, location)
        if is_wanted:
            mapping.before_keyframe()
            pose = tracker.place_again(frame, location)
            parent = tracker.last_reference
            # Without a range the error of a pose is mostly one of scale, which landmarks share.
            covariance = location.placement.covariance if self._has_range else None
            keyframe = mapping.add_keyframe(
                frame,
                pose,
                location.found,
                submap=location.submap,
                parent=parent,
                covariance=covariance,
            )
            tracker.take_keyframe(keyframe, location)
            mapping.after_keyframe(keyframe.id)
        tracker.advance(frame, location, keyframe)
        if keyframe is not None:
            loop = self._close_loop(keyframe)
            self._calibrate(keyframe)
        return self._return_located(frame, location, keyframe, loop)

    def skip(self, index: int, timestamp: float) -> TrackedFrame:
        """Take in that a frame could not be read; the camera is taken to have moved on as before."""
        return self._return_without_pose(lost_record(index, timestamp, self._tracker.submap, keypoints=None))

    def finish(self) -> None:
        """Adjust the whole map once more."""
        if self._map.is_fixed:
            return
        change = None if self._disparities is None else self._disparities.last_change()
        if change is not None:
            self._correct_disparities(change, self._map.tree.newest)
        self._mapping.finish()

    def close(self) -> None:
        """End the process for bundle adjustment."""
        self._mapping.close()

    # -- parts of the pipeline -----------------------------------------------------------------------------------

    def _doubt_depth(self, index: int, what: str) -> None:
        """Say what is wrong with the depth of a frame, once for frames in a row."""
        if index != self._doubted_frame + 1:
            self.result.problems.append(f"frame {index}: its depth {what}")
        self._doubted_frame = index

    def _shows_depth(self, location: Location) -> bool:
        """Whether matches with the keyframe agree on a motion among things that are not all as far away as is said."""
        frame, reference = location.frame, self._map.keyframes[location.reference]
        matches = match_keyframe(frame, reference, self._map.landmarks)
        landmarks, here = self._map.landmarks.positions[matches.landmark_ids], frame.keypoints[matches.keypoint_indices]
        there = self._camera.project(transform_points(inverse(reference.T_world_cam), landmarks))
        seen = self._camera.project(transform_points(inverse(location.placement.T_world_cam), landmarks))
        largest = _FLAT_ERROR_PX * image_scale(self._camera)
        flat = np.linalg.norm(seen - here, axis=1) <= largest
        moving = estimate_relative_pose(there, here, self._camera, self._camera, max_error_px=largest)
        return bool(np.count_nonzero(flat) < _FLAT_SHARE * moving.inlier_count)

    def _start(self, frame: ObservedFrame, T_world_cam: Array, submap: int) -> TrackedFrame:
        """Begin a submap, if the frame is enough for that."""
        keyframes = self._starter.begin(frame, T_world_cam, submap)
        if not keyframes:
            return self._return_lost(frame)
        tracker, last = self._tracker, keyframes[-1]
        tracker.start(keyframes)
        late = [start_record(keyframe) for keyframe in keyframes[:-1]]
        for earlier in self._starter.between:
            location = tracker.locate_between(earlier, keyframes)
            if location is not None:
                late.append(located_record(earlier, location))
        record, landmark_ids = start_record(last), last.landmark_ids.copy()
        self._mapping.after_keyframe(last.id)
        return self._return(TrackedFrame(record=record, status="tracking", landmark_ids=landmark_ids, late=tuple(late)))

    def _close_loop(self, keyframe: Keyframe) -> LoopRecord | None:
        """See whether a new keyframe shows a place again, and correct the map if it does."""
        with self._timer.stage("loops"):
            match = self._places.find_loop(keyframe)
        if match is None:
            return None
        scale = keyframe.scale
        self._mapping.settle()
        with self._timer.stage("loops"):
            loop = self._loops.correct(match)
        self._tracker.follow_correction(keyframe, keyframe.scale / scale)
        self._mapping.adjust_submap(keyframe.submap, max_keyframes=self._adjusted_after_loops)
        return loop

    def _calibrate(self, keyframe: Keyframe) -> None:
        """See whether all disparities are wrong by the same amount, and correct the map and what follows if so."""
        watch = self._disparities
        if watch is None or self._map.is_fixed:
            return
        with self._timer.stage("map"):
            change = watch.find_change(keyframe)
        if change is not None:
            self._correct_disparities(change, keyframe)
            self._tracker.follow_correction(keyframe, 1.0)
            self._mapping.adjust_submap(keyframe.submap, max_keyframes=self._adjusted_after_loops)

    def _correct_disparities(self, change: float, newest: Keyframe) -> None:
        """Correct the map for a change of the offset that has turned out with a keyframe, and say so."""
        watch = self._disparities
        assert watch is not None
        self._mapping.settle()
        with self._timer.stage("map"):
            watch.apply(change)
        index, offset = newest.frame.index, watch.offset
        config = self.result.config
        self.result.config = replace(config, stereo=replace(config.stereo, disparity_offset=offset))
        what = "small" if offset > 0 else "large"
        self.result.problems.append(
            f"frame {index}: all disparities are {abs(offset):.2f} px too {what}, which the calibration does not say; "
            "corrected from here on, and in the map"
        )

    def _lose(self, frame: ObservedFrame) -> TrackedFrame:
        """Go on without a pose, or with a new submap where the camera was last seen if that lasts too long."""
        self._tracker.lose(frame.timestamp)
        if not self._map.is_fixed and self._tracker.gives_up(frame.timestamp):
            return self._start(frame, self._tracker.last_pose, self._map.next_submap)
        return self._return_lost(frame)

    # -- what is returned for a frame ----------------------------------------------------------------------------

    def _return_located(
        self, frame: ObservedFrame, location: Location, keyframe: Keyframe | None, loop: LoopRecord | None
    ) -> TrackedFrame:
        status: FrameStatus = "relocalised" if location.method == "relocalised" else "tracking"
        if keyframe is None:
            record, landmark_ids = located_record(frame, location), landmarks_of_keypoints(frame, location)
        else:
            T_keyframe_cam = self._map.tree.relative_pose(keyframe.id, keyframe.T_world_cam)
            record, landmark_ids = kept_record(keyframe, location, T_keyframe_cam), keyframe.landmark_ids.copy()
        return self._return(TrackedFrame(record=record, status=status, landmark_ids=landmark_ids, loop=loop))

    def _return_lost(self, frame: ObservedFrame) -> TrackedFrame:
        keypoints = len(frame)
        return self._return_without_pose(
            lost_record(frame.index, frame.timestamp, self._tracker.submap, keypoints=keypoints), keypoints
        )

    def _return_without_pose(self, record: FrameRecord, keypoints: int = 0) -> TrackedFrame:
        status: FrameStatus = "lost" if self._map.keyframes else "initialising"
        landmark_ids = np.full(keypoints, -1, dtype=np.int64)
        return self._return(TrackedFrame(record=record, status=status, landmark_ids=landmark_ids))

    def _return(self, tracked: TrackedFrame) -> TrackedFrame:
        self.result.add(tracked)
        return tracked
