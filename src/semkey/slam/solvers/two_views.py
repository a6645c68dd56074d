"""The first map of a single camera: two views, by a homography or by an essential matrix, whichever explains them."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import make_transform
from semkey.matching.robust import estimate_homography, estimate_relative_pose
from semkey.slam.config import MonoConfig, image_scale
from semkey.slam.solvers.bounds import CHI2_95_1, CHI2_95_2
from semkey.slam.solvers.plane_motions import (
    PossibleMotion,
    choose_motion,
    line_errors,
    motions_of_a_step,
    refine_motion,
)
from semkey.slam.solvers.triangulation import fundamental_matrix, triangulate
from semkey.slam.solvers.turning import only_turned

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]

# Of the matches that agree with the motion so many must become landmarks.
_MIN_LANDMARK_SHARE = 0.7


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
        candidates = [refine_motion(T, seen0[inliers], seen1[inliers], camera, pixel_sigma) for T in candidates]
    elif essential.model is not None:
        model, inliers = "essential", inliers_e
        candidates = motions_of_a_step(essential.model, seen0, seen1, inliers, camera, pixel_sigma, covariances)
    else:
        return None
    too_few = np.count_nonzero(inliers) < config.min_initial_share * len(inliers)
    if too_few or only_turned(seen0, seen1, inliers, camera, pixel_sigma):
        return None
    max_error = config.max_error_px * image_scale(camera) / pixel_sigma
    motions = []
    for T in candidates:
        agreeing = inliers if model == "homography" else _score_essential(T, seen0, seen1, camera, pixel_sigma)[1]
        motions.append(_try_motion(T, seen0, seen1, agreeing, camera, pixel_sigma, covariances, max_error))
    best = choose_motion(
        motions,
        seen0,
        seen1,
        camera,
        between=None if between is None else np.asarray(between, dtype=np.float64),
        pixel_sigma=pixel_sigma,
        covariances=covariances,
        seed=seed,
    )
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
    forward = line_errors(F, seen0, seen1) / pixel_sigma**2
    backward = line_errors(F.T, seen1, seen0) / pixel_sigma**2
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


def _try_motion(
    T_10: Array,
    seen0: Array,
    seen1: Array,
    inliers: Mask,
    camera: PinholeCamera,
    pixel_sigma: float,
    covariances: tuple[Array, Array] | None,
    max_error: float,
) -> PossibleMotion:
    pose1 = make_transform(T_10[:3, :3].T, -T_10[:3, :3].T @ T_10[:3, 3])
    points = triangulate(seen0, seen1, np.eye(4), pose1, camera, pixel_sigma=pixel_sigma, covariances=covariances)
    good = inliers & points.believable(min_parallax_deg=0.0, max_error=max_error)
    return PossibleMotion(T_cam1_cam0=T_10, points=points, good=good)
