"""From images as stored to images as delivered: undistortion and stereo rectification, done once per image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.lens import Calibration, Lens
from semkey.errors import ConfigError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import make_transform, so3_exp, so3_log

# A pinhole image of more than this from the axis is mostly stretched border: wider lenses are cropped.
_MAX_HALF_ANGLE = np.radians(60.0)
# Points along each side of the image whose rays bound the delivered view.
_SIDE_POINTS = 65
# A rotation below this moves no pixel by more than 1e-4 of one.
_SAME_ROTATION = 1e-7
# The delivered view is narrowed by this factor until it lies inside the image, at most to a seventh.
_SHRINK = 1.002
_MAX_SHRINKS = 1000
# A delivered pixel may lie this far outside the centres of the stored ones: below the step of the fixed-point maps.
_SLACK_PX = 0.01
_NO_INVERSE = "the lens distortion cannot be undone inside the image: check the coefficients and their order"

Array = NDArray[np.float64]


class ImageMap(Protocol):
    """Makes a delivered image of a stored one."""

    def __call__(self, image: NDArray[Any]) -> NDArray[Any]:
        """The delivered image, of the same type."""
        ...


class Remap:
    """Samples an image at ``pixels`` (H, W, 2) float32, x y; outside is 0.

    Args:
        pixels: where each delivered pixel lies in the stored image.
        nearest: take the nearest pixel (depth: values must not be mixed) instead of interpolating bilinearly.
    """

    def __init__(self, pixels: NDArray[np.float32], *, nearest: bool = False) -> None:
        # Fixed point is three times as fast as float maps and exact to 1/32 pixel.
        x, y = np.ascontiguousarray(pixels[..., 0]), np.ascontiguousarray(pixels[..., 1])
        self._maps = cv2.convertMaps(x, y, cv2.CV_16SC2, nninterpolation=nearest)
        self._flags = cv2.INTER_NEAREST if nearest else cv2.INTER_LINEAR

    def __call__(self, image: NDArray[Any]) -> NDArray[Any]:
        """The image (H, W) or (H, W, 3) at the map's pixels."""
        return cv2.remap(image, *self._maps, interpolation=self._flags, borderMode=cv2.BORDER_CONSTANT)


