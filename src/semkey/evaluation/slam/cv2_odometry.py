"""OpenCV's RGB-D odometry (``cv2.Odometry``), frame to frame and without features: what a tracker must be better than.

It minimises photometric and geometric differences of whole images (Steinbruecker et al. 2011, Park et al. 2017), has
no map, and never comes back to a place: its error is pure drift.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.datasets import BrokenFrame, Frame, FrameSequence
from semkey.errors import ConfigError, DatasetError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import compose

NAME = "cv2-odometry"

# OpenCV gives up beyond these; its defaults of 0.15 m and 15 degrees are meant for 30 frames per second.
_MAX_TRANSLATION_M = 0.5
_MAX_ROTATION_DEG = 30.0
_MAX_DEPTH_M = 8.0
# After so many failures in a row the camera is taken to have stood still meanwhile, or nothing would ever fit again.
_PATIENCE = 5


@dataclass(kw_only=True)
class OdometryRun:
    """What came out of it.

    Attributes:
        timestamps: seconds, of every frame.
        poses: T_world_cam (4, 4) of every frame, None where the motion was not found or the frame cannot be read.
        seconds: wall time.
        stage_seconds: wall time by stage.
    """

    timestamps: list[float] = field(default_factory=list)
    poses: list[NDArray[np.float64] | None] = field(default_factory=list)
    seconds: float = 0.0
    stage_seconds: dict[str, float] = field(default_factory=lambda: {"read": 0.0, "prepare": 0.0, "align": 0.0})


def run_cv2_odometry(
    sequence: FrameSequence, indices: Sequence[int] | None = None, progress: Callable[[int], None] | None = None
) -> OdometryRun:
    """Chain the motions between consecutive frames.

    Args:
        sequence: with depth and a camera.
        indices: which frames; None for all.
        progress: called with the index of every frame when it is done.

    Raises:
        DatasetError: the sequence has no depth.
        ConfigError: it has no camera.
    """
    if not sequence.has_depth:
        raise DatasetError(f"{sequence.name}: no depth in this input; {NAME} needs RGB-D")
    if sequence.camera is None:
        raise ConfigError(f"{sequence.name}: the camera is not known; pass --camera fx,fy,cx,cy")
    odometry = cv2.Odometry(cv2.OdometryType_RGB_DEPTH, _settings(sequence.camera), cv2.OdometryAlgoType_COMMON)
    run = OdometryRun()
    pose = np.eye(4)
    reference: cv2.OdometryFrame | None = None
    failures = 0
    start = time.perf_counter()
    for index in range(len(sequence)) if indices is None else indices:
        began = time.perf_counter()
        frame = sequence.read(index)
        read = time.perf_counter()
        run.stage_seconds["read"] += read - began
        run.timestamps.append(frame.timestamp)
        if isinstance(frame, BrokenFrame):
            run.poses.append(None)
            continue
        current = _prepare(odometry, frame)
        prepared = time.perf_counter()
        run.stage_seconds["prepare"] += prepared - read
        motion = np.eye(4) if reference is None else _align(odometry, current, reference)
        run.stage_seconds["align"] += time.perf_counter() - prepared
        failures = 0 if motion is not None else failures + 1
        if motion is not None:
            pose = compose(pose, motion)
            run.poses.append(pose)
        else:
            run.poses.append(None)
        if motion is not None or failures >= _PATIENCE:
            reference = current
        if progress is not None:
            progress(index)
    run.seconds = time.perf_counter() - start
    return run


def _settings(camera: PinholeCamera) -> cv2.OdometrySettings:
    settings = cv2.OdometrySettings()
    matrix = [[camera.fx, 0, camera.cx], [0, camera.fy, camera.cy], [0, 0, 1]]
    settings.setCameraMatrix(np.array(matrix, dtype=np.float32))
    settings.setMaxDepth(_MAX_DEPTH_M)
    settings.setMaxTranslation(_MAX_TRANSLATION_M)
    settings.setMaxRotation(_MAX_ROTATION_DEG)
    return settings


def _prepare(odometry: cv2.Odometry, frame: Frame) -> cv2.OdometryFrame:
    if frame.depth is None:
        raise DatasetError(f"frame {frame.index} has no depth; {NAME} needs RGB-D")
    # NaN is what OpenCV takes for no depth.
    depth = np.where(np.isfinite(frame.depth) & (frame.depth > 0), frame.depth, np.float32(np.nan))
    prepared = cv2.OdometryFrame(depth, cv2.cvtColor(frame.image, cv2.COLOR_RGB2GRAY))
    odometry.prepareFrame(prepared)
    return prepared


def _align(
    odometry: cv2.Odometry, current: cv2.OdometryFrame, reference: cv2.OdometryFrame
) -> NDArray[np.float64] | None:
    """T_reference_current (4, 4), None where it was not found."""
    try:
        found, motion = odometry.compute(current, reference)
    except cv2.error:  # an image without gradients or depth
        return None
    return np.asarray(motion, dtype=np.float64) if found and np.isfinite(motion).all() else None
