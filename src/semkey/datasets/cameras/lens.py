"""Lenses with distortion: projection and its inverse, and the calibration of one camera or of a pair."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semkey.errors import ConfigError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import make_transform, nearest_rotation

LensModel = Literal["pinhole", "radial-tangential", "fisheye"]

#: Numbers of distortion coefficients that a model takes.
COEFFICIENTS: dict[LensModel, tuple[int, ...]] = {"pinhole": (0,), "radial-tangential": (4, 5, 8), "fisheye": (4,)}
#: Names of models in files: ours, and those of EuRoC, Kalibr and OpenCV.
_MODEL_NAMES: dict[str, LensModel] = {
    "pinhole": "pinhole",
    "none": "pinhole",
    "radial-tangential": "radial-tangential",
    "radtan": "radial-tangential",
    "fisheye": "fisheye",
    "equidistant": "fisheye",
}
# Fixed-point steps of the inverse of radial-tangential distortion, and how well it has to fit in normalized units.
_INVERSE_STEPS = 100
_INVERSE_TOLERANCE = 1e-6
# Angles of the table by which the fisheye model is inverted: interpolation between them is exact to 1e-8 radians.
_TABLE_SIZE = 20001
# Text with three decimals leaves a rotation orthonormal to about this.
_ROTATION_TOLERANCE = 1e-2


@dataclass(frozen=True, kw_only=True)
class Lens:
    """A camera as it was built: a pinhole behind a lens that bends the rays.

    Attributes:
        model: ``pinhole`` (no distortion); ``radial-tangential`` (Brown 1966, as OpenCV and EuRoC: k1 k2 p1 p2
            [k3 [k4 k5 k6]]); ``fisheye`` (equidistant, Kannala and Brandt 2006, as OpenCV and Kalibr: k1 k2 k3 k4).
        intrinsics: fx, fy, cx, cy in pixels; pixel centres are at integers.
        distortion: the coefficients of the model.
        size: (width, height) of the images, pixels.

    Raises:
        ConfigError: a value is out of range or the model takes another number of coefficients.
    """

    model: LensModel
    intrinsics: tuple[float, float, float, float]
    distortion: tuple[float, ...] = ()
    size: tuple[int, int]

    def __post_init__(self) -> None:
        if self.model not in COEFFICIENTS:
            raise ConfigError(f"lens model '{self.model}' is unknown; choose one of {', '.join(COEFFICIENTS)}")
        counts = COEFFICIENTS[self.model]
        if len(self.distortion) not in counts:
            allowed = " or ".join(str(count) for count in counts)
            raise ConfigError(f"lens model '{self.model}' takes {allowed} coefficients, got {len(self.distortion)}")
        if not np.isfinite(self.distortion).all():
            raise ConfigError(f"distortion coefficients must be finite, got {self.distortion}")
        _ = self.pinhole  # checks the rest

    @property
    def pinhole(self) -> PinholeCamera:
        """The camera without its lens."""
        fx, fy, cx, cy = self.intrinsics
        return PinholeCamera(fx=fx, fy=fy, cx=cx, cy=cy, width=self.size[0], height=self.size[1])

    @property
    def is_straight(self) -> bool:
        """Whether straight lines stay straight: the images need no undistortion."""
        return self.model == "pinhole" or (self.model == "radial-tangential" and not any(self.distortion))

    def project(self, rays: ArrayLike) -> NDArray[np.float64]:
        """Pixels (N, 2) of rays (N, 3) in camera coordinates with z > 0; points outside the image are kept."""
        directions = np.asarray(rays, dtype=np.float64).reshape(-1, 3)
        x, y = directions[:, 0] / directions[:, 2], directions[:, 1] / directions[:, 2]
        if self.model == "fisheye":
            radius = np.hypot(x, y)
            scale = self._fisheye_radius(np.arctan(radius)) / np.maximum(radius, 1e-12)
            x, y = np.where(radius > 0, x * scale, 0.0), np.where(radius > 0, y * scale, 0.0)
        elif self.model == "radial-tangential":
            radial, dx, dy = self._brown(x, y)
            x, y = x * radial + dx, y * radial + dy
        fx, fy, cx, cy = self.intrinsics
        return np.stack([fx * x + cx, fy * y + cy], axis=1)

    def unproject(self, keypoints: ArrayLike) -> NDArray[np.float64]:
        """Unit rays (N, 3) of pixels (N, 2); NaN where the distortion has no inverse. A fisheye sees up to 90 degrees.

        The radial-tangential model is inverted by fixed-point iteration, the fisheye model by a table.
        """
        points = self.pinhole.normalize(keypoints)
        if self.model == "fisheye":
            return self._unproject_fisheye(points)
        x, y = points[:, 0].copy(), points[:, 1].copy()
        if self.model == "radial-tangential":
            with np.errstate(all="ignore"):
                for _ in range(_INVERSE_STEPS):
                    radial, dx, dy = self._brown(x, y)
                    x, y = (points[:, 0] - dx) / radial, (points[:, 1] - dy) / radial
                radial, dx, dy = self._brown(x, y)
                error = np.hypot(x * radial + dx - points[:, 0], y * radial + dy - points[:, 1])
            x = np.where(error < _INVERSE_TOLERANCE, x, np.nan)
        rays = np.stack([x, y, np.ones_like(x)], axis=1)
        return rays / np.linalg.norm(rays, axis=1, keepdims=True)

    def _brown(self, x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[NDArray[np.float64], ...]:
        """The radial factor and the tangential shift along x and y at normalized undistorted coordinates."""
        k1, k2, p1, p2, k3, k4, k5, k6 = (*self.distortion, *(0.0,) * (8 - len(self.distortion)))
        square = x * x + y * y
        radial = 1 + square * (k1 + square * (k2 + square * k3))
        radial = radial / (1 + square * (k4 + square * (k5 + square * k6)))
        dx = 2 * p1 * x * y + p2 * (square + 2 * x * x)
        dy = p1 * (square + 2 * y * y) + 2 * p2 * x * y
        return radial, dx, dy

    def _fisheye_radius(self, angle: NDArray[np.float64]) -> NDArray[np.float64]:
        """Distance from the principal point, in focal lengths, of rays at ``angle`` radians from the axis."""
        k1, k2, k3, k4 = self.distortion
        square = angle * angle
        return angle * (1 + square * (k1 + square * (k2 + square * (k3 + square * k4))))

    def _unproject_fisheye(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        radius = np.linalg.norm(points, axis=1)
        angles = np.linspace(0.0, np.pi / 2, _TABLE_SIZE)
        radii = self._fisheye_radius(angles)
        # The polynomial of a lens of less than 180 degrees may turn round behind its edge.
        rising = int(np.argmax(np.diff(radii, append=-np.inf) <= 0)) + 1
        angle = np.interp(radius, radii[:rising], angles[:rising])
        sides = points / np.maximum(radius, 1e-12)[:, None] * np.sin(angle)[:, None]
        return np.concatenate([sides, np.cos(angle)[:, None]], axis=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Calibration:
    """One camera, or a left and a right one.

    Attributes:
        left: the only or the left camera.
        right: the right camera, or None.
        T_left_right: (4, 4) float64, right camera coordinates to left ones, metres; None without a right camera.

    Raises:
        ConfigError: only one of ``right`` and ``T_left_right`` is given, or the latter is no rigid transform.
    """

    left: Lens
    right: Lens | None = None
    T_left_right: NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if (self.right is None) != (self.T_left_right is None):
            raise ConfigError("a stereo calibration needs both the right camera and T_left_right")
        if self.T_left_right is not None:
            object.__setattr__(self, "T_left_right", rigid(self.T_left_right, "T_left_right"))


def rigid(values: object, name: str) -> NDArray[np.float64]:
    """A transform (4, 4) from 16 numbers, its rotation made orthonormal to float64.

    Raises:
        ConfigError: these are no rotation, translation and ``0 0 0 1``.
    """
    matrix = np.asarray(values, dtype=np.float64).reshape(4, 4)
    rotation = matrix[:3, :3]
    orthonormal = np.allclose(rotation @ rotation.T, np.eye(3), atol=_ROTATION_TOLERANCE)
    if not (orthonormal and np.linalg.det(rotation) > 0 and np.allclose(matrix[3], [0, 0, 0, 1])):
        raise ConfigError(f"{name} is not a rigid transform (a rotation, a translation and 0 0 0 1)")
    return make_transform(nearest_rotation(rotation), matrix[:3, 3])


def lens_model(name: str) -> LensModel | None:
    """The model that a file calls ``name``, None if it is unknown."""
    return _MODEL_NAMES.get(name.strip().lower().replace("_", "-"))