@dataclass(frozen=True, kw_only=True, eq=False)
class Optics:
    """How stored images become delivered ones, and the camera of the delivered ones.

    Attributes:
        camera: pinhole camera of the delivered images, None where it is not known.
        baseline: metres between the rectified cameras, None for a single camera.
        T_stored_cam: (4, 4) float64, delivered camera coordinates to those of the stored (left) camera: the rotation
            of rectification.
        left: map of the (left) image, None where it is delivered as it is.
        right: the same for right images.
        depth: the same for depth maps.
    """

    camera: PinholeCamera | None
    baseline: float | None = None
    T_stored_cam: Array = field(default_factory=lambda: np.eye(4))
    left: ImageMap | None = None
    right: ImageMap | None = None
    depth: ImageMap | None = None

    def delivered_mask(self, mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The mask (H, W), 0 or 255, of the delivered (left) image: pixels that read a masked one are masked."""
        if self.left is None:
            return mask
        return np.where(self.left(mask) == np.iinfo(np.uint8).max, np.uint8(255), np.uint8(0))


def make_optics(calibration: Calibration, *, stereo: bool) -> Optics:
    """The optics that undistort (and with ``stereo`` rectify) the images of a calibrated camera.

    The delivered view is the largest one of the images' size without pixels that the camera did not see, and at most
    120 degrees wide. Straight images of a rectified pair are delivered as they are. A pair is rectified by turning
    both cameras half of their relative rotation, then their x axes onto the baseline (Bouguet's method), and both
    get the same pinhole camera with square pixels.

    Raises:
        ConfigError: ``stereo`` without a right camera, or one that is not to the right of the left one.
    """
    if not stereo:
        return _single(calibration.left)
    if calibration.right is None or calibration.T_left_right is None:
        raise ConfigError("the calibration has no right camera; a stereo pair needs the section 'right'")
    left, right, T_left_right = calibration.left, calibration.right, calibration.T_left_right
    if left.size != right.size:
        raise ConfigError(f"left images are {left.size}, right ones {right.size}: a pair must have one size")
    baseline = float(np.linalg.norm(T_left_right[:3, 3]))
    R_left_rect = _rectifying_rotation(T_left_right)
    R_right_rect = T_left_right[:3, :3].T @ R_left_rect
    turned = max(np.linalg.norm(so3_log(R_left_rect)), np.linalg.norm(so3_log(R_right_rect))) > _SAME_ROTATION
    if not turned and left.is_straight and right.is_straight and left.intrinsics == right.intrinsics:
        return Optics(camera=left.pinhole, baseline=baseline)
    x0, x1, y0, y1 = np.array([_seen(left, R_left_rect), _seen(right, R_right_rect)]).T
    window = (float(x0.max()), float(x1.min()), float(y0.max()), float(y1.min()))
    if window[0] >= window[1] or window[2] >= window[3]:
        raise ConfigError("the two cameras have no common view; is T_left_right right camera to left camera?")
    camera, (left_pixels, right_pixels) = _fit(window, 1.0, [(left, R_left_rect), (right, R_right_rect)])
    return Optics(
        camera=camera,
        baseline=baseline,
        T_stored_cam=make_transform(R_left_rect, np.zeros(3)),
        left=Remap(left_pixels),
        right=Remap(right_pixels),
    )


def _single(lens: Lens) -> Optics:
    if lens.is_straight:
        return Optics(camera=lens.pinhole)
    fx, fy, _, _ = lens.intrinsics
    camera, (pixels,) = _fit(_seen(lens, np.eye(3)), fy / fx, [(lens, np.eye(3))])
    return Optics(camera=camera, left=Remap(pixels), depth=Remap(pixels, nearest=True))


def _rectifying_rotation(T_left_right: Array) -> Array:
    """R_left_rect (3, 3) of the common orientation of a rectified pair."""
    half = so3_exp(0.5 * so3_log(T_left_right[:3, :3]))
    direction = half.T @ T_left_right[:3, 3]
    length = float(np.linalg.norm(direction))
    if length < 1e-6 or direction[0] < 0.5 * length:
        raise ConfigError(
            f"T_left_right puts the right camera at {np.round(T_left_right[:3, 3], 4).tolist()} m from the left one: "
            "it must lie to its right (+x); are left and right, or the direction of the transform, swapped?"
        )
    direction /= length
    axis = np.cross([1.0, 0.0, 0.0], direction)
    sine = float(np.linalg.norm(axis))
    if sine < 1e-12:
        return half
    return half @ so3_exp(axis / sine * np.arctan2(sine, direction[0]))


def _seen(lens: Lens, R_stored_rect: Array) -> tuple[float, float, float, float]:
    """x0, x1, y0, y1 of a rectangle on the plane z = 1 of the delivered camera that the image covers."""
    width, height = lens.size
    across, down = np.linspace(0, width - 1, _SIDE_POINTS), np.linspace(0, height - 1, _SIDE_POINTS)
    sides = [
        np.stack([np.zeros(_SIDE_POINTS), down], axis=1),
        np.stack([np.full(_SIDE_POINTS, width - 1.0), down], axis=1),
        np.stack([across, np.zeros(_SIDE_POINTS)], axis=1),
        np.stack([across, np.full(_SIDE_POINTS, height - 1.0)], axis=1),
    ]
    left, right, top, bottom = (_on_plane(lens.unproject(pixels) @ R_stored_rect) for pixels in sides)
    x0, x1 = float(left[:, 0].max()), float(right[:, 0].min())
    y0, y1 = float(top[:, 1].max()), float(bottom[:, 1].min())
    if not (x0 < x1 and y0 < y1):  # NaN as well
        raise ConfigError(_NO_INVERSE)
    return x0, x1, y0, y1


def _on_plane(rays: Array) -> Array:
    """Points (N, 2) on z = 1 of rays (N, 3), drawn in to the largest angle from the axis that is delivered."""
    radius = np.linalg.norm(rays[:, :2], axis=1)
    angle = np.minimum(np.arctan2(radius, rays[:, 2]), _MAX_HALF_ANGLE)
    return rays[:, :2] * (np.tan(angle) / np.maximum(radius, 1e-12))[:, None]


def _fit(
    window: tuple[float, float, float, float], aspect: float, views: list[tuple[Lens, Array]]
) -> tuple[PinholeCamera, list[NDArray[np.float32]]]:
    """The camera (fy = aspect * fx) whose image lies in ``window`` and, for each view, where its pixels are stored."""
    width, height = views[0][0].size
    x0, x1, y0, y1 = window
    fx = max((width - 1) / (x1 - x0), (height - 1) / ((y1 - y0) * aspect))
    for _ in range(_MAX_SHRINKS):
        camera = PinholeCamera(
            fx=fx,
            fy=fx * aspect,
            cx=(width - 1) / 2 - fx * (x0 + x1) / 2,
            cy=(height - 1) / 2 - fx * aspect * (y0 + y1) / 2,
            width=width,
            height=height,
        )
        # The stored border between its sampled points, and the corners of a turned one, can be a little outside.
        if all(_border_inside(lens, R_stored_rect, camera) for lens, R_stored_rect in views):
            return camera, [_stored_pixels(lens, R_stored_rect, camera) for lens, R_stored_rect in views]
        fx *= _SHRINK
    raise ConfigError(_NO_INVERSE)


def _border_inside(lens: Lens, R_stored_rect: Array, camera: PinholeCamera) -> bool:
    """Whether the stored image covers the outermost pixels of the delivered one, and so all of them."""
    x, y = np.arange(camera.width), np.arange(camera.height)
    columns = np.concatenate([x, x, np.zeros_like(y), np.full_like(y, camera.width - 1)])
    rows = np.concatenate([np.zeros_like(x), np.full_like(x, camera.height - 1), y, y])
    rays = camera.backproject(np.stack([columns, rows], axis=1), np.ones(len(rows)))
    return bool(lens.pinhole.contains(lens.project(rays @ R_stored_rect.T), margin=-_SLACK_PX).all())


def _stored_pixels(lens: Lens, R_stored_rect: Array, camera: PinholeCamera) -> NDArray[np.float32]:
    """Where the pixels of the delivered image lie in the stored one, (H, W, 2) x y."""
    x, y = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    rays = camera.backproject(np.stack([x, y], axis=2), np.ones(x.size))
    return lens.project(rays @ R_stored_rect.T).astype(np.float32).reshape(camera.height, camera.width, 2)
