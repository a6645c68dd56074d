"""Drawings of keypoints on an image and of matches between two images."""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError
from semkey.geometry.pixels import resize_keypoints
from semkey.matching.mutual import Matches
from semkey.model.features import Features
from semkey.model.preprocess import ImageLike, load_pixels, to_rgb
from semkey.visualization.picture import Picture

SUBPIXEL_BITS = 4
"""OpenCV draws at 1/16 px with this shift."""
MATCH_IMAGE_SIDE = 1600
"""Larger images are reduced for the side-by-side picture, which is for looking at."""
INLIER_RGB = (40, 220, 80)
OUTLIER_RGB = (235, 60, 60)
INLIER_OPACITY, OUTLIER_OPACITY = 0.65, 0.35
CROWDED_LINES = 150
"""More lines than this are drawn more transparently, so that the picture below stays visible."""
TURBO_RANGE = (30, 240)
"""Part of OpenCV's 256 Turbo colours that is used: its ends are too dark to see on an image."""
MATCH_IMAGE_BRIGHTNESS = 0.6
"""Below lines the images are dimmed, or the lines cannot be told from the picture."""
IMAGE_GAP = 6
CAPTION_RGB, BACKGROUND = (235, 235, 235), 24
MIN_CAPTION_WIDTH = 480


def draw_keypoints(
    image: ImageLike, features: Features, *, color_by: Literal["scores", "reliability"] = "scores"
) -> Picture:
    """Draw keypoints as circles at their sub-pixel positions, from blue (0) over green to red (1).

    Args:
        image: a path or pixels, as a detector takes them.
        features: of this image.
        color_by: which value in [0, 1] gives the colour; the strongest keypoints are drawn last, on top.

    Returns:
        The picture, which has ``save(path)``.

    Raises:
        InputError: ``image`` is none, or the features come from an image of another size.

    Example:
        >>> import semkey
        >>> from skimage import data
        >>> features = semkey.load("nano", max_keypoints=200).extract(data.astronaut())
        >>> semkey.draw_keypoints(data.astronaut(), features, color_by="reliability")
        Picture(512x512)
    """
    canvas = _pixels(image, features).copy()
    radius, thickness = _marker_size(canvas)
    values = getattr(features, color_by).detach().cpu().numpy()
    colors = _value_colors(values)
    for point, color in zip(features.keypoints.detach().cpu().numpy()[::-1], colors[::-1], strict=True):
        _circle(canvas, point, radius, color, thickness)
    return Picture(canvas)


def draw_matches(
    image0: ImageLike,
    image1: ImageLike,
    features0: Features,
    features1: Features,
    matches: Matches,
    inliers: ArrayLike | torch.Tensor | None = None,
    *,
    caption: str | None = None,
) -> Picture:
    """Draw two images side by side with lines between matched keypoints and a caption of the counts.

    Args:
        image0: a path or pixels, as a detector takes them.
        image1: the other image.
        features0: of ``image0``.
        features1: of ``image1``.
        matches: M matches between the two.
        inliers: (M,) bool: true ones are drawn green, the others faintly red below them; ``None``: all are green.
        caption: replaces the caption of the counts.

    Returns:
        The picture, which has ``save(path)``. Images with a side above 1600 px are reduced; nothing is enlarged.

    Raises:
        InputError: an image is none, or images, features, matches and inliers do not belong together.

    Example:
        >>> import semkey
        >>> from skimage import data
        >>> left, right, _ = data.stereo_motorcycle()
        >>> detector = semkey.load("nano", max_keypoints=300)
        >>> features0, features1 = detector.extract(left), detector.extract(right)
        >>> matches = semkey.match(features0, features1)
        >>> semkey.draw_matches(left, right, features0, features1, matches).shape
        (536, 1488, 3)
    """
    pixels0, pixels1 = _pixels(image0, features0), _pixels(image1, features1)
    good = _inlier_mask(matches, inliers)
    pairs = matches.indices.detach().cpu().numpy()
    if len(pairs) and (pairs.max(axis=0) >= [len(features0), len(features1)]).any():
        raise InputError("the matches are of other features: an index is larger than the number of keypoints")
    small0, points0 = _reduced(pixels0, features0.keypoints.detach().cpu().numpy())
    small1, points1 = _reduced(pixels1, features1.keypoints.detach().cpu().numpy())
    height, split = max(small0.shape[0], small1.shape[0]), small0.shape[1] + IMAGE_GAP
    canvas = np.full((height, split + small1.shape[1], 3), BACKGROUND, dtype=np.uint8)
    canvas[: small0.shape[0], : small0.shape[1]] = cv2.convertScaleAbs(small0, alpha=MATCH_IMAGE_BRIGHTNESS)
    canvas[: small1.shape[0], split:] = cv2.convertScaleAbs(small1, alpha=MATCH_IMAGE_BRIGHTNESS)

    starts, ends = points0[pairs[:, 0]], points1[pairs[:, 1]] + np.array([split, 0], dtype=np.float32)
    canvas = _draw_lines(canvas, starts[~good], ends[~good], OUTLIER_RGB, OUTLIER_OPACITY)
    canvas = _draw_lines(canvas, starts[good], ends[good], INLIER_RGB, INLIER_OPACITY)
    if caption is None:
        caption = f"{len(features0)} and {len(features1)} keypoints, {len(matches)} matches"
        if inliers is not None:
            caption += f", {int(good.sum())} inliers"
    return Picture(with_caption(canvas, caption))


