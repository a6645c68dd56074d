"""Line segments of one image: detection by LSD, merging of pieces, descriptors sampled along them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from semkey.errors import InputError
from semkey.extractors import Extractor, extract_and_describe
from semkey.extractors.detector import MaskLike
from semkey.images.masks import check_mask, segments_in_mask
from semkey.model.features import Features
from semkey.model.preprocess import ImageLike, image_size, load_pixels, to_gray
from semkey.slam.config import LineConfig, width_scale

Array = NDArray[np.float64]

# Points at which a segment is described: further ones add little to the mean.
_DESCRIBED_POINTS = 8
# Below this LSD's smoothing would cover whole objects; above it the noise between pixels breaks segments apart.
_SCALE_RANGE = (0.1, 0.8)
# Along the image's edge cameras show dark rims and seams of rectification, which move with the camera.
_BORDER_PX = 4.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Segments:
    """L line segments of one image, longest first.

    Attributes:
        endpoints: (L, 2, 2) float64, pixels ``x y`` of start and end, pixel centres at integers. A segment is directed:
            looking from its start to its end, the brighter side is on the left.
        descriptors: (L, D) float32, unit norm (zero where nothing along the segment could be described).
    """

    endpoints: Array
    descriptors: NDArray[np.float32]

    def __post_init__(self) -> None:
        count = len(self.endpoints)
        if self.endpoints.shape != (count, 2, 2):
            raise InputError(f"segments have endpoints {self.endpoints.shape}, expected (L, 2, 2)")
        if self.descriptors.ndim != 2 or len(self.descriptors) != count:
            raise InputError(f"segments have descriptors {self.descriptors.shape}, expected ({count}, D)")

    def __len__(self) -> int:
        return len(self.endpoints)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FeaturesWithSegments(Features):
    """Features of an image and its line segments.

    Attributes:
        segments: of the same image, described in the space of the keypoints' descriptors.
    """

    segments: Segments


class SegmentExtractor:
    """An extractor that finds line segments as well.

    Args:
        extractor: finds keypoints, and describes the points of segments (:func:`semkey.extractors.extract_and_describe`
            says how if it cannot).
        config: how segments are found.

    Attributes:
        name: the extractor's.
        settings: the extractor's.
    """

    def __init__(self, extractor: Extractor, config: LineConfig) -> None:
        self.name: str = extractor.name
        self.settings: dict[str, Any] = dict(getattr(extractor, "settings", {}))
        self._extractor = extractor
        self._config = config

    def extract(self, image: ImageLike, mask: MaskLike | None = None) -> FeaturesWithSegments:
        """Features of one image with its segments, none of them on pixels where ``mask`` is 0."""
        pixels = load_pixels(image)
        usable = None if mask is None else check_mask(mask, image_size(pixels))
        gray = (to_gray(pixels) * 255).round().clamp(0, 255).byte().cpu().numpy()
        endpoints = detect_segments(gray, self._config, usable)
        points = segment_points(endpoints, _DESCRIBED_POINTS)
        features, descriptors = extract_and_describe(self._extractor, pixels, points.reshape(-1, 2), usable)
        along = descriptors.cpu().numpy().reshape(len(endpoints), _DESCRIBED_POINTS, descriptors.shape[1])
        segments = Segments(endpoints=endpoints, descriptors=mean_descriptors(along))
        values = {name: getattr(features, name) for name in Features.__dataclass_fields__}
        return FeaturesWithSegments(**values, segments=segments)


def detect_segments(
    gray: NDArray[np.uint8], config: LineConfig | None = None, usable: NDArray[np.bool_] | None = None
) -> Array:
    """Line segments of an image.

    LSD (von Gioi et al. 2010) through OpenCV on an image of ``config.detection_width``; pieces of one edge are merged,
    short ones dropped. OpenCV scales pixel ``i`` of that image to ``i / scale``; its centre lies at
    ``(i + 0.5) / scale - 0.5`` of the full image, which is what is returned.

    Args:
        gray: (H, W) uint8.
        config: None for the defaults.
        usable: (H, W) bool, the pixels that segments may lie on and next to; None for all.

    Returns:
        (L, 2, 2) float64 directed segments, longest first; see :class:`Segments`.

    Raises:
        InputError: the image is not (H, W) uint8.
    """
    if gray.ndim != 2 or gray.dtype != np.uint8:
        raise InputError(f"segments are looked for in (H, W) uint8, got {gray.shape} {gray.dtype}")
    config = config or LineConfig()
    height, width = gray.shape
    pixel = width_scale(width)
    scale = float(np.clip(config.detection_width / width, *_SCALE_RANGE))
    if min(height, width) * scale < 8:
        return np.zeros((0, 2, 2))
    found = cv2.createLineSegmentDetector(cv2.LSD_REFINE_STD, scale).detect(np.ascontiguousarray(gray))[0]
    if found is None:
        return np.zeros((0, 2, 2))
    segments = found.reshape(-1, 2, 2).astype(np.float64) + (0.5 / scale - 0.5)
    if usable is not None:
        segments = segments[segments_in_mask(segments, usable)]
    # Pieces half as long as a segment must be may still make one together.
    segments = segments[lengths(segments) >= 0.5 * config.min_length * pixel]
    segments = merge_segments(
        segments,
        max_angle_deg=config.merge_angle_deg,
        max_distance=config.merge_distance * pixel,
        max_gap=config.merge_gap,
    )
    limit = np.array([width - 1.0, height - 1.0])
    border = _BORDER_PX * max(pixel, 0.5)
    on_rim = np.any((segments < border).all(axis=1) | (segments > limit - border).all(axis=1), axis=1)
    segments = np.clip(segments[~on_rim], 0.0, limit)
    if usable is not None:  # once more, since pieces on both sides of a mask may have been joined
        segments = segments[segments_in_mask(segments, usable)]
    size = lengths(segments)
    order = np.lexsort((segments[:, 0, 1], segments[:, 0, 0], -size))
    return segments[order[size[order] >= config.min_length * pixel]][: config.max_lines]


def merge_segments(segments: Array, *, max_angle_deg: float, max_distance: float, max_gap: float) -> Array:
    """Join pieces (L, 2, 2) that follow each other on one line and point the same way.

    Args:
        segments: directed segments, pixels.
        max_angle_deg: largest difference in direction.
        max_distance: largest distance of either endpoint from the longer piece's line, pixels.
        max_gap: largest gap along the line as a share of the shorter piece.

    Returns:
        (L', 2, 2) the joined segments and those that have no partner.
    """
    count = len(segments)
    if count < 2:
        return segments
    size = lengths(segments)
    directions = directions_of(segments)
    # Few of all pairs point the same way; all else is looked at for these only.
    aligned = directions @ directions.T > np.cos(np.radians(max_angle_deg))
    first, second = np.nonzero(np.triu(aligned, 1))
    swapped = size[second] > size[first]
    longer, shorter = np.where(swapped, second, first), np.where(swapped, first, second)
    offsets = segments[shorter] - segments[longer, :1]
    along = (offsets * directions[longer, None]).sum(axis=2)
    across = np.abs((offsets * normals_of(segments)[longer, None]).sum(axis=2)).max(axis=1)
    gap = np.maximum(along[:, 0] - size[longer], -along[:, 1])
    joined = (across <= max_distance) & (gap <= max_gap * size[shorter])
    if not joined.any():
        return segments
    pairs = (np.ones(np.count_nonzero(joined)), (longer[joined], shorter[joined]))
    groups, labels = connected_components(coo_matrix(pairs, shape=(count, count)), directed=False)
    merged = np.empty((groups, 2, 2))
    merged[labels] = segments
    for group in np.flatnonzero(np.bincount(labels) > 1):
        members = np.flatnonzero(labels == group)
        merged[group] = _join(segments[members], size[members])
    return merged


def _join(pieces: Array, size: Array) -> Array:
    """One segment through several pieces (P, 2, 2), each weighing its length: the line is their principal axis."""
    points, weights = pieces.reshape(-1, 2), np.repeat(size, 2) / (2 * size.sum())
    centre = weights @ points
    centred = points - centre
    direction = np.linalg.eigh(centred.T @ (centred * weights[:, None]))[1][:, 1]
    longest = pieces[np.argmax(size)]
    if direction @ (longest[1] - longest[0]) < 0:
        direction = -direction
    position = centred @ direction
    return np.stack([centre + position.min() * direction, centre + position.max() * direction])


def segment_points(segments: Array, count: int) -> Array:
    """Points (L, count, 2) spread evenly over segments (L, 2, 2), half a step from either end."""
    share = (np.arange(count) + 0.5) / count
    return segments[:, None, 0] + share[None, :, None] * (segments[:, None, 1] - segments[:, None, 0])


def mean_descriptors(descriptors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Unit descriptors (L, D) of segments from those of points along them (L, P, D)."""
    mean = descriptors.mean(axis=1)
    norm = np.linalg.norm(mean, axis=1, keepdims=True)
    return np.where(norm > 1e-6, mean / np.maximum(norm, 1e-6), 0.0).astype(np.float32)


def lengths(segments: Array) -> Array:
    """Lengths (L,) of segments (L, 2, K)."""
    return np.linalg.norm(segments[:, 1] - segments[:, 0], axis=1)


def directions_of(segments: Array) -> Array:
    """Unit vectors (L, K) from start to end of segments (L, 2, K)."""
    return (segments[:, 1] - segments[:, 0]) / np.maximum(lengths(segments), 1e-12)[:, None]


def normals_of(segments: Array) -> Array:
    """Unit normals (L, 2) of segments (L, 2, 2): the direction turned by 90 degrees, x to y."""
    direction = directions_of(segments)
    return np.stack([-direction[:, 1], direction[:, 0]], axis=1)


def image_lines(segments: Array) -> Array:
    """Lines (L, 3) ``n_x x + n_y y + d = 0`` with a unit normal, through segments (L, 2, 2)."""
    normals = normals_of(segments)
    middle = segments.mean(axis=1)
    return np.concatenate([normals, -(normals * middle).sum(axis=1, keepdims=True)], axis=1)
