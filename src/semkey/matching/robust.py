"""Robust two-view and absolute geometry from matches with outliers, through PoseLib (LO-RANSAC, Larsson et al.)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import poselib
import torch
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import skew
from semkey.matching.refinement import refine_homography, refine_relative_pose
from semkey.metrics.two_view import sampson_errors

# Three points make a sample: 100 hold an outlier-free one with p > 0.9999 at 45 % inliers, and PoseLib goes on where
# fewer are found. Its own minimum of 1000 takes about 17 ms for a frame's 500 matches.
MIN_ITERATIONS_PNP = 100
MAX_ITERATIONS = 10_000
"""RANSAC samples before giving up; PoseLib's 100 000 cost up to a second on matches without any consistent geometry."""

# Along their edges right matches lie farther from the epipolar line than RANSAC allows.
_REFINED_REACH = 2.5

Covariances = tuple[NDArray[np.float64], NDArray[np.float64]]

DEGENERATE_SPREAD = 1e-6
"""Points whose spread across their main direction is smaller than this part of it lie on a line."""


@dataclass(frozen=True, kw_only=True)
class RobustEstimate:
    """A model fitted to the inliers of a set of matches.

    Attributes:
        model: (3, 3) or (4, 4) float64, or ``None`` where no model could be estimated.
        inliers: (M,) bool, the matches that agree with the model; all false without a model.
    """

    model: NDArray[np.float64] | None
    inliers: NDArray[np.bool_]

    @property
    def inlier_count(self) -> int:
        """Number of inliers."""
        return int(self.inliers.sum())


def estimate_homography(
    points0: ArrayLike | torch.Tensor,
    points1: ArrayLike | torch.Tensor,
    *,
    max_error_px: float = 3.0,
    seed: int = 0,
    covariances: Covariances | None = None,
) -> RobustEstimate:
    """Homography of a plane (or of a rotating camera) between two images.

    Args:
        points0: (M, 2) pixels in image 0.
        points1: (M, 2) pixels of the same points in image 1.
        max_error_px: largest transfer error of an inlier in pixels, > 0.
        seed: of the random sampling; the same seed gives the same result.
        covariances: (M, 2, 2) of the points of image 0 and of image 1, pixels^2; with them what RANSAC has found is
            refined by :func:`semkey.matching.refinement.refine_homography`.

    Returns:
        ``model`` (3, 3) maps pixels of image 0 to image 1, scaled to ``H[2, 2] = 1`` where that is not 0. Matches
        with NaN or infinity are outliers. Fewer than 4 matches, or points on a line, give no model.

    Raises:
        InputError: the shapes do not fit, or ``max_error_px`` is not positive.
    """
    source, target, finite = _paired(points0, 2, points1, 2)

    def solve(kept0: NDArray[Any], kept1: NDArray[Any]) -> tuple[NDArray[Any], dict]:
        return poselib.estimate_homography(kept0, kept1, _options(max_error_px, seed), {})

    estimate = _run(solve, source, target, finite, minimum=4)
    if estimate.model is None:
        return estimate
    model = estimate.model
    if covariances is not None:
        noise0, noise1 = _checked(covariances, len(source))
        rows = estimate.inliers
        refined = refine_homography(model, source[rows], target[rows], noise0[rows], noise1[rows])
        model = refined if np.isfinite(refined).all() else model
    corner = model[2, 2]
    scale = corner if abs(corner) > 1e-12 else np.linalg.norm(model)
    return RobustEstimate(model=model / scale, inliers=estimate.inliers)


