"""Rigid transforms as 4x4 float64 matrices: composition, quaternions, exponential map, interpolation.

``T_a_b`` maps points of frame ``b`` into frame ``a``: ``p_a = T_a_b @ [p_b, 1]``. A tangent vector is
``xi = [rho(3), phi(3)]`` (translation part first), as in Barfoot, *State Estimation for Robotics*, eq. 7.85 ff.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError

Array = NDArray[np.float64]

# Below this angle (radians) the closed forms lose digits, and their Taylor series are exact to float64.
_SMALL_ANGLE = 1e-4


def make_transform(rotation: ArrayLike, translation: ArrayLike) -> Array:
    """The 4x4 transform with this (3, 3) rotation and (3,) translation."""
    transform = np.eye(4)
    transform[:3, :3] = rotation
    transform[:3, 3] = translation
    return transform


def inverse(transform: ArrayLike) -> Array:
    """The inverse ``T_b_a`` of a rigid ``T_a_b`` (4, 4): no matrix is inverted numerically."""
    matrix = _as_transform(transform)
    rotation_transposed = matrix[:3, :3].T
    return make_transform(rotation_transposed, -rotation_transposed @ matrix[:3, 3])


def compose(*transforms: ArrayLike) -> Array:
    """``compose(T_a_b, T_b_c, ...)`` is ``T_a_b @ T_b_c @ ...``; without arguments the identity.

    The rotation of the product is projected back onto SO(3), so that long chains do not drift away from it.
    """
    product = np.eye(4)
    for transform in transforms:
        product = product @ _as_transform(transform)
    product[:3, :3] = nearest_rotation(product[:3, :3])
    product[3] = (0.0, 0.0, 0.0, 1.0)
    return product


def transform_points(transform: ArrayLike, points: ArrayLike) -> Array:
    """Points (N, 3) of frame ``b`` in frame ``a``, given ``T_a_b`` (4, 4)."""
    matrix = _as_transform(transform)
    return np.asarray(points, dtype=np.float64).reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]


def nearest_rotation(matrix: ArrayLike) -> Array:
    """The rotation (3, 3) closest to ``matrix`` in Frobenius norm (orthogonal Procrustes)."""
    u, _, vt = np.linalg.svd(np.asarray(matrix, dtype=np.float64))
    return u @ np.diag([1.0, 1.0, np.sign(np.linalg.det(u @ vt))]) @ vt


def rotation_from_quaternion_xyzw(quaternion: ArrayLike) -> Array:
    """The rotation (3, 3) of a quaternion ``x y z w`` of any non-zero length.

    Raises:
        InputError: the quaternion is zero or not finite.
    """
    q = np.asarray(quaternion, dtype=np.float64).reshape(-1)
    norm = float(np.linalg.norm(q)) if q.shape == (4,) else float("nan")
    if not np.isfinite(norm) or norm < 1e-12:
        raise InputError(f"not a quaternion x y z w: {np.asarray(quaternion).tolist()}")
    x, y, z, w = q / norm
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


def quaternion_xyzw_from_rotation(rotation: ArrayLike) -> Array:
    """The unit quaternion ``x y z w`` with ``w >= 0`` of a rotation (3, 3)."""
    r = np.asarray(rotation, dtype=np.float64)
    # Twice each component squared, from the diagonal; the largest one is safe to divide by (Shepperd 1978).
    squares = np.array(
        [
            1 + r[0, 0] - r[1, 1] - r[2, 2],
            1 - r[0, 0] + r[1, 1] - r[2, 2],
            1 - r[0, 0] - r[1, 1] + r[2, 2],
            1 + r[0, 0] + r[1, 1] + r[2, 2],
        ]
    )
    largest = int(np.argmax(squares))
    q = np.empty(4)
    if largest == 0:
        q[:] = squares[0], r[0, 1] + r[1, 0], r[0, 2] + r[2, 0], r[2, 1] - r[1, 2]
    elif largest == 1:
        q[:] = r[0, 1] + r[1, 0], squares[1], r[1, 2] + r[2, 1], r[0, 2] - r[2, 0]
    elif largest == 2:
        q[:] = r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], squares[2], r[1, 0] - r[0, 1]
    else:
        q[:] = r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], squares[3]
    q /= np.linalg.norm(q)
    return -q if q[3] < 0 else q


def skew(vector: ArrayLike) -> Array:
    """The (3, 3) matrix with ``skew(a) @ b == cross(a, b)``."""
    x, y, z = np.asarray(vector, dtype=np.float64)
    return np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])


def so3_exp(phi: ArrayLike) -> Array:
    """The rotation (3, 3) about ``phi`` (3,) by its length in radians (Rodrigues)."""
    a, b, _ = _rodrigues_coefficients(float(np.linalg.norm(phi)))
    k = skew(phi)
    return np.eye(3) + a * k + b * (k @ k)


def so3_log(rotation: ArrayLike) -> Array:
    """The rotation vector (3,) of a rotation (3, 3), of length in [0, pi] radians."""
    q = quaternion_xyzw_from_rotation(rotation)
    sine = float(np.linalg.norm(q[:3]))
    if sine < 1e-12:
        return 2.0 * q[:3]
    return (2.0 * np.arctan2(sine, q[3]) / sine) * q[:3]


def se3_exp(xi: ArrayLike) -> Array:
    """The transform (4, 4) of a tangent vector ``xi = [rho(3), phi(3)]``: rotation exp(phi), translation V(phi) rho."""
    vector = np.asarray(xi, dtype=np.float64).reshape(6)
    rho, phi = vector[:3], vector[3:]
    a, b, c = _rodrigues_coefficients(float(np.linalg.norm(phi)))
    k = skew(phi)
    k2 = k @ k
    return make_transform(np.eye(3) + a * k + b * k2, rho + b * (k @ rho) + c * (k2 @ rho))


def se3_log(transform: ArrayLike) -> Array:
    """The tangent vector ``[rho(3), phi(3)]`` (6,) of a transform (4, 4), with ``|phi| <= pi``."""
    matrix = _as_transform(transform)
    phi = so3_log(matrix[:3, :3])
    _, b, c = _rodrigues_coefficients(float(np.linalg.norm(phi)))
    k = skew(phi)
    rho = np.linalg.solve(np.eye(3) + b * k + c * (k @ k), matrix[:3, 3])
    return np.concatenate([rho, phi])


def interpolate_pose(transform0: ArrayLike, transform1: ArrayLike, alpha: float) -> Array:
    """The pose a share ``alpha`` of the way from ``transform0`` (0) to ``transform1`` (1).

    Rotation and translation are interpolated apart (slerp and a straight line), both (4, 4); ``alpha`` outside [0, 1]
    extrapolates. The camera centre therefore moves on the chord, not on a screw, which is what stamps need.
    """
    matrix0, matrix1 = _as_transform(transform0), _as_transform(transform1)
    rotation0 = matrix0[:3, :3]
    phi = so3_log(rotation0.T @ matrix1[:3, :3])
    translation = (1.0 - alpha) * matrix0[:3, 3] + alpha * matrix1[:3, 3]
    return make_transform(rotation0 @ so3_exp(alpha * phi), translation)


def rotation_angle_deg(rotation: ArrayLike) -> float:
    """The angle of a rotation (3, 3), or of the rotation of a transform (4, 4), in degrees, in [0, 180]."""
    r = np.asarray(rotation, dtype=np.float64)[:3, :3]
    return float(np.degrees(np.linalg.norm(so3_log(r))))


def _rodrigues_coefficients(angle: float) -> tuple[float, float, float]:
    """``sin(t)/t``, ``(1-cos t)/t^2`` and ``(t-sin t)/t^3``, with their series near zero."""
    square = angle * angle
    if angle < _SMALL_ANGLE:
        return 1.0 - square / 6.0, 0.5 - square / 24.0, 1.0 / 6.0 - square / 120.0
    # (1 - cos t) cancels for small t; 2 sin^2(t/2) does not.
    half_sine = np.sin(0.5 * angle)
    b = float(2.0 * half_sine * half_sine / square)
    # t - sin t cancels as well: take four terms of the series up to a third of a radian.
    if angle < 0.3:
        c = (1 - square / 20 * (1 - square / 42 * (1 - square / 72 * (1 - square / 110)))) / 6
    else:
        c = (angle - float(np.sin(angle))) / (square * angle)
    return float(np.sin(angle)) / angle, b, c


def _as_transform(transform: ArrayLike) -> Array:
    matrix = np.asarray(transform, dtype=np.float64)
    if matrix.shape != (4, 4):
        raise InputError(f"a transform has shape {matrix.shape}, expected (4, 4)")
    return matrix
