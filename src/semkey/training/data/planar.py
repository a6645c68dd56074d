"""Pairs of one picture seen through two random homographies: the truth between the views is exact."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from semkey.geometry.homography import warp_points
from semkey.training.data.augment import relight
from semkey.training.data.config import DataConfig, ViewConfig
from semkey.training.data.pair import MARGIN, OWN_SHARE, Pair, choose_targets, inside, pad_targets, view_entries

View = NDArray[np.uint8]
Array = NDArray[np.float64]

_SHARP_SCALE = 0.8  # views reduced more than this are blurred first, so that they do not alias


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """What both views show.

    Attributes:
        image: (h, w) uint8, or (h, w, 3) where the views are needed in colour.
        keypoints: (N, 2) float64 pixels x y.
        strengths: (N,) float32 in [0, 1]; one of strength 0 is no target, but may become one of the points.
        descriptors: (N, D) float32 unit norm, or None.
        is_scene: whether places in it look different from each other.
        mix: (3,) float32, what the channels of a coloured image weigh in its grey values; None for the usual weights.
    """

    image: View
    keypoints: Array
    strengths: NDArray[np.float32]
    descriptors: NDArray[np.float32] | None = None
    is_scene: bool = True
    mix: NDArray[np.float32] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewPair:
    """Homographies (3, 3) from the picture to both views, and the views' scales."""

    H0: Array
    H1: Array
    scale0: float
    scale1: float

    @property
    def H10(self) -> Array:
        """View 0 to view 1, the last entry 1 where it is not 0."""
        H = self.H1 @ np.linalg.inv(self.H0)
        return H / H[2, 2] if abs(H[2, 2]) > 1e-12 else H


def random_views(
    rng: np.random.Generator, picture_size: tuple[int, int], size: tuple[int, int], config: ViewConfig
) -> ViewPair:
    """Draw two views of a picture.

    Args:
        rng: source of randomness.
        picture_size: (width, height) of the picture.
        size: (width, height) of the views.
        config: ranges.
    """
    picture, view = np.array(picture_size, float), np.array(size, float)
    fill = float((view / picture).max())
    relative = float(np.exp(rng.uniform(-np.log(config.scale), np.log(config.scale))))
    scale0 = fill * float(np.exp(rng.uniform(0.0, 0.5))) / np.sqrt(relative)
    scale1 = scale0 * relative
    quarters = int(rng.integers(1, 4)) if rng.random() < config.quarter_turns else 0
    base = _triangular(rng, config.roll_deg) + 90.0 * quarters
    turn = _triangular(rng, config.rotation_deg)
    center0 = rng.uniform(0.25, 0.75, 2) * picture
    reach = 0.3 * min(size) / max(scale0, scale1)
    center1 = center0 + rng.uniform(-reach, reach, 2)
    H0 = _view(rng, center0, size, config, scale0, base)
    if config.shifted > 0 and rng.random() < config.shifted:
        return ViewPair(
            H0=H0, H1=_translation(*rng.uniform(-1, 1, 2) * config.shift_px) @ H0, scale0=scale0, scale1=scale0
        )
    H1 = _view(rng, center1, size, config, scale1, base + turn)
    return ViewPair(H0=H0, H1=H1, scale0=scale0, scale1=scale1)


def plain_view(image: View, size: tuple[int, int]) -> View:
    """The middle of an image (h, w) or (h, w, 3), scaled to fill a view of ``size`` (width, height); nothing else."""
    H, scale = plain_homography((image.shape[1], image.shape[0]), size)
    return warp_image(image, H, size, scale, cv2.BORDER_REFLECT_101)


def plain_homography(picture_size: tuple[int, int], size: tuple[int, int]) -> tuple[Array, float]:
    """Picture pixels to the pixels of its :func:`plain_view`, and the scale."""
    scale = max(size[0] / picture_size[0], size[1] / picture_size[1])
    H = np.diag([scale, scale, 1.0])
    H[:2, 2] = [(size[i] - 1) / 2 - scale * (picture_size[i] - 1) / 2 for i in (0, 1)]
    return H, scale


def warp_image(image: View, H: Array, size: tuple[int, int], scale: float, border: int) -> View:
    """An image (h, w) or (h, w, 3) through a homography; where ``scale`` says that it shrinks, it is blurred first."""
    if scale < _SHARP_SCALE:
        image = np.asarray(cv2.GaussianBlur(image, (0, 0), 0.5 * np.sqrt(1.0 / scale**2 - 1.0)), np.uint8)
    return np.asarray(cv2.warpPerspective(image, H, size, flags=cv2.INTER_LINEAR, borderMode=border), np.uint8)