def _pixels(given: ImageLike, features: Features) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of the image that features are of."""
    image = load_pixels(given)
    if isinstance(image, torch.Tensor):
        image = (to_rgb(image) * 255).round().to(torch.uint8).cpu().numpy().transpose(1, 2, 0)
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if (image.shape[1], image.shape[0]) != tuple(features.image_size):
        sizes = f"{features.image_size[0]}x{features.image_size[1]}, the image is {image.shape[1]}x{image.shape[0]}"
        raise InputError(f"the features come from an image of {sizes}")
    return np.ascontiguousarray(image)


def _inlier_mask(matches: Matches, inliers: ArrayLike | torch.Tensor | None) -> NDArray[np.bool_]:
    if inliers is None:
        return np.ones(len(matches), dtype=bool)
    mask = np.asarray(inliers.cpu() if isinstance(inliers, torch.Tensor) else inliers, dtype=bool)
    if mask.shape != (len(matches),):
        raise InputError(f"inliers have shape {mask.shape}, expected ({len(matches)},)")
    return mask


def _reduced(image: NDArray[np.uint8], keypoints: NDArray[np.float32]) -> tuple[NDArray, NDArray[np.float32]]:
    height, width = image.shape[:2]
    scale = MATCH_IMAGE_SIDE / max(height, width)
    if scale >= 1:
        return image, keypoints
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), resize_keypoints(keypoints, (width, height), size)


def _draw_lines(
    canvas: NDArray[np.uint8], starts: NDArray, ends: NDArray, color: tuple[int, int, int], opacity: float
) -> NDArray[np.uint8]:
    if len(starts) == 0:
        return canvas
    opacity *= min(1.0, (CROWDED_LINES / len(starts)) ** 0.5)
    layer = canvas.copy()
    segments = np.round(np.stack([starts, ends], axis=1) * 2**SUBPIXEL_BITS).astype(np.int32)
    cv2.polylines(layer, list(segments), isClosed=False, color=color, lineType=cv2.LINE_AA, shift=SUBPIXEL_BITS)
    for point in np.concatenate([starts, ends]):
        _circle(layer, point, 2.0, color, 1)
    return np.asarray(cv2.addWeighted(layer, opacity, canvas, 1 - opacity, 0), dtype=np.uint8)


def _circle(
    canvas: NDArray[np.uint8], point: NDArray, radius: float, color: tuple[int, int, int], thickness: int
) -> None:
    scale = 2**SUBPIXEL_BITS
    center = (round(float(point[0]) * scale), round(float(point[1]) * scale))
    cv2.circle(canvas, center, round(radius * scale), color, thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def _marker_size(image: NDArray[np.uint8]) -> tuple[float, int]:
    """Circle radius and line width in pixels that stay visible when the image is shown at screen size."""
    diagonal = float(np.hypot(*image.shape[:2]))
    return max(2.0, diagonal / 250), max(1, round(diagonal / 1600))


def _value_colors(values: NDArray[np.float32]) -> list[tuple[int, int, int]]:
    first, last = TURBO_RANGE
    levels = np.round(first + np.clip(values, 0, 1) * (last - first)).astype(np.uint8).reshape(-1, 1)
    if levels.size == 0:
        return []
    bgr = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[:, 0]
    return [(int(red), int(green), int(blue)) for blue, green, red in bgr]


def with_caption(canvas: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """The picture with a dark strip below it that holds a line of text; at least wide enough for a short one."""
    width = max(canvas.shape[1], MIN_CAPTION_WIDTH)
    scale = max(0.5, width / 1800)
    strip_height = round(44 * scale)
    picture = np.full((canvas.shape[0] + strip_height, width, 3), BACKGROUND, dtype=np.uint8)
    picture[: canvas.shape[0], : canvas.shape[1]] = canvas
    origin = (round(14 * scale), picture.shape[0] - round(14 * scale))
    font = cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(picture, text, origin, font, scale, CAPTION_RGB, max(1, round(scale * 1.5)), cv2.LINE_AA)
    return picture
