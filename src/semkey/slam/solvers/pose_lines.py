"""Residuals of lines for the refinement of a pose, with their derivatives."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semkey.errors import InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import transform_points

Array = NDArray[np.float64]

_SMALLEST_DEPTH = 1e-3


@dataclass(frozen=True, kw_only=True)
class LineObservations:
    """M lines of the map and the segments by which one image sees them.

    Attributes:
        points_world: (M, 2, 3) two points on each map line, metres.
        lines: (M, 3) seen line ``n_x x + n_y y + d = 0`` in pixels, ``(n_x, n_y)`` of unit length.
        pixel_sigma: (M, 2) standard deviation of each point's distance from the seen line, pixels.
        range_planes: (M, 4) ``[n, d]``, plane in camera coordinates that a measured 3D line spans across the viewing
            plane (:meth:`semkey.slam.frames.segments_in_space.SpatialSegments.range_planes`); zero where no depth was
            measured.
        range_sigma: (M, 2) standard deviation of the points' distances from that plane, metres; 0 where none.
        weights: (M,) in [0, 1], information multiplier.
    """

    points_world: Array
    lines: Array
    pixel_sigma: Array
    range_planes: Array
    range_sigma: Array
    weights: Array

    def __post_init__(self) -> None:
        count = len(self.points_world)
        shapes = {
            "points_world": (count, 2, 3),
            "lines": (count, 3),
            "pixel_sigma": (count, 2),
            "range_planes": (count, 4),
            "range_sigma": (count, 2),
            "weights": (count,),
        }
        for name, shape in shapes.items():
            if getattr(self, name).shape != shape:
                raise InputError(f"line observations have {name} {getattr(self, name).shape}, expected {shape}")

    def __len__(self) -> int:
        return len(self.points_world)

    def select(self, mask: NDArray[np.bool_]) -> LineObservations:
        """The observations where ``mask`` (M,) holds."""
        return LineObservations(
            points_world=self.points_world[mask],
            lines=self.lines[mask],
            pixel_sigma=self.pixel_sigma[mask],
            range_planes=self.range_planes[mask],
            range_sigma=self.range_sigma[mask],
            weights=self.weights[mask],
        )


def line_residuals_and_jacobian(
    T_cam_world: Array, observations: LineObservations, camera: PinholeCamera
) -> tuple[Array, Array]:
    """Whitened residuals (M, 4) and their derivatives (M, 4, 6) at ``exp(xi) @ T_cam_world``, xi = 0.

    Columns 0 and 1 are the distances of the two projected points from the seen line (as in PL-SLAM, Pumarola et al.
    2017, eq. 3), 2 and 3 their distances from the plane of the measured 3D line, 0 where none was measured. Points at
    or behind the camera are clamped to 1 mm before it.
    """
    points, residuals, to_point = line_point_derivatives(T_cam_world, observations, camera)
    # d(point)/d(xi) = [I, -skew(point)], and row @ -skew(p) = cross(p, row).
    endpoints = np.concatenate([points, points], axis=1)
    return residuals, np.concatenate([to_point, np.cross(endpoints, to_point)], axis=2)


def line_point_derivatives(
    T_cam_world: Array, observations: LineObservations, camera: PinholeCamera
) -> tuple[Array, Array, Array]:
    """The points (M, 2, 3) in camera coordinates, whitened residuals (M, 4), and their derivatives (M, 4, 3).

    Rows 0 and 2 of a derivative are by the first point, 1 and 3 by the second; see
    :func:`line_residuals_and_jacobian` for the residuals.
    """
    count = len(observations)
    points = transform_points(T_cam_world, observations.points_world.reshape(-1, 3)).reshape(count, 2, 3)
    x, y = points[:, :, 0], points[:, :, 1]
    z = np.maximum(points[:, :, 2], _SMALLEST_DEPTH)
    inverse_z = 1.0 / z
    normal_x, normal_y, offset = (observations.lines[:, None, k] for k in range(3))
    scale = 1.0 / observations.pixel_sigma
    measured = observations.range_sigma > 0
    range_scale = np.where(measured, 1.0 / np.where(measured, observations.range_sigma, 1.0), 0.0)
    plane = observations.range_planes

    residuals = np.empty((count, 4))
    across = normal_x * (camera.fx * x * inverse_z + camera.cx) + normal_y * (camera.fy * y * inverse_z + camera.cy)
    residuals[:, :2] = (across + offset) * scale
    beyond = np.einsum("mek,mk->me", points, plane[:, :3]) + plane[:, None, 3]
    residuals[:, 2:] = beyond * range_scale

    to_point = np.empty((count, 4, 3))
    to_point[:, :2, 0] = normal_x * camera.fx * inverse_z * scale
    to_point[:, :2, 1] = normal_y * camera.fy * inverse_z * scale
    to_point[:, :2, 2] = -(normal_x * camera.fx * x + normal_y * camera.fy * y) * inverse_z**2 * scale
    to_point[:, 2:] = plane[:, None, :3] * range_scale[:, :, None]
    return points, residuals, to_point
