"""Scenes of posed photos: which photos there are, how they are undistorted, and which scenes are left out."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semkey.datasets.cameras.calibration import optics_for
from semkey.datasets.cameras.lens import Calibration, Lens
from semkey.datasets.cameras.optics import Optics
from semkey.datasets.readers.colmap import colmap_images, colmap_points_file, is_colmap
from semkey.datasets.readers.nerfstudio import is_nerfstudio, nerfstudio_images
from semkey.datasets.readers.posed_files import PosedImage
from semkey.errors import ConfigError, DatasetError
from semkey.geometry.transforms import inverse
from semkey.images import read_image
from semkey.training.data.depthless_config import PosedConfig

Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class PosedPhoto:
    """One photo of a scene, as it is without distortion.

    Attributes:
        name: as the reconstruction calls it.
        file: where it lies.
        stored_size: (width, height) of the image in the file.
        optics: makes the undistorted image of it.
        K: (3, 3) camera coordinates to pixels of the undistorted image.
        size: (width, height) of that.
        T_cam_world: (4, 4).
        number: of the image in a COLMAP model, else its place in the list.
    """

    name: str
    file: Path
    stored_size: tuple[int, int]
    optics: Optics
    K: Array
    size: tuple[int, int]
    T_cam_world: Array
    number: int

    def read(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8, undistorted.

        Raises:
            InputError: it cannot be read.
            DatasetError: it has another size than the reconstruction says.
        """
        image = read_image(self.file)
        if (image.shape[1], image.shape[0]) != self.stored_size:
            expected = "{}x{}".format(*self.stored_size)
            raise DatasetError(f"{self.file}: image is {image.shape[1]}x{image.shape[0]}, its camera is of {expected}")
        return image if self.optics.left is None else self.optics.left(image)

    def project(self, points: Array) -> tuple[Array, Array]:
        """Pixels (N, 2) of points (N, 3) of the world, and their depths (N,)."""
        seen = points @ self.T_cam_world[:3, :3].T + self.T_cam_world[:3, 3]
        depth = seen[:, 2]
        pixels = seen @ self.K.T
        with np.errstate(divide="ignore", invalid="ignore"):
            return pixels[:, :2] / pixels[:, 2:], depth


@dataclass(frozen=True, kw_only=True, eq=False)
class PosedScene:
    """Photos of one place.

    Attributes:
        path: its folder.
        photos: at least two.
        points_file: of a COLMAP model's points; None where tracks have to be made.
    """

    path: Path
    photos: tuple[PosedPhoto, ...]
    points_file: Path | None


def find_scenes(config: PosedConfig) -> list[Path]:
    """The folders of all scenes that are used, in the order of the configuration.

    Raises:
        ConfigError: a scene that is to be left out is asked for.
        DatasetError: a folder is missing, holds no scene, or lacks one that is asked for.
    """
    wanted = [*config.scenes, *_listed(config.scene_list)]
    refused = next((name for name in wanted if name in config.leave_out), None)
    if refused is not None:
        raise ConfigError(
            f"data.posed asks for scene {refused}, which others test on: take it out of the list (or of "
            "data.posed.leave_out, if nothing is ever tested on it)"
        )
    result, found = [], set()
    for folder in config.folders:
        if not folder.is_dir():
            raise DatasetError(f"{folder}: no such folder")
        if _is_scene(folder):
            result.append(folder)
            continue
        inside = [
            sub for root in (folder, folder / "Undistorted_SfM") if root.is_dir() for sub in sorted(root.iterdir())
        ]
        scenes = [sub for sub in inside if sub.is_dir() and _is_scene(sub)]
        if not scenes:
            raise DatasetError(
                f"{folder}: neither a COLMAP model with images, nor a transforms.json, nor a folder of such scenes"
            )
        found |= {scene.name for scene in scenes}
        result += [s for s in scenes if s.name not in config.leave_out and (not wanted or s.name in wanted)]
    missing = sorted(set(wanted) - found)
    if missing:
        raise DatasetError(f"data.posed: there is no scene {missing[0]} in {', '.join(map(str, config.folders))}")
    if config.folders and not result:
        raise DatasetError("data.posed: all scenes are left out")
    return result


def open_scene(path: Path) -> PosedScene:
    """The photos of a scene; those whose file is missing are left out.

    Raises:
        DatasetError: the reconstruction is damaged, or fewer than two of its photos are there.
    """
    images: dict[int, PosedImage]
    points: Path | None = None
    if is_nerfstudio(path):
        images = dict(enumerate(nerfstudio_images(path)))
    else:
        images, points = colmap_images(path), colmap_points_file(path)
    optics: dict[Lens, Optics] = {}
    photos = []
    for number, image in images.items():
        if not image.file.is_file():
            continue
        if image.lens not in optics:
            optics[image.lens] = optics_for(Calibration(left=image.lens), image.lens.size)
        made = optics[image.lens]
        assert made.camera is not None
        photos.append(
            PosedPhoto(
                name=image.name,
                file=image.file,
                stored_size=image.lens.size,
                optics=made,
                K=made.camera.matrix,
                size=(made.camera.width, made.camera.height),
                T_cam_world=inverse(image.T_world_cam @ made.T_stored_cam),
                number=number,
            )
        )
    if len(photos) < 2:
        raise DatasetError(f"{path}: {len(photos)} of {len(images)} photos are there, two are needed")
    return PosedScene(path=path, photos=tuple(photos), points_file=points)


def _is_scene(path: Path) -> bool:
    return is_nerfstudio(path) or is_colmap(path)


def _listed(file: Path | None) -> list[str]:
    """Names of scenes in a list: what stands before the first ``_`` of each line."""
    if file is None:
        return []
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        raise DatasetError(f"{file}: cannot be read as text") from None
    names = [line.strip().removesuffix(".npz").split("_")[0] for line in lines]
    return list(dict.fromkeys(name for name in names if name and not name.startswith("#")))
