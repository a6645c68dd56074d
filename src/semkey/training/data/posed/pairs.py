"""Endless pairs of posed photos: points of structure from motion are correspondences and detection targets."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from semkey.errors import DatasetError, SemkeyError
from semkey.files import atomic_write_bytes
from semkey.geometry.homography import warp_points
from semkey.training.data.augment import relight
from semkey.training.data.config import DataConfig
from semkey.training.data.depthless_config import PosedConfig
from semkey.training.data.pair import Pair, choose_targets, inside, pad_targets, to_gray_values, view_entries
from semkey.training.data.photos import Progress, Split
from semkey.training.data.planar import warp_image
from semkey.training.data.posed.scene import PosedPhoto, PosedScene, find_scenes, open_scene
from semkey.training.data.posed.tracks import Tracks, find_tracks, shared_points
from semkey.training.data.rgbd import random_crop

_FORMAT = "tracks-2"
_ATTEMPTS = 200
_IMAGES_KEPT = 32
_LEAST_SHARED = 16
"""Points that both views of a pair show, or another one is drawn."""
_LONG_TRACK = 6.0
FIRST_SCENE = 1_000_000
"""Scenes of photos are numbered from here, recordings from 0."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SceneTracks:
    """A scene on one side of the split.

    Attributes:
        scene: its photos.
        tracks: of all of them.
        pairs: (N, 2) places of photos that share enough points.
    """

    scene: PosedScene
    tracks: Tracks
    pairs: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class _View:
    """What a pair shows of a photo: rows (N,) of the points in it, and their places (N, 2)."""

    image: NDArray[np.uint8]
    valid: NDArray[np.bool_]
    rows: NDArray[np.int32]
    places: NDArray[np.float64]


def prepare_posed(
    config: PosedConfig, cache: Path, val_share: float, split: Split, progress: Progress | None = None
) -> list[SceneTracks]:
    """Open scenes and find their tracks, once; the result is kept in ``cache``.

    The last ``val_share`` of the photos of each scene is for validation, and no pair crosses the border. What is a
    track is decided by all photos.

    Raises:
        ConfigError, DatasetError: see :func:`find_scenes` and :func:`open_scene`; or a scene has no pair on this side.
    """
    result, bare = [], []
    for path in find_scenes(config):
        scene = open_scene(path)
        tracks = _cached(cache, scene, config, progress)
        count = len(scene.photos)
        border = count - max(2, round(val_share * count))
        own = range(border) if split == "train" else range(max(border, 0), count)
        shared = shared_points(tracks, count)
        first, second = np.nonzero(np.triu(shared >= config.min_shared, 1))
        kept = np.isin(first, own) & np.isin(second, own)
        if not kept.any():
            bare.append(path)
            continue
        result.append(SceneTracks(scene=scene, tracks=tracks, pairs=np.stack([first[kept], second[kept]], axis=1)))
    if not result:
        raise DatasetError(
            f"{bare[0]}: no two of its photos for {'training' if split == 'train' else 'validation'} share "
            f"{config.min_shared} points; lower data.posed.min_shared, or raise max_error_px"
        )
    return result


