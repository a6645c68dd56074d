"""What a running camera has to do, whoever made it, and a sequence of its frames."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.calibration import CameraArgument, optics_for
from semkey.datasets.cameras.lens import Calibration, Lens
from semkey.datasets.sequence import EndOfSequence, Frame, FrameSequence
from semkey.errors import DatasetError

#: Upper bound of a live sequence: ten hours at 30 Hz.
MAX_FRAMES = 10 * 3600 * 30
#: What stands before the colon of ``webcam:0``, ``realsense:SERIAL``, ``oak:ID``.
KINDS = ("webcam", "realsense", "oak")
# A stamp so far back is a clock that began anew (counters of 32 bits, a change of the host's clock), no late frame.
_RESTART_S = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class LiveImages:
    """What a camera saw at one moment.

    Attributes:
        timestamp: seconds, on the clock of the camera.
        image: (H, W, 3) uint8 RGB as the sensor sees it, with the lens's distortion.
        depth: (H, W) float32 metres along the optical axis, 0 where unknown, pixel by pixel of ``image``; None where
            the camera has no depth.
    """

    timestamp: float
    image: NDArray[np.uint8]
    depth: NDArray[np.float32] | None = None


class LiveCamera(Protocol):
    """A camera that is running.

    Attributes:
        name: short, for reports.
        kind: one of :data:`KINDS`.
        size: (width, height) of its images, pixels.
        lens: what the device knows about its own lens, None where it knows nothing.
        has_depth: whether its images come with depth.
    """

    name: str
    kind: str
    size: tuple[int, int]
    lens: Lens | None
    has_depth: bool

    def grab(self) -> LiveImages | None:
        """The next images; None where the camera gives no more."""
        ...

    def close(self) -> None:
        """Give the camera back. Can be called twice."""
        ...


class LiveSequence(FrameSequence):
    """The images of a camera, as they come. They can be read in order only; a skipped index drops that many images.

    ``len`` is an upper bound and the timestamp of a frame is NaN until it was read; see ``is_live`` of
    :class:`FrameSequence`. Time counts from the first image. Images that do not come later than the one before are
    left out; a clock that begins anew is carried on by the time that passed here.

    Args:
        source: the camera.
        camera: see :func:`semkey.datasets.open_sequence`; None takes what the device knows.

    Raises:
        DatasetError: it gives no image.
        ConfigError: ``camera`` does not fit the images.
    """

    is_live = True

    def __init__(self, source: LiveCamera, camera: CameraArgument | None = None) -> None:
        self._source = source
        first = source.grab()
        if first is None:
            source.close()
            raise DatasetError(f"{source.name}: gives no image; is it connected, allowed and not used by others?")
        self._next: LiveImages | None = first
        self._position = 0
        self._start, self._last, self._last_here = first.timestamp, -1.0, time.monotonic()
        own = None if source.lens is None else Calibration(left=source.lens)
        try:
            self._optics = optics_for(own if camera is None else camera, source.size)
        except Exception:
            source.close()
            raise
        super().__init__(
            name=source.name,
            format=source.kind,
            camera=self._optics.camera,
            has_depth=source.has_depth,
            timestamps=np.full(MAX_FRAMES, np.nan),
            ground_truth=(),
        )

    def close(self) -> None:
        """Give the camera back; reading ends then."""
        self._source.close()

    def _delivered_mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return self._optics.delivered_mask(mask)

    def _load(self, index: int) -> Frame:
        if index < self._position:
            raise DatasetError(f"{self.name}: frame {index} is gone; a running camera can be read forwards only")
        found = None
        while self._position <= index:
            found = self._grab_later()
            self._position += 1
        assert found is not None
        images, timestamp = found
        self.timestamps[index] = timestamp
        height, width = images.image.shape[:2]
        if (width, height) != self._source.size:
            raise DatasetError(f"{self.name}: image size changes at frame {index}")
        depth = images.depth if self.has_depth else None
        if depth is not None and self._optics.depth is not None:
            depth = self._optics.depth(depth)
        return Frame(
            index=index,
            timestamp=timestamp,
            image=images.image if self._optics.left is None else self._optics.left(images.image),
            depth=depth,
        )

    def _grab_later(self) -> tuple[LiveImages, float]:
        """The next images that are later than the last ones, and their time from the start, seconds."""
        while True:
            images, self._next = (self._next, None) if self._next is not None else (self._source.grab(), None)
            if images is None:
                raise EndOfSequence(f"{self.name}: gives no more images")
            here = time.monotonic()
            timestamp = images.timestamp - self._start
            if timestamp < self._last - _RESTART_S:
                timestamp = self._last + max(here - self._last_here, 1e-3)
                self._start = images.timestamp - timestamp
            if timestamp > self._last:
                self._last, self._last_here = timestamp, here
                return images, timestamp


def live_source(path: Path) -> tuple[str, str] | None:
    """Kind and device that ``0``, ``webcam:0``, ``realsense:SERIAL`` or ``oak:`` stand for; None if this is a path."""
    text = str(path)
    if re.fullmatch(r"\d{1,3}", text):
        return "webcam", text
    kind, colon, device = text.partition(":")
    if not colon or kind not in KINDS or (kind == "webcam" and not re.fullmatch(r"\d{1,3}", device)):
        return None
    return kind, device
