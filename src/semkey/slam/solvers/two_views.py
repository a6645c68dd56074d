"""The first map of a single camera: two views, by a homography or by an essential matrix, whichever explains them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import poselib
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import make_transform, transform_points
from semkey.matching.robust import estimate_absolute_pose, estimate_homography, estimate_relative_pose
from semkey.slam.config import MonoConfig, image_scale
from semkey.slam.solvers.bounds import CHI2_95_1, CHI2_95_2
from semkey.slam.solvers.triangulation import TriangulatedPoints, fundamental_matrix, triangulate
from semkey.slam.solvers.turning import only_turned

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Two motions that both put nearly as many points before both cameras: the scene does not tell which is right.
_AMBIGUOUS_SHARE = 0.75
# Of the matches that agree with the motion so many must become landmarks.
_MIN_LANDMARK_SHARE = 0.7
# Motions whose matrices (of translations of length 1) differ less are one motion.
_SAME_MOTION = 0.02
# In a third view a mismatch counts no more than this many times the squared 95 % bound ...
_LARGEST_THIRD_VIEW_ERROR = 10.0
# ... and the right motion leaves less than this share of the error of a wrong one.
_CLEAR_COST_RATIO = 0.7


@dataclass(frozen=True, kw_only=True, eq=False)
class TwoViewGeometry:
    """Motion and structure of two views; lengths are in units of the median depth in view 0.

    Attributes:
        model: which model explained the matches: ``homography`` (a plane) or ``essential``.
        T_cam1_cam0: (4, 4) motion.
        landmarks: (M,) bool, matches that became landmarks.
        points_cam0: (M, 3) positions of the matches in camera 0; read only where ``landmarks`` holds.
        information: (M, 3, 3) their inverse covariances in the axes of camera 0.
        parallax_deg: median angle between the two rays of a landmark.
        homography_score_share: score of the homography over the sum of both models' scores.
    """

    model: str
    T_cam1_cam0: Array
    landmarks: Mask
    points_cam0: Array
    information: Array
    parallax_deg: float
    homography_score_share: float


@dataclass(frozen=True, kw_only=True, eq=False)
class _Motion:
    """A possible motion with what it makes of the matches."""

    T_cam1_cam0: Array
    points: TriangulatedPoints
    good: Mask

    @property
    def count(self) -> int:
        return int(np.count_nonzero(self.good))


def initialise_two_views(
    keypoints0: ArrayLike,
    keypoints1: ArrayLike,
    camera: PinholeCamera,
    config: MonoConfig | None = None,
    *,
    between: ArrayLike | None = None,
    pixel_sigma: float = 1.0,
    covariances: tuple[Array, Array] | None = None,
    seed: int = 0,
) -> TwoViewGeometry | None:
    """Motion and landmarks from matches of two views, or None if the two views do not determine them well.

    Both models are estimated and scored as in ORB-SLAM (Mur-Artal, Montiel and Tardos 2015, section IV): a match adds
    ``T_H - d^2`` for each view in which its whitened error ``d^2`` is below the model's 95 % bound, and the homography
    is chosen if ``S_H / (S_H + S_E) > homography_ratio`` (a plane, or little parallax). Each motion that the chosen
    model allows triangulates the matches; the one that puts most of them before both cameras is taken if it explains
    most of its matches and its parallax suffices. A plane often leaves two motions that are equally good in all
    respects; then a third view decides, from which only the right plane looks right. A camera that only turned gives
    None.

    Args:
        keypoints0: (M, 2) pixels in view 0.
        keypoints1: (M, 2) pixels of the same points in view 1.
        camera: of both views.
        config: settings; None for the defaults.
        between: (M, 2) pixels of the same points in a third view, NaN where it does not see them; it tells motions of a
            plane apart if it does not lie on the straight way from one view to the other.
        pixel_sigma: standard deviation of a keypoint's coordinates, pixels, by which models are scored.
        covariances: (M, 2, 2) of the keypoints of either view, pixels^2, by which the landmarks are triangulated; None
            for ``pixel_sigma`` in all directions.
        seed: of the random sampling.

    Raises:
        InputError: the keypoints are not pairs, or ``pixel_sigma`` is not positive.
    """
    config = config or MonoConfig()
    seen0, seen1 = np.asarray(keypoints0, dtype=np.float64), np.asarray(keypoints1, dtype=np.float64)
    if seen0.shape != seen1.shape or seen0.ndim != 2 or seen0.shape[1] != 2:
        raise InputError(f"keypoints of two views have shapes {seen0.shape} and {seen1.shape}, expected (M, 2) twice")
    if not pixel_sigma > 0:
        raise InputError(f"pixel_sigma must be positive, got {pixel_sigma}")
    if len(seen0) < config.min_initial_landmarks:
        return None
    homography = estimate_homography(seen0, seen1, max_error_px=float(np.sqrt(CHI2_95_2)) * pixel_sigma, seed=seed)
    essential = estimate_relative_pose(
        seen0, seen1, camera, camera, max_error_px=float(np.sqrt(CHI2_95_1)) * pixel_sigma, seed=seed
    )
    score_h, inliers_h = _score_homography(homography.model, seen0, seen1, pixel_sigma)
    score_e, inliers_e = _score_essential(essential.model, seen0, seen1, camera, pixel_sigma)
    if score_h + score_e <= 0:
        return None
    share = score_h / (score_h + score_e)
    # A turning camera fits a homography too; what tells is that no motion of it yields points with parallax.
    if share > config.homography_ratio and homography.model is not None:
        model, inliers = "homography", inliers_h
        candidates = _motions_of_homography(homography.model, camera)
        candidates = [_refine_motion(T, seen0[inliers], seen1[inliers], camera, pixel_sigma) for T in candidates]
    elif essential.model is not None:
        model, inliers = "essential", inliers_e
        candidates = [essential.model]
    else:
        return None
    too_few = np.count_nonzero(inliers) < config.min_initial_share * len(inliers)
    if too_few or only_turned(seen0, seen1, inliers, camera, pixel_sigma):
        return None
    max_error = config.max_error_px * image_scale(camera) / pixel_sigma
    motions = [_try_motion(T, seen0, seen1, inliers, camera, pixel_sigma, covariances, max_error) for T in candidates]
    ambiguous = _candidates(motions)
    best = ambiguous[0] if ambiguous else None
    if len(ambiguous) > 1:
        third = None if between is None else np.asarray(between, dtype=np.float64)
        best = None if third is None else _decide(ambiguous, third, camera, pixel_sigma, seed)
    if best is None or best.count < max(config.min_initial_landmarks, _MIN_LANDMARK_SHARE * inliers.sum()):
        return None
    parallax = float(np.median(best.points.parallax_deg[best.good]))
    if parallax < config.min_initial_parallax_deg:
        return None
    # Rays of a part of the landmarks are still too parallel to tell their distance; they come with a later keyframe.
    landmarks = best.good & (best.points.parallax_deg >= config.min_parallax_deg)
    if np.count_nonzero(landmarks) < config.min_initial_landmarks:
        return None
    scale = 1.0 / float(np.median(best.points.points_world[landmarks, 2]))
    motion = best.T_cam1_cam0.copy()
    motion[:3, 3] *= scale
    return TwoViewGeometry(
        model=model,
        T_cam1_cam0=motion,
        landmarks=landmarks,
        points_cam0=best.points.points_world * scale,
        information=best.points.information / scale**2,
        parallax_deg=parallax,
        homography_score_share=share,
    )


def _score_homography(H: Array | None, seen0: Array, seen1: Array, pixel_sigma: float) -> tuple[float, Mask]:
    """Score of a homography over both transfer errors, and the matches within the bound in both views."""
    if H is None or abs(np.linalg.det(H)) < 1e-12:
        return 0.0, np.zeros(len(seen0), dtype=bool)
    forward = _transfer_errors(H, seen0, seen1) / pixel_sigma**2
    backward = _transfer_errors(np.asarray(np.linalg.inv(H), dtype=np.float64), seen1, seen0) / pixel_sigma**2
    return _score(forward, backward, CHI2_95_2)


def _score_essential(
    T_10: Array | None, seen0: Array, seen1: Array, camera: PinholeCamera, pixel_sigma: float
) -> tuple[float, Mask]:
    """Score of a motion over the distances from both epipolar lines, and the matches within the bound in both views."""
    if T_10 is None:
        return 0.0, np.zeros(len(seen0), dtype=bool)
    F = fundamental_matrix(T_10, camera)
    forward = _line_errors(F, seen0, seen1) / pixel_sigma**2
    backward = _line_errors(F.T, seen1, seen0) / pixel_sigma**2
    return _score(forward, backward, CHI2_95_1)


def _score(forward: Array, backward: Array, bound: float) -> tuple[float, Mask]:
    total = sum(float(np.sum(CHI2_95_2 - errors[errors < bound])) for errors in (forward, backward))
    return total, (forward < bound) & (backward < bound)


def _transfer_errors(H: Array, source: Array, target: Array) -> Array:
    """Squared distances (M,) of ``H`` applied to ``source`` from ``target``; infinite at the horizon."""
    mapped = np.concatenate([source, np.ones((len(source), 1))], axis=1) @ H.T
    w = np.where(np.abs(mapped[:, 2]) > 1e-12, mapped[:, 2], np.nan)
    errors = np.square(mapped[:, :2] / w[:, None] - target).sum(axis=1)
    return np.where(np.isfinite(errors), errors, np.inf)


def _line_errors(F: Array, source: Array, target: Array) -> Array:
    """Squared distances (M,) of ``target`` from the lines that ``F`` makes of ``source``."""
    lines = np.concatenate([source, np.ones((len(source), 1))], axis=1) @ F.T
    signed = (lines[:, :2] * target).sum(axis=1) + lines[:, 2]
    errors = signed**2 / np.maximum(np.square(lines[:, :2]).sum(axis=1), 1e-24)
    return np.where(np.isfinite(errors), errors, np.inf)


def _motions_of_homography(H: Array, camera: PinholeCamera) -> list[Array]:
    """The up to four motions T_cam1_cam0 that a plane's homography allows (Malis and Vargas 2007), of length 1."""
    _, rotations, translations, _ = cv2.decomposeHomographyMat(H, camera.matrix)
    motions = []
    for rotation, translation in zip(rotations, translations, strict=True):
        length = float(np.linalg.norm(translation))
        # A camera that only turned has no motion to scale to 1.
        if length > 1e-6:
            motions.append(make_transform(rotation, translation.ravel() / length))
    return motions


