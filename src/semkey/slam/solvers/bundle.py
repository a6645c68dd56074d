"""Bundle adjustment: keyframes and the landmarks they see, moved together to where all sightings agree best.

A problem and its result are plain arrays, so that another process can solve it
(:mod:`semkey.slam.mapping.background`); what they mean in the map is the business of
:mod:`semkey.slam.mapping.adjustment`. The solver is GTSAM's Levenberg-Marquardt.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, transform_points
from semkey.slam.solvers.bounds import CHI_95_1, CHI_95_2, CHI_99_2
from semkey.slam.solvers.bundle_lines import BundleLines, add_lines

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# Metres between the two cameras that a depth is written as the disparity of. Any value gives the same result.
_VIRTUAL_BASELINE = 0.1
# Standard deviation of a pose that must not move, metres and radians: a constraint proper would cost a QR solver.
_FIXED_SIGMA = 1e-6


@dataclass(frozen=True, kw_only=True, eq=False)
class BundleProblem:
    """K keyframes that see L landmarks in O observations.

    Attributes:
        camera: of all keyframes.
        keyframe_ids: (K,) in the map.
        poses: (K, 4, 4) T_world_cam.
        fixed: (K,) bool, those that stay where they are.
        landmark_ids: (L,) in the map.
        landmark_serials: (L,) which landmarks those are, should their rows be used again meanwhile.
        positions: (L, 3) metres.
        keyframe_rows: (O,) who sees, row of ``poses``.
        landmark_rows: (O,) what, row of ``positions``.
        keypoints: (O, 2) where, pixels.
        covariances: (O, 2, 2) of it, pixels^2.
        depth: (O,) metres, 0 where unknown.
        depth_sigma: (O,) metres.
        lines: lines that the keyframes see; None for none.
        max_iterations: steps of the solver at most.
    """

    camera: PinholeCamera
    keyframe_ids: Indices
    poses: Array
    fixed: NDArray[np.bool_]
    landmark_ids: Indices
    landmark_serials: Indices
    positions: Array
    keyframe_rows: Indices
    landmark_rows: Indices
    keypoints: Array
    covariances: Array
    depth: Array
    depth_sigma: Array
    lines: BundleLines | None = None
    max_iterations: int = 8

    def __len__(self) -> int:
        return len(self.keypoints)

    @cached_property
    def whitening(self) -> Array:
        """(O, 2, 2) what makes pixel residuals of unit covariance: upper triangular, as GTSAM wants it."""
        xx, xy, yy = self.covariances[:, 0, 0], self.covariances[:, 0, 1], self.covariances[:, 1, 1]
        whitening = np.zeros((len(self), 2, 2))
        whitening[:, 0, 0] = 1.0 / np.sqrt(xx - xy**2 / yy)
        whitening[:, 0, 1] = -whitening[:, 0, 0] * xy / yy
        whitening[:, 1, 1] = 1.0 / np.sqrt(yy)
        return whitening


@dataclass(frozen=True, kw_only=True, eq=False)
class BundleResult:
    """Where everything is after an adjustment.

    Attributes:
        keyframe_ids: (F,) those that could move.
        poses: (F, 4, 4) T_world_cam.
        scales: (F,) by how much what each of them sees grew, seen from it; 1 where depth says how large things are.
        landmark_ids: (L,) as in the problem.
        landmark_serials: (L,) as in the problem.
        positions: (L, 3) metres.
        outlier_keyframe_ids: (X,) keyframes of observations that do not fit, pixel residual beyond the 95 % bound.
        outlier_landmark_ids: (X,) their landmarks.
        line_serials: (M,) lines that took part.
        line_points: (M, 2, 3) their ends, metres.
        cost_before: robust cost at the start.
        cost: robust cost at the end, never more.
        newest_keyframe_id: the newest keyframe of the problem, fixed or not.
        distortion: (2,) radial distortion that the keypoints were freed of before; zeros where none was looked for.
    """

    keyframe_ids: Indices
    poses: Array
    scales: Array
    landmark_ids: Indices
    landmark_serials: Indices
    positions: Array
    outlier_keyframe_ids: Indices
    outlier_landmark_ids: Indices
    line_serials: Indices
    line_points: Array
    cost_before: float
    cost: float
    newest_keyframe_id: int
    distortion: Array


def prepare() -> None:
    """Load the solver, which takes a second, before the first problem comes."""
    importlib.import_module("gtsam")


def solve_bundle(problem: BundleProblem) -> BundleResult:
    """Minimise ``sum huber(pixel residual) + cauchy(disparity residual)`` over the free poses and all positions.

    The ends of lines are positions, too, whose pixel residual is their distance from the seen segment.

    Depth enters as the disparity ``f b / z`` of a second camera beside the first, at a virtual baseline ``b``: in
    disparity the error of triangulated and of structured-light depth is close to Gaussian, which in depth it is not.
    Disparity has a kernel of its own, since a depth at an edge is wrong while its pixel is right.
    """
    import gtsam

    camera = problem.camera
    intrinsics = gtsam.Cal3_S2(camera.fx, camera.fy, 0.0, camera.cx, camera.cy)
    stereo = gtsam.Cal3_S2Stereo(camera.fx, camera.fy, 0.0, camera.cx, camera.cy, _VIRTUAL_BASELINE)
    graph, values = gtsam.NonlinearFactorGraph(), gtsam.Values()
    first_landmark = len(problem.poses)
    for k, pose in enumerate(problem.poses):
        values.insert(k, gtsam.Pose3(pose))
    for k, position in enumerate(problem.positions, start=first_landmark):
        values.insert(k, position)
    rigid = gtsam.noiseModel.Isotropic.Sigma(6, _FIXED_SIGMA)
    for k in np.flatnonzero(problem.fixed).tolist():
        graph.add(gtsam.PriorFactorPose3(k, gtsam.Pose3(problem.poses[k]), rigid))

    first_end = first_landmark + len(problem.positions)

    robust, gaussian = gtsam.noiseModel.Robust.Create, gtsam.noiseModel.Gaussian.SqrtInformation
    huber = gtsam.noiseModel.mEstimator.Huber.Create(CHI_95_2)
    cauchy = gtsam.noiseModel.mEstimator.Cauchy.Create(CHI_95_1)
    rows = zip(
        problem.keyframe_rows.tolist(),
        (problem.landmark_rows + first_landmark).tolist(),
        problem.keypoints,
        problem.whitening,
        problem.depth.tolist(),
        problem.depth_sigma.tolist(),
        strict=True,
    )
    for keyframe, landmark, keypoint, whitening, depth, depth_sigma in rows:
        # Not "smart": GTSAM would take a diagonal matrix for standard deviations.
        noise = robust(huber, gaussian(whitening, False))
        graph.add(gtsam.GenericProjectionFactorCal3_S2(keypoint, noise, keyframe, landmark, intrinsics, False, False))
        if depth > 0:
            disparity = camera.fx * _VIRTUAL_BASELINE / depth
            # Only the difference of the two columns is measured here; both of them and the row are the factor above.
            scale = depth / (disparity * depth_sigma)
            difference = np.array([[scale, -scale, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
            measured = gtsam.StereoPoint2(keypoint[0], keypoint[0] - disparity, keypoint[1])
            noise = robust(cauchy, gaussian(difference))
            graph.add(gtsam.GenericStereoFactor3D(measured, noise, keyframe, landmark, stereo, False, False))

    if problem.lines is not None:
        add_lines(graph, values, problem.lines, first_end, camera, _VIRTUAL_BASELINE)

    parameters = gtsam.LevenbergMarquardtParams()
    parameters.setMaxIterations(problem.max_iterations)
    parameters.setRelativeErrorTol(1e-4)
    # Points before poses, as in the Schur complement: GTSAM's own ordering is no better, and takes longer to find.
    ordering = gtsam.Ordering()
    for key in [*range(first_landmark, values.size()), *range(first_landmark)]:
        ordering.push_back(key)
    parameters.setOrdering(ordering)
    optimizer = gtsam.LevenbergMarquardtOptimizer(graph, values, parameters)
    cost_before = optimizer.error()
    solved = optimizer.optimize()
    poses = np.stack([solved.atPose3(k).matrix() for k in range(first_landmark)])
    positions = np.array([solved.atPoint3(first_landmark + k) for k in range(len(problem.positions))]).reshape(-1, 3)
    ends = [solved.atPoint3(first_end + k) for k in range(0 if problem.lines is None else 2 * len(problem.lines))]
    wrong = ~_fits(problem, poses, positions)
    scales = np.ones(len(poses))
    if not (problem.depth > 0).any():
        poses, positions = _with_unit_kept(problem, poses, positions)
        scales = _growth(problem, poses, positions)
    free = ~problem.fixed
    return BundleResult(
        keyframe_ids=problem.keyframe_ids[free],
        poses=poses[free],
        scales=scales[free],
        landmark_ids=problem.landmark_ids,
        landmark_serials=problem.landmark_serials,
        positions=positions,
        outlier_keyframe_ids=problem.keyframe_ids[problem.keyframe_rows[wrong]],
        outlier_landmark_ids=problem.landmark_ids[problem.landmark_rows[wrong]],
        line_serials=np.zeros(0, dtype=np.int64) if problem.lines is None else problem.lines.serials,
        line_points=np.array(ends).reshape(-1, 2, 3),
        cost_before=cost_before,
        cost=optimizer.error(),
        newest_keyframe_id=int(problem.keyframe_ids.max()),
        distortion=np.zeros(2),
    )


def _with_unit_kept(problem: BundleProblem, poses: Array, positions: Array) -> tuple[Array, Array]:
    """A solution without depth, which one fixed pose leaves free to grow about it, with that one's sights as before."""
    fixed = np.flatnonzero(problem.fixed)
    if len(fixed) != 1:
        return poses, positions
    centre = problem.poses[fixed[0], :3, 3]
    growth = _growth(problem, poses, positions)[fixed[0]]
    poses = poses.copy()
    poses[:, :3, 3] = centre + (poses[:, :3, 3] - centre) / growth
    return poses, centre + (positions - centre) / growth


