"""The constant error of a stereo pair's disparities, from how points move in the left image.

Cameras that are turned against each other by a hundredth of a degree more than their calibration says see every
disparity too small or too large by the same part of a pixel. Near points hardly notice; far ones are put too far away,
and the camera, which is placed by both, goes too far. Between two images of the left camera the offset shows: points
move as their true depths say.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import se3_exp, transform_points
from semkey.slam.solvers.bounds import CHI_95_2
from semkey.slam.solvers.pose import cauchy, whitening_rows

Array = NDArray[np.float64]

_ITERATIONS = 20
_SETTLED = 1e-7
# The motion to start from comes from the same disparities, uncorrected, and what agrees with it would hold both where
# they are: of keyframes of KITTI 01, whose offset is 0.7 px by the true motion, compact then says 0.4. So first
# everything has a say, with kernels of so many times the width, narrower than wrong matches are off.
_WIDENED = (32.0, 16.0, 8.0, 4.0, 2.0)
_WIDEST_PX = 12.0
_WIDE_ITERATIONS = 4
# Disparities are kept above this, pixels: an offset must not carry a point behind infinity.
_SMALLEST_DISPARITY = 0.1
# Median of the length of two numbers of unit variance.
_MEDIAN_OF_2 = float(np.sqrt(2 * np.log(2)))
# Residuals are not believed to be smaller than this share of what is claimed.
_SMALLEST_SPREAD = 0.1
# Weight of the prior that holds what the points do not determine at all.
_NOTHING = 1e-9


@dataclass(frozen=True, kw_only=True, eq=False)
class OffsetPair:
    """M points that the left camera sees twice, with the disparity of the first time.

    Attributes:
        keypoints0: (M, 2) pixels of the first image.
        disparities: (M,) pixels, positive; as measured at that time.
        disparity_sigmas: (M,) pixels.
        keypoints1: (M, 2) pixels of the second image.
        covariances: (M, 2, 2) of the difference of the two positions, pixels^2.
    """

    keypoints0: Array
    disparities: Array
    disparity_sigmas: Array
    keypoints1: Array
    covariances: Array

    def __len__(self) -> int:
        return len(self.disparities)


@dataclass(frozen=True, kw_only=True, eq=False)
class OffsetEstimate:
    """What a pair of images says.

    Attributes:
        offset: what has to be added to every disparity, pixels.
        information: inverse variance of it, whatever the motion is, 1/pixels^2; 0 where the pair says nothing.
        T_cam1_cam0: (4, 4) the motion with it.
    """

    offset: float
    information: float
    T_cam1_cam0: Array


def estimate_offset(
    pair: OffsetPair, T_cam1_cam0: Array, camera: PinholeCamera, baseline: float, *, fixed: float | None = None
) -> OffsetEstimate:
    """Motion and offset by robust least squares over the places in the second image.

    A point's residual has the covariance of the keypoints and what its disparity's noise adds to it.

    Args:
        pair: what was seen.
        T_cam1_cam0: (4, 4) a motion near the right one.
        camera: of both images.
        baseline: metres between the cameras of the stereo pair.
        fixed: an offset that is known; only the motion is looked for.
    """
    pose, offset = np.array(T_cam1_cam0, dtype=np.float64), 0.0 if fixed is None else fixed
    unknown = slice(0, 7 if fixed is None else 6)
    information, residuals = np.zeros((7, 7)), np.zeros((0, 2))
    spread = 1.0
    for width in _widths(pair.covariances):
        residuals, jacobian = _linearise(pose, offset, pair, camera, baseline)
        # What the noise of its disparity adds to the place of a point is a step along its epipolar line.
        along = jacobian[:, :, 6] * pair.disparity_sigmas[:, None]
        a, b, c = whitening_rows(pair.covariances + along[:, :, None] * along[:, None, :])
        whitening = np.zeros((len(pair), 2, 2))
        whitening[:, 0, 0], whitening[:, 1, 0], whitening[:, 1, 1] = a, b, c
        residuals = np.einsum("mij,mj->mi", whitening, residuals)
        jacobian = whitening @ jacobian
        lengths = np.linalg.norm(residuals, axis=1)
        # How far points really are from where they should be: keypoints may be told to be more or less exact than that.
        spread = max(float(np.median(lengths)) / _MEDIAN_OF_2, _SMALLEST_SPREAD)
        weights = cauchy(lengths, width * min(spread, 1.0) * CHI_95_2)[1]
        information = np.einsum("mki,m,mkj->ij", jacobian, weights, jacobian)
        gradient = np.einsum("mki,m,mk->i", jacobian, weights, residuals)
        solved = information[unknown, unknown] + _NOTHING * np.eye(unknown.stop)
        step = -np.linalg.solve(solved, gradient[unknown])
        pose = se3_exp(step[:6]) @ pose
        offset += float(step[6]) if fixed is None else 0.0
        if width == 1.0 and np.linalg.norm(step) < _SETTLED:
            break
    information = information / spread**2
    of_motion = information[:6, :6] + _NOTHING * np.eye(6)
    left = information[6, 6] - information[6, :6] @ np.linalg.solve(of_motion, information[:6, 6])
    return OffsetEstimate(offset=offset, information=max(float(left), 0.0), T_cam1_cam0=pose)


def _widths(covariances: Array) -> Iterator[float]:
    """Width of the kernel from step to step, for points of such covariances (M, 2, 2), pixels^2."""
    across = float(np.median(np.sqrt(np.linalg.eigvalsh(covariances)[:, 0]))) if len(covariances) else 1.0
    for width in _WIDENED:
        if width * across <= _WIDEST_PX:
            yield from [width] * _WIDE_ITERATIONS
    yield from [1.0] * _ITERATIONS


def _linearise(
    pose: Array, offset: float, pair: OffsetPair, camera: PinholeCamera, baseline: float
) -> tuple[Array, Array]:
    """Residuals (M, 2), projected minus seen, and their derivatives (M, 2, 7) by ``exp(xi) @ pose`` and the offset."""
    disparities = np.maximum(pair.disparities + offset, _SMALLEST_DISPARITY)
    points0 = camera.backproject(pair.keypoints0, camera.fx * baseline / disparities)
    turned = points0 @ pose[:3, :3].T
    points = transform_points(pose, points0)
    x, y, z = points[:, 0], points[:, 1], np.maximum(points[:, 2], 1e-3)
    residuals = np.stack([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy], axis=1) - pair.keypoints1
    by_point = np.zeros((len(pair), 2, 3))
    by_point[:, 0, 0], by_point[:, 0, 2] = camera.fx / z, -camera.fx * x / z**2
    by_point[:, 1, 1], by_point[:, 1, 2] = camera.fy / z, -camera.fy * y / z**2
    jacobian = np.zeros((len(pair), 2, 7))
    jacobian[:, :, :3] = by_point
    # A row by the rotation is cross(point, row by the point).
    jacobian[:, :, 3:6] = np.cross(points[:, None, :], by_point)
    # Depth is inversely proportional to disparity.
    jacobian[:, :, 6] = np.einsum("mij,mj->mi", by_point, -turned / disparities[:, None])
    return residuals, jacobian
