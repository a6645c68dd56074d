"""Drawings of keypoints on an image and of matches between two images.

Everything is drawn over a dark edge of its own, so that it is seen on bright and on dark pictures.
"""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from semkey.errors import InputError, check_type
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
OUTLIER_BESIDE_ERRORS_RGB = (175, 175, 175)
"""Where inliers are coloured by error, red is an inlier's."""
INLIER_OPACITY, OUTLIER_OPACITY = 0.8, 0.45
MOST_LINES = 150
"""Of more matches a random sample is drawn: more lines than this cannot be told apart."""
COVARIANCE_SIGMAS = 8.0
"""Ellipses of keypoints are this many standard deviations, which are fractions of a pixel mostly."""
PLEASANT_ASPECT = 1.5
"""Width to height of a picture that fits a screen: two images go side by side or above each other, as comes nearer."""
EDGE_RGB = (0, 0, 0)
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
    """Draw keypoints at their sub-pixel positions, coloured from blue (low) over green to red (high).

    Reliabilities are probabilities: blue is 0 and red 1. Scores have another scale for each kind of features: blue is
    the lowest of the image and red the highest.

    A keypoint with a covariance is an ellipse of eight standard deviations: long where it may slide along an edge.
    Others are circles, larger the more reliable they are (coloured by reliability: the higher their score is).

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
    shown = features.numpy()
    values, others = shown.scores, shown.reliability
    if color_by == "reliability":
        values, others = others, values
    colors = _value_colors(values if color_by == "reliability" else _spread(values))
    # All edges first: where keypoints crowd, no edge may cover the colour of another.
    for edge in (True, False):
        for k in range(len(features) - 1, -1, -1):
            color, width = (EDGE_RGB, thickness + 1) if edge else (colors[k], thickness)
            if shown.covariances is not None:
                _ellipse(canvas, shown.keypoints[k], shown.covariances[k], color, width)
            else:
                size = radius * (0.6 + 0.8 * float(np.clip(others[k], 0, 1)))
                _circle(canvas, shown.keypoints[k], size, color, width)
    return Picture(canvas)


def draw_matches(
    image0: ImageLike,
    image1: ImageLike,
    features0: Features,
    features1: Features,
    matches: Matches,
    inliers: ArrayLike | torch.Tensor | None = None,
    *,
    errors: ArrayLike | None = None,
    layout: Literal["auto", "horizontal", "vertical"] = "auto",
    caption: str | None = None,
) -> Picture:
    """Draw two images with lines between matched keypoints and a caption of the counts.

    Of more than 150 matches a random sample of 150 is drawn, inliers and others in proportion, and said in the caption.

    Args:
        image0: a path or pixels, as a detector takes them.
        image1: the other image.
        features0: of ``image0``.
        features1: of ``image1``.
        matches: M matches between the two.
        inliers: (M,) bool: true ones are drawn green, the others faintly red below them; ``None``: all are green.
        errors: (M,) pixels of every match: inliers are coloured from blue (0) over green to red (their largest), the
            others are grey.
        layout: images side by side or above each other; ``auto`` takes what fits a screen better.
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
    check_type(matches, Matches, "the matches", "pass what semkey.match gives")
    good = _inlier_mask(matches, inliers)
    pairs = matches.indices.detach().cpu().numpy()
    if len(pairs) and (pairs.max(axis=0) >= [len(features0), len(features1)]).any():
        raise InputError("the matches are of other features: an index is larger than the number of keypoints")
    small0, points0 = _reduced(pixels0, features0.keypoints.detach().cpu().numpy())
    small1, points1 = _reduced(pixels1, features1.keypoints.detach().cpu().numpy())
    canvas, offset = _two_images(small0, small1, layout)
    starts, ends = points0[pairs[:, 0]], points1[pairs[:, 1]] + offset
    colors = _line_colors(good, errors, len(matches))
    drawn = _sample(good)
    canvas = _draw_lines(canvas, starts, ends, colors, drawn & ~good, OUTLIER_OPACITY)
    canvas = _draw_lines(canvas, starts, ends, colors, drawn & good, INLIER_OPACITY)
    if caption is None:
        caption = f"{len(features0)} and {len(features1)} keypoints, {len(matches)} matches"
        if inliers is not None:
            caption += f", {int(good.sum())} inliers"
            caption += f" ({good.mean():.0%})" if len(matches) else ""
        if errors is not None and good.any():
            caption += f", errors from 0 (blue) to {float(np.asarray(errors)[good].max()):.2g} px (red)"
        if drawn.sum() < len(matches):
            caption += f"; {int(drawn.sum())} drawn"
    return Picture(with_caption(canvas, caption))


