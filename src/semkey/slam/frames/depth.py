"""Depth at keypoints, and how uncertain it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError

# Neighbours whose depths differ by more than this share lie on both sides of an edge: neither is the keypoint's.
_MAX_SPREAD = 0.05


# Fewer depths say nothing about all of them; no scene and no sensor gives depths that differ by less than this share.
_FEWEST_DEPTHS = 50
_SAME_DEPTH = 1e-4
# Where fewer of the keypoints with a depth have neighbours of the same depth, there are no surfaces.
_LEAST_ON_SURFACES = 0.25


def sample_depth(
    depth: NDArray[np.float32], keypoints: ArrayLike, *, min_depth: float = 0.0, max_depth: float = np.inf
) -> NDArray[np.float64]:
    """Depth (N,) in metres at keypoints (N, 2) x y, 0 where there is none to trust.

    Bilinear where all four neighbouring pixels are valid, otherwise the nearest valid one. A keypoint whose valid
    neighbours differ by more than 5 % gets none: it sits on a depth edge.

    Args:
        depth: (H, W) metres; zero, negative, NaN and infinite values are holes.
        keypoints: (N, 2) pixels, pixel centres at integers; outside the image (by more than half a pixel) gives 0.
        min_depth: nearer values are holes, metres.
        max_depth: farther values are holes, metres.

    Raises:
        InputError: ``depth`` is not a single-channel image.
    """
    if depth.ndim != 2 or depth.size == 0:
        raise InputError(f"a depth image has shape {depth.shape}, expected (H, W)")
    pixels = np.asarray(keypoints, dtype=np.float64).reshape(-1, 2)
    height, width = depth.shape
    x, y = pixels[:, 0], pixels[:, 1]
    inside = (x >= -0.5) & (x <= width - 0.5) & (y >= -0.5) & (y <= height - 0.5)
    x = np.clip(np.where(inside, x, 0.0), 0, width - 1)
    y = np.clip(np.where(inside, y, 0.0), 0, height - 1)
    x0 = np.minimum(x.astype(np.int64), max(width - 2, 0))
    y0 = np.minimum(y.astype(np.int64), max(height - 2, 0))
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    ax, ay = x - x0, y - y0

    values = np.stack([depth[y0, x0], depth[y0, x1], depth[y1, x0], depth[y1, x1]], axis=1).astype(np.float64)
    weights = np.stack([(1 - ax) * (1 - ay), ax * (1 - ay), (1 - ax) * ay, ax * ay], axis=1)
    valid = np.isfinite(values) & (values > 0) & (values >= min_depth) & (values <= max_depth)
    lowest = np.where(valid, values, np.inf).min(axis=1)
    highest = np.where(valid, values, -np.inf).max(axis=1)
    flat = valid.any(axis=1) & (highest <= lowest * (1 + _MAX_SPREAD))

    bilinear = (np.where(valid, values, 0.0) * weights).sum(axis=1)
    nearest = values[np.arange(len(values)), np.argmax(np.where(valid, weights, -1.0), axis=1)]
    return np.where(inside & flat, np.where(valid.all(axis=1), bilinear, nearest), 0.0)


def depth_sigma(depth: ArrayLike) -> NDArray[np.float64]:
    """Standard deviation in metres of a structured-light depth in metres.

    ``0.0012 + 0.0019 (z - 0.4)^2``: Nguyen, Izadi and Lovell, *Modeling Kinect Sensor Noise* (3DIMPVT 2012), eq. 6.
    """
    z = np.asarray(depth, dtype=np.float64)
    return 0.0012 + 0.0019 * np.square(z - 0.4)


def with_disparity_offset(
    depth: NDArray[np.float64], sigma: NDArray[np.float64], offset: float, focal_baseline: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Depths (N,), 0 where unknown, and deviations (N,), metres, once ``offset`` pixels are added to all disparities.

    Disparities are ``focal_baseline / depth``; those that are then not positive are unknown.
    """
    known = depth > 0
    disparity = focal_baseline / np.where(known, depth, 1.0)
    known &= disparity + offset > 0
    factor = disparity / np.where(known, disparity + offset, 1.0)
    # The noise of the disparity is what it was: that of the depth grows with its square.
    return np.where(known, depth * factor, 0.0), np.where(known, sigma * factor**2, sigma)


def is_constant(depth: NDArray[np.float64]) -> bool:
    """Whether the depths (N,) of an image's keypoints, 0 for none, are all the same: a camera that measures none."""
    known = depth[depth > 0]
    if len(known) < _FEWEST_DEPTHS:
        return False
    low, high = np.quantile(known, [0.02, 0.98])
    return bool(high - low < _SAME_DEPTH * high)


def is_scattered(
    depth: NDArray[np.float32],
    keypoints: ArrayLike,
    sampled: NDArray[np.float64],
    *,
    min_depth: float,
    max_depth: float,
) -> bool:
    """Whether a depth image has values at keypoints (N, 2), but hardly any that its neighbours agree with.

    Args:
        depth: (H, W) metres.
        keypoints: (N, 2) pixels.
        sampled: (N,) what :func:`sample_depth` gives for them, 0 where neighbours disagree.
        min_depth: nearest depth that counts, metres.
        max_depth: farthest.
    """
    places = np.rint(np.asarray(keypoints, dtype=np.float64).reshape(-1, 2)).astype(np.int64)
    nearest = depth[np.clip(places[:, 1], 0, depth.shape[0] - 1), np.clip(places[:, 0], 0, depth.shape[1] - 1)]
    measured = np.count_nonzero((nearest >= min_depth) & (nearest <= max_depth) & (nearest > 0))
    return bool(measured >= _FEWEST_DEPTHS and np.count_nonzero(sampled) < _LEAST_ON_SURFACES * measured)