class PosedPairs:
    """Endless pairs of posed photos; every scene is drawn equally often.

    Both photos are undistorted, cropped, turned and scaled at random. Points, and the targets of either view, are where
    its points project to. Nothing is known between them, so losses over whole maps see nothing of these pairs.

    Args:
        scenes: as :func:`prepare_posed` returns them.
        config: of all data.
        seed: pair ``index`` depends on this and the index alone.
        colors: the views are needed in colour as well.
    """

    def __init__(
        self, scenes: Sequence[SceneTracks], config: DataConfig, seed: tuple[int, ...], *, colors: bool = False
    ) -> None:
        self._scenes, self._config, self._seed, self._colors = tuple(scenes), config, seed, colors
        self._images: OrderedDict[Path, NDArray[np.uint8]] = OrderedDict()

    def __getitem__(self, index: int) -> Pair:
        rng = np.random.default_rng([*self._seed, index])
        problem = ""
        for _ in range(_ATTEMPTS):
            number = int(rng.integers(len(self._scenes)))
            chosen = self._scenes[number]
            photos = chosen.pairs[int(rng.integers(len(chosen.pairs)))][rng.permutation(2)]
            try:
                pair = self._pair(rng, number, chosen, (int(photos[0]), int(photos[1])))
            except SemkeyError as error:
                problem = f"; the last error was: {error}"
                continue
            if pair is not None:
                return pair
        raise DatasetError(
            f"no pair of posed photos with {_LEAST_SHARED} points in both views in {_ATTEMPTS} draws: raise "
            f"data.posed.min_shared{problem}"
        )

    def _pair(self, rng: np.random.Generator, number: int, chosen: SceneTracks, photos: tuple[int, int]) -> Pair | None:
        config = self._config
        mix = rng.dirichlet([6.0, 6.0, 6.0]).astype(np.float32)
        is_mirrored = rng.random() < config.views.flips
        views = [self._view(rng, chosen, photo, mix, is_mirrored=is_mirrored) for photo in photos]
        both, *order = np.intersect1d(views[0].rows, views[1].rows, return_indices=True)
        if len(both) < _LEAST_SHARED:
            return None
        count = len(both)
        drawn = np.concatenate([rng.permutation(count), rng.integers(count, size=max(config.points - count, 0))])
        lengths = chosen.tracks.lengths
        entries: Pair = {}
        for k, view in enumerate(views):
            # longer tracks first where points crowd; all that stay are as much a target
            strengths = np.minimum(lengths[view.rows] / _LONG_TRACK, 1.0)
            kept = choose_targets(view.places, strengths, config.size)
            entries[f"points{k}"] = torch.from_numpy(view.places[order[k][drawn[: config.points]]]).float()
            entries[f"targets{k}"] = pad_targets(view.places[kept], np.ones(len(kept), np.float32))
            entries[f"valid{k}"] = torch.from_numpy(view.valid)
        return {
            **view_entries([view.image for view in views], mix),
            **entries,
            "H10": torch.full((3, 3), float("nan"), dtype=torch.float64),
            "warp10": torch.full((config.height, config.width, 2), float("nan")),
            "is_scene": torch.tensor(1.0),
            "scene": torch.tensor(FIRST_SCENE + number),
        }

    def _view(
        self, rng: np.random.Generator, chosen: SceneTracks, place: int, mix: NDArray[np.float32], *, is_mirrored: bool
    ) -> _View:
        """A photo cropped, turned and relit at random, with the points that it shows."""
        config, photo = self._config, chosen.scene.photos[place]
        change = random_crop(rng, photo.size, config.size, config.posed.rotation_deg)
        if is_mirrored:
            change = np.array([[-1.0, 0.0, config.width - 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]) @ change
        scale = float(np.sqrt(abs(np.linalg.det(change[:2, :2]))))
        image = self._image(photo)
        source = image if self._colors else to_gray_values(image, mix)
        warped = warp_image(source, change, config.size, scale, cv2.BORDER_REFLECT_101)
        ones = np.ones(photo.size[::-1], np.uint8)
        valid = np.asarray(cv2.warpPerspective(ones, change, config.size, flags=cv2.INTER_LINEAR)) > 0
        rows = chosen.tracks.seen_by(place)
        places = warp_points(change, photo.project(chosen.tracks.points[rows])[0])
        shown = _shown(places, valid)
        return _View(image=relight(rng, warped, config.light), valid=valid, rows=rows[shown], places=places[shown])

    def _image(self, photo: PosedPhoto) -> NDArray[np.uint8]:
        if photo.file not in self._images:
            self._images[photo.file] = photo.read()
            if len(self._images) > _IMAGES_KEPT:
                self._images.popitem(last=False)
        self._images.move_to_end(photo.file)
        return self._images[photo.file]

    def __getstate__(self) -> dict[str, Any]:
        """Without the images in memory, for processes of a data loader."""
        return {**self.__dict__, "_images": OrderedDict()}


def _shown(points: NDArray[np.float64], valid: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of points (N, 2) lie on pixels that a view has from its photo."""
    shown = inside(points, (valid.shape[1], valid.shape[0]))
    pixels = np.rint(np.where(shown[:, None], points, 0.0)).astype(int)
    return shown & valid[pixels[:, 1], pixels[:, 0]]


def _cached(cache: Path, scene: PosedScene, config: PosedConfig, progress: Progress | None) -> Tracks:
    """The tracks of a scene from the cache, or new ones that are kept there; a damaged file is made again."""
    poses = b"".join(photo.T_cam_world.tobytes() + photo.name.encode() for photo in scene.photos)
    points = b"" if scene.points_file is None else str(scene.points_file.stat().st_mtime_ns).encode()
    options = f"{_FORMAT} {scene.path.resolve()} {config.min_views} {config.max_error_px} {config.neighbours}"
    key = hashlib.blake2b(options.encode() + poses + points, digest_size=8).hexdigest()
    file = cache / "tracks" / f"{key}.safetensors"
    try:
        stored = load(file.read_bytes())
        return Tracks(points=stored["points"], rows=stored["rows"], photos=stored["photos"])
    except (SafetensorError, OSError, KeyError):
        tracks = find_tracks(scene, config, progress)
        atomic_write_bytes(file, save({"points": tracks.points, "rows": tracks.rows, "photos": tracks.photos}))
        return tracks