def _two_images(
    image0: NDArray[Any], image1: NDArray[Any], layout: str
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Both images, dimmed, on one canvas, and where the second one's first pixel is, x y."""
    (height0, width0), (height1, width1) = image0.shape[:2], image1.shape[:2]
    beside = (width0 + IMAGE_GAP + width1, max(height0, height1))
    above = (max(width0, width1), height0 + IMAGE_GAP + height1)
    if layout == "auto":
        misfit = [abs(np.log(width / height / PLEASANT_ASPECT)) for width, height in (beside, above)]
        layout = "horizontal" if misfit[0] <= misfit[1] else "vertical"
    elif layout not in ("horizontal", "vertical"):
        raise InputError(f"layout '{layout}' is unknown: auto, horizontal or vertical")
    width, height = beside if layout == "horizontal" else above
    x, y = (width0 + IMAGE_GAP, 0) if layout == "horizontal" else (0, height0 + IMAGE_GAP)
    canvas = np.full((height, width, 3), BACKGROUND, dtype=np.uint8)
    canvas[:height0, :width0] = cv2.convertScaleAbs(image0, alpha=MATCH_IMAGE_BRIGHTNESS)
    canvas[y : y + height1, x : x + width1] = cv2.convertScaleAbs(image1, alpha=MATCH_IMAGE_BRIGHTNESS)
    return canvas, np.array([x, y], dtype=np.float32)


def _sample(good: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which matches are drawn: all, or a random sample in which inliers have their share."""
    if len(good) <= MOST_LINES:
        return np.ones(len(good), dtype=bool)
    rng = np.random.default_rng(0)
    inliers = round(MOST_LINES * float(good.mean()))
    if good.any():
        inliers = max(inliers, 1)
    if not good.all():
        inliers = min(inliers, MOST_LINES - 1)
    drawn = np.zeros(len(good), dtype=bool)
    for indices, count in ((np.flatnonzero(good), inliers), (np.flatnonzero(~good), MOST_LINES - inliers)):
        drawn[rng.choice(indices, size=min(count, len(indices)), replace=False)] = True
    return drawn


def _line_colors(good: NDArray[np.bool_], errors: ArrayLike | None, count: int) -> list[tuple[int, int, int]]:
    if errors is None:
        return [INLIER_RGB if one else OUTLIER_RGB for one in good.tolist()]
    values = np.asarray(errors, dtype=np.float32)
    if values.shape != (count,):
        raise InputError(f"errors have shape {values.shape}, expected ({count},)")
    largest = float(values[good].max(initial=0.0)) or 1.0
    return [
        color if one else OUTLIER_BESIDE_ERRORS_RGB
        for color, one in zip(_value_colors(np.nan_to_num(values / largest, nan=1.0)), good.tolist(), strict=True)
    ]


def _pixels(given: ImageLike, features: Features) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 RGB of the image that features are of."""
    image = load_pixels(given)
    check_type(features, Features, "the features", "pass what detector.extract gives")
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


def _reduced(image: NDArray[np.uint8], keypoints: NDArray[np.float32]) -> tuple[NDArray[Any], NDArray[np.float32]]:
    height, width = image.shape[:2]
    scale = MATCH_IMAGE_SIDE / max(height, width)
    if scale >= 1:
        return image, keypoints
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA), resize_keypoints(keypoints, (width, height), size)


def _draw_lines(
    canvas: NDArray[np.uint8],
    starts: NDArray[Any],
    ends: NDArray[Any],
    colors: list[tuple[int, int, int]],
    chosen: NDArray[np.bool_],
    opacity: float,
) -> NDArray[np.uint8]:
    if not chosen.any():
        return canvas
    layer = canvas.copy()
    thickness = max(1, round(float(np.hypot(*canvas.shape[:2])) / 1400))
    segments = np.round(np.stack([starts, ends], axis=1) * 2**SUBPIXEL_BITS).astype(np.int32)
    for index in np.flatnonzero(chosen).tolist():
        line = [segments[index]]
        cv2.polylines(layer, line, False, colors[index], thickness, cv2.LINE_AA, SUBPIXEL_BITS)
        for point in (starts[index], ends[index]):
            _circle(layer, point, 1.5 + thickness, EDGE_RGB, thickness + 2)
            _circle(layer, point, 1.5 + thickness, colors[index], thickness)
    return np.asarray(cv2.addWeighted(layer, opacity, canvas, 1 - opacity, 0), dtype=np.uint8)


def _ellipse(
    canvas: NDArray[np.uint8],
    point: NDArray[Any],
    covariance: NDArray[Any],
    color: tuple[int, int, int],
    thickness: int,
) -> None:
    """The ellipse of :data:`COVARIANCE_SIGMAS` standard deviations, at least a pixel wide."""
    variances, axes = np.linalg.eigh(covariance.astype(np.float64))
    radii = np.maximum(COVARIANCE_SIGMAS * np.sqrt(np.maximum(variances, 0)), 1.0)
    angle = float(np.degrees(np.arctan2(axes[1, 1], axes[0, 1])))
    scale = 2**SUBPIXEL_BITS
    center = (round(float(point[0]) * scale), round(float(point[1]) * scale))
    size = (round(float(radii[1]) * scale), round(float(radii[0]) * scale))
    cv2.ellipse(canvas, center, size, angle, 0, 360, color, thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def _circle(
    canvas: NDArray[np.uint8], point: NDArray[Any], radius: float, color: tuple[int, int, int], thickness: int
) -> None:
    scale = 2**SUBPIXEL_BITS
    center = (round(float(point[0]) * scale), round(float(point[1]) * scale))
    cv2.circle(canvas, center, round(radius * scale), color, thickness, cv2.LINE_AA, SUBPIXEL_BITS)


def _marker_size(image: NDArray[np.uint8]) -> tuple[float, int]:
    """Circle radius and line width in pixels that stay visible when the image is shown at screen size."""
    diagonal = float(np.hypot(*image.shape[:2]))
    return max(2.0, diagonal / 250), max(1, round(diagonal / 1600))


def _spread(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Values from 0 to 1 in the order of the given ones; all 1 where they are equal."""
    low, high = float(values.min(initial=np.inf)), float(values.max(initial=-np.inf))
    return (values - low) / (high - low) if high > low else np.ones_like(values)


def _value_colors(values: NDArray[np.float32]) -> list[tuple[int, int, int]]:
    first, last = TURBO_RANGE
    levels = np.round(first + np.clip(values, 0, 1) * (last - first)).astype(np.uint8).reshape(-1, 1)
    if levels.size == 0:
        return []
    bgr = cv2.applyColorMap(levels, cv2.COLORMAP_TURBO)[:, 0]
    return [(int(red), int(green), int(blue)) for blue, green, red in bgr]


def with_caption(canvas: NDArray[np.uint8], text: str) -> NDArray[np.uint8]:
    """The picture with a dark strip below it that holds a text, in as many lines as it needs."""
    width = max(canvas.shape[1], MIN_CAPTION_WIDTH)
    scale = max(0.5, width / 1800)
    thickness, margin, font = max(1, round(scale * 1.5)), round(14 * scale), cv2.FONT_HERSHEY_SIMPLEX
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines[-1] else word
        fits = cv2.getTextSize(longer, font, scale, thickness)[0][0] <= width - 2 * margin
        lines = [*lines[:-1], longer] if fits or not lines[-1] else [*lines, word]
    line_height = round(30 * scale)
    strip_height = round(44 * scale) + (len(lines) - 1) * line_height
    picture = np.full((canvas.shape[0] + strip_height, width, 3), BACKGROUND, dtype=np.uint8)
    picture[: canvas.shape[0], : canvas.shape[1]] = canvas
    for number, line in enumerate(reversed(lines)):
        origin = (margin, picture.shape[0] - margin - number * line_height)
        cv2.putText(picture, line, origin, font, scale, CAPTION_RGB, thickness, cv2.LINE_AA)
    return picture
