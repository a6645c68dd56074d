"""What a frame's sensor says: keypoints with depth from a depth image, from a stereo pair, or without."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import numpy as np

from semkey.datasets import Frame, FrameSequence
from semkey.datasets.sequence import Sensor
from semkey.errors import ConfigError, DatasetError
from semkey.geometry.camera import PinholeCamera
from semkey.model.features import Features
from semkey.slam.config import SlamConfig
from semkey.slam.frames.frame import ObservedFrame, observe_frame, observe_keypoints
from semkey.slam.frames.observed_lines import observe_lines
from semkey.slam.frames.segments import FeaturesWithSegments
from semkey.slam.frames.stereo import stereo_depth

Observe = Callable[[Frame, Features], ObservedFrame]


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


def make_observer(sequence: FrameSequence, sensor: Sensor, config: SlamConfig) -> Observe:
    """What turns a frame of a sequence and its features into the arrays that tracking works on.

    The returned function raises DatasetError for a frame without the depth or right image that the sensor stands for.
    """
    camera, baseline = sequence.camera, sequence.baseline
    limits = {"min_depth": config.tracking.min_depth, "max_depth": config.tracking.max_depth}

    def observe(frame: Frame, features: Features) -> ObservedFrame:
        if sensor == "rgbd":
            if frame.depth is None:
                raise DatasetError(f"{sequence.name}: frame {frame.index} has no depth; RGB-D SLAM needs it")
            observed = observe_frame(frame.index, frame.timestamp, features, frame.depth, **limits)
            if isinstance(features, FeaturesWithSegments) and camera is not None:
                lines = observe_lines(features.segments, frame.depth, camera, **limits)
                observed = replace(observed, lines=lines)
            return observed
        count = len(features)
        if sensor == "mono":
            return observe_keypoints(frame.index, frame.timestamp, features, np.zeros(count), np.zeros(count))
        if frame.right is None or camera is None or baseline is None:
            raise DatasetError(f"{sequence.name}: frame {frame.index} has no right image; stereo SLAM needs it")
        keypoints = features.keypoints.cpu().numpy()
        depth, sigma = stereo_depth(keypoints, frame.image, frame.right, camera, baseline, config.stereo)
        return observe_keypoints(frame.index, frame.timestamp, features, depth, sigma)

    return observe
