"""Pictures of training pairs, by which one sees whether the data are right."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from semkey.geometry.homography import warp_points
from semkey.training.data.pair import Pair

Rgb = NDArray[np.uint8]

SCALE = 1.6
"""Views are enlarged by this: two 320 pixels wide fill a report."""
_LINES = 40
_GAP = 8
_BACKGROUND = 24
_TARGET_RGB = (255, 214, 10)
_BITS = 4  # OpenCV draws at 1/16 px with this shift


@dataclass(frozen=True, kw_only=True)
class PairFigures:
    """What can be counted on a pair.

    Attributes:
        seen: share of the pixels of view 0 that lie inside view 1 and are covered in both.
        agreement: correlation in [-1, 1] of the two views where both see the same, view 1 brought into view 0; near 1
            before photometric change if the correspondences are right.
        targets: detection targets in view 0.
    """

    seen: float
    agreement: float
    targets: int


def full_warp(pair: Pair) -> NDArray[np.float32]:
    """(H, W, 2) float32: where each pixel of view 0 lies in view 1; NaN: not seen, or not covered by the source."""
    height, width = pair["valid0"].shape
    if bool(torch.isfinite(pair["H10"]).all()):
        x, y = np.meshgrid(np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64))
        warp = warp_points(pair["H10"].numpy(), np.stack([x, y], axis=-1).reshape(-1, 2)).reshape(height, width, 2)
    else:
        warp = pair["warp10"].numpy().astype(np.float64)
    inside = ((warp >= 0) & (warp <= [width - 1, height - 1])).all(axis=-1) & pair["valid0"].numpy()
    column, row = np.where(inside[..., None], np.rint(warp), 0).astype(int).transpose(2, 0, 1)
    inside &= pair["valid1"].numpy()[row, column]
    return np.where(inside[..., None], warp, np.nan).astype(np.float32)


def view1_in_view0(pair: Pair) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """View 1 as view 0 would see it, (H, W) float32 normalised, and (H, W) bool where it is seen."""
    warp = full_warp(pair)
    seen = np.isfinite(warp[..., 0])
    x, y = (np.where(seen, warp[..., k], -1.0).astype(np.float32) for k in (0, 1))
    return np.asarray(cv2.remap(pair["image1"][0].numpy(), x, y, cv2.INTER_LINEAR), np.float32), seen


def measure_pair(pair: Pair) -> PairFigures:
    """Figures of a pair."""
    moved, seen = view1_in_view0(pair)
    first, second = pair["image0"][0].numpy()[seen], moved[seen]
    is_textured = len(first) > 1 and first.std() > 1e-5 and second.std() > 1e-5
    return PairFigures(
        seen=float(seen.mean()),
        agreement=float(np.corrcoef(first, second)[0, 1]) if is_textured else float("nan"),
        targets=int((pair["targets0"][:, 2] > 0).sum()),
    )


def draw_pair(pair: Pair) -> Rgb:
    """Both views side by side: corresponding points joined by lines, targets as yellow circles.

    Points have the colour of their place in view 0; a circle is the larger the stronger its target is.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    views = [_display(pair[f"image{k}"][0].numpy()) for k in (0, 1)]
    height, width = views[0].shape[:2]
    canvas = np.full((height, 2 * width + _GAP, 3), _BACKGROUND, np.uint8)
    canvas[:, :width], canvas[:, width + _GAP :] = views
    for k, left in ((0, 0), (1, width + _GAP)):
        targets = pair[f"targets{k}"].numpy()
        for x, y, strength in targets[targets[:, 2] > 0]:
            _circle(canvas, (x, y), left, 1.5 + 3.0 * float(strength), _TARGET_RGB)
    points0, points1 = pair["points0"].numpy(), pair["points1"].numpy()
    shown = np.linspace(0, len(points0) - 1, min(_LINES, len(points0))).round().astype(int)
    layer = canvas.copy()
    for color, start, end in zip(_colors(points0[shown], pair), points0[shown], points1[shown], strict=True):
        first, second = _fixed(start, 0), _fixed(end, width + _GAP)
        cv2.line(layer, first, second, color, 1, cv2.LINE_AA, _BITS)
    canvas = np.asarray(cv2.addWeighted(layer, 0.55, canvas, 0.45, 0), np.uint8)
    for color, start, end in zip(_colors(points0[shown], pair), points0[shown], points1[shown], strict=True):
        _circle(canvas, start, 0, 4.0, color, 2)
        _circle(canvas, end, width + _GAP, 4.0, color, 2)
    return canvas


