"""The images of a map's keyframes, which the map does not hold, from the recording that it was made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.sequence import BrokenFrame, Frame, FrameSequence
from semkey.errors import InputError
from semkey.interop.map_part import MapPart
from semkey.slam.frames.depth import sample_depth

# Stamps (seconds) nearer than this are of the same frame: text files give them with 4 to 6 decimals.
_SAME_INSTANT_S = 1e-4
# A keyframe's depths were read from the very same image; where these differ at more keypoints, it is another one.
_SAME_DEPTH = 1e-3
_MOST_DIFFERENT = 0.2
# Keyframes (spread over the map) whose depth is compared.
_CHECKED = 3


@dataclass(frozen=True, kw_only=True, eq=False)
class Recording:
    """Which frame of a recording each keyframe of a map is.

    Attributes:
        sequence: the recording.
        part: the map.
        frames: index in the sequence of each keyframe, in their order; None where no frame has the keyframe's time.
    """

    sequence: FrameSequence
    part: MapPart
    frames: list[int | None]

    @property
    def missing(self) -> int:
        """Keyframes without a frame."""
        return sum(frame is None for frame in self.frames)

    def read(self, number: int) -> Frame | None:
        """The frame of keyframe ``number``, None where there is none or it cannot be read."""
        index = self.frames[number]
        if index is None:
            return None
        frame = self.sequence.read(index)
        return None if isinstance(frame, BrokenFrame) else frame


def open_recording(part: MapPart, sequence: FrameSequence, *, needs_depth: bool = False) -> Recording:
    """Find the keyframes of a map in a recording by their time, and check that it is the recording of the map.

    Args:
        part: the map.
        sequence: the recording; not a running camera.
        needs_depth: whether depth images are needed.

    Raises:
        InputError: the recording has another camera, no depth where it is needed, no frame at the time of any keyframe,
            or other depth than the map at the same time.
    """
    if sequence.is_live:
        raise InputError(
            f"{sequence.name}: a running camera is no recording of the map; give the folder it was made of"
        )
    if sequence.camera is not None and sequence.camera != part.camera:
        raise InputError(f"{sequence.name}: its camera is {sequence.camera}, the map was made with {part.camera}")
    if needs_depth and not sequence.has_depth:
        raise InputError(f"{sequence.name}: has no depth images, which a dense map and an occupancy grid are made of")
    if needs_depth and not part.is_metric:
        raise InputError("the map was made by a single camera and is not in metres, but depth is: track it with depth")
    frames = [_frame_at(sequence.timestamps, keyframe.frame.timestamp) for keyframe in part.keyframes]
    recording = Recording(sequence=sequence, part=part, frames=frames)
    if recording.missing == len(frames):
        first, last = part.keyframes[0].frame.timestamp, part.keyframes[-1].frame.timestamp
        start, end = sequence.timestamps[[0, -1]].tolist() if len(sequence) else (np.nan, np.nan)
        raise InputError(
            f"{sequence.name}: has no frame at the time of any keyframe: the map has {first:.3f} to {last:.3f} s, the "
            f"recording {start:.3f} to {end:.3f} s; give the recording that the map was made of"
        )
    _check_depth(recording)
    return recording


def _frame_at(timestamps: NDArray[np.float64], time: float) -> int | None:
    after = int(np.searchsorted(timestamps, time - _SAME_INSTANT_S))
    return after if after < len(timestamps) and abs(timestamps[after] - time) <= _SAME_INSTANT_S else None


def _check_depth(recording: Recording) -> None:
    """Many recordings count their time from 0: that of another place must not be taken for that of the map.

    Raises:
        InputError: the depth at the keypoints is another one than when the map was made.
    """
    sensor = recording.part.result.sensor
    known = [number for number, index in enumerate(recording.frames) if index is not None]
    if sensor != "rgbd" or not recording.sequence.has_depth:
        return
    for number in known[:: max(len(known) // _CHECKED, 1)][:_CHECKED]:
        frame, stored = recording.read(number), recording.part.keyframes[number].frame
        if frame is None or frame.depth is None:
            continue
        measured = stored.depth > 0
        here = sample_depth(frame.depth, stored.keypoints[measured])
        differs = np.abs(here - stored.depth[measured]) > _SAME_DEPTH * stored.depth[measured]
        if measured.any() and differs.mean() > _MOST_DIFFERENT:
            raise InputError(
                f"{recording.sequence.name}: at {stored.timestamp:.3f} s its depth is not that of the map's keyframe "
                f"({differs.mean():.0%} of the keypoints differ); give the recording that the map was made of"
            )
