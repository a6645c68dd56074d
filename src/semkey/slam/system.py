"""SLAM as a user sees it: frames go in, poses and a map come out; the algorithm is in ``engine.py``."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from semkey.datasets import Frame
from semkey.datasets.sequence import Sensor
from semkey.errors import ConfigError, InputError, check_type
from semkey.extractors import Extractor, as_detector
from semkey.extractors.points import extract_masked
from semkey.geometry.camera import PinholeCamera
from semkey.metrics.trajectory import Trajectory
from semkey.slam.config import SlamConfig, image_scale
from semkey.slam.engine import SlamEngine
from semkey.slam.frames.frame import ObservedFrame
from semkey.slam.frames.given import given_frame
from semkey.slam.frames.segments import SegmentExtractor
from semkey.slam.frames.sensing import make_sensor
from semkey.slam.map.slam_map import SlamMap
from semkey.slam.records import KeyframePose, TrackedFrame
from semkey.slam.result import SlamResult
from semkey.slam.timing import StageTimer

Array = NDArray[np.float64]


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
        if config is not None:
            check_type(config, SlamConfig, "the config", "pass a semkey.SlamConfig")
        extractor = as_detector(detector)
        self.result: SlamResult = result or SlamResult(
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
        self._engine = SlamEngine(self.result, self._map, self._sensor, self._timer, realtime=realtime)
        self._is_open = True

    def __repr__(self) -> str:
        result, keyframes = self.result, len(self._map.keyframes)
        return f"Slam({result.sensor}, {result.features}: {len(result.frames)} frames, {keyframes} keyframes)"

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
        """What :meth:`track` does with a frame once it is observed: locate, map, adjust, close loops."""
        return self._engine.track(frame)

    def skip(self, index: int, timestamp: float) -> TrackedFrame:
        """Take in that a frame could not be read; the camera is taken to have moved on as before."""
        return self._engine.skip(index, timestamp)

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
        self._engine.finish()

    def close(self) -> None:
        """End the process for bundle adjustment; what is known stays, and no frame can be tracked any more."""
        self._is_open = False
        self._engine.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def feature_name(extractor: Extractor) -> str:
    """What files call the features of an extractor."""
    return str(getattr(extractor, "name", type(extractor).__name__))


def feature_settings(extractor: Extractor) -> dict[str, Any]:
    """Everything that the features depend on, as far as the extractor states it."""
    return dict(getattr(extractor, "settings", {}))
