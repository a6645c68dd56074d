"""Video files, decoded by OpenCV; no depth, no poses. Time is the frame's number over the frame rate."""

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
from semkey.datasets.readers.listing import require_file
from semkey.datasets.sequence import Frame, FrameSequence
from semkey.errors import DatasetError

logger = logging.getLogger(__name__)

VIDEO_SUFFIXES = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ogv"})

# For files that announce no frame rate, or one that no camera has.
_DEFAULT_FRAMES_PER_SECOND = 30.0
_MAX_FRAMES_PER_SECOND = 1000.0


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
        first = self._read(0)
        if first is None:
            raise DatasetError(f"{path}: video holds no frame that can be decoded")
        count = _count_frames(path)
        self._image_size = (first.shape[1], first.shape[0])
        self._optics = optics_for(camera, self._image_size)
        super().__init__(
            name=path.stem,
            format="video",
            camera=self._optics.camera,
            has_depth=False,
            timestamps=np.arange(count, dtype=np.float64) / rate,
            ground_truth=[None] * count,
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
        return np.ascontiguousarray(image[:, :, ::-1], dtype=np.uint8)


def open_video(path: Path, camera: CameraArgument | None = None, *, strict: bool = False) -> VideoSequence:
    """Open a video file: see :class:`VideoSequence`; there are no listed files that ``strict`` could ask for."""
    del strict
    return VideoSequence(path, camera)


def _count_frames(path: Path) -> int:
    """The number of frames that can be decoded: the announced one if its last frame is there, else by counting."""
    capture = _open_capture(path)
    try:
        announced = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
        if announced > 0 and capture.set(cv2.CAP_PROP_POS_FRAMES, announced - 1) and capture.grab():
            return announced
    finally:
        capture.release()
    capture = _open_capture(path)
    count = 0
    while capture.grab():
        count += 1
    capture.release()
    logger.warning("%s: announces %d frames, %d can be decoded; is the file truncated?", path, announced, count)
    return count


def _open_capture(path: Path) -> cv2.VideoCapture:
    with quiet_opencv():
        # The back end is named, since others would take the path for a camera or a pattern of image files.
        capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    if not capture.isOpened():
        capture.release()
        raise DatasetError(f"{path}: not a video that can be decoded (damaged, truncated or of an unknown format)")
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
