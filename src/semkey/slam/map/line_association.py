"""Which segment of an image sees which line of the map, and the residuals that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, transform_points
from semkey.matching.background import background_similarity
from semkey.slam.config import LineConfig
from semkey.slam.frames.observed_lines import ObservedLines
from semkey.slam.frames.segments import directions_of, image_lines, lengths
from semkey.slam.frames.segments_in_space import (
    SpatialSegments,
    between,
    segments_in_view,
    triangulate_segments,
)
from semkey.slam.solvers.pose_lines import LineObservations

Array = NDArray[np.float64]
Indices = NDArray[np.int64]

# How much of a descriptor's cosine a distance of the whole search radius costs.
_DISTANCE_COST = 0.5
# Two views place a line if the standard deviation of its depth is below this share of the depth.
_TRIANGULATED_SHARE = 0.1


@dataclass(frozen=True, kw_only=True, eq=False)
class VisibleLines:
    """Lines of the map that a pose should see.

    Attributes:
        rows: (V,) rows of the line map.
        points_world: (V, 2, 3) their ends in the world, metres.
        covariances: (V, 2, 3, 3) of the ends, world axes, metres^2.
        pixels: (V, 2, 2) ends of the visible part in the image.
        points_cam: (V, 2, 3) ends of the visible part in camera coordinates, metres.
        descriptors: (V, D).
    """

    rows: Indices
    points_world: Array
    covariances: Array
    pixels: Array
    points_cam: Array
    descriptors: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True, kw_only=True, eq=False)
class LineAssociations:
    """M pairs of a visible line and a segment; each occurs once at most.

    Attributes:
        lines: (M,) positions in the visible lines.
        segments: (M,) positions in the observed segments.
        similarity: (M,) cosine of the descriptors, clipped to [0, 1].
    """

    lines: Indices
    segments: Indices
    similarity: Array

    def __len__(self) -> int:
        return len(self.lines)

    def select(self, mask: NDArray[np.bool_]) -> LineAssociations:
        """The pairs where ``mask`` (M,) holds."""
        return LineAssociations(lines=self.lines[mask], segments=self.segments[mask], similarity=self.similarity[mask])


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenLines:
    """The lines that one frame sees from one pose.

    Attributes:
        observed: segments of the frame.
        visible: lines of the map that the pose should see.
        associations: pairs of the two.
        observations: what the pairs say about the pose.
        inliers: (M,) bool, pairs that agree with the refined pose.
    """

    observed: ObservedLines
    visible: VisibleLines
    associations: LineAssociations
    observations: LineObservations
    inliers: NDArray[np.bool_]

    @property
    def inlier_count(self) -> int:
        """Lines that agree with the pose."""
        return int(np.count_nonzero(self.inliers))

    def with_inliers(self, inliers: NDArray[np.bool_]) -> SeenLines:
        """The same lines, of which these agree with the pose."""
        return replace(self, inliers=inliers)


def match_lines(
    observed: ObservedLines, visible: VisibleLines, config: LineConfig, *, radius_px: float
) -> LineAssociations:
    """Mutually best pairs among those that lie beside each other.

    A segment may lie ``radius_px`` beside the expected line, has its direction within ``config.search_angle_deg`` and
    shares ``config.min_overlap`` of its length with it, give or take the radius. Among those the descriptor decides,
    and the distance.
    """
    if not len(observed) or not len(visible):
        return _no_associations()
    close, distance = _beside(observed.segments.endpoints, visible.pixels, config, radius_px)
    similarity = (visible.descriptors @ observed.segments.descriptors.T).astype(np.float64)
    close &= similarity > background_similarity(visible.descriptors, observed.segments.descriptors)
    score = np.where(close, similarity - _DISTANCE_COST * distance / radius_px, -np.inf)
    columns = np.argmax(score, axis=1)
    rows = np.arange(len(visible))
    mutual = (np.argmax(score, axis=0)[columns] == rows) & close[rows, columns]
    return LineAssociations(
        lines=rows[mutual],
        segments=columns[mutual],
        similarity=np.clip(similarity[rows, columns][mutual], 0.0, 1.0),
    )


def complete_by_triangulation(
    observed: ObservedLines,
    other: ObservedLines,
    T_other_cam: Array,
    camera: PinholeCamera,
    config: LineConfig,
    *,
    pixel_sigma: float,
) -> ObservedLines:
    """The same segments, those without depth placed in space by a second view where it shows them too.

    Mutually most similar segments of the two views are one line if the rays of the first meet the plane of the second
    (:func:`semkey.slam.frames.segments_in_space.triangulate_segments`) to within a tenth of their depth, and if the
    second segment lies beside where the line would then be seen.

    Args:
        observed: segments of the first view.
        other: segments of the second.
        T_other_cam: (4, 4) pose of the first view's camera as seen from the second.
        camera: of both.
        config: settings of lines.
        pixel_sigma: standard deviation of a segment's endpoint across it, pixels.
    """
    spatial = observed.spatial
    open_ones = np.flatnonzero(~spatial.valid)
    if not len(open_ones) or not len(other):
        return observed
    described, known = observed.segments.descriptors[open_ones], other.segments.descriptors
    similarity = described @ known.T
    best = np.argmax(similarity, axis=1)
    mutual = np.argmax(similarity, axis=0)[best] == np.arange(len(open_ones))
    mutual &= similarity[np.arange(len(open_ones)), best] > background_similarity(described, known)
    rows, columns = open_ones[mutual], best[mutual]
    if not len(rows):
        return observed
    here, there = observed.segments.endpoints[rows], other.segments.endpoints[columns]
    found = triangulate_segments(here, there, T_other_cam, camera, camera, pixel_sigma=pixel_sigma)
    valid = found.valid & np.all(found.sigma < _TRIANGULATED_SHARE * found.points[:, :, 2], axis=1)
    seen, pixels, _ = segments_in_view(
        np.where(valid[:, None, None], found.points, np.array([0.0, 0.0, 1.0])), inverse(T_other_cam), camera
    )
    # Beside each other in the second view they are by construction; what tells a wrong pair is where they end.
    close, _ = _beside(there, pixels, config, 4.0 * pixel_sigma)
    valid &= seen & np.diagonal(close)
    points, sigma, placed = spatial.points.copy(), spatial.sigma.copy(), spatial.valid.copy()
    points[rows[valid]], sigma[rows[valid]], placed[rows[valid]] = found.points[valid], found.sigma[valid], True
    return ObservedLines(segments=observed.segments, spatial=SpatialSegments(valid=placed, points=points, sigma=sigma))


def already_mapped(
    observed: ObservedLines, visible: VisibleLines, config: LineConfig, *, radius_px: float
) -> NDArray[np.bool_]:
    """Which segments (S,) lie along a visible line, whatever they look like: they would be its duplicates."""
    if not len(observed) or not len(visible):
        return np.zeros(len(observed), dtype=bool)
    beside, _ = _beside(observed.segments.endpoints, visible.pixels, config, radius_px)
    return np.asarray(beside.any(axis=0), dtype=bool)


def line_observations(
    observed: ObservedLines,
    visible: VisibleLines,
    associations: LineAssociations,
    T_world_cam: Array,
    camera: PinholeCamera,
    *,
    pixel_sigma: float,
) -> LineObservations:
    """What the pairs say about the pose.

    Each line is represented by the two points that end the part which map and image have in common, and is as uncertain
    as the segment and these points together. ``T_world_cam`` is the pose from which the lines are visible.
    """
    seen = observed.segments.endpoints[associations.segments]
    shares = _overlap(visible.pixels[associations.lines], seen)
    points_cam = between(visible.points_cam[associations.lines], shares)
    points = transform_points(T_world_cam, points_cam.reshape(-1, 3)).reshape(-1, 2, 3)
    covariances = _covariance_along(visible, associations.lines, points)
    rotation = T_world_cam[:3, :3]
    covariances = rotation.T @ covariances @ rotation

    lines = image_lines(seen)
    planes, range_sigma = observed.spatial.range_planes()
    planes, range_sigma = planes[associations.segments], range_sigma[associations.segments]
    z = np.maximum(points_cam[:, :, 2], 1e-3)
    by_point = np.stack(
        [
            lines[:, None, 0] * camera.fx / z,
            lines[:, None, 1] * camera.fy / z,
            -(lines[:, None, 0] * camera.fx * points_cam[:, :, 0] + lines[:, None, 1] * camera.fy * points_cam[:, :, 1])
            / z**2,
        ],
        axis=2,
    )
    across = np.einsum("mei,meij,mej->me", by_point, covariances, by_point)
    beyond = np.einsum("mi,meij,mj->me", planes[:, :3], covariances, planes[:, :3])
    return LineObservations(
        points_world=points,
        lines=lines,
        pixel_sigma=np.sqrt(pixel_sigma**2 + np.maximum(across, 0.0)),
        range_planes=planes,
        range_sigma=np.where(range_sigma > 0, np.sqrt(range_sigma**2 + np.maximum(beyond, 0.0)), 0.0),
        weights=associations.similarity,
    )


def _beside(seen: Array, expected: Array, config: LineConfig, radius_px: float) -> tuple[NDArray[np.bool_], Array]:
    """Which of V expected lines each of S segments may be (V, S), and the distances (V, S) of their common parts."""
    expected_length, seen_length = np.maximum(lengths(expected), 1e-9), np.maximum(lengths(seen), 1e-9)
    direction = directions_of(expected)
    offsets = seen[None] - expected[:, None, :1]
    along = np.einsum("vsek,vk->vse", offsets, direction)
    low = np.maximum(along.min(axis=2), 0.0)
    high = np.minimum(along.max(axis=2), expected_length[:, None])
    overlap = high - low
    # Distance from the expected line at the middle of the common part, on the segment.
    span = along[:, :, 1] - along[:, :, 0]
    share = (0.5 * (low + high) - along[:, :, 0]) / np.where(np.abs(span) > 1e-9, span, 1.0)
    middle = offsets[:, :, 0] + np.clip(share, 0.0, 1.0)[:, :, None] * (offsets[:, :, 1] - offsets[:, :, 0])
    normal = np.stack([-direction[:, 1], direction[:, 0]], axis=1)
    distance = np.abs(np.einsum("vsk,vk->vs", middle, normal))
    shorter = np.minimum(expected_length[:, None], seen_length[None])
    close = direction @ directions_of(seen).T > np.cos(np.radians(config.search_angle_deg))
    close &= (distance <= radius_px) & (overlap + min(radius_px, 30.0) * 0.5 >= config.min_overlap * shorter)
    return close, distance


def _overlap(expected: Array, seen: Array) -> Array:
    """The part (M, 2) of each expected segment, as shares of its length, beside which the seen one lies."""
    length = np.maximum(lengths(expected), 1e-9)
    shares = np.einsum("mek,mk->me", seen - expected[:, :1], directions_of(expected)) / length[:, None]
    shares = np.clip(shares, 0.0, 1.0)
    # Next to each other rather than beside: the nearer end alone would leave the direction open.
    apart = shares[:, 1] - shares[:, 0] < 0.1
    return np.where(apart[:, None], np.array([0.0, 1.0]), shares)


def _covariance_along(visible: VisibleLines, rows: Indices, points_world: Array) -> Array:
    """Covariances (M, 2, 3, 3) of points (M, 2, 3) on lines, between those of the lines' ends."""
    ends = visible.points_world[rows]
    step = ends[:, 1] - ends[:, 0]
    along = (
        np.einsum("mek,mk->me", points_world - ends[:, :1], step) / np.maximum((step**2).sum(axis=1), 1e-12)[:, None]
    )
    along = np.clip(along, 0.0, 1.0)[:, :, None, None]
    first, last = visible.covariances[rows, None, 0], visible.covariances[rows, None, 1]
    return (1 - along) ** 2 * first + along**2 * last


def _no_associations() -> LineAssociations:
    nothing = np.zeros(0, dtype=np.int64)
    return LineAssociations(lines=nothing, segments=nothing, similarity=np.zeros(0))
