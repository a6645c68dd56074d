"""Covariances of poses (6, 6): in which frame and order, and how they are carried over.

semkey's own: of ``xi = [rho(3), phi(3)]`` in the axes of the camera, metres and radians, with the true pose
``T_world_cam @ se3_exp(xi)``. ROS (``geometry_msgs/PoseWithCovariance``): ``x y z rotX rotY rotZ`` in the axes of the
world, row-major.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError
from semkey.geometry.transforms import skew

Array = NDArray[np.float64]


def adjoint(transform: ArrayLike) -> Array:
    """The (6, 6) that carries tangent vectors over: ``T exp(xi) = exp(adjoint(T) xi) T`` (Barfoot, eq. 7.45)."""
    T = np.asarray(transform, dtype=np.float64)
    carried = np.zeros((6, 6))
    carried[:3, :3] = carried[3:, 3:] = T[:3, :3]
    carried[:3, 3:] = skew(T[:3, 3]) @ T[:3, :3]
    return carried


def ros_covariance(covariance: ArrayLike, T_world_cam: ArrayLike) -> Array:
    """The covariance (6, 6) of a pose as ROS wants it: position and rotation about the fixed axes of the world.

    Args:
        covariance: (6, 6) in semkey's convention, see this module.
        T_world_cam: (4, 4) the pose.

    Raises:
        InputError: another shape.
    """
    given = np.asarray(covariance, dtype=np.float64)
    if given.shape != (6, 6):
        raise InputError(f"a pose's covariance has shape {given.shape}, expected (6, 6)")
    rotation = np.asarray(T_world_cam, dtype=np.float64)[:3, :3]
    turned = np.kron(np.eye(2), rotation)
    return turned @ given @ turned.T


def relative_covariance(covariance0: ArrayLike, covariance1: ArrayLike, T_cam0_cam1: ArrayLike) -> Array:
    """The covariance (6, 6) of ``T_cam0_cam1`` in the axes of camera 1, of two poses that err independently."""
    carried = np.linalg.inv(adjoint(T_cam0_cam1))
    return np.asarray(covariance1, dtype=np.float64) + carried @ np.asarray(covariance0, dtype=np.float64) @ carried.T
