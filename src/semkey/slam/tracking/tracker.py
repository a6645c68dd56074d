"""Where the camera is: what is remembered from frame to frame, and how a frame is looked for in the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semkey.slam.config import SlamConfig, image_scale
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.frames.sensing import CameraSensor
from semkey.slam.loops.place_recognition import PlaceRecognition
from semkey.slam.map.association import Associations
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.places import place_pixels
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.placing.acceptance import accept
from semkey.slam.placing.alignment import align_placement
from semkey.slam.placing.placement import Placement
from semkey.slam.records import FrameRecord
from semkey.slam.solvers.pose import PosePrior
from semkey.slam.timing import StageTimer
from semkey.slam.tracking.keyframe_choice import needs_keyframe
from semkey.slam.tracking.lines import LineTracker, SeenLines
from semkey.slam.tracking.locating import FrameLocator
from semkey.slam.tracking.lost_clock import LostClock
from semkey.slam.tracking.motion import ConstantVelocity, Prediction, Reach

Array = NDArray[np.float64]

# Newest keyframes whose landmarks are matched together by descriptors alone when guided matching has failed.
_RECENT_KEYFRAMES = 3
# Keyframes of a place whose landmarks are matched together when the camera is lost.
_PLACE_KEYFRAMES = 3
# A guided result with fewer inliers than this share of the last frame's is checked against one by descriptors alone.
_SURE_INLIER_SHARE = 0.6


@dataclass(frozen=True, kw_only=True, eq=False)
class Location:
    """Where a frame was taken, and how that was found out.

    Attributes:
        method: ``guided``, ``keyframe`` or ``relocalised``, see :class:`semkey.slam.records.FrameRecord`.
        placement: the pose and what agrees with it.
        found: the landmarks among that.
        reference: the keyframe that sees most of them.
        T_reference_cam: (4, 4) the pose as seen from that keyframe, which stays right when the map moves.
        submap: the submap that the pose belongs to.
        frame: the frame, with its keypoints where alignment has put them.
    """

    method: str
    placement: Placement
    found: Associations
    reference: int
    T_reference_cam: Array
    submap: int
    frame: ObservedFrame


class Tracker:
    """Where the camera is: predicts, locates frames in the map, and remembers what the next frame needs.

    Of the map only the counts of views change, and lines, which come with keyframes.

    Args:
        slam_map: the map.
        places: recognises places when the camera is lost.
        config: settings.
        sensor: the kind of camera.
        timer: where the time per stage is added up.

    Attributes:
        submap: number of the submap that the camera is in.
    """

    def __init__(
        self,
        slam_map: SlamMap,
        places: PlaceRecognition,
        config: SlamConfig,
        sensor: CameraSensor,
        timer: StageTimer | None = None,
    ) -> None:
        self.submap: int = 0
        self._map = slam_map
        self._places = places
        self._config = config.tracking
        self._timer = timer or StageTimer()
        self._sensor = sensor
        self._relocalisation_coverage = config.loops.relocalisation_coverage
        self._velocity_change = config.mono.velocity_change
        pixel = image_scale(slam_map.camera)
        self._lines = LineTracker(slam_map, config.lines, pixel=pixel) if config.lines.enabled else None
        self._locator = FrameLocator(
            slam_map,
            config.tracking,
            pixel=pixel,
            seed=config.seed,
            lines=self._lines,
            timer=self._timer,
            established_first=sensor.has_range,
            has_depth=sensor.is_metric,
        )
        self._motion = ConstantVelocity()
        self._clock = LostClock(config.loops.new_submap_seconds)
        self._peak_inliers = 0
        self._last_inliers = 0
        self._last_ids = np.zeros(0, dtype=np.int64)
        # A keyframe, and the last tracked frame as seen from it.
        self._anchor: tuple[int, Array] | None = None

    @property
    def last_pose(self) -> Array:
        """T_world_cam (4, 4) of the last tracked frame; that of the world's origin before the first."""
        return np.eye(4) if self._motion.last_pose is None else self._motion.last_pose

    @property
    def last_reference(self) -> int:
        """The keyframe that the last tracked frame is placed by; the newest if there is none."""
        return self._map.tree.newest.id if self._anchor is None else self._map.tree.survivor(self._anchor[0])

    # -- a frame, step by step -----------------------------------------------------------------------------------

    def follow_map(self) -> None:
        """Take the last pose along to wherever the map has moved since."""
        if self._anchor is not None:
            self._motion.move(self._map.tree.absolute_pose(*self._anchor))

    def predict(self, timestamp: float) -> Prediction | None:
        """The pose expected at ``timestamp`` seconds; None where the camera is lost, or nothing is known of its motion.

        Without a sensor that has a range, speeds are relative to how far away things are.
        """
        if self._clock.lost_frames:
            return None
        last_pose = self._motion.last_pose
        if self._sensor.has_range or last_pose is None or not len(self._last_ids):
            return self._motion.predict(timestamp)
        depth = self._map.landmarks.median_depth(self._last_ids, last_pose)
        return self._motion.predict(timestamp, velocity_change=self._velocity_change * depth)

    def locate(self, frame: ObservedFrame, prediction: Prediction | None) -> Location | None:
        """Where a frame was taken: near the prediction, by recent keyframes or at a known place; None for nowhere."""
        reach = self._motion.reach(frame.timestamp, has_range=self._sensor.has_range)
        if self._clock.lost_frames == 0:
            location = self._locate_nearby(frame, prediction, reach)
            if location is not None:
                return location
        with self._timer.stage("relocalise"):
            places = self._places.places_like(frame)
        for place in places:
            least = self._config.min_relocalisation_inliers
            within = reach if place[0].submap == self.submap else None
            found = self._locator.by_keyframes(frame, place[:_PLACE_KEYFRAMES], least, reach=within)
            if found is not None and accept(
                found,
                frame,
                self._map.camera,
                min_inliers=least,
                expected=place_pixels(self._map, place, found.T_world_cam, self._map.camera),
                min_coverage=self._relocalisation_coverage,
            ):
                return self._location("relocalised", frame, found)
        return None

    def wants_keyframe(self, frame: ObservedFrame, location: Location) -> bool:
        """Whether a frame should be kept.

        Where prediction failed, the motion is large, and the next frame may see too little of older keyframes.
        """
        return location.method != "guided" or needs_keyframe(
            self._map,
            self._config,
            frame,
            location.placement,
            reference=location.reference,
            peak_inliers=self._peak_inliers,
        )

    def place_again(self, frame: ObservedFrame, location: Location) -> Array:
        """T_world_cam (4, 4) of a frame after the map was adjusted, from where its reference keyframe took it.

        Where the adjustment changed the size of things, as it may without depth, rigid motion is not enough: landmarks
        triangulated from a pose that does not fit the map would carry the misfit on.
        """
        self.follow_map()
        T_world_cam = self._map.tree.absolute_pose(location.reference, location.T_reference_cam)
        left = location.found.select(self._map.landmarks.alive[location.found.landmark_ids])
        if len(left) < self._config.min_inliers:
            return T_world_cam
        return self._locator.refine(frame, left, T_world_cam).T_world_cam

    def take_keyframe(self, keyframe: Keyframe, location: Location) -> None:
        """Look for landmarks of a new keyframe from now on, and keep the lines of its frame, which was located."""
        self._keep_lines(keyframe, location.placement.lines)
        self._peak_inliers = 0
        self._last_inliers = location.placement.inlier_count
        self._remember_landmarks(keyframe)

    def advance(self, frame: ObservedFrame, location: Location, keyframe: Keyframe | None) -> None:
        """Go on from a frame that was located, and perhaps kept."""
        if keyframe is None:
            pose = location.placement.T_world_cam
            self._anchor = (location.reference, location.T_reference_cam)
            self._last_inliers = location.placement.inlier_count
            self._peak_inliers = max(self._peak_inliers, self._last_inliers)
            if len(location.found):  # else the pose came from lines, and what was last seen is still near
                self._last_ids = location.found.landmark_ids
        else:
            pose = keyframe.T_world_cam
            self._anchor = (keyframe.id, self._map.tree.relative_pose(keyframe.id, pose))
        self.submap = location.submap
        self._clock.tracked()
        if location.method == "relocalised":
            self._motion.lose()
        self._motion.update(frame.timestamp, pose)

    def follow_correction(self, keyframe: Keyframe, growth: float) -> None:
        """Go on from the last frame's keyframe after a loop has moved it, and let its surroundings grow."""
        self._motion.move(keyframe.T_world_cam, growth)
        self._anchor = (keyframe.id, self._map.tree.relative_pose(keyframe.id, keyframe.T_world_cam))
        self.submap = keyframe.submap
        self._remember_landmarks(keyframe)

    def lose(self, timestamp: float) -> None:
        """Take in that a frame was not located."""
        self._motion.lose()
        self._clock.lost(timestamp)

    def gives_up(self, timestamp: float) -> bool:
        """Whether a new submap should begin with the frame at ``timestamp`` seconds, the latest of the lost ones."""
        return self._clock.gives_up(timestamp)

    # -- beginnings ----------------------------------------------------------------------------------------------

    def start(self, keyframes: Sequence[Keyframe]) -> None:
        """Go on from the keyframes that a submap begins with, in order of time: one with depth, or two views."""
        if len(keyframes) == 1:
            self._keep_lines(keyframes[0], None)
        self._motion.lose()
        self._locator.begin()
        for keyframe in keyframes:
            self._motion.update(keyframe.frame.timestamp, keyframe.T_world_cam)
        self._anchor = (keyframes[-1].id, np.eye(4))
        self._clock.started(len(keyframes))
        self.submap = keyframes[-1].submap
        self._peak_inliers = self._last_inliers = 0
        self._remember_landmarks(keyframes[-1])

    def locate_between(self, frame: ObservedFrame, keyframes: list[Keyframe]) -> Location | None:
        """Where a frame was taken that came between keyframes which were made later."""
        placed = self._locator.by_keyframes(frame, keyframes, self._config.min_inliers)
        return None if placed is None else self._location("initialised", frame, placed)

    def resume(self, records: Sequence[FrameRecord]) -> None:
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
            pose = self._map.tree.absolute_pose(record.reference_keyframe, record.T_keyframe_cam)
            self._motion.update(record.timestamp, pose)
            self._anchor = (record.reference_keyframe, record.T_keyframe_cam)
            self._last_inliers = self._peak_inliers = record.inliers
            nearest = self._map.keyframes.get(record.reference_keyframe, self._map.tree.newest)
            # Its submap may have been merged into another since the record was made.
            self.submap = nearest.submap
            self._last_ids = nearest.landmark_ids[nearest.observed]
        self._clock.resume(
            lost_frames=len(records) - tracked[-1] - 1 if tracked else 1 + len(records),
            tracked_frames=sum(records[row].submap == self.submap for row in tracked),
        )

    # -- details -------------------------------------------------------------------------------------------------

    def _locate_nearby(
        self, frame: ObservedFrame, prediction: Prediction | None, reach: Reach | None
    ) -> Location | None:
        prior = None if prediction is None else prediction.as_prior()
        placed = None if prediction is None else self._locator.by_prediction(frame, prediction, self._last_ids)
        guided = None if placed is None else self._location("guided", frame, placed, prior)
        agreeing = 0 if guided is None else guided.placement.inlier_count
        is_contested = placed is not None and placed.is_contested
        if guided is not None and (is_contested or agreeing >= _SURE_INLIER_SHARE * self._last_inliers):
            return guided
        # A weak result may come from a wrong prediction that looked for landmarks in the wrong places.
        recent = [keyframe for keyframe in self._map.keyframes.values() if keyframe.submap == self.submap]
        placed = self._locator.by_keyframes(
            frame, recent[-_RECENT_KEYFRAMES:], self._config.min_inliers, prior=prior, reach=reach
        )
        unguided = None if placed is None else self._location("keyframe", frame, placed, prior)
        return unguided if unguided is not None and unguided.placement.inlier_count > agreeing else guided

    def _location(
        self, method: str, frame: ObservedFrame, placement: Placement, prior: PosePrior | None = None
    ) -> Location:
        """Where a frame was taken, with its keypoints aligned to what landmarks first looked like."""
        frame, placement = align_placement(
            self._map, frame, placement, self._map.camera, prior=prior, timer=self._timer
        )
        found = placement.inlier_associations
        reference = self._map.covisibility.nearest_keyframe(found.landmark_ids)
        if reference is None:  # the pose came from lines alone
            reference = self.last_reference
        return Location(
            method=method,
            placement=placement,
            found=found,
            reference=reference,
            T_reference_cam=self._map.tree.relative_pose(reference, placement.T_world_cam),
            submap=self._map.keyframes[reference].submap if method == "relocalised" else self.submap,
            frame=frame,
        )

    def _keep_lines(self, keyframe: Keyframe, seen: SeenLines | None) -> None:
        if self._lines is not None:
            with self._timer.stage("map"):
                self._lines.add_keyframe(keyframe, seen)

    def _remember_landmarks(self, keyframe: Keyframe) -> None:
        if len(keyframe.observed):
            self._last_ids = keyframe.landmark_ids[keyframe.observed]
