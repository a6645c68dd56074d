"""Small pictures of what the camera saw where tracking was lost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semkey.slam.events import FrameEvent, SlamListener

_WIDTH = 240
_MAX_EVENTS = 12


@dataclass(frozen=True, kw_only=True, eq=False)
class LostPicture:
    """One frame around a loss.

    Attributes:
        first_lost: index of the first frame of the loss that it belongs to.
        index: of the frame.
        role: what it is, such as ``last tracked``.
        keypoints: how many were found in it.
        image: (H, W, 3) uint8 RGB, reduced; None where the frame could not be read.
    """

    first_lost: int
    index: int
    role: str
    keypoints: int
    image: NDArray[np.uint8] | None


class LostFramePictures(SlamListener):
    """Keeps the last tracked, the first and the last lost frame of every loss, of the first twelve losses.

    Attributes:
        pictures: in order of time.
    """

    def __init__(self) -> None:
        self.pictures: list[LostPicture] = []
        self._before: LostPicture | None = None
        self._latest: LostPicture | None = None
        self._first_lost: int | None = None
        self._events = 0

    def on_frame(self, event: FrameEvent) -> None:
        """See :class:`SlamListener`."""
        record = event.record
        if record.T_world_cam is not None:
            self._end_loss()
            self._before = self._picture(event, record.index, "last tracked")
            return
        if self._first_lost is None:
            self._first_lost = record.index
            self._events += 1
            if self._events <= _MAX_EVENTS:
                if self._before is not None:
                    before = self._before
                    self.pictures.append(
                        LostPicture(
                            first_lost=record.index,
                            index=before.index,
                            role=before.role,
                            keypoints=before.keypoints,
                            image=before.image,
                        )
                    )
                self.pictures.append(self._picture(event, record.index, "first lost"))
        elif self._events <= _MAX_EVENTS:
            self._latest = self._picture(event, self._first_lost, "last lost")

    def on_end(self, result: object, slam_map: object) -> None:
        """See :class:`SlamListener`."""
        self._end_loss()

    def _end_loss(self) -> None:
        if self._latest is not None:
            self.pictures.append(self._latest)
        self._latest, self._first_lost = None, None

    def _picture(self, event: FrameEvent, first_lost: int, role: str) -> LostPicture:
        import cv2

        image = None
        if event.frame is not None:
            height, width = event.frame.image.shape[:2]
            size = (_WIDTH, max(1, round(height * _WIDTH / width)))
            # Every frame is reduced, since any may be the last tracked one: the quickest way will do.
            image = np.asarray(cv2.resize(event.frame.image, size, interpolation=cv2.INTER_LINEAR), dtype=np.uint8)
        return LostPicture(
            first_lost=first_lost, index=event.record.index, role=role, keypoints=event.record.keypoints, image=image
        )
