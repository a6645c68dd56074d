"""What radial distortion a calibration has left in the images of a single camera, from a map of what it saw.

A single camera that turns mistakes distortion for motion: on KITTI 07, a hundredth in ``k1`` changes the ratio of the
scales before and behind the first street corner by a tenth. That KITTI's rectified images are not quite free of it is
known (Cvisic, Markovic and Petrovic, *Recalibrating the KITTI Dataset Camera Setup for Improved Odometry Accuracy*,
ECMR 2021).
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.slam.solvers.bounds import CHI_95_2
from semkey.slam.solvers.bundle import BundleProblem, BundleResult, solve_bundle

Array = NDArray[np.float64]

_FIXED_SIGMA = 1e-6
# Two views fit any distance of a landmark: only with a third does it say anything about the lens.
_MIN_VIEWS = 3
# Landmarks farther away than this many times the way between the views that see them might end up behind a camera.
_LARGEST_DISTANCE = 50.0
# Fewer observations than this say nothing about a lens.
_MIN_OBSERVATIONS = 200
# Newton steps of the inverse of a distortion of a few pixels.
_INVERSION_STEPS = 5


def solve_with_distortion(problem: BundleProblem, sigma: float) -> BundleResult:
    """As :func:`semkey.slam.solvers.bundle.solve_bundle`, after the keypoints were freed of radial distortion.

    Args:
        problem: without depth.
        sigma: standard deviation of the coefficients ``k1`` and ``k2`` that a calibration leaves.
    """
    distortion = estimate_distortion(problem, sigma)
    keypoints = undistorted(problem.keypoints, problem.camera, distortion)
    return replace(solve_bundle(replace(problem, keypoints=keypoints)), distortion=distortion)


def estimate_distortion(problem: BundleProblem, sigma: float) -> Array:
    """Coefficients ``[k1, k2]`` (2,) of Brown's radial model under which all sightings agree best.

    Poses and landmarks move along; what is known before is a normal distribution of both coefficients about 0 with
    standard deviation ``sigma``. Zeros where there is too little to see.
    """
    import gtsam

    used = _telling(problem)
    if np.count_nonzero(used) < _MIN_OBSERVATIONS:
        return np.zeros(2)
    camera = problem.camera
    graph, values = gtsam.NonlinearFactorGraph(), gtsam.Values()
    first_landmark = len(problem.poses)
    calibration = first_landmark + len(problem.positions)
    rigid = gtsam.noiseModel.Isotropic.Sigma(6, _FIXED_SIGMA)
    for k in np.unique(problem.keyframe_rows[used]).tolist():
        pose = gtsam.Pose3(problem.poses[k])
        values.insert(k, pose)
        if problem.fixed[k]:
            graph.add(gtsam.PriorFactorPose3(k, pose, rigid))
        else:
            # Holds keyframes in place that see too little of what is used here, and the unit of length.
            loose = gtsam.noiseModel.Isotropic.Sigma(6, max(1.0, float(np.linalg.norm(problem.poses[k, :3, 3]))))
            graph.add(gtsam.PriorFactorPose3(k, pose, loose))
    for k in np.unique(problem.landmark_rows[used]).tolist():
        values.insert(first_landmark + k, problem.positions[k])
        # Weak enough to change nothing but landmarks that the sightings do not keep before the cameras.
        distance = max(float(np.linalg.norm(problem.positions[k])), _FIXED_SIGMA)
        near = gtsam.noiseModel.Isotropic.Sigma(3, distance)
        graph.add(gtsam.PriorFactorPoint3(first_landmark + k, problem.positions[k], near))
    lens = gtsam.Cal3DS2(camera.fx, camera.fy, 0.0, camera.cx, camera.cy, 0.0, 0.0)
    values.insert(calibration, lens)
    # Of fx, fy, skew, cx, cy, k1, k2, p1, p2 only the radial coefficients are in doubt.
    sigmas = np.full(9, _FIXED_SIGMA)
    sigmas[5:7] = sigma
    graph.add(gtsam.PriorFactorCal3DS2(calibration, lens, gtsam.noiseModel.Diagonal.Sigmas(sigmas)))
    huber = gtsam.noiseModel.mEstimator.Huber.Create(CHI_95_2)
    for row in np.flatnonzero(used).tolist():
        noise = gtsam.noiseModel.Gaussian.SqrtInformation(problem.whitening[row], False)
        graph.add(
            gtsam.GeneralSFMFactor2Cal3DS2(
                problem.keypoints[row],
                gtsam.noiseModel.Robust.Create(huber, noise),
                int(problem.keyframe_rows[row]),
                first_landmark + int(problem.landmark_rows[row]),
                calibration,
            )
        )
    parameters = gtsam.LevenbergMarquardtParams()
    parameters.setMaxIterations(problem.max_iterations)
    parameters.setRelativeErrorTol(1e-5)
    solved = gtsam.LevenbergMarquardtOptimizer(graph, values, parameters).optimize()
    return np.asarray(solved.atCal3DS2(calibration).k(), dtype=np.float64)[:2]


def distorted(pixels: Array, camera: PinholeCamera, distortion: Array) -> Array:
    """Where a lens with radial distortion ``[k1, k2]`` beside the camera's intrinsics sees pixels (M, 2)."""
    centre, focal = np.array([camera.cx, camera.cy]), np.array([camera.fx, camera.fy])
    rays = (pixels - centre) / focal
    return centre + focal * rays * _factor(rays, distortion)


def undistorted(pixels: Array, camera: PinholeCamera, distortion: Array) -> Array:
    """Inverse of :func:`distorted`, for distortions of a few pixels."""
    centre, focal = np.array([camera.cx, camera.cy]), np.array([camera.fx, camera.fy])
    seen = (pixels - centre) / focal
    rays = seen
    for _ in range(_INVERSION_STEPS):
        rays = seen / _factor(rays, distortion)
    return centre + focal * rays


def _factor(rays: Array, distortion: Array) -> Array:
    square = np.square(rays).sum(axis=1, keepdims=True)
    return 1.0 + distortion[0] * square + distortion[1] * square**2


def _telling(problem: BundleProblem) -> NDArray[np.bool_]:
    """Observations (O,) that say something about the lens: of landmarks seen several times, at an angle, and well."""
    seeing = problem.poses[problem.keyframe_rows]
    offsets = problem.positions[problem.landmark_rows] - seeing[:, :3, 3]
    points = np.einsum("oji,oj->oi", seeing[:, :3, :3], offsets)
    errors = np.einsum("oij,oj->oi", problem.whitening, problem.camera.project(points) - problem.keypoints)
    # Behind the camera the pixel is NaN, which is not within anything.
    fits = np.linalg.norm(errors, axis=1) < CHI_95_2
    count = len(problem.positions)
    views = np.bincount(problem.landmark_rows, minlength=count)
    lowest, highest = np.full((count, 3), np.inf), np.full((count, 3), -np.inf)
    np.minimum.at(lowest, problem.landmark_rows, seeing[:, :3, 3])
    np.maximum.at(highest, problem.landmark_rows, seeing[:, :3, 3])
    way = np.linalg.norm(highest - lowest, axis=1)
    distance = np.full(count, np.inf)
    np.minimum.at(distance, problem.landmark_rows, np.linalg.norm(offsets, axis=1))
    good = (views >= _MIN_VIEWS) & (distance < _LARGEST_DISTANCE * way)
    np.logical_and.at(good, problem.landmark_rows, fits)
    return good[problem.landmark_rows]
