"""The pinhole camera: projection and back-projection, pixel centres at integer coordinates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PinholeCamera:
    """A pinhole camera without distortion.

    Attributes:
        fx: focal length along x, pixels, positive.
        fy: focal length along y, pixels, positive.
        cx: principal point x, pixels; pixel centres are at integers.
        cy: principal point y, pixels.
        width: image width, pixels, at least 1.
        height: image height, pixels, at least 1.

    Raises:
        ConfigError: a focal length is not positive, a value is not finite, or the image is empty.

    Example:
        >>> import semkey
        >>> semkey.PinholeCamera(fx=525, fy=525, cx=319.5, cy=239.5, width=640, height=480).width
        640
        >>> semkey.PinholeCamera(fx=0, fy=525, cx=319.5, cy=239.5, width=640, height=480)
        Traceback (most recent call last):
        ...
        semkey.errors.ConfigError: focal lengths must be positive, got fx=0, fy=525
    """

    fx: float
    fy: float
    cx: float
    cy: float
    width: int
    height: int

    def __post_init__(self) -> None:
        values = (self.fx, self.fy, self.cx, self.cy, self.width, self.height)
        if not all(isinstance(value, Real) for value in values):
            raise ConfigError(f"camera parameters must be numbers, got {self}")
        if self.width % 1 or self.height % 1:
            raise ConfigError(f"image size must be whole pixels, got {self.width}x{self.height}")
        if not all(math.isfinite(value) for value in values):
            raise ConfigError(f"camera parameters must be finite, got {self}")
        if self.fx <= 0 or self.fy <= 0:
            raise ConfigError(f"focal lengths must be positive, got fx={self.fx}, fy={self.fy}")
        if self.width < 1 or self.height < 1:
            raise ConfigError(f"image size must be positive, got {self.width}x{self.height}")

    @property
    def matrix(self) -> NDArray[np.float64]:
        """The calibration matrix K (3, 3)."""
        return np.array([[self.fx, 0.0, self.cx], [0.0, self.fy, self.cy], [0.0, 0.0, 1.0]])

    def project(self, points_cam: ArrayLike) -> NDArray[np.float64]:
        """Pixels (N, 2) of points (N, 3) in camera coordinates (x right, y down, z forward, metres).

        Points at or behind the camera (z <= 0) give NaN; points outside the image are kept.
        """
        points = np.asarray(points_cam, dtype=np.float64).reshape(-1, 3)
        z = np.where(points[:, 2] > 0, points[:, 2], np.nan)
        return np.stack([self.fx * points[:, 0] / z + self.cx, self.fy * points[:, 1] / z + self.cy], axis=1)

    def backproject(self, keypoints: ArrayLike, depth: ArrayLike) -> NDArray[np.float64]:
        """Points (N, 3) in camera coordinates of pixels (N, 2) at z = ``depth`` (N,) metres."""
        pixels = np.asarray(keypoints, dtype=np.float64).reshape(-1, 2)
        z = np.asarray(depth, dtype=np.float64).reshape(-1)
        x = (pixels[:, 0] - self.cx) / self.fx * z
        y = (pixels[:, 1] - self.cy) / self.fy * z
        return np.stack([x, y, z], axis=1)

    def normalize(self, keypoints: ArrayLike) -> NDArray[np.float64]:
        """Coordinates (N, 2) on the plane z = 1 of pixels (N, 2)."""
        return self.backproject(keypoints, np.ones(len(np.asarray(keypoints).reshape(-1, 2))))[:, :2]

    def contains(self, keypoints: ArrayLike, margin: float = 0.0) -> NDArray[np.bool_]:
        """Which pixels (N, 2) lie inside the image, at least ``margin`` pixels from its outermost pixel centres."""
        pixels = np.asarray(keypoints, dtype=np.float64).reshape(-1, 2)
        x, y = pixels[:, 0], pixels[:, 1]
        inside_x = (x >= margin) & (x <= self.width - 1 - margin)
        return inside_x & (y >= margin) & (y <= self.height - 1 - margin)

    def resized(self, width: int, height: int) -> PinholeCamera:
        """The camera of the same image resized to ``width`` x ``height`` (half-pixel convention)."""
        sx, sy = width / self.width, height / self.height
        return PinholeCamera(
            fx=self.fx * sx,
            fy=self.fy * sy,
            cx=(self.cx + 0.5) * sx - 0.5,
            cy=(self.cy + 0.5) * sy - 0.5,
            width=width,
            height=height,
        )