def estimate_fundamental(
    points0: ArrayLike | torch.Tensor, points1: ArrayLike | torch.Tensor, *, max_error_px: float = 1.0, seed: int = 0
) -> RobustEstimate:
    """Fundamental matrix of two uncalibrated images.

    Args:
        points0: (M, 2) pixels in image 0.
        points1: (M, 2) pixels of the same points in image 1.
        max_error_px: largest Sampson error of an inlier in pixels, > 0.
        seed: of the random sampling; the same seed gives the same result.

    Returns:
        ``model`` (3, 3) of Frobenius norm 1 with ``[x1 y1 1] F [x0 y0 1]^T = 0``. Matches with NaN or infinity are
        outliers. Fewer than 7 matches, or points on a line, give no model.

    Raises:
        InputError: the shapes do not fit, or ``max_error_px`` is not positive.
    """
    source, target, finite = _paired(points0, 2, points1, 2)

    def solve(kept0: NDArray[Any], kept1: NDArray[Any]) -> tuple[NDArray[Any], dict]:
        return poselib.estimate_fundamental(kept0, kept1, _options(max_error_px, seed), {})

    estimate = _run(solve, source, target, finite, minimum=7)
    if estimate.model is None:
        return estimate
    return RobustEstimate(model=estimate.model / np.linalg.norm(estimate.model), inliers=estimate.inliers)


def estimate_relative_pose(
    points0: ArrayLike | torch.Tensor,
    points1: ArrayLike | torch.Tensor,
    camera0: PinholeCamera,
    camera1: PinholeCamera,
    *,
    max_error_px: float = 1.0,
    seed: int = 0,
    covariances: Covariances | None = None,
) -> RobustEstimate:
    """Relative pose of two calibrated images, translation up to scale.

    Args:
        points0: (M, 2) pixels in image 0.
        points1: (M, 2) pixels of the same points in image 1.
        camera0: intrinsics of image 0.
        camera1: intrinsics of image 1.
        max_error_px: largest Sampson error of an inlier in pixels, > 0.
        seed: of the random sampling; the same seed gives the same result.
        covariances: (M, 2, 2) of the points of image 0 and of image 1, pixels^2; with them what RANSAC has found is
            refined by :func:`semkey.matching.refinement.refine_relative_pose`, over its inliers and what lies up to
            2.5 times as far off. Matches that slide along edges bias a small motion most. The structure tensor of the
            full image does not describe ORB, whose keypoints come from coarse levels too: its poses get worse by it.

    Returns:
        ``model`` is ``T_cam1_cam0`` (4, 4) with a translation of length 1 (its direction means nothing where the
        camera only rotated). Matches with NaN or infinity are outliers. Fewer than 5 matches, or points on a line,
        give no model.

    Raises:
        InputError: the shapes do not fit, or ``max_error_px`` is not positive.
    """
    source, target, finite = _paired(points0, 2, points1, 2)
    intrinsics0, intrinsics1 = _intrinsics(camera0), _intrinsics(camera1)

    def solve(kept0: NDArray[Any], kept1: NDArray[Any]) -> tuple[NDArray[Any], dict]:
        options = _options(max_error_px, seed)
        pose, info = poselib.estimate_relative_pose(kept0, kept1, intrinsics0, intrinsics1, options, {})
        return _matrix(pose), info

    estimate = _run(solve, source, target, finite, minimum=5)
    if estimate.model is None:
        return estimate
    # PoseLib's refinement leaves the length 1 by a few parts in 1e5.
    length = max(float(np.linalg.norm(estimate.model[:3, 3])), np.finfo(np.float64).tiny)
    estimate.model[:3, 3] /= length
    if covariances is None or length < DEGENERATE_SPREAD:
        return estimate
    noise0, noise1 = _checked(covariances, len(source))
    near = _sampson_errors(estimate.model, source, target, camera0, camera1) < _REFINED_REACH * max_error_px
    rows = finite & (near | estimate.inliers)
    refined = refine_relative_pose(
        estimate.model, source[rows], target[rows], camera0, camera1, noise0[rows], noise1[rows]
    )
    return RobustEstimate(model=refined if np.isfinite(refined).all() else estimate.model, inliers=estimate.inliers)


