"""A webcam as a live sequence, read by OpenCV; no depth, no poses. Time is that of a monotonic clock from the start."""

from __future__ import annotations

import re
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.calibration import CameraArgument, optics_for
from semkey.datasets.readers.video import quiet_opencv
from semkey.datasets.sequence import EndOfSequence, Frame, FrameSequence
from semkey.errors import DatasetError

#: Upper bound of a live sequence: ten hours at 30 Hz.
MAX_FRAMES = 10 * 3600 * 30


class WebcamSequence(FrameSequence):
    """The images of a webcam, as they come. They can be read in order only; a skipped index drops that many images.

    ``len`` is an upper bound and the timestamp of a frame is NaN until it was read; see ``is_live`` of
    :class:`FrameSequence`.

    Args:
        index: number of the camera, 0 for the first.
        camera: see :func:`semkey.datasets.open_sequence`; None leaves it unknown.

    Raises:
        DatasetError: there is no such camera, or it gives no image.
    """

    is_live = True

    def __init__(self, index: int, camera: CameraArgument | None = None) -> None:
        with quiet_opencv():
            self._capture = cv2.VideoCapture(index)
        first = self._grab() if self._capture.isOpened() else None
        if first is None:
            self._capture.release()
            raise DatasetError(f"webcam {index}: gives no image; is it connected, allowed and not used by others?")
        # A short queue: what is read should be what the camera sees now.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self._next: NDArray[np.uint8] | None = first
        self._position = 0
        self._start = time.monotonic()
        self._image_size = (first.shape[1], first.shape[0])
        self._optics = optics_for(camera, self._image_size)
        super().__init__(
            name=f"webcam-{index}",
            format="webcam",
            camera=self._optics.camera,
            has_depth=False,
            timestamps=np.full(MAX_FRAMES, np.nan),
            ground_truth=(),
        )

    def close(self) -> None:
        """Give the camera back; reading ends then."""
        self._capture.release()

    def _delivered_mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._optics.delivered_mask(mask)

    def _load(self, index: int) -> Frame:
        if index < self._position:
            raise DatasetError(f"{self.name}: frame {index} is gone; a webcam can be read forwards only")
        image = None
        while self._position <= index:
            image, self._next = (self._next, None) if self._next is not None else (self._grab(), None)
            if image is None:
                raise EndOfSequence(f"{self.name}: gives no more images")
            self._position += 1
        assert image is not None
        self.timestamps[index] = time.monotonic() - self._start
        if (image.shape[1], image.shape[0]) != self._image_size:
            raise DatasetError(f"{self.name}: image size changes at frame {index}")
        return Frame(
            index=index,
            timestamp=float(self.timestamps[index]),
            image=image if self._optics.left is None else self._optics.left(image),
        )

    def _grab(self) -> NDArray[np.uint8] | None:
        decoded, image = self._capture.read()
        return np.ascontiguousarray(image[:, :, ::-1], dtype=np.uint8) if decoded else None


def webcam_index(path: Path) -> int | None:
    """The camera that ``0`` or ``webcam:0`` stands for, None if this is a path."""
    match = re.fullmatch(r"(?:webcam:)?(\d{1,3})", str(path))
    return int(match[1]) if match else None