def _refine_motion(T_10: Array, seen0: Array, seen1: Array, camera: PinholeCamera, pixel_sigma: float) -> Array:
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


def _try_motion(
    T_10: Array,
    seen0: Array,
    seen1: Array,
    inliers: Mask,
    camera: PinholeCamera,
    pixel_sigma: float,
    covariances: tuple[Array, Array] | None,
    max_error: float,
) -> _Motion:
    pose1 = make_transform(T_10[:3, :3].T, -T_10[:3, :3].T @ T_10[:3, 3])
    points = triangulate(seen0, seen1, np.eye(4), pose1, camera, pixel_sigma=pixel_sigma, covariances=covariances)
    good = inliers & points.believable(min_parallax_deg=0.0, max_error=max_error)
    return _Motion(T_cam1_cam0=T_10, points=points, good=good)


def _candidates(motions: list[_Motion]) -> list[_Motion]:
    """The motion with most good points, and those that come near it and differ from it."""
    ranked = sorted((motion for motion in motions if motion.count), key=lambda motion: -motion.count)
    kept: list[_Motion] = []
    for motion in ranked:
        # Two solutions that refinement has drawn to the same motion do not contradict each other.
        known = any(np.allclose(motion.T_cam1_cam0, other.T_cam1_cam0, atol=_SAME_MOTION) for other in kept)
        if not known and motion.count > _AMBIGUOUS_SHARE * ranked[0].count:
            kept.append(motion)
    return kept


def _decide(
    motions: list[_Motion], third: Array, camera: PinholeCamera, pixel_sigma: float, seed: int
) -> _Motion | None:
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
