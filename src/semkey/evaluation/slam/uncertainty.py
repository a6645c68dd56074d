"""Whether the covariances of a run are true: its errors against ground truth, measured in units of themselves.

The normalised error squared of a pose is ``xi^T P^-1 xi``, with the error ``xi = [rho, phi]`` in the axes of the camera
and the covariance ``P`` that the run gave. Where ``P`` is true it follows the chi-square distribution with six degrees
of freedom: 6 in the mean, 95 % below 12.59. A covariance is of a pose as the map around it sees it, so each frame is
judged as seen from its reference keyframe; the error of the whole map is another measure's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.stats import chi2

from semkey.evaluation.running.results import Row
from semkey.geometry.transforms import inverse, se3_log
from semkey.slam.events import FrameEvent, SlamListener

if TYPE_CHECKING:
    from semkey.slam.map.slam_map import SlamMap

Array = NDArray[np.float64]

FREEDOM = 6
"""Degrees of freedom of a pose."""
WITHIN = 0.95
"""Share of errors that should lie within the bound of this confidence."""

_FEWEST = 10
_LEVELS = np.linspace(0.0, 1.0, 41)


def normalised_error_squared(T_est: Array, T_true: Array, covariance: Array) -> float:
    """``xi^T P^-1 xi`` of a pose (4, 4) whose true value is ``T_est @ exp(xi)``; infinite where P is singular."""
    error = se3_log(inverse(T_est) @ T_true)
    try:
        return float(error @ np.linalg.solve(covariance, error))
    except np.linalg.LinAlgError:
        return float("inf")


class UncertaintyListener(SlamListener):
    """Compares every pose, when it is known, with the truth, both as seen from the frame's reference keyframe.

    A keyframe is seen from its parent. Left out are the frames that a submap begins with, which have no covariance, and
    those whose keyframe, or who themselves, have no true pose.
    """

    def __init__(self) -> None:
        self._truth: dict[int, Array] = {}
        self._errors: list[float] = []
        self._metres: list[float] = []
        self._sigmas: list[float] = []
        self._qualities: list[float] = []

    def on_frame(self, event: FrameEvent) -> None:
        """See :class:`SlamListener`."""
        record, frame = event.record, event.frame
        true = None if frame is None else frame.T_world_cam
        if true is None:
            return
        self._truth[record.index] = true
        if record.T_world_cam is None or record.covariance is None or record.method == "start":
            return
        self._qualities.append(record.quality)
        reference = _reference(event.slam_map, record.reference_keyframe, is_keyframe=record.is_keyframe)
        if reference is None:
            return
        keyframe = event.slam_map.keyframes[reference]
        true_keyframe = self._truth.get(keyframe.frame.index)
        if true_keyframe is None:
            return
        estimate, truth = inverse(keyframe.T_world_cam) @ record.T_world_cam, inverse(true_keyframe) @ true
        self._errors.append(normalised_error_squared(estimate, truth, record.covariance))
        self._metres.append(float(np.linalg.norm(estimate[:3, 3] - truth[:3, 3])))
        self._sigmas.append(float(np.sqrt(np.trace(record.covariance[:3, :3]))))

    def measures(self) -> Row:
        """What was found.

        Returns:
            ``nees`` (mean normalised error squared; 6 is true, less is too careful), ``nees_median``, ``nees_within``
            (share within the 95 % bound), ``sigma_mm`` and ``sigma_error_mm`` (root mean squares of what the
            covariances promise for the position and of its true error), ``quality`` (median), and the curve
            ``confidence``, ``within``: by confidence, the share of the frames whose error lies within it. Nothing with
            fewer than ten frames.
        """
        if len(self._errors) < _FEWEST:
            return {}
        errors = np.array(self._errors)
        levels = chi2.cdf(errors, FREEDOM)
        return {
            "nees": float(errors.mean()),
            "nees_median": float(np.median(errors)),
            "nees_within": float(np.mean(errors < chi2.ppf(WITHIN, FREEDOM))),
            "nees_frames": len(errors),
            "sigma_mm": 1e3 * float(np.sqrt(np.mean(np.square(self._sigmas)))),
            "sigma_error_mm": 1e3 * float(np.sqrt(np.mean(np.square(self._metres)))),
            "quality": float(np.median(self._qualities)),
            "confidence": _LEVELS.tolist(),
            "within": [float(np.mean(levels <= level)) for level in _LEVELS],
        }


def _reference(slam_map: SlamMap, keyframe_id: int | None, *, is_keyframe: bool) -> int | None:
    """The keyframe that a frame is seen from: its reference, or of a keyframe the parent; None if it has gone."""
    keyframe = None if keyframe_id is None else slam_map.keyframes.get(keyframe_id)
    if keyframe is None:
        return None
    reference = keyframe.parent if is_keyframe else keyframe.id
    return reference if reference in slam_map.keyframes else None
