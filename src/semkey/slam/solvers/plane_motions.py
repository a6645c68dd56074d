"""Which of the motions that a plane allows is right: a homography leaves two that put the plane before both cameras."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import poselib
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import make_transform, transform_points
from semkey.matching.robust import estimate_absolute_pose
from semkey.slam.solvers.bounds import CHI2_95_2
from semkey.slam.solvers.triangulation import TriangulatedPoints, fundamental_matrix
from semkey.slam.solvers.turning import fit_turn

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Two motions that both put nearly as many points before both cameras: the scene does not tell which is right.
_AMBIGUOUS_SHARE = 0.5
# Motions whose matrices (of translations of length 1) differ less are one motion.
_SAME_MOTION = 0.02
# Motions whose steps differ by less than 8 degrees are as good a start as each other.
_SAME_DIRECTION = float(np.cos(np.radians(8.0)))
# Starts of the search for the step, over half of the sphere: with 4 the best minimum is missed, 32 find none better.
_DIRECTIONS = 12
# Residuals of refinement are judged by the noise across edges of the better keypoints (this quantile), but by no less
# than this share of the setting: those that could not be aligned must not blur what the others tell.
_SHARPEST = 0.25
_LEAST_SHARPNESS = 0.2
# One of them is right if all matches together, in units of their own noise, score so much more with it.
_CLEAR_SCORE_SHARE = 0.1
# In a third view a mismatch counts no more than this many times the squared 95 % bound ...
_LARGEST_THIRD_VIEW_ERROR = 10.0
# ... and the right motion leaves less than this share of the error of a wrong one.
_CLEAR_COST_RATIO = 0.7


@dataclass(frozen=True, kw_only=True, eq=False)
class PossibleMotion:
    """A possible motion with what it makes of the matches.

    Attributes:
        T_cam1_cam0: (4, 4), its translation of length 1.
        points: what the matches (M) are then.
        good: (M,) matches that agree with it and lie before both cameras.
    """

    T_cam1_cam0: Array
    points: TriangulatedPoints
    good: Mask

    @property
    def count(self) -> int:
        """Good points."""
        return int(np.count_nonzero(self.good))


def choose_motion(
    motions: list[PossibleMotion],
    seen0: Array,
    seen1: Array,
    camera: PinholeCamera,
    *,
    between: Array | None,
    pixel_sigma: float,
    covariances: tuple[Array, Array] | None,
    seed: int,
) -> PossibleMotion | None:
    """The motion with most good points; where others come near it, the one that is clearly right, or None.

    Args:
        motions: of the camera from view 0 to view 1.
        seen0: (M, 2) pixels in view 0.
        seen1: (M, 2) pixels of the same points in view 1.
        camera: of all views.
        between: (M, 2) where a view on the way saw them, NaN for unseen; None without one.
        pixel_sigma: standard deviation of a keypoint's coordinates, pixels.
        covariances: (M, 2, 2) of the keypoints of either view, pixels^2; None for ``pixel_sigma``.
        seed: of the random sampling.
    """
    ranked = _rank(motions)
    if len(ranked) < 2:
        return ranked[0] if ranked else None
    best = _decide_off_the_plane(ranked, seen0, seen1, camera, pixel_sigma, covariances)
    if best is None and between is not None:
        best = _decide_by_third_view(ranked, between, camera, pixel_sigma, seed)
    return best


def _rank(motions: list[PossibleMotion]) -> list[PossibleMotion]:
    """The motion with most good points, and those that come near it and differ from it."""
    ranked = sorted((motion for motion in motions if motion.count), key=lambda motion: -motion.count)
    kept: list[PossibleMotion] = []
    for motion in ranked:
        # Two solutions that refinement has drawn to the same motion do not contradict each other.
        known = any(np.allclose(motion.T_cam1_cam0, other.T_cam1_cam0, atol=_SAME_MOTION) for other in kept)
        if not known and motion.count > _AMBIGUOUS_SHARE * ranked[0].count:
            kept.append(motion)
    return kept


def _decide_off_the_plane(
    motions: list[PossibleMotion],
    seen0: Array,
    seen1: Array,
    camera: PinholeCamera,
    pixel_sigma: float,
    covariances: tuple[Array, Array] | None,
) -> PossibleMotion | None:
    """The motion that all matches fit clearly better, those off the plane too; None where none does.

    On the plane itself two motions fit alike, to a tenth of a pixel and in further views as well while the camera goes
    straight on: only what is not on it tells. Each motion may adapt to all matches first.
    """
    scores = []
    for motion in motions:
        adapted = refine_motion(motion.T_cam1_cam0, seen0, seen1, camera, pixel_sigma)
        scores.append(_score_of_all(adapted, seen0, seen1, camera, pixel_sigma, covariances))
    order = np.argsort(scores, kind="stable")[::-1]
    clear = scores[order[0]] > (1 + _CLEAR_SCORE_SHARE) * scores[order[1]]
    return motions[order[0]] if clear else None


def _score_of_all(
    T_10: Array,
    seen0: Array,
    seen1: Array,
    camera: PinholeCamera,
    pixel_sigma: float,
    covariances: tuple[Array, Array] | None,
) -> float:
    """How well all matches fit a motion, in units of their own noise: each by what it lies within the 95 % bound."""
    noise = covariances or (np.tile(pixel_sigma**2 * np.eye(2), (len(seen0), 1, 1)),) * 2
    F = fundamental_matrix(T_10, camera)
    errors = np.maximum(line_errors(F, seen0, seen1, noise[1]), line_errors(F.T, seen1, seen0, noise[0]))
    return float(np.maximum(CHI2_95_2 - errors, 0.0).sum())


def _decide_by_third_view(
    motions: list[PossibleMotion], third: Array, camera: PinholeCamera, pixel_sigma: float, seed: int
) -> PossibleMotion | None:
    """The motion whose points fit a third view (M, 2) clearly better than those of any other; None if none does."""
    costs = []
    for motion in motions:
        usable = motion.good & np.isfinite(third).all(axis=1)
        points, seen = motion.points.points_world[usable], third[usable]
        bound = float(np.sqrt(CHI2_95_2)) * pixel_sigma
        solved = estimate_absolute_pose(points, seen, camera, max_error_px=4 * bound, seed=seed)
        if solved.model is None:
            costs.append(np.inf)
            continue
        errors = np.square(camera.project(transform_points(solved.model, points)) - seen).sum(axis=1) / bound**2
        costs.append(float(np.mean(np.minimum(np.nan_to_num(errors, nan=1e3), _LARGEST_THIRD_VIEW_ERROR))))
    order = np.argsort(costs, kind="stable")
    clear = costs[order[0]] < _CLEAR_COST_RATIO * costs[order[1]]
    return motions[order[0]] if clear else None


def motions_of_a_step(
    T_10: Array,
    seen0: Array,
    seen1: Array,
    inliers: Mask,
    camera: PinholeCamera,
    pixel_sigma: float,
    covariances: tuple[Array, Array] | None,
) -> list[Array]:
    """The motions (4, 4) that all matches fit best, from starts in all directions; each with either sign of its step.

    While the baseline is short a step looks like a turn, and what a sample of RANSAC leads to may be 70 degrees off:
    there are many minima, and only with the noise that keypoints really have does one of them stand out. Motions that
    all matches fit nearly as well, in another direction, are given as well.

    Args:
        T_10: (4, 4) motion found by RANSAC.
        seen0: (M, 2) pixels in view 0.
        seen1: (M, 2) pixels of the same points in view 1.
        inliers: (M,) matches that agree with ``T_10``.
        camera: of both views.
        pixel_sigma: standard deviation of a keypoint's coordinates, pixels.
        covariances: (M, 2, 2) of the keypoints of either view, pixels^2; None for ``pixel_sigma``.
    """
    sharp = pixel_sigma
    if covariances is not None:
        across = np.sqrt(np.linalg.eigvalsh(covariances[0] + covariances[1])[:, 0])
        sharp = float(np.clip(np.quantile(across, _SHARPEST), _LEAST_SHARPNESS * pixel_sigma, pixel_sigma))
    turn = fit_turn(seen0, seen1, inliers, camera, pixel_sigma)
    starts = [T_10, *(make_transform(turn, direction) for direction in _half_sphere(_DIRECTIONS))]
    motions = [refine_motion(start, seen0, seen1, camera, sharp) for start in starts]
    scores = np.array([_score_of_all(T, seen0, seen1, camera, pixel_sigma, covariances) for T in motions])
    kept: list[Array] = []
    for row in np.argsort(-scores, kind="stable"):
        near_best = (1 + _CLEAR_SCORE_SHARE) * scores[row] >= scores.max()
        if near_best and not any(_same_line(motions[row], other) for other in kept):
            kept.append(motions[row])
    return [make_transform(T[:3, :3], sign * T[:3, 3]) for T in kept for sign in (1.0, -1.0)]


def _half_sphere(count: int) -> Array:
    """Directions (count, 3) spread evenly over half of the sphere (Fibonacci's spiral)."""
    rows = np.arange(count) + 0.5
    z, angle = 1 - rows / count, rows * np.pi * (3 - np.sqrt(5))
    radius = np.sqrt(1 - z**2)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z], axis=1)


