"""Image pairs with homographies from the layouts that planar data sets come in.

The matrices map pixel coordinates of the first image to the second. They are taken as published, with pixel centres
at integers counted from 0, which is how HPatches and the Oxford sequences are evaluated in the literature.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.readers.folder import IMAGE_SUFFIXES, natural_key
from semkey.errors import DatasetError
from semkey.evaluation.data.image_sources import file_source
from semkey.evaluation.data.pairs import HomographyTruth, ImagePair, PairSet
from semkey.textfiles import finite_number, numbered_rows

HPATCHES_EXCLUDED = (
    "i_contruction",
    "i_crownnight",
    "i_dc",
    "i_pencils",
    "i_whitebuilding",
    "v_artisans",
    "v_astronautis",
    "v_talent",
)
"""Scenes with images over 1600x1200, which D2-Net (Dusmanu et al., CVPR 2019) and most papers since leave out; 108 of
116 remain. Spelt as in the release."""

_HPATCHES_GROUPS = {"i": "illumination", "v": "viewpoint"}
_PAIR_MATRIX = "_H_A_to_B.txt"
_LAYOUTS = (
    "HPatches (i_*/v_* folders of 1..6.ppm and H_1_2..H_1_6), Oxford (img1.. and H1to2p..) or NAME_H_A_to_B.txt pairs"
)


def planar_sets(path: str | Path, *, exclude_hpatches: bool = False) -> list[PairSet]:
    """Find the planar data in a folder: a data set, one scene of it, or a folder of such folders.

    Layouts:

    - HPatches (Balntas et al., CVPR 2017): folders ``i_*`` (illumination) and ``v_*`` (viewpoint), each with images
      ``1.ppm`` to ``6.ppm`` (another image format will do) and matrices ``H_1_2`` to ``H_1_6``; one set, the groups
      ``illumination`` and ``viewpoint``, five pairs per scene, image 1 always being the first.
    - Oxford (Mikolajczyk & Schmid, PAMI 2005): ``img1.png`` (``.ppm``, ``.pgm``, ...) and, for each k, ``img{k}`` with
      ``H1to{k}p``; one set per folder.
    - Pairs (CMP homogr, EVD): ``NAMEA.*``, ``NAMEB.*`` and ``NAME_H_A_to_B.txt``; one set per folder.

    Args:
        path: the folder. If it is in none of these layouts itself, its subfolders that are give the sets.
        exclude_hpatches: leave the scenes ``HPATCHES_EXCLUDED`` out.

    Returns:
        At least one set, in natural order of the folders' names; images keep their own size.

    Raises:
        DatasetError: there is no planar data, an image or a matrix is missing, or a matrix is broken (not 3x3 numbers,
            not finite, singular); the message names the file and, where it applies, the line.
    """
    root = Path(path)
    if not root.is_dir():
        raise DatasetError(f"{root}: {'is a file, give the folder' if root.exists() else 'no such folder'}")
    own = _folder_set(root, exclude_hpatches)
    if own is not None:
        return [own]
    sets = [found for folder in _folders(root) if (found := _folder_set(folder, exclude_hpatches)) is not None]
    if not sets:
        raise DatasetError(f"{root}: no planar data in this folder or its subfolders; known: {_LAYOUTS}")
    return sets


def _folder_set(folder: Path, exclude_hpatches: bool) -> PairSet | None:
    """The one set in a folder, None if it is in no known layout."""
    name = folder.resolve().name
    scenes = [scene for scene in _folders(folder) if _is_hpatches_scene(scene)]
    if scenes or _is_hpatches_scene(folder):
        return _hpatches_set(name, scenes or [folder], exclude_hpatches, folder)
    if next(folder.glob("H1to*p"), None) is not None:
        return PairSet(name=name, pairs=_oxford_pairs(folder), description=f"Oxford sequence {name}, image 1 to k")
    matrices = sorted(folder.glob(f"*{_PAIR_MATRIX}"), key=lambda file: natural_key(file.name))
    if matrices:
        return PairSet(
            name=name,
            pairs=[_named_pair(matrix) for matrix in matrices],
            description=f"image pairs with homographies in {name}",
        )
    return None


def _is_hpatches_scene(folder: Path) -> bool:
    return next(folder.glob("H_1_*"), None) is not None


def _hpatches_set(name: str, scenes: Sequence[Path], exclude: bool, folder: Path) -> PairSet:
    kept = [scene for scene in scenes if not (exclude and scene.resolve().name in HPATCHES_EXCLUDED)]
    if not kept:
        raise DatasetError(f"{folder}: holds only HPatches scenes that are excluded; run without the exclusion")
    left_out = len(scenes) - len(kept)
    words = f"HPatches, {len(kept)} scene{'s' if len(kept) > 1 else ''}, image 1 to 2..6"
    return PairSet(
        name=name,
        pairs=[pair for scene in kept for pair in _hpatches_pairs(scene)],
        description=words + (f"; {left_out} scenes over 1600x1200 excluded" if exclude else ""),
    )


def _hpatches_pairs(scene: Path) -> list[ImagePair]:
    name = scene.resolve().name
    group = _HPATCHES_GROUPS.get(name.split("_")[0], "")
    return [
        _pair(f"{name} 1-{k}", _image(scene, "1"), _image(scene, str(k)), scene / f"H_1_{k}", f"{name}/", group)
        for k in range(2, 7)
    ]


def _oxford_pairs(folder: Path) -> list[ImagePair]:
    numbers = set()
    for file in folder.iterdir():
        match = re.fullmatch(r"H1to(\d+)p", file.name) or re.fullmatch(r"img(\d+)", file.stem)
        if match and (file.name.startswith("H1to") or file.suffix.lower() in IMAGE_SUFFIXES):
            numbers.add(int(match[1]))
    first = _image(folder, "img1")
    return [_pair(f"1-{k}", first, _image(folder, f"img{k}"), folder / f"H1to{k}p") for k in sorted(numbers) if k != 1]


def _named_pair(matrix: Path) -> ImagePair:
    name = matrix.name.removesuffix(_PAIR_MATRIX)
    return _pair(name, _image(matrix.parent, f"{name}A"), _image(matrix.parent, f"{name}B"), matrix)


def _pair(name: str, image0: Path, image1: Path, matrix: Path, prefix: str = "", group: str = "") -> ImagePair:
    return ImagePair(
        name=name,
        image0=file_source(image0, f"{prefix}{image0.stem}"),
        image1=file_source(image1, f"{prefix}{image1.stem}"),
        truth=HomographyTruth(H10=_read_homography(matrix)),
        group=group,
    )


def _image(folder: Path, stem: str) -> Path:
    for suffix in sorted(IMAGE_SUFFIXES):
        for name in (f"{stem}{suffix}", f"{stem}{suffix.upper()}"):
            if (folder / name).is_file():
                return folder / name
    raise DatasetError(f"{folder / stem}.*: image is missing ({', '.join(sorted(IMAGE_SUFFIXES))})")


def _read_homography(path: Path) -> NDArray[np.float64]:
    rows = []
    for line, columns in numbered_rows(path):
        if len(columns) != 3:
            raise DatasetError(f"{path}:{line}: expected 3 numbers of a homography's row, found {len(columns)}")
        rows.append([finite_number(column, path, line) for column in columns])
    if len(rows) != 3:
        raise DatasetError(f"{path}: expected 3 rows of a homography, found {len(rows)}")
    matrix = np.array(rows)
    # A homography has no scale of its own, and its rows have different units: compare with the product of its rows.
    if abs(np.linalg.det(matrix)) <= 1e-12 * np.prod(np.linalg.norm(matrix, axis=1)):
        raise DatasetError(f"{path}: the homography is singular")
    return matrix


def _folders(path: Path) -> list[Path]:
    folders = [entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")]
    return sorted(folders, key=lambda folder: natural_key(folder.name))