def estimate_absolute_pose(
    points3d_world: ArrayLike | torch.Tensor,
    keypoints: ArrayLike | torch.Tensor,
    camera: PinholeCamera,
    *,
    max_error_px: float = 3.0,
    seed: int = 0,
) -> RobustEstimate:
    """Pose of a camera that sees known 3-D points (PnP).

    Args:
        points3d_world: (M, 3) points in the world frame, metres.
        keypoints: (M, 2) pixels where the camera sees them.
        camera: intrinsics.
        max_error_px: largest reprojection error of an inlier in pixels, > 0.
        seed: of the random sampling; the same seed gives the same result.

    Returns:
        ``model`` is ``T_cam_world`` (4, 4). Matches with NaN or infinity are outliers. Fewer than 4 matches (three
        leave up to four solutions), or points on a line, give no model.

    Raises:
        InputError: the shapes do not fit, or ``max_error_px`` is not positive.
    """
    points, pixels, finite = _paired(points3d_world, 3, keypoints, 2)
    intrinsics = _intrinsics(camera)

    def solve(kept_points: NDArray[Any], kept_pixels: NDArray[Any]) -> tuple[NDArray[Any], dict]:
        options = {**_options(max_error_px, seed), "min_iterations": MIN_ITERATIONS_PNP}
        pose, info = poselib.estimate_absolute_pose(kept_pixels, kept_points, intrinsics, options, {})
        return _matrix(pose), info

    return _run(solve, points, pixels, finite, minimum=4)


def estimate_absolute_pose_with_lines(
    points3d_world: ArrayLike | torch.Tensor,
    keypoints: ArrayLike | torch.Tensor,
    lines3d_world: ArrayLike | torch.Tensor,
    segments: ArrayLike | torch.Tensor,
    camera: PinholeCamera,
    *,
    max_error_px: float = 3.0,
    seed: int = 0,
) -> tuple[RobustEstimate, NDArray[np.bool_]]:
    """Pose of a camera that sees known 3-D points and lines (PnPL).

    Args:
        points3d_world: (M, 3) points in the world frame, metres; M may be 0.
        keypoints: (M, 2) pixels where the camera sees them.
        lines3d_world: (L, 2, 3) two points on each line in the world frame, metres.
        segments: (L, 2, 2) ends of the segments by which the camera sees them, pixels; the ends of a segment need not
            be the images of the line's two points.
        camera: intrinsics.
        max_error_px: largest error of an inlier in pixels, > 0: of a point's projection, and of a segment's ends across
            the projected line.
        seed: of the random sampling; the same seed gives the same result.

    Returns:
        The estimate as :func:`estimate_absolute_pose` returns it, and the lines (L,) bool that agree with it. Matches
        with NaN or infinity are outliers. Fewer than 4 points and lines together give no model.

    Raises:
        InputError: the shapes do not fit, or ``max_error_px`` is not positive.
    """
    points, pixels, finite = _paired(points3d_world, 3, keypoints, 2)
    lines, ends = _to_numpy(lines3d_world), _to_numpy(segments)
    count = len(lines)
    if lines.shape != (count, 2, 3) or ends.shape != (count, 2, 2):
        raise InputError(f"matched lines have shapes {lines.shape} and {ends.shape}, expected (L, 2, 3) and (L, 2, 2)")
    options = {**_options(max_error_px, seed), "min_iterations": MIN_ITERATIONS_PNP}
    usable = np.isfinite(lines).all(axis=(1, 2)) & np.isfinite(ends).all(axis=(1, 2))
    failure = RobustEstimate(model=None, inliers=np.zeros(len(points), dtype=bool)), np.zeros(count, dtype=bool)
    if finite.sum() + usable.sum() < 4:
        return failure
    pose, info = poselib.estimate_absolute_pose_pnpl(
        pixels[finite],
        points[finite],
        ends[usable, 0],
        ends[usable, 1],
        lines[usable, 0],
        lines[usable, 1],
        _intrinsics(camera),
        options,
        {},
    )
    model = _matrix(pose)
    point_inliers, line_inliers = np.zeros(len(points), dtype=bool), np.zeros(count, dtype=bool)
    point_inliers[finite] = np.asarray(info["inliers"], dtype=bool)
    line_inliers[usable] = np.asarray(info["inliers_lines"], dtype=bool)
    solved = info["model_score"] < np.finfo(np.float64).max and point_inliers.sum() + line_inliers.sum() >= 4
    if not solved or not np.isfinite(model).all():
        return failure
    return RobustEstimate(model=model, inliers=point_inliers), line_inliers