def _same_line(first: Array, second: Array) -> bool:
    """Whether the steps of two motions lie in one direction or in opposite ones, and their turns are alike."""
    turned = np.abs(first[:3, :3] - second[:3, :3]).max()
    along = abs(float(first[:3, 3] @ second[:3, 3]))
    return bool(turned < _SAME_MOTION and along > _SAME_DIRECTION)


def refine_motion(T_10: Array, seen0: Array, seen1: Array, camera: PinholeCamera, pixel_sigma: float) -> Array:
    """The motion nearby with the least (robust) Sampson error: all that a homography leaves out is in the matches."""
    start = poselib.CameraPose()
    start.R, start.t = T_10[:3, :3], T_10[:3, 3]
    intrinsics = {
        "model": "PINHOLE",
        "width": camera.width,
        "height": camera.height,
        "params": [camera.fx, camera.fy, camera.cx, camera.cy],
    }
    options = {"loss_type": "CAUCHY", "loss_scale": pixel_sigma}
    refined, _ = poselib.refine_relative_pose(seen0, seen1, start, intrinsics, intrinsics, options)
    translation = np.asarray(refined.t).ravel()
    length = float(np.linalg.norm(translation))
    if not np.isfinite(translation).all() or length < 1e-9:
        return T_10
    return make_transform(refined.R, translation / length)


def line_errors(F: Array, source: Array, target: Array, covariances: Array | None = None) -> Array:
    """Squared distances (M,) of ``target`` from the lines that ``F`` makes of ``source``, pixels^2.

    With ``covariances`` (M, 2, 2) of ``target`` they are in units of its variance across the line.
    """
    lines = np.concatenate([source, np.ones((len(source), 1))], axis=1) @ F.T
    normals = lines[:, :2]
    signed = (normals * target).sum(axis=1) + lines[:, 2]
    unit = np.einsum("mi,mij,mj->m", normals, np.eye(2)[None] if covariances is None else covariances, normals)
    errors = signed**2 / np.maximum(unit, 1e-24)
    return np.where(np.isfinite(errors), errors, np.inf)
