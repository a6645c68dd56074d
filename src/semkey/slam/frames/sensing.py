"""Kinds of cameras: what each measures of a frame, and what follows from that for the map."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from numbers import Real
from typing import ClassVar, get_args

import numpy as np

from semkey.datasets import Frame, FrameSequence
from semkey.datasets.sequence import Sensor
from semkey.errors import ConfigError, DatasetError
from semkey.geometry.camera import PinholeCamera
from semkey.model.features import Features
from semkey.slam.config import MapConfig, SlamConfig, image_scale
from semkey.slam.frames.covariance import can_be_aligned, covariance_model
from semkey.slam.frames.frame import ObservedFrame, observe_frame, observe_keypoints
from semkey.slam.frames.observed_lines import observe_lines
from semkey.slam.frames.segments import FeaturesWithSegments
from semkey.slam.frames.stereo import stereo_depth, stereo_view


class CameraSensor(ABC):
    """A kind of camera.

    Attributes:
        name: what settings and files call it.
        needs_depth: its frames must come with a depth image.
        needs_right: its frames must come with a right image.
        has_range: it measures within a range in metres only, so that it is moved at the speed of a hand; speeds of the
            others are relative to how far away things are.
        triangulates: keypoints without depth become landmarks by triangulation between keyframes.
        is_metric: its map is in metres; without, the unit of length is chosen at the start, and drifts.

    Args:
        camera: of the (left) images.
        config: settings.
    """

    name: ClassVar[Sensor]
    needs_depth: ClassVar[bool] = False
    needs_right: ClassVar[bool] = False
    has_range: ClassVar[bool] = False
    triangulates: ClassVar[bool] = True
    is_metric: ClassVar[bool] = True

    def __init__(self, camera: PinholeCamera, config: SlamConfig) -> None:
        self._camera = camera
        self._config = config
        self._covariances = covariance_model(config.tracking, image_scale(camera))

    @abstractmethod
    def observe(self, frame: Frame, features: Features) -> ObservedFrame:
        """The arrays that tracking works on, from the images of a frame and the features of its (left) image.

        Raises:
            DatasetError: the frame lacks an image that the sensor needs.
        """

    def _with_image(self, observed: ObservedFrame, frame: Frame) -> ObservedFrame:
        """Take along the image, which keypoints are aligned in."""
        is_needed = can_be_aligned(self._config.tracking, observed.features)
        return observed.with_image(frame.image) if is_needed else observed

    @property
    def baseline(self) -> float | None:
        """Metres between the two cameras of a pair; None for a single one."""
        return None

    @property
    def map_config(self) -> MapConfig:
        """The settings of the map with this sensor."""
        return self._config.map

    @property
    def distortion_sigma(self) -> float:
        """Of the radial distortion that the adjustment at the end looks for; 0 trusts the calibration."""
        return 0.0


class RgbdSensor(CameraSensor):
    """A camera with a depth image for every frame."""

    name: ClassVar[Sensor] = "rgbd"
    needs_depth = True
    has_range = True
    triangulates = False

    def observe(self, frame: Frame, features: Features) -> ObservedFrame:
        """See :meth:`CameraSensor.observe`."""
        if frame.depth is None:
            raise DatasetError("the frame has no depth image, which RGB-D SLAM needs")
        limits = {"min_depth": self._config.tracking.min_depth, "max_depth": self._config.tracking.max_depth}
        covariances = self._covariances(features, frame.image)
        observed = observe_frame(frame.index, frame.timestamp, features, frame.depth, covariances, **limits)
        if isinstance(features, FeaturesWithSegments):
            lines = observe_lines(features.segments, frame.depth, self._camera, **limits)
            observed = replace(observed, lines=lines)
        return self._with_image(observed, frame)


class StereoSensor(CameraSensor):
    """A rectified pair of cameras.

    Args:
        camera: of both images.
        config: settings.
        baseline: metres between the two cameras.

    Raises:
        ConfigError: the baseline is not known or not positive.
    """

    name: ClassVar[Sensor] = "stereo"
    needs_right = True

    def __init__(self, camera: PinholeCamera, config: SlamConfig, baseline: float | None) -> None:
        super().__init__(camera, config)
        if baseline is None:
            raise ConfigError("a stereo pair needs its baseline, the distance of its cameras in metres")
        if not isinstance(baseline, Real) or not 0 < baseline < np.inf:
            raise ConfigError(f"the baseline of a stereo pair must be positive, got {baseline} m")
        self._baseline = baseline

    def observe(self, frame: Frame, features: Features) -> ObservedFrame:
        """See :meth:`CameraSensor.observe`."""
        if frame.right is None:
            raise DatasetError("the frame has no right image, which stereo SLAM needs")
        keypoints = features.keypoints.cpu().numpy()
        depth, sigma = stereo_depth(
            keypoints, frame.image, frame.right, self._camera, self._baseline, self._config.stereo
        )
        covariances = self._covariances(features, frame.image)
        observed = observe_keypoints(frame.index, frame.timestamp, features, depth, sigma, covariances)
        if can_be_aligned(self._config.tracking, features):
            view = stereo_view(frame.image, frame.right, self._camera, self._baseline, self._config.stereo)
            observed = replace(observed, stereo=view)
        return self._with_image(observed, frame)

    @property
    def baseline(self) -> float:
        """See :class:`CameraSensor`."""
        return self._baseline


class MonoSensor(CameraSensor):
    """A single camera: its map has no absolute scale."""

    name: ClassVar[Sensor] = "mono"
    is_metric = False

    def observe(self, frame: Frame, features: Features) -> ObservedFrame:
        """See :meth:`CameraSensor.observe`."""
        nothing = np.zeros(len(features))
        covariances = self._covariances(features, frame.image)
        observed = observe_keypoints(frame.index, frame.timestamp, features, nothing, nothing, covariances)
        return self._with_image(observed, frame)

    @property
    def map_config(self) -> MapConfig:
        """Without depth, more landmarks and steps have to hold the scale."""
        mono = self._config.mono
        return replace(
            self._config.map,
            adjusted_landmarks=mono.adjusted_landmarks,
            adjustment_iterations=mono.adjustment_iterations,
        )

    @property
    def distortion_sigma(self) -> float:
        """See :class:`semkey.slam.config.MonoConfig`."""
        return self._config.mono.distortion_sigma


def make_sensor(
    name: Sensor, camera: PinholeCamera, config: SlamConfig, *, baseline: float | None = None
) -> CameraSensor:
    """The kind of camera with this name.

    Raises:
        ConfigError: no such kind, or a stereo pair without its baseline.
    """
    if name == "rgbd":
        return RgbdSensor(camera, config)
    if name == "stereo":
        return StereoSensor(camera, config, baseline)
    if name == "mono":
        return MonoSensor(camera, config)
    raise ConfigError(f"unknown sensor '{name}': choose one of {', '.join(get_args(Sensor))}")


def choose_sensor(sequence: FrameSequence, sensor: Sensor | None = None) -> tuple[Sensor, PinholeCamera]:
    """What to track a sequence with, and its camera.

    Args:
        sequence: the input.
        sensor: what is asked for; None takes the best that the input has.

    Raises:
        DatasetError: the input has no depth, or no right images, that ``sensor`` needs.
        ConfigError: its camera is not known, or ``sensor`` is unknown.
    """
    chosen = sequence.sensor if sensor is None else sensor
    if chosen not in get_args(Sensor):
        raise ConfigError(f"unknown sensor '{chosen}': choose one of {', '.join(get_args(Sensor))}")
    if chosen == "rgbd" and not sequence.has_depth:
        raise DatasetError(f"{sequence.name}: no depth in this input (format {sequence.format}), which rgbd needs")
    if chosen == "stereo" and sequence.baseline is None:
        raise DatasetError(f"{sequence.name}: no right images in this input (format {sequence.format}) for stereo")
    if sequence.camera is None:
        raise ConfigError(f"{sequence.name}: the camera is not known; pass --camera fx,fy,cx,cy")
    return chosen, sequence.camera
