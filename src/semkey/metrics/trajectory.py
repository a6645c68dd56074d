"""Comparing trajectories: alignment, absolute and relative errors.

The definitions are those of Sturm et al., *A Benchmark for the Evaluation of RGB-D SLAM Systems*, IROS 2012, and the
numbers equal those of the evo package.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError
from semkey.geometry.similarity import ScaledTransform
from semkey.geometry.trajectories import Trajectory, associate_by_time
from semkey.geometry.transforms import inverse, make_transform, rotation_angle_deg
from semkey.metrics.relative_pairs import DeltaUnit, relative_pairs

#: ``se3`` for metric trajectories (RGB-D, stereo), ``sim3`` where the scale is unknown (monocular), ``none`` as given.
Alignment = Literal["se3", "sim3", "none"]

# Two poses can always be laid on each other in some way; an aligned error says something from three on.
_MIN_POSES = 3


@dataclass(frozen=True, kw_only=True)
class ErrorStatistics:
    """Root mean square, mean, median and maximum of errors, in the errors' unit."""

    rmse: float
    mean: float
    median: float
    max: float

    @classmethod
    def of(cls, errors: ArrayLike) -> ErrorStatistics:
        """The statistics of errors (N,), N >= 1."""
        values = np.asarray(errors, dtype=np.float64)
        return cls(
            rmse=float(np.sqrt(np.mean(values**2))),
            mean=float(values.mean()),
            median=float(np.median(values)),
            max=float(values.max()),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TrajectoryError:
    """Absolute trajectory error (ATE): distances of the camera centres after alignment.

    Attributes:
        statistics: metres, over all pairs.
        errors: (K,) float64 metres, one per pair, in order of time.
        timestamps: (K,) float64 seconds of the estimated poses.
        similarity: what maps the estimate onto the reference.
    """

    statistics: ErrorStatistics
    errors: NDArray[np.float64]
    timestamps: NDArray[np.float64]
    similarity: ScaledTransform


@dataclass(frozen=True, kw_only=True, eq=False)
class RelativePoseErrors:
    """Relative pose errors (RPE) of M motions.

    Attributes:
        translation: statistics, metres.
        rotation_deg: statistics, degrees.
        translation_errors: (M,) float64 metres.
        rotation_errors_deg: (M,) float64 degrees.
    """

    translation: ErrorStatistics
    rotation_deg: ErrorStatistics
    translation_errors: NDArray[np.float64]
    rotation_errors_deg: NDArray[np.float64]


def umeyama_alignment(source: ArrayLike, target: ArrayLike, *, with_scale: bool) -> ScaledTransform:
    """The similarity that maps ``source`` onto ``target`` with least squared distance (Umeyama, PAMI 1991, eq. 34-43).

    Points on a line, or all in one place, leave the rotation undetermined; then one of the best rotations is given,
    and the distances are the least ones all the same.

    Args:
        source: (N, 3) points.
        target: (N, 3) points, in the same order.
        with_scale: estimate the scale as well; otherwise it is 1.

    Raises:
        InputError: shapes differ, fewer than three points, a value is not finite, or the scale is asked for and all
            points of ``source`` or of ``target`` are in one place.
    """
    x, y = np.asarray(source, dtype=np.float64), np.asarray(target, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 2 or x.shape[1] != 3:
        raise InputError(f"alignment needs two arrays (N, 3) of the same length, got {x.shape} and {y.shape}")
    if len(x) < _MIN_POSES:
        raise InputError(f"alignment needs at least {_MIN_POSES} points, got {len(x)}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise InputError("alignment needs finite points")
    mean_x, mean_y = x.mean(axis=0), y.mean(axis=0)
    centred_x, centred_y = x - mean_x, y - mean_y
    covariance = centred_y.T @ centred_x / len(x)
    u, singular_values, vt = np.linalg.svd(covariance)
    signs = np.array([1.0, 1.0, 1.0 if np.linalg.det(u) * np.linalg.det(vt) > 0 else -1.0])
    rotation = (u * signs) @ vt
    scale = 1.0
    if with_scale:
        variance = float(np.mean(np.sum(centred_x**2, axis=1)))
        correlation = float(singular_values @ signs)
        # Relative to the coordinates, so that rounding of equal points far from the origin does not pass for motion.
        rounding = 1e-24 * max(1.0, float(np.abs(x).max()) ** 2)
        if variance <= rounding or correlation <= 1e-12 * variance:
            raise InputError("scale cannot be estimated: a trajectory does not move; align with se3 instead")
        scale = correlation / variance
    return ScaledTransform(T=make_transform(rotation, mean_y - scale * rotation @ mean_x), scale=scale)


def absolute_trajectory_error(
    estimated: Trajectory,
    reference: Trajectory,
    *,
    alignment: Alignment = "se3",
    max_difference_s: float = 0.02,
) -> TrajectoryError:
    """Absolute trajectory error of the camera centres, after alignment by :func:`umeyama_alignment`.

    A camera that stood still or moved on a line is no special case under ``se3``: its error is defined although the
    aligning rotation is not unique. ``sim3`` needs motion in both trajectories.

    Args:
        estimated: the trajectory to judge; poses without a partner in time do not count.
        reference: ground truth.
        alignment: which freedom is taken out first.
        max_difference_s: see :func:`associate_by_time`.

    Raises:
        InputError: fewer than three pairs in time, no scale under ``sim3``, or an unknown alignment.
    """
    if alignment not in get_args(Alignment):
        raise InputError(f"alignment '{alignment}' is unknown; choose one of {', '.join(get_args(Alignment))}")
    paired_estimate, paired_reference = _pair(estimated, reference, max_difference_s)
    if alignment == "none":
        similarity = ScaledTransform(T=np.eye(4))
    else:
        similarity = umeyama_alignment(
            paired_estimate.positions, paired_reference.positions, with_scale=alignment == "sim3"
        )
    aligned = paired_estimate.mapped(similarity)
    errors = np.linalg.norm(aligned.positions - paired_reference.positions, axis=1)
    return TrajectoryError(
        statistics=ErrorStatistics.of(errors),
        errors=errors,
        timestamps=paired_estimate.timestamps,
        similarity=similarity,
    )


def relative_pose_errors(
    estimated: Trajectory,
    reference: Trajectory,
    *,
    delta: float = 1,
    unit: DeltaUnit = "frames",
    all_pairs: bool = False,
    max_difference_s: float = 0.02,
) -> RelativePoseErrors:
    """Errors of the motion from one pair in time to a later one: ``inv(Q_i^-1 Q_j) (P_i^-1 P_j)`` (Sturm, eq. 1).

    Neither world frame matters, so nothing is aligned; a trajectory of unknown scale has to be scaled before. Where
    frames were lost in between, the motion spans the gap.

    Args:
        estimated: the trajectory to judge; poses without a partner in time do not count.
        reference: ground truth.
        delta: how far apart the two ends of a motion are; by default each pair in time and the next.
        unit: of ``delta``, see :func:`semkey.metrics.relative_pairs.relative_pairs`.
        all_pairs: motions that overlap, one from every pose, instead of one after the other.
        max_difference_s: see :func:`associate_by_time`.

    Raises:
        InputError: fewer than three pairs in time, or none that are ``delta`` apart.
    """
    paired_estimate, paired_reference = _pair(estimated, reference, max_difference_s)
    translations: list[float] = []
    rotations: list[float] = []
    for first, last in relative_pairs(paired_reference, delta=delta, unit=unit, all_pairs=all_pairs).tolist():
        motion_estimate = inverse(paired_estimate.poses[first]) @ paired_estimate.poses[last]
        motion_reference = inverse(paired_reference.poses[first]) @ paired_reference.poses[last]
        error = inverse(motion_reference) @ motion_estimate
        translations.append(float(np.linalg.norm(error[:3, 3])))
        rotations.append(rotation_angle_deg(error))
    return RelativePoseErrors(
        translation=ErrorStatistics.of(translations),
        rotation_deg=ErrorStatistics.of(rotations),
        translation_errors=np.array(translations),
        rotation_errors_deg=np.array(rotations),
    )


def _pair(estimated: Trajectory, reference: Trajectory, max_difference_s: float) -> tuple[Trajectory, Trajectory]:
    pairs = associate_by_time(estimated.timestamps, reference.timestamps, max_difference_s=max_difference_s)
    if len(pairs) < _MIN_POSES:
        raise InputError(
            f"only {len(pairs)} of {len(estimated)} estimated poses have a reference pose within {max_difference_s} s; "
            f"an error needs at least {_MIN_POSES}"
        )
    return estimated.select(pairs[:, 0]), reference.select(pairs[:, 1])
