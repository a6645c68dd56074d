"""What looks like a point of an image to a backbone, in that image and in another one."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from semkey.backbones.backbone import Backbone
from semkey.backbones.local_files import weights_on_disk
from semkey.backbones.specs import BACKBONES
from semkey.geometry.pixels import resize_keypoints
from semkey.model.precision import uses_bfloat16
from semkey.model.preprocess import to_rgb

LONGEST_SIDE = 640
"""Larger images are reduced for the backbone, whose time grows faster than their pixels."""
_OPACITY = 0.6
_MARK_RGB = (255, 255, 255)
_EDGE_RGB = (0, 0, 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class SeenImage:
    """An image through a backbone.

    Attributes:
        image: (H, W, 3) uint8 RGB, reduced to :data:`LONGEST_SIDE`.
        tokens: (C, h, w) float32, unit norm at each cell.
        patch: side of a cell in pixels of ``image``; the last row and column reach over its edge.
    """

    image: NDArray[np.uint8]
    tokens: torch.Tensor
    patch: int


def backbone_choices() -> list[tuple[str, str]]:
    """(text, name) of all backbones, those first whose weights are on this machine."""
    here = [(name, name) for name, preset in BACKBONES.items() if weights_on_disk(preset) is not None]
    names = {name for _, name in here}
    return here + [
        (f"{name} ({preset.source.megabytes} MB, fetched at the first click)", name)
        for name, preset in BACKBONES.items()
        if name not in names
    ]


def encode_image(image: NDArray[np.uint8], backbone: Backbone) -> SeenImage:
    """What a backbone sees in an image (H, W, 3) uint8 RGB."""
    small = reduced(image)
    device = backbone.mean.device
    with (
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=uses_bfloat16("auto", device)),
    ):
        seen = backbone(to_rgb(small)[None].to(device))
    return SeenImage(image=small, tokens=F.normalize(seen.maps[-1][0].float(), dim=0).cpu(), patch=seen.patch)


def reduced(image: NDArray[np.uint8], longest_side: int = LONGEST_SIDE) -> NDArray[np.uint8]:
    """The image (H, W, 3), smaller where a side is longer than that many pixels."""
    height, width = image.shape[:2]
    scale = longest_side / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def similarity(clicked: SeenImage, point: tuple[float, float], other: SeenImage) -> NDArray[np.float32]:
    """How much every pixel of an image is like a point, (H, W) cosines of what the backbone sees.

    Args:
        clicked: the image with the point.
        point: x y in pixels of ``clicked.image``.
        other: the image that is compared, of the same backbone; may be the same.
    """
    # Cell j covers the pixels p j .. p j + p - 1: pixel x lies at (x + 0.5) / p cells from the left edge.
    cells = torch.tensor([clicked.tokens.shape[2], clicked.tokens.shape[1]]) * clicked.patch
    place = 2 * (torch.tensor(point, dtype=torch.float32) + 0.5) / cells - 1
    value = F.grid_sample(clicked.tokens[None], place[None, None, None], padding_mode="border", align_corners=False)
    cosines = torch.einsum("c,chw->hw", F.normalize(value[0, :, 0, 0], dim=0), other.tokens).numpy()
    covered = (cosines.shape[1] * other.patch, cosines.shape[0] * other.patch)
    height, width = other.image.shape[:2]
    whole = cv2.resize(cosines, covered, interpolation=cv2.INTER_LINEAR)
    return np.asarray(whole[:height, :width], dtype=np.float32)


def draw_similarity(
    seen: SeenImage, cosines: NDArray[np.float32], limits: tuple[float, float], mark: tuple[float, float] | None
) -> NDArray[np.uint8]:
    """The image under the colours of its similarity, blue (low) to red (high), with a cross at a point.

    Args:
        seen: the image.
        cosines: (H, W) of its pixels.
        limits: the cosines that are drawn blue and red.
        mark: x y of the cross; None draws a ring where the similarity is largest.
    """
    low, high = limits
    levels = np.clip((cosines - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
    heat = cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
    canvas = np.asarray(cv2.addWeighted(heat, _OPACITY, seen.image, 1 - _OPACITY, 0), dtype=np.uint8)
    x, y = (round(value) for value in (best(cosines) if mark is None else mark))
    for color, width in ((_EDGE_RGB, 4), (_MARK_RGB, 2)):
        if mark is None:
            cv2.circle(canvas, (x, y), 9, color, width, cv2.LINE_AA)
        else:
            cv2.drawMarker(canvas, (x, y), color, cv2.MARKER_CROSS, 20, width, cv2.LINE_AA)
    return canvas


def best(cosines: NDArray[np.float32]) -> tuple[float, float]:
    """Pixel x y of the largest similarity."""
    row, column = np.unravel_index(int(np.argmax(cosines)), cosines.shape)
    return float(column), float(row)


def original_point(point: tuple[float, float], shown: NDArray[np.uint8], size: tuple[int, int]) -> tuple[float, float]:
    """A pixel x y of a reduced picture in pixels of the image of ``size`` (width, height)."""
    moved = resize_keypoints(np.array([point], dtype=np.float32), (shown.shape[1], shown.shape[0]), size)
    return float(moved[0, 0]), float(moved[0, 1])
