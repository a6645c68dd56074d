"""The colours of landmarks, for pictures and exports; tracking does not need them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semkey.slam.events import FrameEvent, SlamListener

_GREY = 128


class LandmarkColors(SlamListener):
    """Takes over the image's colour at each landmark from every keyframe that sees it.

    Args:
        colors: (L, 3) uint8 RGB of the landmarks of a map that is continued.
    """

    def __init__(self, colors: NDArray[np.uint8] | None = None) -> None:
        self._colors = np.empty((0, 3), dtype=np.uint8) if colors is None else colors.copy()

    def on_frame(self, event: FrameEvent) -> None:
        """See :class:`SlamListener`."""
        if not event.record.is_keyframe or event.frame is None or event.observed is None:
            return
        ids = event.landmark_ids
        seen = np.flatnonzero(ids >= 0)
        if not len(seen):
            return
        self._reserve(int(ids[seen].max()) + 1)
        height, width = event.frame.image.shape[:2]
        pixels = np.clip(np.round(event.observed.keypoints[seen]).astype(np.int64), 0, (width - 1, height - 1))
        self._colors[ids[seen]] = event.frame.image[pixels[:, 1], pixels[:, 0]]

    def colors(self, count: int) -> NDArray[np.uint8]:
        """RGB (count, 3) uint8 of the first ``count`` landmark rows; grey where none was seen."""
        self._reserve(count)
        return self._colors[:count]

    def _reserve(self, count: int) -> None:
        if count > len(self._colors):
            grown = np.full((max(count, 2 * len(self._colors), 1024), 3), _GREY, dtype=np.uint8)
            grown[: len(self._colors)] = self._colors
            self._colors = grown