def covered(picture_size: tuple[int, int], H: Array, size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W): which pixels of the view show the picture itself."""
    ones = np.ones((picture_size[1], picture_size[0]), np.uint8)
    return np.asarray(cv2.warpPerspective(ones, H, size, flags=cv2.INTER_LINEAR)) > 0


def planar_pair(rng: np.random.Generator, picture: Picture, config: DataConfig) -> Pair | None:
    """A pair of views of a picture, or None where they share too little; keys as in :mod:`.pair`."""
    size = config.size
    picture_size = (picture.image.shape[1], picture.image.shape[0])
    image, keypoints, mix = picture.image, picture.keypoints, picture.mix
    is_plain = config.views.plain > 0 and picture.is_scene and rng.random() < config.views.plain
    if rng.random() < config.views.flips and not is_plain:
        image = np.ascontiguousarray(image[:, ::-1])
        keypoints = np.stack([picture_size[0] - 1 - keypoints[:, 0], keypoints[:, 1]], axis=1)
    views = random_views(rng, picture_size, size, config.views)
    if is_plain:
        views = _from_plain(views, picture_size, size)
    H10 = views.H10
    valid0, valid1 = (covered(picture_size, H, size) for H in (views.H0, views.H1))
    mapped = [warp_points(H, keypoints) for H in (views.H0, views.H1)]
    chosen = [choose_targets(points, picture.strengths, size) for points in mapped]

    own = chosen[0] if len(chosen[0]) else np.flatnonzero(inside(mapped[0], size))
    own = own[rng.permutation(len(own))[: int(OWN_SHARE * config.points)]]
    anywhere = rng.uniform(MARGIN, np.array(size) - 1 - MARGIN, (4 * config.points, 2))
    points0 = np.concatenate([mapped[0][own], anywhere])
    points1 = warp_points(H10, points0)
    good = inside(points0, size) & inside(points1, size)
    good[good] &= _at(valid0, points0[good]) & _at(valid1, points1[good])
    kept = np.flatnonzero(good)[: config.points]
    if len(kept) < config.points:
        return None

    border = cv2.BORDER_REFLECT_101 if rng.random() < config.views.mirrored_border else cv2.BORDER_CONSTANT
    view0 = plain_view(image, size) if is_plain else warp_image(image, views.H0, size, views.scale0, border)
    view1 = warp_image(image, views.H1, size, views.scale1, border)
    if not is_plain:
        view0 = relight(rng, view0, config.light)
    pair = {
        **view_entries([view0, relight(rng, view1, config.light)], mix, plain=is_plain),
        "H10": torch.from_numpy(H10),
        "warp10": torch.zeros(config.height, config.width, 2),
        "is_scene": torch.tensor(float(picture.is_scene)),
        "points0": torch.from_numpy(points0[kept]).float(),
        "points1": torch.from_numpy(points1[kept]).float(),
        "targets0": pad_targets(mapped[0][chosen[0]], picture.strengths[chosen[0]]),
        "targets1": pad_targets(mapped[1][chosen[1]], picture.strengths[chosen[1]]),
        "valid0": torch.from_numpy(valid0),
        "valid1": torch.from_numpy(valid1),
    }
    if picture.descriptors is not None:
        teacher = torch.zeros(config.points, picture.descriptors.shape[1])
        is_own = kept < len(own)
        teacher[torch.from_numpy(is_own)] = torch.from_numpy(picture.descriptors[own[kept[is_own]]])
        pair["teacher"] = teacher
    return pair


def _from_plain(views: ViewPair, picture_size: tuple[int, int], size: tuple[int, int]) -> ViewPair:
    """The same change between the views, with the picture itself as view 0."""
    H0, scale0 = plain_homography(picture_size, size)
    return ViewPair(H0=H0, H1=views.H10 @ H0, scale0=scale0, scale1=scale0 * views.scale1 / views.scale0)


def _triangular(rng: np.random.Generator, limit: float) -> float:
    return float(rng.triangular(-limit, 0.0, limit)) if limit > 0 else 0.0


def _translation(x: float, y: float) -> Array:
    return np.array([[1, 0, x], [0, 1, y], [0, 0, 1.0]])


def _view(
    rng: np.random.Generator, source: Array, size: tuple[int, int], config: ViewConfig, scale: float, angle_deg: float
) -> Array:
    """Homography from picture pixels to view pixels: the picture's point ``source`` lands near the view's centre."""
    width, height = size
    angle = np.deg2rad(angle_deg)
    similarity = scale * np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 0]])
    similarity[2, 2] = 1.0
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], dtype=np.float32)
    shift = rng.uniform(-1, 1, (4, 2)) * np.array([width, height]) * config.perspective * rng.uniform(0, 1)
    tilt = cv2.getPerspectiveTransform(corners, (corners + shift).astype(np.float32))
    return tilt @ _translation(width / 2, height / 2) @ similarity @ _translation(-source[0], -source[1])


def _at(mask: NDArray[np.bool_], points: Array) -> NDArray[np.bool_]:
    pixels = np.rint(points).astype(int)
    return mask[pixels[:, 1], pixels[:, 0]]
