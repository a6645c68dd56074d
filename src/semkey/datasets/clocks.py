"""The unit of time stamps: seconds as the layouts say, or milli-, micro- or nanoseconds as recorders write them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from semkey.errors import DatasetError

MIN_STEP_S, MAX_STEP_S = 1e-3, 10.0
"""No camera is faster, and nothing slower can be tracked: frames are typically this far apart."""
# Poses of motion capture, or stamps of a simulation, can be closer.
_MIN_POSE_STEP_S = 1e-4
# Seconds since 1970 have ten digits, and so on.
_EPOCH_FROM = {"ns": 1e17, "us": 1e14, "ms": 1e11}
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_WORDS = {"ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


@dataclass(frozen=True, kw_only=True)
class Clock:
    """What the stamps of a file count.

    Attributes:
        unit: ``s``, ``ms``, ``us`` or ``ns``.
    """

    unit: str = "s"

    @property
    def per_second(self) -> int:
        """Units per second."""
        return _PER_SECOND[self.unit]

    def seconds(self, text: str) -> float:
        """Seconds of a stamp; nineteen digits of nanoseconds fit an integer, but no float."""
        return int(text) / self.per_second if text.isdecimal() else float(text) / self.per_second

    def note(self, path: object) -> str | None:
        """A sentence for people; None for seconds."""
        return None if self.unit == "s" else f"{path}: its stamps are taken for {_WORDS[self.unit]}"


def find_clock(
    stamps: Sequence[float], path: object, *, poses: bool = False, span_s: tuple[float, float] | None = None
) -> Clock:
    """What stamps count, by how far they are apart, and by their size where they count from 1970.

    Args:
        stamps: in the order of the file, as they are written.
        path: of the file, for the message.
        poses: whether these are poses, which may be closer than images.
        span_s: first and last second of the images that the stamps belong to: what meets them is preferred.

    Raises:
        DatasetError: in no unit is the typical step one of a camera: 1 ms to 10 s.
    """
    values = np.unique(np.asarray(stamps, dtype=np.float64))
    by_size = next((unit for unit, least in _EPOCH_FROM.items() if len(values) and values[0] >= least), "s")
    if len(values) < 2:
        return Clock(unit=by_size)
    step = float(np.median(np.diff(values)))
    least = _MIN_POSE_STEP_S if poses else MIN_STEP_S
    fitting = [
        unit
        for unit in dict.fromkeys((by_size, "s", "ms", "us", "ns"))
        if least * (1 - 1e-6) <= step / _PER_SECOND[unit] <= MAX_STEP_S
    ]
    if not fitting:
        allowed = f"{least * 1000:g} ms to {MAX_STEP_S:g} s"
        raise DatasetError(f"{path}: stamps are typically {step:g} s apart, not {allowed} in any unit of time")
    if span_s is not None:
        meeting = [unit for unit in fitting if _meets(values, _PER_SECOND[unit], span_s)]
        fitting = meeting or fitting
    return Clock(unit=fitting[0])


def _meets(values: np.ndarray, per_second: int, span_s: tuple[float, float]) -> bool:
    return bool(values[0] / per_second <= span_s[1] and values[-1] / per_second >= span_s[0])
