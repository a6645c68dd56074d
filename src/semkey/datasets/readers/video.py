"""Video files, decoded by OpenCV; no depth, no poses. Time is that of the container, from the first frame on.

Frames are turned upright as the container's rotation says, and the camera with them.
"""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.calibration import CameraArgument, optics_for
from semkey.datasets.cameras.turning import turned_argument
from semkey.datasets.readers.listing import log_notes, require_file
from semkey.datasets.sequence import Frame, FrameSequence
from semkey.errors import DatasetError
from semkey.images.orientation import ORIENTATION_BY_DEGREES, UPRIGHT, shown_size, turn_upright

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ogv"})

# For files that announce no frame rate, or one that no camera has.
_DEFAULT_FRAMES_PER_SECOND = 30.0
_MAX_FRAMES_PER_SECOND = 1000.0
# Matroska and WebM keep whole milliseconds.
_ROUNDING_S = 1.01e-3


class VideoSequence(FrameSequence):
    """A video file. Reading in order decodes every frame once; going back starts again from the first frame.

    Seeking is avoided on purpose: in files with variable frame rate or open groups of pictures it can give a
    neighbouring frame, and then keypoints would be drawn on another image than they were found on.

    Args:
        path: a file that OpenCV's FFmpeg can decode.
        camera: see :func:`semkey.datasets.open_sequence`; None leaves it unknown.

    Raises:
        DatasetError: the file is missing or empty, is no video or truncated beyond use, or holds no frames.
    """

    def __init__(self, path: Path, camera: CameraArgument | None = None) -> None:
        require_file(path)
        self._path = path
        self._capture = _open_capture(path)
        self._position = 0
        rate = self._capture.get(cv2.CAP_PROP_FPS)
        if not (math.isfinite(rate) and 0 < rate <= _MAX_FRAMES_PER_SECOND):
            logger.warning("%s: no usable frame rate (%s); taken as %g Hz", path, rate, _DEFAULT_FRAMES_PER_SECOND)
            rate = _DEFAULT_FRAMES_PER_SECOND
        degrees = self._capture.get(cv2.CAP_PROP_ORIENTATION_META)
        turn = round(degrees) % 360 if math.isfinite(degrees) else 0
        self._orientation = ORIENTATION_BY_DEGREES.get(turn, UPRIGHT)
        first = self._read(0)
        if first is None:
            raise DatasetError(f"{path}: video holds no frame that can be decoded")
        timestamps, varies = _timestamps(path, rate)
        count = len(timestamps)
        self._image_size = (first.shape[1], first.shape[0])
        # A size turns back as it turns.
        stored = shown_size(self._image_size, self._orientation)
        argument, note = turned_argument(camera, self._orientation, stored)
        self._optics = optics_for(argument, self._image_size)
        notes = [] if note is None else [f"{path}: {note}"]
        if varies:
            steps = np.diff(timestamps) * 1000
            notes.append(f"{path}: frames are {steps.min():.0f} to {steps.max():.0f} ms apart, timed by the container")
        log_notes(notes)
        super().__init__(
            name=path.stem,
            format="video",
            camera=self._optics.camera,
            has_depth=False,
            timestamps=timestamps,
            ground_truth=[None] * count,
            notes=notes,
        )

    def _delivered_mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._optics.delivered_mask(mask)

    def _load(self, index: int) -> Frame:
        image = self._read(index)
        if image is None:
            raise DatasetError(
                f"{self._path}: video cannot be decoded from frame {index} of {len(self)} on; truncated?"
            )
        if (image.shape[1], image.shape[0]) != self._image_size:
            raise DatasetError(f"{self._path}: image size changes at frame {index}")
        if self._optics.left is not None:
            image = self._optics.left(image)
        return Frame(index=index, timestamp=float(self.timestamps[index]), image=image)

    def _read(self, index: int) -> NDArray[np.uint8] | None:
        """Frame ``index`` as RGB, None if the video ends before it."""
        if index < self._position:
            self._capture.release()
            self._capture = _open_capture(self._path)
            self._position = 0
        while self._position < index:
            if not self._capture.grab():
                return None
            self._position += 1
        decoded, image = self._capture.read()
        if not decoded:
            return None
        self._position += 1
        rgb = np.ascontiguousarray(image[:, :, ::-1], dtype=np.uint8)
        return np.asarray(turn_upright(rgb, self._orientation), dtype=np.uint8)


def open_video(path: Path, camera: CameraArgument | None = None, *, strict: bool = False) -> VideoSequence:
    """Open a video file: see :class:`VideoSequence`; there are no listed files that ``strict`` could ask for."""
    del strict
    return VideoSequence(path, camera)


def _timestamps(path: Path, rate: float) -> tuple[NDArray[np.float64], bool]:
    """Seconds of every frame that can be decoded, from the first on, and whether the frame rate varies.

    Stamps of a constant rate are those of the rate: containers round to milliseconds.
    """
    stamps = _packet_seconds(path)
    count = _count_frames(path, len(stamps))
    if count != len(stamps):
        stamps = _decoded_seconds(path)
        count = len(stamps)
    regular = np.arange(count, dtype=np.float64) / rate
    seconds = np.sort(np.asarray(stamps, dtype=np.float64))  # packets come in the order of decoding
    seconds -= seconds[0]
    if not np.isfinite(seconds).all() or (np.diff(seconds) <= 0).any():
        return regular, False
    if np.abs(seconds - regular).max() <= _ROUNDING_S:
        return regular, False
    steps = np.diff(seconds)
    return seconds, bool(steps.max() - steps.min() > _ROUNDING_S * 2)


def _packet_seconds(path: Path) -> list[float]:
    """Presentation times of all packets, without decoding them; empty where OpenCV cannot tell."""
    with quiet_opencv():
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    return _grabbed_seconds(capture)


def _decoded_seconds(path: Path) -> list[float]:
    """Presentation times of all frames that can be decoded; at least one, which was decoded before."""
    return _grabbed_seconds(_open_capture(path)) or [0.0]


def _grabbed_seconds(capture: cv2.VideoCapture) -> list[float]:
    seconds = []
    while capture.grab():
        seconds.append(capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    capture.release()
    return seconds


def _count_frames(path: Path, packets: int) -> int | None:
    """The number of frames: the announced one where there are as many packets and its last frame can be decoded."""
    capture = _open_capture(path)
    try:
        announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if announced == packets and capture.set(cv2.CAP_PROP_POS_FRAMES, announced - 1) and capture.grab():
            return announced
    finally:
        capture.release()
    if announced > packets:
        logger.warning("%s: announces %d frames, %d are there; is the file truncated?", path, announced, packets)
    return None


def _open_capture(path: Path) -> cv2.VideoCapture:
    with quiet_opencv():
        # The back end is named, since others would take the path for a camera or a pattern of image files.
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        capture.release()
        raise DatasetError(f"{path}: not a video that can be decoded (damaged, truncated or of an unknown format)")
    capture.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)  # not every build turns, and the camera has to turn along
    return capture


@contextmanager
def quiet_opencv() -> Generator[None, None, None]:
    """Keep OpenCV and FFmpeg from writing to stderr while a file is tried: the error says what they would."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)
