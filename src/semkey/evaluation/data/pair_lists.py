"""Lists of image pairs with relative poses, as ScanNet-1500, YFCC and MegaDepth-1500 are published."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.errors import DatasetError
from semkey.evaluation.data.image_sources import (
    Resize,
    file_source,
    resized_source,
    source_size,
    turned_camera,
    turned_source,
)
from semkey.evaluation.data.pairs import ImagePair, ImageSource, PairSet, PoseTruth
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import compose, inverse, make_transform, nearest_rotation
from semkey.textfiles import finite_number, numbered_rows

# Numbers behind the two names: with quarter turns and a 4x4 pose (SuperGlue), without turns, and without turns with
# the pose as rotation (9) and translation (3) (glue-factory).
_SUPERGLUE, _MATRIX, _ROTATION_TRANSLATION = 36, 34, 30
# Published poses have five decimals, so rotations are orthonormal to about 1e-5.
_ROTATION_TOLERANCE = 1e-2
# SuperGlue's list names ScanNet images flat; the extracted scans and LoFTR's copy have a folder per scene.
_SCANNET_NAME = re.compile(r"(scene\d{4}_\d{2})_frame-(\d+)\.jpg")


@dataclass(frozen=True, kw_only=True)
class ListedPair:
    """One line of a list.

    Attributes:
        name0: image 0, relative to the image folder.
        name1: image 1.
        turns0: quarter turns counter-clockwise (``numpy.rot90``) that bring image 0 upright, 0 to 3.
        turns1: the same of image 1.
        K0: (3, 3) float64 calibration of image 0 as stored, before turning.
        K1: the same of image 1.
        T_cam1_cam0: (4, 4) float64 between the cameras of the images as stored; any scale.
        line: where it stands in the file, from 1.
    """

    name0: str
    name1: str
    turns0: int
    turns1: int
    K0: NDArray[np.float64]
    K1: NDArray[np.float64]
    T_cam1_cam0: NDArray[np.float64]
    line: int


def pair_list_sets(list_file: str | Path, image_root: str | Path, *, resize: Resize | None = None) -> list[PairSet]:
    """Read a pair list with ground truth.

    A line is ``name0 name1 rot0 rot1 K0(9) K1(9) T_0to1(16)``, matrices row by row (SuperGlue, Sarlin et al., CVPR
    2020, ``scannet_test_pairs_with_gt.txt``). Lists without ``rot0 rot1``, and with the pose as R(9) t(3), are read
    too (glue-factory, ``pairs_calibrated.txt``). ``T_0to1`` maps points of camera 0 to camera 1.

    ``rot`` is the EXIF orientation in quarter turns: the image is turned by ``rot`` x 90 degrees counter-clockwise
    after reading, and the calibration and pose, which the list gives for the image as stored, are turned with it.

    K is taken to have pixel centres at integers. Resizing moves the principal point by the half-pixel convention
    ``(c + 0.5) * s - 0.5``; SuperGlue's own script scales it by ``s``, which differs by 0.25 px at half size.

    ``sceneXXXX_YY_frame-NNNNNN.jpg`` of ScanNet is also looked for as ``sceneXXXX_YY/color/N.jpg``.

    Args:
        list_file: the text file.
        image_root: folder that the names are relative to.
        resize: of all images before turning; None keeps their size. SuperGlue's ScanNet protocol is (640, 480).

    Returns:
        One set, named like the file, in the order of the list, without depth.

    Raises:
        DatasetError: the list is missing, has no ground truth or a broken line, an image is missing, or a principal
            point lies outside its image (K is then of another size); the message names the file and line.
        InputError: an image's size cannot be read.
    """
    path, root = Path(list_file), Path(image_root)
    if not root.is_dir():
        raise DatasetError(f"{root}: no such folder (images of {path.name})")
    sources: dict[str, ImageSource] = {}
    pairs: list[ImagePair] = []
    seen: dict[str, int] = {}
    for listed in read_pair_list(path):
        where = f"{path}:{listed.line}"
        image0, camera0, T_turned0 = _view(sources, root, listed.name0, listed.K0, listed.turns0, resize, where)
        image1, camera1, T_turned1 = _view(sources, root, listed.name1, listed.K1, listed.turns1, resize, where)
        name = f"{image0.key} - {image1.key}"
        seen[name] = seen.get(name, 0) + 1
        pairs.append(
            ImagePair(
                name=name if seen[name] == 1 else f"{name} ({seen[name]})",
                image0=image0,
                image1=image1,
                truth=PoseTruth(
                    T_cam1_cam0=compose(T_turned1, listed.T_cam1_cam0, inverse(T_turned0)),
                    camera0=camera0,
                    camera1=camera1,
                ),
            )
        )
    size = "" if resize is None else f", resized to {'x'.join(map(str, np.atleast_1d(resize).tolist()))}"
    return [PairSet(name=path.stem, pairs=pairs, description=f"pair list {path.name}{size}")]


def read_pair_list(path: str | Path) -> Iterator[ListedPair]:
    """The lines of a pair list; see :func:`pair_list_sets` for the format and the errors."""
    path = Path(path)
    found = False
    for line, columns in numbered_rows(path):
        found = True
        count = len(columns) - 2
        if count <= 0:
            raise DatasetError(f"{path}:{line}: has no ground truth; the list needs K0, K1 and T_0to1 on each line")
        if count not in (_SUPERGLUE, _MATRIX, _ROTATION_TRANSLATION):
            raise DatasetError(
                f"{path}:{line}: expected 38 columns (name0 name1 rot0 rot1 K0 K1 T_0to1), 36 without rot or 32 with R "
                f"and t, found {len(columns)}"
            )
        numbers = np.array([finite_number(column, path, line) for column in columns[2:]])
        turns = numbers[:2] if count == _SUPERGLUE else np.zeros(2)
        if not np.isin(turns, (0, 1, 2, 3)).all():
            raise DatasetError(f"{path}:{line}: rot0 and rot1 are quarter turns 0 to 3, found {' '.join(columns[2:4])}")
        K0, K1, pose = np.split(numbers[2:] if count == _SUPERGLUE else numbers, [9, 18])
        yield ListedPair(
            name0=columns[0],
            name1=columns[1],
            turns0=int(turns[0]),
            turns1=int(turns[1]),
            K0=_calibration(K0, f"{path}:{line}: K0"),
            K1=_calibration(K1, f"{path}:{line}: K1"),
            T_cam1_cam0=_pose(pose, f"{path}:{line}: T_0to1"),
            line=line,
        )
    if not found:
        raise DatasetError(f"{path}: lists no pairs")


def _calibration(values: NDArray[np.float64], what: str) -> NDArray[np.float64]:
    K = values.reshape(3, 3)
    ordered = K[0, 0] > 0 and K[1, 1] > 0 and not K[1, 0] and not K[2, 0] and not K[2, 1] and K[2, 2] == 1
    if not ordered or abs(K[0, 1]) > 1e-6 * K[0, 0]:
        raise DatasetError(f"{what} is no calibration matrix (fx 0 cx 0 fy cy 0 0 1) of a camera without skew")
    return K


def _pose(values: NDArray[np.float64], what: str) -> NDArray[np.float64]:
    if values.size == 12:
        rotation, translation, last = values[:9].reshape(3, 3), values[9:], np.array([0.0, 0.0, 0.0, 1.0])
    else:
        matrix = values.reshape(4, 4)
        rotation, translation, last = matrix[:3, :3], matrix[:3, 3], matrix[3]
    orthonormal = np.abs(rotation.T @ rotation - np.eye(3)).max() < _ROTATION_TOLERANCE
    if not orthonormal or np.linalg.det(rotation) < 0 or not np.array_equal(last, [0.0, 0.0, 0.0, 1.0]):
        raise DatasetError(f"{what} is not a rigid transform (a rotation, a translation and 0 0 0 1)")
    return make_transform(nearest_rotation(rotation), translation)


def _view(
    sources: dict[str, ImageSource],
    root: Path,
    name: str,
    K: NDArray[np.float64],
    turns: int,
    resize: Resize | None,
    where: str,
) -> tuple[ImageSource, PinholeCamera, NDArray[np.float64]]:
    """The image, its camera, and ``T_turned_cam`` (4, 4), all after resizing and turning."""
    if name not in sources:
        sources[name] = file_source(_find_image(root, name), name, where)
    source = sources[name]
    width, height = source_size(source)
    if not (0 <= K[0, 2] <= width - 1 and 0 <= K[1, 2] <= height - 1):
        raise DatasetError(
            f"{where}: principal point ({K[0, 2]:g}, {K[1, 2]:g}) lies outside {name} of {width}x{height}; the images "
            f"must have the size that K was made for"
        )
    camera = PinholeCamera(fx=K[0, 0], fy=K[1, 1], cx=K[0, 2], cy=K[1, 2], width=width, height=height)
    if resize is not None:
        source = resized_source(source, resize)
        camera = camera.resized(*source_size(source))
    camera, T_turned_cam = turned_camera(camera, turns)
    return turned_source(source, turns), camera, T_turned_cam


def _find_image(root: Path, name: str) -> Path:
    if not (root / name).exists() and (match := _SCANNET_NAME.fullmatch(name)):
        scan = root / match[1] / "color" / f"{int(match[2])}.jpg"
        if scan.exists():
            return scan
    return root / name
