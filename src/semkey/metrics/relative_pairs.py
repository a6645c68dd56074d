"""Which poses of a trajectory a relative error is measured between."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.geometry.trajectories import Trajectory

#: ``frames`` counts poses, ``s`` is seconds, ``m`` metres along the path.
DeltaUnit = Literal["frames", "s", "m"]

ALL_PAIRS_TOLERANCE = 0.1
"""With ``all_pairs``, the distance in time or along the path may differ from the one asked for by this share of it."""


def relative_pairs(
    trajectory: Trajectory, *, delta: float = 1, unit: DeltaUnit = "frames", all_pairs: bool = False
) -> NDArray[np.int64]:
    """Pairs of poses that are ``delta`` apart.

    Without ``all_pairs`` they follow each other: the next one starts where the last one ended, which is the first pose
    at least ``delta`` from its start. With ``all_pairs`` one starts at every pose; it ends ``delta`` poses later, or at
    the pose whose distance is nearest to ``delta``, if that differs by at most a tenth of ``delta``.

    The path is that of ``trajectory`` itself: pass the ground truth, so that all estimates of the same poses are
    measured between the same ones.

    Args:
        trajectory: N poses.
        delta: > 0; a whole number of frames.
        unit: of ``delta``.
        all_pairs: see above.

    Returns:
        (M, 2) int64 indices, M >= 1, the earlier pose first.

    Raises:
        InputError: ``delta`` is not positive or no whole number of frames, the unit is unknown, or no two poses are
            that far apart.
    """
    if unit not in get_args(DeltaUnit):
        raise InputError(f"unit '{unit}' is unknown; choose one of {', '.join(get_args(DeltaUnit))}")
    if not (np.isfinite(delta) and delta > 0):
        raise InputError(f"delta must be positive, got {delta:g} {unit}")
    if unit == "frames" and delta != int(delta):
        raise InputError(f"delta must be a whole number of frames, got {delta:g}")
    along = _distances(trajectory, unit)
    pairs = _overlapping(along, delta, unit) if all_pairs else _consecutive(along, delta)
    if not pairs:
        raise InputError(f"no two of {len(trajectory)} poses are {delta:g} {unit} apart: choose a smaller delta")
    return np.array(pairs, dtype=np.int64)


def _distances(trajectory: Trajectory, unit: DeltaUnit) -> NDArray[np.float64]:
    """How far each pose is from the first one, in ``unit``; never decreasing."""
    if unit == "frames":
        return np.arange(len(trajectory), dtype=np.float64)
    if unit == "s":
        return trajectory.timestamps - trajectory.timestamps[:1]
    steps = np.linalg.norm(np.diff(trajectory.positions, axis=0), axis=1)
    return np.concatenate([[0.0], np.cumsum(steps)])


def _consecutive(along: NDArray[np.float64], delta: float) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    start = 0
    # Sums of decimal steps miss the exact distance by rounding.
    slack = 1e-9 * max(1.0, delta)
    for index in range(1, len(along)):
        if along[index] - along[start] >= delta - slack:
            pairs.append((start, index))
            start = index
    return pairs


def _overlapping(along: NDArray[np.float64], delta: float, unit: DeltaUnit) -> list[tuple[int, int]]:
    tolerance = 0.0 if unit == "frames" else ALL_PAIRS_TOLERANCE * delta
    pairs: list[tuple[int, int]] = []
    for first in range(len(along) - 1):
        differences = np.abs(along[first + 1 :] - along[first] - delta)
        nearest = int(differences.argmin())
        if differences[nearest] <= tolerance + 1e-9 * max(1.0, delta):
            pairs.append((first, first + 1 + nearest))
    return pairs
