"""From segments in images to lines in space: by depth along them, or from two views."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse
from semkey.slam.frames.depth import depth_sigma, sample_depth
from semkey.slam.frames.segments import image_lines, normals_of, segment_points

Array = NDArray[np.float64]

# Depth is read at this many points of a segment, and as many pixels to either side.
_SAMPLES = 20
_ASIDE_PX = 2.0
# Two sides of a segment that differ by more than this share are two surfaces; the nearer one owns the edge.
_STEP_SHARE = 0.05
# An inverse depth within so many standard deviations of the fitted line belongs to it.
_INLIER_SIGMAS = 3.0
# Share of the samples that must be measured and agree, and of the segment that they must span.
_MIN_INLIER_SHARE = 0.5
_MIN_SPAN = 0.5
# Two views see a segment from sides that differ enough if its rays meet the other view's plane at this angle (sine).
_MIN_PLANE_SINE = 0.03


@dataclass(frozen=True, kw_only=True, eq=False)
class SpatialSegments:
    """3D line segments seen by L image segments, in camera coordinates.

    Attributes:
        valid: (L,) bool; the other fields are meaningless where false.
        points: (L, 2, 3) start and end, metres.
        sigma: (L, 2) standard deviation of each point's depth, metres.
    """

    valid: NDArray[np.bool_]
    points: Array
    sigma: Array

    def __len__(self) -> int:
        return len(self.valid)

    def range_planes(self) -> tuple[Array, Array]:
        """Planes (L, 4) that hold each 3D line and are perpendicular to the plane in which the camera sees it.

        The signed distance ``n . p + d`` of a point from it is how much farther the point lies than the measured line,
        whatever its position along the line. Also returned: the standard deviation (L, 2) of that distance at either
        end; 0 (with a zero plane) where the segment is not valid.
        """
        points = np.where(self.valid[:, None, None], self.points, np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 1.0]]))
        direction = points[:, 1] - points[:, 0]
        direction /= np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-12)
        middle = points.mean(axis=1)
        normal = middle - (middle * direction).sum(axis=1, keepdims=True) * direction
        length = np.linalg.norm(normal, axis=1, keepdims=True)
        usable = self.valid & (length[:, 0] > 1e-9)
        normal = np.where(usable[:, None], normal / np.maximum(length, 1e-12), 0.0)
        planes = np.concatenate([normal, -(normal * middle).sum(axis=1, keepdims=True)], axis=1)
        # A depth error moves a point along its ray, of which only the part along the normal leaves the plane.
        rays = points / np.maximum(points[:, :, 2:], 1e-9)
        sigma = self.sigma * np.abs(np.einsum("lek,lk->le", rays, normal))
        return planes, np.where(usable[:, None], np.maximum(sigma, 1e-6), 0.0)


def lift_segments(
    segments: Array,
    depth: NDArray[np.float32],
    camera: PinholeCamera,
    *,
    min_depth: float = 0.0,
    max_depth: float = np.inf,
) -> SpatialSegments:
    """3D segments of image segments by the depth along them.

    The inverse depth of a straight line is an affine function of the position along its image, so holes and wrong
    samples are dealt with by a robust fit of two numbers: of all pairs of a few samples the one with most support, then
    least squares over its inliers. At a depth step the nearer side counts: the edge is the occluding object's.

    Args:
        segments: (L, 2, 2) pixels.
        depth: (H, W) metres; zero, negative, NaN and infinite values are holes.
        camera: of both images.
        min_depth: nearer values are holes, metres.
        max_depth: farther values are holes, metres.

    Returns:
        A 3D segment ends where the last sample on it does; valid are those that half of the samples agree on, over half
        of the image segment at least.
    """
    count = len(segments)
    if not count:
        return SpatialSegments(valid=np.zeros(0, dtype=bool), points=np.zeros((0, 2, 3)), sigma=np.zeros((0, 2)))
    z = _depth_along(segments, depth, min_depth, max_depth)
    position = (np.arange(_SAMPLES) + 0.5) / _SAMPLES
    measured = z > 0
    inverse_depth = np.where(measured, 1.0 / np.where(measured, z, 1.0), 0.0)
    sigma = np.where(measured, depth_sigma(z) * inverse_depth**2, 1.0)

    inliers = _best_supported(position, inverse_depth, sigma, measured)
    weights = np.where(inliers, 1.0 / sigma**2, 0.0)
    # Weighted least squares of a + b s around the weighted mean, where the two estimates are independent.
    total = np.maximum(weights.sum(axis=1), 1e-12)
    centre = (weights @ position) / total
    centred = position[None] - centre[:, None]
    spread = np.maximum((weights * centred**2).sum(axis=1), 1e-12)
    level = (weights * inverse_depth).sum(axis=1) / total
    slope = (weights * centred * inverse_depth).sum(axis=1) / spread

    first = position[np.argmax(inliers, axis=1)] - 0.5 / _SAMPLES
    last = position[_SAMPLES - 1 - np.argmax(inliers[:, ::-1], axis=1)] + 0.5 / _SAMPLES
    ends = np.stack([first, last], axis=1)
    fitted = level[:, None] + slope[:, None] * (ends - centre[:, None])
    valid = (inliers.sum(axis=1) >= _MIN_INLIER_SHARE * _SAMPLES) & (last - first >= _MIN_SPAN)
    valid &= (fitted > 0.5 / max_depth).all(axis=1)
    ends_z = 1.0 / np.where(valid[:, None], fitted, 1.0)
    # Errors of neighbouring samples are alike (one surface, one registration): they count as a few, not as many.
    independent = 3.0 / _SAMPLES
    variance = (1.0 / total[:, None] + (ends - centre[:, None]) ** 2 / spread[:, None]) / independent
    pixels = segments[:, :1] + ends[:, :, None] * (segments[:, 1:] - segments[:, :1])
    points = camera.backproject(pixels.reshape(-1, 2), ends_z.reshape(-1)).reshape(count, 2, 3)
    return SpatialSegments(valid=valid, points=points, sigma=np.sqrt(variance) * ends_z**2)


def triangulate_segments(
    segments0: Array,
    segments1: Array,
    T_cam1_cam0: Array,
    camera0: PinholeCamera,
    camera1: PinholeCamera,
    *,
    pixel_sigma: float = 1.0,
) -> SpatialSegments:
    """3D segments of M image segments seen in two views: the rays of view 0's endpoints meet view 1's planes.

    Args:
        segments0: (M, 2, 2) pixels in view 0.
        segments1: (M, 2, 2) pixels of the same lines in view 1; where they end does not matter.
        T_cam1_cam0: (4, 4) relative pose; its translation sets the scale.
        camera0: of view 0.
        camera1: of view 1.
        pixel_sigma: standard deviation of an endpoint across its segment, in either view, pixels.

    Returns:
        In coordinates of camera 0. Not valid where the line is (nearly) in the plane of both camera centres, or behind
        one of the cameras.
    """
    count = len(segments0)
    T = np.asarray(T_cam1_cam0, dtype=np.float64)
    # l1^T K1 (R p + t) = 0 is the plane of view 1 in coordinates of camera 0.
    planes1 = image_lines(segments1) @ camera1.matrix
    normals, offsets = planes1 @ T[:3, :3], planes1 @ T[:3, 3]
    rays = np.concatenate([camera0.normalize(segments0.reshape(-1, 2)), np.ones((2 * count, 1))], axis=1)
    rays = rays.reshape(count, 2, 3)
    slant = np.einsum("lek,lk->le", rays, normals)
    sine = np.abs(slant) / np.maximum(np.linalg.norm(rays, axis=2) * np.linalg.norm(normals, axis=1)[:, None], 1e-12)
    safe = np.where(np.abs(slant) > 1e-12, slant, 1.0)
    z = -offsets[:, None] / safe
    points = rays * z[:, :, None]
    in_view1 = points @ T[:3, :3].T + T[:3, 3]
    valid = (sine > _MIN_PLANE_SINE).all(axis=1) & (z > 0).all(axis=1) & (in_view1[:, :, 2] > 0).all(axis=1)
    # A shift of either segment across itself by one pixel moves the point along its ray: slant is in pixels of view 1,
    # and one pixel across segment 0 changes it by the gradient of slant there.
    across = np.concatenate([normals_of(segments0) / [camera0.fx, camera0.fy], np.zeros((count, 1))], axis=1)
    change0 = np.abs(np.einsum("lk,lk->l", across, normals))[:, None] * z / np.abs(safe)
    change1 = np.abs(in_view1[:, :, 2] / safe)
    sigma = pixel_sigma * np.hypot(change0, change1)
    return SpatialSegments(valid=valid, points=points, sigma=sigma)


def segments_in_view(
    points_world: Array, T_world_cam: Array, camera: PinholeCamera, *, nearest: float = 0.1
) -> tuple[NDArray[np.bool_], Array, Array]:
    """What of 3D segments (L, 2, 3) is in an image.

    Args:
        points_world: (L, 2, 3) endpoints, metres.
        T_world_cam: (4, 4) pose.
        camera: of the image.
        nearest: what is closer to the camera's plane than this is cut off, metres.

    Returns:
        Whether anything of each is in the image (L,); the ends of the visible part in the image (L, 2, 2), pixels, and
        in camera coordinates (L, 2, 3), metres. Both are finite, but meaningless, where nothing is visible.
    """
    T = inverse(T_world_cam)
    points = points_world @ T[:3, :3].T + T[:3, 3]
    z = points[:, :, 2]
    seen = np.asarray(np.any(z > nearest, axis=1))
    difference = points[:, ::-1] - points
    share = (nearest - z) / np.where(np.abs(difference[:, :, 2]) > 1e-12, difference[:, :, 2], 1.0)
    points = np.where((z < nearest)[:, :, None], points + share[:, :, None] * difference, points)
    points = np.where(seen[:, None, None], points, np.array([0.0, 0.0, 1.0]))
    pixels = camera.project(points.reshape(-1, 3)).reshape(-1, 2, 2)
    # Liang-Barsky: the part 0 <= s <= 1 of start + s (end - start) within the image
    start, step = pixels[:, 0], pixels[:, 1] - pixels[:, 0]
    low, high = np.zeros(len(pixels)), np.ones(len(pixels))
    for axis, size in ((0, camera.width), (1, camera.height)):
        moving = np.abs(step[:, axis]) > 1e-9
        by = np.where(moving, step[:, axis], 1.0)
        bounds = np.sort(np.stack([-start[:, axis] / by, (size - 1 - start[:, axis]) / by], axis=1), axis=1)
        low = np.where(moving, np.maximum(low, bounds[:, 0]), low)
        high = np.where(moving, np.minimum(high, bounds[:, 1]), high)
        seen &= moving | ((start[:, axis] >= 0) & (start[:, axis] <= size - 1))
    seen &= low < high
    ends = np.stack([np.clip(low, 0.0, 1.0), np.clip(high, 0.0, 1.0)], axis=1)
    return seen, start[:, None] + ends[:, :, None] * step[:, None], between(points, ends)


def between(points_cam: Array, shares: Array) -> Array:
    """Points (L, S, 3) of 3D segments (L, 2, 3), both in camera coordinates, by shares (L, S) of their images' length.

    Perspective makes the middle of the image another point than the middle of the segment.
    """
    start, end = points_cam[:, :1], points_cam[:, 1:]
    along = shares * start[:, :, 2] / np.maximum(shares * start[:, :, 2] + (1.0 - shares) * end[:, :, 2], 1e-12)
    return start + along[:, :, None] * (end - start)


def _depth_along(segments: Array, depth: NDArray[np.float32], min_depth: float, max_depth: float) -> Array:
    """Depth (L, samples) at points of segments, 0 where there is none; at a step that of the nearer side."""
    points = segment_points(segments, _SAMPLES)
    aside = _ASIDE_PX * normals_of(segments)[:, None]
    places = np.stack([points, points - aside, points + aside])
    z = sample_depth(depth, places.reshape(-1, 2), min_depth=min_depth, max_depth=max_depth)
    centre, left, right = z.reshape(3, *points.shape[:2])
    known = np.where(np.stack([left, right]) > 0, np.stack([left, right]), np.inf)
    nearer, farther = known.min(axis=0), known.max(axis=0)
    step = np.isfinite(farther) & (farther > nearer * (1 + _STEP_SHARE))
    nearer = np.where(np.isfinite(nearer), nearer, 0.0)
    return np.where(step | (centre == 0), nearer, centre)


def _best_supported(
    position: Array, inverse_depth: Array, sigma: Array, measured: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Samples (L, S) that agree with the affine function that most of them agree with, per segment."""
    anchors = np.arange(1, len(position), 3)
    pairs = np.array([(i, j) for i, j in combinations(anchors, 2) if j - i >= len(position) // 4])
    start, end = pairs[:, 0], pairs[:, 1]
    slope = (inverse_depth[:, end] - inverse_depth[:, start]) / (position[end] - position[start])
    predicted = inverse_depth[:, start, None] + slope[:, :, None] * (position - position[start, None])
    close = np.abs(predicted - inverse_depth[:, None]) < _INLIER_SIGMAS * sigma[:, None]
    close &= measured[:, None] & (measured[:, start] & measured[:, end])[:, :, None]
    best = np.argmax(close.sum(axis=2), axis=1)
    return close[np.arange(len(inverse_depth)), best]
