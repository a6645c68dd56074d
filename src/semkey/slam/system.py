"""The algorithm: one frame after the other is located in a map, which grows."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from semkey.datasets import Frame
from semkey.datasets.sequence import Sensor
from semkey.errors import ConfigError, InputError
from semkey.extractors import Extractor, as_detector
from semkey.extractors.points import extract_masked
from semkey.geometry.camera import PinholeCamera
from semkey.metrics.trajectory import Trajectory
from semkey.slam.config import SlamConfig, image_scale
from semkey.slam.frames.depth import is_constant
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.frames.given import given_frame
from semkey.slam.frames.segments import SegmentExtractor
from semkey.slam.frames.sensing import make_sensor
from semkey.slam.loops.closing import LoopCloser
from semkey.slam.loops.place_recognition import PlaceRecognition
from semkey.slam.map.keyframe import Keyframe
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.mapping.local_mapping import LocalMapping
from semkey.slam.records import FrameRecord, FrameStatus, KeyframePose, LoopRecord, TrackedFrame
from semkey.slam.result import SlamResult
from semkey.slam.timing import StageTimer
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


class Slam:
    """Tracks a camera frame by frame, from anybody's own loop, and maps what it sees.

        with Slam(PinholeCamera(fx=525, fy=525, cx=319.5, cy=239.5, width=640, height=480), "nano") as slam:
            for timestamp, image, depth in camera:
                frame = slam.track(image, depth, timestamp=timestamp)
                print(frame.status, frame.T_world_cam)
            slam.save("room.semkey")

    Bundle adjustment runs in a process of its own, which :meth:`close` or the end of the ``with`` block ends. The same
    frames give the same poses as with :func:`semkey.slam.run_slam`, which also reads ahead, reports and saves.

    Args:
        camera: of the images, without lens distortion (rectified, for a stereo pair).
        detector: features of each image: an extractor, or the name of one, as in ``semkey.load``.
        sensor: ``rgbd`` (every frame has depth), ``stereo`` (a right image) or ``mono``, whose map has no absolute
            scale: a unit is the median depth of the first landmarks.
        baseline: metres between the cameras of a stereo pair.
        config: settings; None for the defaults.
        result: a run to go on with: its frames, its map, in which the camera is found first if there are no frames,
            and its settings instead of ``config``. Both grow here.
        realtime: take over what is computed in the background as soon as it is there; runs do not repeat then.
        localize_only: find the camera in the map of ``result``, which stays as it is: no keyframes, no new submaps.

    Attributes:
        result: the run so far.

    Raises:
        ConfigError: an unknown detector or sensor, a stereo pair without baseline, or nothing to localise in.

    Example:
        >>> import semkey
        >>> room = semkey.open_sequence("room")
        >>> with semkey.Slam(room.camera, "orb") as slam:
        ...     poses = [slam.track(f.image, f.depth, timestamp=f.timestamp).T_world_cam for f in list(room)[:4]]
        >>> len(slam.trajectory()), len(slam.keyframes()) >= 1, len(slam.points()) > 100
        (4, True, True)
    """

    def __init__(
        self,
        camera: PinholeCamera,
        detector: Extractor | str | Path,
        sensor: Sensor = "rgbd",
        baseline: float | None = None,
        config: SlamConfig | None = None,
        *,
        result: SlamResult | None = None,
        realtime: bool = False,
        localize_only: bool = False,
    ) -> None:
        if not isinstance(camera, PinholeCamera):
            raise ConfigError(f"the camera is a {type(camera).__name__}: pass a PinholeCamera")
        extractor = as_detector(detector)
        self.result = result or SlamResult(
            sequence_name="camera",
            sequence_format="frames",
            features=feature_name(extractor),
            camera=camera,
            config=config or SlamConfig(),
            sensor=sensor,
        )
        config = self.result.config
        if config.lines.enabled and not isinstance(extractor, SegmentExtractor):
            extractor = SegmentExtractor(extractor, config.lines)
        self._camera, self._extractor = camera, extractor
        self._sensor = make_sensor(sensor, camera, config, baseline=baseline)
        if self.result.slam_map is None:
            pixel_sigma = config.tracking.pixel_sigma * image_scale(camera)
            self.result.slam_map = SlamMap(camera, config.map, pixel_sigma=pixel_sigma)
        self._map = self.result.slam_map
        if localize_only and not self._map.keyframes:
            raise ConfigError("there is no map to localise in: load one")
        self._map.is_fixed = localize_only
        self._timer = StageTimer(self.result.stage_seconds, self.result.stage_samples)
        with_scale = not self._sensor.is_metric
        self._places = PlaceRecognition(
            self._map,
            config.loops,
            ransac_error_px=config.tracking.ransac_error_px,
            with_scale=with_scale,
            seed=config.seed,
        )
        self._loops = LoopCloser(self._map, config.loops, with_scale=with_scale)
        self._adjusted_after_loops = config.loops.adjusted_keyframes
        self._tracker = Tracker(self._map, self._places, config, self._sensor, self._timer)
        self._tracker.resume(self.result.frames)
        self._mapping = LocalMapping(
            self._map,
            self._sensor.map_config,
            self._timer,
            realtime=realtime,
            triangulation=config.mono if self._sensor.triangulates else None,
            distortion_sigma=self._sensor.distortion_sigma,
        )
        self._starter = make_starter(self._map, self._mapping, config, self._sensor, self._timer)
        self._is_open = True
        self._doubted_frame = -2

    # -- one frame -----------------------------------------------------------------------------------------------

    def track(
        self,
        image: str | Path | NDArray[np.uint8],
        depth: NDArray[np.floating] | None = None,
        *,
        timestamp: float,
        right: str | Path | NDArray[np.uint8] | None = None,
        mask: NDArray[np.uint8] | None = None,
    ) -> TrackedFrame:
        """Locate the camera by the next frame, and map what it shows.

        Args:
            image: (H, W, 3) uint8 RGB, (H, W) grey, or a path.
            depth: (H, W) float metres along the optical axis, 0 or NaN where unknown; for ``rgbd``, and only for it.
            timestamp: seconds, after that of the frame before.
            right: the right image; for ``stereo``, and only for it.
            mask: (H, W) uint8 or bool, 0 for pixels to ignore: no keypoint, landmark or line comes from there.

        Raises:
            InputError: an image is missing, superfluous, or of another type or size; a timestamp that is negative, not
                a number, or not after the last one. Nothing has changed then, and the next frame can be given.
        """
        if not self._is_open:
            raise InputError("this Slam is closed: make a new one, or load its map with Slam.load")
        frames = self.result.frames
        frame = given_frame(
            frames[-1].index + 1 if frames else 0,
            timestamp,
            image,
            depth,
            right,
            mask,
            camera=self._camera,
            sensor=self._sensor,
            after=frames[-1].timestamp if frames else -np.inf,
        )
        tracked = self.track_observed(self.observe(frame))
        self._timer.end_frame()
        return tracked

    def observe(self, frame: Frame, timer: StageTimer | None = None) -> ObservedFrame:
        """The features of a frame with their depth; needs nothing of other frames, so that it may run ahead.

        Args:
            frame: images as :meth:`track` takes them, checked.
            timer: where the time is added up; None for that of the run.
        """
        timer = timer or self._timer
        with timer.stage("extract"):
            features = extract_masked(self._extractor, frame.image, frame.mask)
        with timer.stage("depth"):
            return self._sensor.observe(frame, features)

    def track_observed(self, frame: ObservedFrame) -> TrackedFrame:
        """The pipeline: predict, locate, decide on a keyframe, map, adjust, close loops.

        What :meth:`track` does with a frame once it is observed.
        """
        tracker, mapping = self._tracker, self._mapping
        if not self._map.keyframes:
            return self._start(frame, np.eye(4), tracker.submap)
        mapping.before_frame()
        tracker.follow_map()

        prediction = tracker.predict(frame.timestamp)
        location = tracker.locate(frame, prediction)
        if location is None:
            if is_constant(frame.depth):
                self._doubt_depth(frame.index, "is the same everywhere, and what the image shows contradicts that")
            return self._lose(frame)
        self._starter.reset()
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
        if not self._map.is_fixed and tracker.wants_keyframe(frame, location):
            mapping.before_keyframe()
            pose = tracker.place_again(frame, location)
            parent = tracker.last_reference
            keyframe = mapping.add_keyframe(frame, pose, location.found, submap=location.submap, parent=parent)
            tracker.take_keyframe(keyframe, location)
            mapping.after_keyframe(keyframe.id)
        tracker.advance(frame, location, keyframe)
        if keyframe is not None:
            loop = self._close_loop(keyframe)
        return self._return_located(frame, location, keyframe, loop)

    def skip(self, index: int, timestamp: float) -> TrackedFrame:
        """Take in that a frame could not be read; the camera is taken to have moved on as before."""
        return self._return_without_pose(lost_record(index, timestamp, self._tracker.submap, keypoints=None))

    # -- what is known -------------------------------------------------------------------------------------------

    @property
    def slam_map(self) -> SlamMap:
        """The map; to look at, not to change."""
        return self._map

    @property
    def timer(self) -> StageTimer:
        """Where the wall time of every stage is added up."""
        return self._timer

    def trajectory(self) -> Trajectory:
        """The poses of all tracked frames, after all corrections of the map."""
        return self.result.trajectory()

    def points(self) -> Array:
        """The landmarks of the map (N, 3) in the world, metres (map units for ``mono``)."""
        if not self._map.keyframes:
            return np.zeros((0, 3))
        return self._map.landmarks.positions[self._map.landmarks.ids]

    def keyframes(self) -> list[KeyframePose]:
        """The frames that the map keeps, in order of time."""
        return [
            KeyframePose(
                id=keyframe.id,
                index=keyframe.frame.index,
                timestamp=keyframe.frame.timestamp,
                T_world_cam=keyframe.T_world_cam.copy(),
                landmarks=len(keyframe.observed),
                submap=keyframe.submap,
            )
            for keyframe in self._map.keyframes.values()
        ]

    # -- beginning and end ---------------------------------------------------------------------------------------

    @classmethod
    def load(
        cls,
        path: str | Path,
        detector: Extractor | str | Path,
        *,
        baseline: float | None = None,
        config: SlamConfig | None = None,
    ) -> Self:
        """Go on in a map that was saved: the camera is found in it first, then the map grows.

        Frames and their times begin anew; :meth:`trajectory` has the new frames only, in the world of the map.

        Args:
            path: a map file, of :meth:`save` or ``semkey slam --save-map``.
            detector: as in :class:`Slam`; the features must be those of the map.
            baseline: metres between the cameras of a stereo pair.
            config: settings; None for those of the map.

        Raises:
            InputError: missing, no map, of a newer version, or damaged.
            ConfigError: other features than the map's, or a stereo map without baseline.
        """
        from semkey.slam.output.session import check_features, load_session

        session = load_session(path)
        extractor = as_detector(detector)
        check_features(session, path, feature_name(extractor), feature_settings(extractor))
        old = session.result
        result = SlamResult(
            sequence_name=old.sequence_name,
            sequence_format=old.sequence_format,
            features=old.features,
            camera=old.camera,
            config=config or old.config,
            sensor=old.sensor,
            slam_map=session.slam_map,
        )
        return cls(old.camera, extractor, old.sensor, baseline, result=result)

    def save(self, path: str | Path) -> None:
        """Write the map with the frames so far, for :meth:`load`, ``semkey localize`` and ``semkey slam --load-map``.

        Raises:
            InputError: there is no map yet, or the file cannot be written; one that was there stays as it was.
        """
        from semkey.slam.output.session import Session, save_session

        save_session(path, Session(result=self.result, feature_settings=feature_settings(self._extractor)))

    def finish(self) -> None:
        """Adjust the whole map once more, as :func:`semkey.slam.run_slam` does at its end; takes up to seconds."""
        if not self._map.is_fixed:
            self._mapping.finish()

    def close(self) -> None:
        """End the process for bundle adjustment; what is known stays, and no frame can be tracked any more."""
        self._is_open = False
        self._mapping.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- parts of the pipeline -----------------------------------------------------------------------------------

    def _doubt_depth(self, index: int, what: str) -> None:
        """Say what is wrong with the depth of a frame, once for frames in a row."""
        if index != self._doubted_frame + 1:
            self.result.problems.append(f"frame {index}: its depth {what}")
        self._doubted_frame = index

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
            T_keyframe_cam = self._map.relative_pose(keyframe.id, keyframe.T_world_cam)
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


def feature_name(extractor: Extractor) -> str:
    """What files call the features of an extractor."""
    return str(getattr(extractor, "name", type(extractor).__name__))


def feature_settings(extractor: Extractor) -> dict[str, Any]:
    """Everything that the features depend on, as far as the extractor states it."""
    return dict(getattr(extractor, "settings", {}))
