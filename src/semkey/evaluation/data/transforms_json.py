"""Pairs of photos posed by structure from motion, in nerfstudio's ``transforms.json``: no depth, no metric scale."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.formats.nerfstudio import TRANSFORMS_FILE, nerfstudio_lens, opengl_pose, read_transforms
from semkey.datasets.cameras.lens import Lens
from semkey.datasets.readers.folder import natural_key
from semkey.errors import ConfigError, DatasetError
from semkey.evaluation.data.image_sources import file_source, source_size
from semkey.evaluation.data.pairs import ImagePair, ImageSource, PairSet, PoseTruth
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import compose, inverse

FILE_NAME = TRANSFORMS_FILE

DEFAULT_ANGLES = (5.0, 15.0, 30.0, 45.0)
DEFAULT_PAIRS = 100

_GRID_POINTS = 20


@dataclass(frozen=True, kw_only=True, eq=False)
class PosedPhoto:
    """One photo of a set.

    Attributes:
        source: the image as stored.
        lens: its camera, with distortion.
        T_world_cam: (4, 4) float64; the unit of length is whatever the reconstruction chose.
    """

    source: ImageSource
    lens: Lens
    T_world_cam: NDArray[np.float64]


def transforms_sets(
    path: str | Path,
    *,
    angles: Sequence[float] = DEFAULT_ANGLES,
    min_overlap: float = 0.3,
    max_pairs: int = DEFAULT_PAIRS,
) -> list[PairSet]:
    """Pairs of posed photos, one set per range of angles between the two views.

    There is no depth, so overlap is measured with a stand-in: the point nearest to all optical axes (of a set that was
    taken around something, that is where it lies), and the plane through it that faces the first camera. Overlap is the
    share of a 20 x 20 grid over the first image whose points on that plane the second camera sees from the front, the
    smaller of both directions; the angle is the one between the directions from that point to the two cameras.

    Of the pairs (i, j), i < j in the natural order of file names, with enough overlap, ``max_pairs`` are taken at equal
    distances from the list; nothing is random.

    Args:
        path: ``transforms.json``, or its folder.
        angles: degrees, increasing; sets are ``[angles[0], angles[1])``, ``[angles[1], angles[2])`` and so on.
        min_overlap: in [0, 1).
        max_pairs: most pairs of a set, >= 1.

    Returns:
        Sets named ``FOLDER-angle-LOW-HIGH``, those without any pair left out.

    Raises:
        ConfigError: an option is out of range.
        DatasetError: the file is damaged or of another kind, an image is missing, or no pair remains.
    """
    if len(angles) < 2 or any(high <= low for low, high in itertools.pairwise(angles)) or angles[0] < 0:
        raise ConfigError(f"angles must be two or more increasing degrees, got {list(angles)}")
    if not 0.0 <= min_overlap < 1.0:
        raise ConfigError(f"min_overlap must be in [0, 1), got {min_overlap}")
    if max_pairs < 1:
        raise ConfigError(f"the number of pairs must be at least 1, got {max_pairs}")
    file = Path(path)
    if file.is_dir():
        file = file / FILE_NAME
    photos = read_posed_photos(file)
    focus = _point_nearest_axes([photo.T_world_cam for photo in photos])
    in_range: list[list[tuple[int, int]]] = [[] for _ in angles[1:]]
    for first, second in itertools.combinations(range(len(photos)), 2):
        angle = _angle_deg(photos[first], photos[second], focus)
        index = int(np.searchsorted(angles, angle, side="right")) - 1
        if 0 <= index < len(in_range) and _overlap(photos[first], photos[second], focus) >= min_overlap:
            in_range[index].append((first, second))
    name = file.parent.resolve().name
    sets = []
    for (low, high), found in zip(itertools.pairwise(angles), in_range, strict=True):
        if found:
            spread = np.linspace(0, len(found) - 1, max_pairs).round().astype(int)
            kept = [found[index] for index in np.unique(spread)]
            description = (
                f"{name} ({len(photos)} posed photos), views {low:g} to {high:g} degrees apart with an overlap of at "
                f"least {min_overlap:g}, {len(kept)} of {len(found)} pairs"
            )
            pairs = [_pair(photos[first], photos[second]) for first, second in kept]
            sets.append(PairSet(name=f"{name}-angle-{low:g}-{high:g}", pairs=pairs, description=description))
    if not sets:
        raise DatasetError(
            f"{file}: of {len(photos)} photos no pair {angles[0]:g} to {angles[-1]:g} degrees apart has an overlap of "
            f"at least {min_overlap:g}"
        )
    return sets


def read_posed_photos(file: Path) -> list[PosedPhoto]:
    """Photos, cameras and poses of a ``transforms.json``, in the natural order of the file names.

    Poses are camera to world with OpenGL axes (x right, y up, looking along -z). Intrinsics (``fl_x``, ``fl_y``,
    ``cx``, ``cy``, ``w``, ``h``) and distortion stand at the top or in a frame, which then counts. The principal point
    counts pixel centres at 0.5, as COLMAP does.

    Raises:
        DatasetError: the file is missing, no such JSON, or a camera model, a pose or an image is not as it should be.
    """
    stored = read_transforms(file)
    photos = []
    for index, frame in enumerate(stored["frames"]):
        where = f"{file}, frame {index}"
        name = frame["file_path"]
        source = file_source(file.parent / name, name, where)
        lens = nerfstudio_lens({**stored, **frame}, source_size(source), f"{where}: {name}")
        pose = opengl_pose(frame.get("transform_matrix"), where)
        photos.append(PosedPhoto(source=source, lens=lens, T_world_cam=pose))
    photos.sort(key=lambda photo: (natural_key(photo.source.key), photo.source.key))
    for first, second in itertools.pairwise(photos):
        if first.source.key == second.source.key:
            raise DatasetError(f"{file}: lists {first.source.key} twice")
    return photos


def _point_nearest_axes(poses: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """The point (3,) with the least sum of squared distances from all optical axes."""
    system, right = np.zeros((3, 3)), np.zeros(3)
    for T_world_cam in poses:
        axis = T_world_cam[:3, 2]
        across = np.eye(3) - np.outer(axis, axis)
        system += across
        right += across @ T_world_cam[:3, 3]
    return np.asarray(np.linalg.lstsq(system, right, rcond=None)[0], dtype=np.float64)


def _angle_deg(photo0: PosedPhoto, photo1: PosedPhoto, focus: NDArray[np.float64]) -> float:
    ray0, ray1 = (photo.T_world_cam[:3, 3] - focus for photo in (photo0, photo1))
    sine, cosine = np.linalg.norm(np.cross(ray0, ray1)), ray0 @ ray1
    return float(np.degrees(np.arctan2(sine, cosine)))


def _overlap(photo0: PosedPhoto, photo1: PosedPhoto, focus: NDArray[np.float64]) -> float:
    return min(_seen_share(photo0, photo1, focus), _seen_share(photo1, photo0, focus))


def _seen_share(photo0: PosedPhoto, photo1: PosedPhoto, focus: NDArray[np.float64]) -> float:
    """Share of image 0 that image 1 sees, if everything lay on the plane through ``focus`` that faces camera 0."""
    camera0, camera1 = photo0.lens.pinhole, photo1.lens.pinhole
    depth = float((inverse(photo0.T_world_cam) @ np.append(focus, 1.0))[2])
    if depth <= 0:
        return 0.0
    T_cam1_cam0 = compose(inverse(photo1.T_world_cam), photo0.T_world_cam)
    if inverse(T_cam1_cam0)[2, 3] >= depth:
        return 0.0
    points = camera0.backproject(_grid(camera0), np.full(_GRID_POINTS**2, depth))
    with np.errstate(invalid="ignore"):
        return float(camera1.contains(camera1.project(points @ T_cam1_cam0[:3, :3].T + T_cam1_cam0[:3, 3])).mean())


def _grid(camera: PinholeCamera) -> NDArray[np.float64]:
    sides = [(np.arange(_GRID_POINTS) + 0.5) / _GRID_POINTS * side - 0.5 for side in (camera.width, camera.height)]
    return np.stack(np.meshgrid(*sides), axis=-1).reshape(-1, 2)


def _pair(photo0: PosedPhoto, photo1: PosedPhoto) -> ImagePair:
    lens0, lens1 = (None if photo.lens.is_straight else photo.lens for photo in (photo0, photo1))
    return ImagePair(
        name=f"{photo0.source.key} - {photo1.source.key}",
        image0=photo0.source,
        image1=photo1.source,
        truth=PoseTruth(
            T_cam1_cam0=compose(inverse(photo1.T_world_cam), photo0.T_world_cam),
            camera0=photo0.lens.pinhole,
            camera1=photo1.lens.pinhole,
            lens0=lens0,
            lens1=lens1,
        ),
    )
