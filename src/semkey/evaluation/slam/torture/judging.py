"""The verdict on one run: which of its poses are wrong, and which frames were lost that could have been placed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semkey.evaluation.slam.torture.edited import Step
from semkey.geometry.transforms import inverse

Array = NDArray[np.float64]

WRONG_M = 0.05
WRONG_DEG = 5.0
"""A pose farther off than one of these is wrong."""

WRONG_REAL_M = 0.15
"""The same for real sequences, whose true poses are centimetres off themselves."""

# More poses than this are not tried as the one that all others are aligned by, nor more as the second one that a map
# without metres takes its unit from.
_MOST_CANDIDATES = 40
_MOST_PARTNERS = 12
# The unit of a map without metres is the median depth of its first landmarks: in a room no less, metres, nor more. Two
# poses that are nearer to each other than this say nothing of it.
_UNITS_M = (0.2, 10.0)
_APART_M = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class Verdict:
    """What became of the frames of one case.

    Attributes:
        states: (N,) ``ok``, ``wrong`` (it has a pose, and that is not where the camera was), ``lost`` (it has none and
            could have had one) or ``none`` (it has none, and rightly or excusably so).
        errors_m: (N,) position error, NaN where there is no pose, infinite for a pose in a map of another place.
        errors_deg: (N,) rotation error.
    """

    states: NDArray[np.str_]
    errors_m: Array
    errors_deg: Array

    def count(self, state: str) -> int:
        """How many frames are in that state."""
        return int(np.count_nonzero(self.states == state))

    @property
    def tracked(self) -> int:
        """Frames with a pose."""
        return self.count("ok") + self.count("wrong")

    @property
    def worst_m(self) -> float:
        """The largest position error; 0 where nothing was tracked."""
        known = self.errors_m[~np.isnan(self.errors_m)]
        return float(known.max()) if len(known) else 0.0


def judge(
    poses: Sequence[Array | None],
    submaps: Sequence[int],
    truth: Sequence[Array | None],
    steps: Sequence[Step],
    *,
    wrong_m: float = WRONG_M,
    with_scale: bool = False,
) -> Verdict:
    """Compare poses with ground truth, submap by submap.

    Nothing is claimed about how submaps lie to each other, so each is aligned with the truth on its own, by one rigid
    motion: that of the pose which brings the others nearest to their truth, errors beyond 5 cm and 5 degrees counted as
    those. Only frames that show
    the scene unaltered are candidates, if the submap has any: a fault must not be what right is measured by. A pose in
    a submap that was aligned in another place is wrong. In maps without metres a second such pose gives the unit.

    Args:
        poses: N poses T_world_cam (4, 4), None where lost.
        submaps: of each pose.
        truth: N true poses.
        steps: what each frame is.
        wrong_m: metres beyond which a pose is wrong.
        with_scale: the unit of each submap is free (a single camera). Such a camera sees no depth before it has moved:
            until it has been 5 cm from its first place no frame counts as lost.
    """
    count = len(steps)
    errors_m, errors_deg = np.full(count, np.nan), np.full(count, np.nan)
    places = np.array([step.place for step in steps])
    plain = np.array([step.edit is None and not step.turned for step in steps])
    known = np.array([pose is not None for pose in poses])
    of_submap = np.array(submaps)
    for submap in np.unique(of_submap[known]) if known.any() else ():
        rows = np.flatnonzero(known & (of_submap == submap))
        candidates = rows[plain[rows]] if plain[rows].any() else rows
        best: tuple[float, tuple[Array, Array]] | None = None
        for chosen in candidates[:: max(1, len(candidates) // _MOST_CANDIDATES)]:
            for unit in _units(poses, truth, candidates, int(chosen)) if with_scale else [1.0]:
                metres, degrees = _errors(poses, truth, rows, int(chosen), unit)
                metres[places[rows] != places[chosen]] = degrees[places[rows] != places[chosen]] = np.inf
                cost = float((np.minimum(metres / wrong_m, 1) + np.minimum(degrees / WRONG_DEG, 1)).sum())
                if best is None or cost < best[0]:
                    best = (cost, (metres, degrees))
        assert best is not None
        errors_m[rows], errors_deg[rows] = best[1]
    states = np.full(count, "none", dtype="<U5")
    trackable = np.array([step.trackable for step in steps])
    if with_scale:
        trackable &= _has_moved(truth)
    states[~known & trackable] = "lost"
    wrong = (errors_m > wrong_m) | (errors_deg > WRONG_DEG)
    states[known] = np.where(wrong[known], "wrong", "ok")
    return Verdict(states=states, errors_m=errors_m, errors_deg=errors_deg)


def _has_moved(truth: Sequence[Array | None]) -> NDArray[np.bool_]:
    """Whether the camera has been far enough from its first place, up to each frame (N,), to see depth by itself."""
    places = np.array([np.full(3, np.nan) if pose is None else pose[:3, 3] for pose in truth]).reshape(-1, 3)
    first = places[np.isfinite(places).all(axis=1)][:1]
    away = np.linalg.norm(places - first, axis=1) if len(first) else np.zeros(len(places))
    return np.maximum.accumulate(np.nan_to_num(away)) >= _APART_M


def _units(
    poses: Sequence[Array | None], truth: Sequence[Array | None], candidates: NDArray[np.int64], chosen: int
) -> list[float]:
    """Metres per unit of a map, by the ways from frame ``chosen`` to others of ``candidates``; 1 where none tells."""
    estimated = np.array([poses[row] for row in [*candidates, chosen]])[:, :3, 3]
    true = np.array([truth[row] for row in [*candidates, chosen]])[:, :3, 3]
    lengths = np.linalg.norm(estimated[:-1] - estimated[-1], axis=1)
    true_lengths = np.linalg.norm(true[:-1] - true[-1], axis=1)
    apart = np.flatnonzero((true_lengths >= _APART_M) & (lengths > 0))
    apart = apart[:: max(1, len(apart) // _MOST_PARTNERS)]
    return np.clip(true_lengths[apart] / lengths[apart], *_UNITS_M).tolist() or [1.0]


def _errors(
    poses: Sequence[Array | None],
    truth: Sequence[Array | None],
    rows: NDArray[np.int64],
    chosen: int,
    unit: float = 1.0,
) -> tuple[Array, Array]:
    """Position and rotation errors of ``rows`` where frame ``chosen`` is taken to be right; ``unit`` in metres."""
    estimated = np.array([poses[row] for row in rows])
    true = np.array([truth[row] for row in rows])
    reference, reference_truth = poses[chosen], truth[chosen]
    assert reference is not None
    assert reference_truth is not None
    seen = inverse(reference) @ estimated
    seen[:, :3, 3] *= unit
    moved = reference_truth @ seen
    metres = np.linalg.norm(moved[:, :3, 3] - true[:, :3, 3], axis=1)
    turns = np.einsum("nji,njk->nik", true[:, :3, :3], moved[:, :3, :3])
    cosine = np.clip((np.trace(turns, axis1=1, axis2=2) - 1) / 2, -1, 1)
    return metres, np.degrees(np.arccos(cosine))