def _run(
    solve: Callable[[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], dict[str, Any]]],
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    finite: NDArray[np.bool_],
    *,
    minimum: int,
) -> RobustEstimate:
    """Solve on the finite rows; PoseLib signals no failure (it returns uninitialised matrices), so check its result."""
    failure = RobustEstimate(model=None, inliers=np.zeros(len(first), dtype=bool))
    kept0, kept1 = first[finite], second[finite]
    if len(kept0) < minimum or _on_a_line(kept0) or _on_a_line(kept1):
        return failure
    model, info = solve(kept0, kept1)
    model = np.array(model, dtype=np.float64)
    kept_inliers = np.asarray(info["inliers"], dtype=bool)
    solved = info["model_score"] < np.finfo(np.float64).max and kept_inliers.sum() >= minimum
    if not solved or not np.isfinite(model).all():
        return failure
    if _on_a_line(kept0[kept_inliers]) or _on_a_line(kept1[kept_inliers]):
        return failure
    inliers = np.zeros(len(first), dtype=bool)
    inliers[finite] = kept_inliers
    return RobustEstimate(model=model, inliers=inliers)


def _sampson_errors(
    T_cam1_cam0: NDArray[np.float64],
    points0: NDArray[np.float64],
    points1: NDArray[np.float64],
    camera0: PinholeCamera,
    camera1: PinholeCamera,
) -> NDArray[np.float64]:
    """First-order distances (M,) of matches from the epipolar constraint, pixels; NaN where a point is not finite."""
    essential = skew(T_cam1_cam0[:3, 3]) @ T_cam1_cam0[:3, :3]
    F = np.linalg.inv(camera1.matrix).T @ essential @ np.linalg.inv(camera0.matrix)
    return sampson_errors(F, points0, points1)


def _checked(covariances: Covariances, count: int) -> Covariances:
    first, second = (np.asarray(part, dtype=np.float64) for part in covariances)
    if first.shape != (count, 2, 2) or second.shape != (count, 2, 2):
        raise InputError(
            f"covariances of matched points have shapes {first.shape} and {second.shape}, expected ({count}, 2, 2)"
        )
    return first, second


def _on_a_line(points: NDArray[np.float64]) -> bool:
    """Whether all points lie on one line or are one point, up to rounding; no model is determined by such points."""
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)
    return bool(spread[1] <= DEGENERATE_SPREAD * max(spread[0], np.abs(points).max()))


def _paired(
    first: ArrayLike | torch.Tensor, width0: int, second: ArrayLike | torch.Tensor, width1: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]]:
    """Both point sets as float64 arrays, and which rows are finite in both."""
    array0, array1 = _to_numpy(first), _to_numpy(second)
    count = array0.shape[0] if array0.ndim else 0
    if array0.shape != (count, width0) or array1.shape != (count, width1):
        raise InputError(
            f"matched points have shapes {array0.shape} and {array1.shape}, expected (M, {width0}) and (M, {width1})"
        )
    finite = np.isfinite(np.concatenate([array0, array1], axis=1)).all(axis=1)
    return array0, array1, np.asarray(finite, dtype=bool)


def _to_numpy(points: ArrayLike | torch.Tensor) -> NDArray[np.float64]:
    if isinstance(points, torch.Tensor):
        points = points.detach().cpu().numpy()
    return np.asarray(points, dtype=np.float64)


def _options(max_error_px: float, seed: int) -> dict[str, Any]:
    if not max_error_px > 0:
        raise InputError(f"max_error_px must be positive, got {max_error_px}")
    # Each PoseLib estimator reads the one of the two thresholds that fits its residual.
    threshold = {"max_reproj_error": max_error_px, "max_epipolar_error": max_error_px}
    return {**threshold, "seed": seed, "max_iterations": MAX_ITERATIONS}


def _intrinsics(camera: PinholeCamera) -> dict[str, Any]:
    parameters = [camera.fx, camera.fy, camera.cx, camera.cy]
    return {"model": "PINHOLE", "width": camera.width, "height": camera.height, "params": parameters}


def _matrix(pose: poselib.CameraPose) -> NDArray[np.float64]:
    T = np.eye(4)
    T[:3, :3] = pose.R
    T[:3, 3] = np.asarray(pose.t).ravel()
    return T