def _growth(problem: BundleProblem, poses: Array, positions: Array) -> Array:
    """By how much the distances of what each keyframe (K,) sees grew: the median; 1 for one that sees nothing."""
    growth = np.ones(len(poses))
    for k, pose in enumerate(poses):
        rows = problem.landmark_rows[problem.keyframe_rows == k]
        before = np.linalg.norm(problem.positions[rows] - problem.poses[k, :3, 3], axis=1)
        after = np.linalg.norm(positions[rows] - pose[:3, 3], axis=1)
        usable = (before > 0) & (after > 0)
        if usable.any():
            growth[k] = np.median(after[usable] / before[usable])
    return growth


def _fits(problem: BundleProblem, poses: Array, positions: Array) -> NDArray[np.bool_]:
    """Observations (O,) in front of the camera and within the 95 % bound of their pixel."""
    fits = np.zeros(len(problem), dtype=bool)
    for k, pose in enumerate(poses):
        rows = np.flatnonzero(problem.keyframe_rows == k)
        pixels = problem.camera.project(transform_points(inverse(pose), positions[problem.landmark_rows[rows]]))
        residuals = np.einsum("oij,oj->oi", problem.whitening[rows], pixels - problem.keypoints[rows])
        distance = np.linalg.norm(residuals, axis=1)
        # Behind the camera the pixel is NaN, which is not within anything.
        fits[rows] = distance < CHI_99_2
    return fits