def flicker_frames(pair: Pair) -> list[Rgb]:
    """View 0, and view 1 brought into view 0, for showing in turn: nothing that both see may move.

    What view 1 does not see is dark in both.
    """
    moved, seen = view1_in_view0(pair)
    first = _display(np.where(seen, pair["image0"][0].numpy(), np.nan))
    return [first, _display(np.where(seen, moved, np.nan))]


def overlay(pair: Pair) -> Rgb:
    """View 0 in red and view 1, brought into view 0, in cyan: grey where they agree, colour fringes where they do not.

    Brightness is compared locally, so that shadows and exposure do not show as colour.
    """
    moved, seen = view1_in_view0(pair)
    first, second = (_flatten(image, seen) for image in (pair["image0"][0].numpy(), moved))
    levels = [np.clip(128 + 48 * np.where(seen, image, 0.0), 0, 255).astype(np.uint8) for image in (first, second)]
    picture = np.stack([levels[0], levels[1], levels[1]], axis=-1)
    picture[~seen] = _BACKGROUND
    return _enlarge(picture)


def _flatten(image: NDArray[np.float32], seen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Local contrast: the mean and the scale of a neighbourhood of 15 pixels' sigma taken out."""
    weight = cv2.GaussianBlur(seen.astype(np.float32), (0, 0), 15.0) + 1e-3
    masked = np.where(seen, image, 0.0).astype(np.float32)
    mean = cv2.GaussianBlur(masked, (0, 0), 15.0) / weight
    centred = np.where(seen, image - mean, 0.0).astype(np.float32)
    spread = np.sqrt(cv2.GaussianBlur(centred**2, (0, 0), 15.0) / weight)
    return np.asarray(centred / np.maximum(spread, 0.1), np.float32)


def _display(image: NDArray[Any]) -> Rgb:
    """A normalised view as enlarged RGB; NaN becomes the background."""
    levels = np.nan_to_num(127.5 + 51.0 * image, nan=_BACKGROUND)
    gray = np.clip(np.rint(levels), 0, 255).astype(np.uint8)
    return _enlarge(np.repeat(gray[..., None], 3, axis=2))


def _enlarge(picture: Rgb) -> Rgb:
    size = (round(picture.shape[1] * SCALE), round(picture.shape[0] * SCALE))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def _colors(points: NDArray[np.float32], pair: Pair) -> list[tuple[int, int, int]]:
    """A colour per point: hue by the direction from the middle of view 0, paler near it."""
    height, width = pair["valid0"].shape
    away = (points - [width / 2, height / 2]) / [width / 2, height / 2]
    hue = (np.arctan2(away[:, 1], away[:, 0]) / (2 * np.pi) % 1.0 * 179).round()
    saturation = 130 + 125 * np.clip(np.hypot(*away.T), 0, 1)
    hsv = np.stack([hue, saturation, np.full(len(points), 255.0)], axis=-1).astype(np.uint8)[None]
    return [(int(r), int(g), int(b)) for r, g, b in cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)[0]]


def _fixed(point: NDArray[Any], left: int) -> tuple[int, int]:
    """A pixel of a view in the fixed-point coordinates of the enlarged picture (half-pixel convention)."""
    x, y = (float(value + 0.5) * SCALE - 0.5 for value in point)
    return round((x + left) * 2**_BITS), round(y * 2**_BITS)


def _circle(
    canvas: Rgb, point: NDArray[Any] | tuple, left: int, radius: float, color: tuple[int, int, int], thickness: int = 1
) -> None:
    center = _fixed(np.asarray(point), left)
    cv2.circle(canvas, center, round(radius * 2**_BITS), color, thickness, cv2.LINE_AA, _BITS)
