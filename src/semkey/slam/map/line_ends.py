"""What a segment says of the ends of a line: where they are, and how surely."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse
from semkey.slam.frames.observed_lines import ObservedLines
from semkey.slam.frames.segments import image_lines
from semkey.slam.solvers.pose_lines import LineObservations, line_point_derivatives

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# Where a segment ends is uncertain by this share of its length: edges are cut off by noise, not by corners.
_END_SHARE = 0.25


def line_observations(
    points_world: Array, observed: ObservedLines, segments: Indices, *, pixel_sigma: float
) -> LineObservations:
    """Lines with these ends (M, 2, 3), seen as segments (M,) of a frame."""
    planes, range_sigma = observed.spatial.range_planes()
    return LineObservations(
        points_world=points_world,
        lines=image_lines(observed.segments.endpoints[segments]),
        pixel_sigma=np.full((len(segments), 2), pixel_sigma),
        range_planes=planes[segments],
        range_sigma=range_sigma[segments],
        weights=np.ones(len(segments)),
    )


def measured_information(
    observed: ObservedLines, segments: Indices, camera: PinholeCamera, *, pixel_sigma: float
) -> Array:
    """Inverse covariances (M, 2, 3, 3) of the ends of 3D segments, in the axes of the camera that sees them."""
    points = observed.spatial.points[segments]
    observations = line_observations(points, observed, segments, pixel_sigma=pixel_sigma)
    _, _, to_point = line_point_derivatives(np.eye(4), observations, camera)
    direction = points[:, 1] - points[:, 0]
    length = np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-6)
    along = (direction / length) / (_END_SHARE * length)
    rows = np.concatenate(
        [
            to_point.reshape(-1, 2, 2, 3).transpose(0, 2, 1, 3),
            np.broadcast_to(along[:, None, None], (len(segments), 2, 1, 3)),
        ],
        axis=2,
    )
    return rows.transpose(0, 1, 3, 2) @ rows


def reach(
    points_world: Array, segments: Array, T_world_cam: Array, camera: PinholeCamera
) -> tuple[Array, NDArray[np.bool_]]:
    """Where on 3D lines (M, 2, 3) segments begin and end (M, 2), as shares of their lengths, by the image alone.

    Also returned: where that is known, the line being before the camera and not seen from its end.
    """
    T = inverse(T_world_cam)
    points = points_world @ T[:3, :3].T + T[:3, 3]
    z = points[:, :, 2]
    in_front = np.asarray(np.all(z > 0.1, axis=1))
    points = np.where(in_front[:, None, None], points, np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0]]))
    pixels = camera.project(points.reshape(-1, 3)).reshape(-1, 2, 2)
    step = pixels[:, 1] - pixels[:, 0]
    square = (step**2).sum(axis=1)
    in_front &= square > 1.0
    share = np.einsum("mek,mk->me", segments - pixels[:, :1], step) / np.maximum(square, 1.0)[:, None]
    # Perspective: see line_depth.between. Far outside, where the line vanishes, the share means nothing.
    nearer, farther = share * points[:, :1, 2], (1.0 - share) * points[:, 1:, 2]
    known = nearer + farther > 0.1 * points[:, :, 2].min(axis=1, keepdims=True)
    return np.where(known, nearer / np.where(known, nearer + farther, 1.0), 0.5), in_front
