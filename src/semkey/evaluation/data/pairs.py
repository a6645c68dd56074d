"""Image pairs whose correspondence is known: by a homography, or by poses with or without depth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.lens import Lens
from semkey.errors import InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.homography import warp_points
from semkey.geometry.transforms import inverse


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """An image that is read when it is needed.

    Attributes:
        key: what a report calls it; unique within its set and the same in every run.
        read: gives uint8 (H, W, 3) RGB.
        size: (width, height) of what ``read`` gives; None where it is not known before reading.
    """

    key: str
    read: Callable[[], NDArray[np.uint8]] = field(repr=False)
    size: tuple[int, int] | None = None


class Truth(Protocol):
    """Where points of one image lie in the other."""

    def project(self, points: NDArray[Any], size1: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Map points of image 0 to image 1.

        Args:
            points: (N, 2) pixels x y of image 0.
            size1: (width, height) of image 1.

        Returns:
            (N, 2) pixels in image 1 (NaN where unknown) and (N,) bool: known, inside image 1 and not occluded.
        """
        ...

    def swapped(self) -> Truth:
        """The truth from image 1 to image 0."""
        ...


def inside_image(points: NDArray[Any], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Which points (N, 2) lie on the pixels of an image of ``size`` (width, height); NaN does not."""
    x, y = points[:, 0], points[:, 1]
    return (x >= 0.0) & (x <= size[0] - 1.0) & (y >= 0.0) & (y <= size[1] - 1.0)


@dataclass(frozen=True, kw_only=True)
class HomographyTruth:
    """A plane or a rotating camera: ``H10`` (3, 3) float64, any scale, maps pixels of image 0 to image 1."""

    H10: NDArray[np.float64]

    def project(self, points: NDArray[Any], size1: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """See :class:`Truth`.

        A point beyond the horizon, which ``H10`` maps as well though camera 1 has it behind itself, is unknown: there
        the map mirrors, its Jacobian's determinant ``det(H10) / w^3`` is negative.
        """
        points = np.asarray(points, dtype=np.float64)
        in_front = np.linalg.det(self.H10) * (points @ self.H10[2, :2] + self.H10[2, 2]) > 0
        mapped = np.where(in_front[:, None], warp_points(self.H10, points), np.nan)
        return mapped, inside_image(mapped, size1)

    def swapped(self) -> HomographyTruth:
        """See :class:`Truth`."""
        return HomographyTruth(H10=np.linalg.inv(self.H10).astype(np.float64))


@dataclass(frozen=True, kw_only=True)
class PoseTruth:
    """Two posed views, with depth where there is some.

    Attributes:
        T_cam1_cam0: (4, 4) float64.
        camera0: of image 0.
        camera1: of image 1.
        read_depth0: gives (H, W) float32 metres, 0 where unknown; None where the data set has no depth.
        read_depth1: the same of image 1.
        depth_tolerance: a point is occluded where its depth in view 1 differs from the measured one by more than this
            share of it.
        lens0: bends the rays of image 0, whose pinhole camera without it is ``camera0``; None where there is no
            distortion. Views with depth have none.
        lens1: the same of image 1.
    """

    T_cam1_cam0: NDArray[np.float64]
    camera0: PinholeCamera
    camera1: PinholeCamera
    read_depth0: Callable[[], NDArray[np.float32]] | None = field(default=None, repr=False)
    read_depth1: Callable[[], NDArray[np.float32]] | None = field(default=None, repr=False)
    depth_tolerance: float = 0.05
    lens0: Lens | None = None
    lens1: Lens | None = None

    @property
    def has_depth(self) -> bool:
        """Whether points can be mapped."""
        return self.read_depth0 is not None and self.read_depth1 is not None

    def project(self, points: NDArray[Any], size1: tuple[int, int]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """See :class:`Truth`; without depth nothing is known.

        Depth at a sub-pixel point is interpolated bilinearly where its four neighbours agree within
        ``depth_tolerance``, and unknown elsewhere (a mean over a depth edge is the depth of neither side).
        """
        points = np.asarray(points, dtype=np.float64)
        if self.read_depth0 is None or self.read_depth1 is None:
            return np.full((len(points), 2), np.nan), np.zeros(len(points), dtype=bool)
        depth = surface_depth(self.read_depth0(), points, self.depth_tolerance)
        rotation, translation = self.T_cam1_cam0[:3, :3], self.T_cam1_cam0[:3, 3]
        moved = self.camera0.backproject(points, np.where(np.isnan(depth), 1.0, depth)) @ rotation.T + translation
        in_front = moved[:, 2] > 1e-6
        safe = np.where(in_front[:, None], moved, [0.0, 0.0, 1.0])
        mapped = np.where((in_front & ~np.isnan(depth))[:, None], self.camera1.project(safe), np.nan)
        visible = inside_image(mapped, size1)
        seen = surface_depth(self.read_depth1(), np.where(visible[:, None], mapped, 0.0), self.depth_tolerance)
        with np.errstate(invalid="ignore"):
            visible &= np.abs(moved[:, 2] - seen) <= self.depth_tolerance * seen
        return mapped, visible

    def swapped(self) -> PoseTruth:
        """See :class:`Truth`."""
        return PoseTruth(
            T_cam1_cam0=inverse(self.T_cam1_cam0),
            camera0=self.camera1,
            camera1=self.camera0,
            read_depth0=self.read_depth1,
            read_depth1=self.read_depth0,
            depth_tolerance=self.depth_tolerance,
            lens0=self.lens1,
            lens1=self.lens0,
        )

    def straightened(
        self, points0: NDArray[Any], points1: NDArray[Any]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Pixels (N, 2) of both images as ``camera0`` and ``camera1`` would see them without their lenses."""
        return _straightened(points0, self.lens0, self.camera0), _straightened(points1, self.lens1, self.camera1)


def _straightened(points: NDArray[Any], lens: Lens | None, camera: PinholeCamera) -> NDArray[np.float64]:
    if lens is None:
        return np.asarray(points, dtype=np.float64)
    rays = lens.unproject(points)
    return camera.project(rays / rays[:, 2:])


def surface_depth(depth: NDArray[np.float32], points: NDArray[Any], tolerance: float) -> NDArray[np.float64]:
    """Depth (N,) float64 of a surface at pixels (N, 2), bilinear; NaN outside, at holes (0) and across depth edges.

    An edge is where the four neighbours differ by more than ``tolerance`` of the nearest. Neighbours without weight do
    not count: on a pixel centre it is that pixel's depth, whatever is beside it.
    """
    height, width = depth.shape
    inside = inside_image(points, (width, height))
    position = np.where(inside[:, None], points, 0.0)
    x0, y0 = np.floor(position).astype(int).T
    x1, y1 = np.ceil(position).astype(int).T
    right, lower = (position - np.floor(position)).T
    corners = np.stack([depth[y0, x0], depth[y0, x1], depth[y1, x0], depth[y1, x1]]).astype(np.float64)
    weights = np.stack([(1 - right) * (1 - lower), right * (1 - lower), (1 - right) * lower, right * lower])
    nearest, farthest = corners.min(axis=0), corners.max(axis=0)
    known = inside & (nearest > 0) & (farthest - nearest <= tolerance * nearest)
    return np.where(known, (weights * corners).sum(axis=0), np.nan)


@dataclass(frozen=True, kw_only=True)
class ImagePair:
    """Two images and the truth between them.

    Attributes:
        name: unique within its set.
        image0: source of image 0.
        image1: source of image 1.
        truth: maps image 0 to image 1.
        group: part of the set that is also reported on its own, such as ``viewpoint``; empty for none.
    """

    name: str
    image0: ImageSource
    image1: ImageSource
    truth: HomographyTruth | PoseTruth
    group: str = ""


@dataclass(frozen=True, kw_only=True)
class PairSet:
    """Pairs that are averaged together.

    Attributes:
        name: what the report calls the set.
        pairs: in a fixed order.
        description: where they come from and how they were chosen, one line.
    """

    name: str
    pairs: Sequence[ImagePair]
    description: str


def join_sets(sets: Sequence[PairSet]) -> PairSet:
    """All pairs as one set that is averaged together; each of ``sets`` becomes a group of it.

    Raises:
        InputError: there are no sets.
    """
    if not sets:
        raise InputError("there are no sets of pairs to take together")
    pairs = [
        replace(pair, name=f"{pair_set.name}/{pair.name}", group=pair_set.name)
        for pair_set in sets
        for pair in pair_set.pairs
    ]
    description = "; ".join(f"{pair_set.name}: {pair_set.description}" for pair_set in sets)
    return PairSet(name="together", pairs=pairs, description=description)
