"""A webcam, read by OpenCV; no depth, no calibration. Time is that of a monotonic clock."""

from __future__ import annotations

import time

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.datasets.live.camera import LiveImages
from semkey.datasets.readers.video import quiet_opencv
from semkey.errors import DatasetError


class Webcam:
    """A :class:`semkey.datasets.live.camera.LiveCamera` over OpenCV's capture.

    Args:
        index: number of the camera, 0 for the first.

    Raises:
        DatasetError: there is no such camera, or it gives no image.
    """

    kind = "webcam"
    lens = None
    has_depth = False

    def __init__(self, index: int) -> None:
        self.name = f"webcam-{index}"
        with quiet_opencv():
            self._capture = cv2.VideoCapture(index)
        first = self._read() if self._capture.isOpened() else None
        if first is None:
            self._capture.release()
            raise DatasetError(f"webcam {index}: gives no image; is it connected, allowed and not used by others?")
        # A short queue: what is read should be what the camera sees now.
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self.size = (first.shape[1], first.shape[0])
        self._first: NDArray[np.uint8] | None = first

    def grab(self) -> LiveImages | None:
        """The next image, None when the camera was unplugged or closed."""
        image, self._first = (self._first, None) if self._first is not None else (self._read(), None)
        return None if image is None else LiveImages(timestamp=time.monotonic(), image=image)

    def close(self) -> None:
        """Give the camera back; there are no more images then."""
        self._capture.release()

    def _read(self) -> NDArray[np.uint8] | None:
        decoded, image = self._capture.read()
        return np.ascontiguousarray(image[:, :, ::-1], dtype=np.uint8) if decoded else None
