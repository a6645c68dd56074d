"""When landmarks and lines are forgotten: one rule for both."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]

# What was in view this often and found in fewer than a fifth of the cases was a mismatch or has gone.
_CULL_AFTER_VIEWS = 8
_CULL_FOUND_SHARE = 0.2
# What no second keyframe has seen by the time so many more were made will hardly be seen again.
_PROBATION_KEYFRAMES = 3


def rarely_found(visible: Indices, found: Indices) -> NDArray[np.bool_]:
    """Which of M things were in view often (M,) and found there seldom (M,)."""
    return (visible >= _CULL_AFTER_VIEWS) & (found < _CULL_FOUND_SHARE * visible)


def failed_probation(births: Indices, keyframe_counts: Indices, keyframe_id: int) -> NDArray[np.bool_]:
    """Which of M things are several keyframes old by keyframe ``keyframe_id`` and were seen by the first of them only.

    Args:
        births: (M,) the keyframe that saw each first.
        keyframe_counts: (M,) by how many each was seen.
        keyframe_id: the newest.
    """
    return (births <= keyframe_id - _PROBATION_KEYFRAMES) & (keyframe_counts < 2)
