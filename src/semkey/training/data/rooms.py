"""Pairs of views of rendered rooms with exact depth and pose; photos hang on the walls and cover furniture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from semkey.errors import DatasetError
from semkey.files import atomic_write_bytes
from semkey.geometry.camera import PinholeCamera
from semkey.rendering.layout import plan_room
from semkey.rendering.motion import look_pose
from semkey.rendering.noise import changing_light
from semkey.rendering.raycast import cast
from semkey.rendering.scene import Scene, build_scene
from semkey.training.data.config import DataConfig, RoomsConfig
from semkey.training.data.pair import Pair
from semkey.training.data.photos import Photo, Progress, Split
from semkey.training.data.projection import DepthView, depth_pair, draw_by_overlap, overlap

DEPTH_TOLERANCE = 0.02
"""Rendered depth is exact; this allows for its interpolation on slanted surfaces."""

_FORMAT = "rooms-1"  # another number makes new rooms
_PHOTOS_PER_ROOM = 24
_GROUP = 5  # views that look at the same place from different sides
_FIELD_OF_VIEW_DEG = (45.0, 85.0)
_LEAST_CONTRAST = 8.0  # grey levels, standard deviation of a view
_FIRST_SEED = 1_000_000  # beyond the rooms that users render
_SEEDS_PER_SET = 100_000
_FIRST_VAL_ROOM = 60_000
_VAL_PART = 20
_ATTEMPTS = 200


def prepare_rooms(
    config: DataConfig,
    cache: Path,
    photos: Sequence[Photo],
    split: Split,
    progress: Progress | None = None,
    *,
    colors: bool = False,
) -> list[Path]:
    """Render the rooms that are not in the cache yet.

    Rooms with the same settings and the same photos are shared between runs. Each file appears when it is complete.

    Args:
        config: of all data.
        cache: folder for the rooms.
        photos: of this side of the split; may be empty.
        split: validation has rooms of its own, a twentieth as many.
        progress: told after each new room.
        colors: the views are needed in colour; such rooms are files of their own.

    Returns:
        The rooms' files.

    Raises:
        InputError: the cache cannot be written, or a photo cannot be read.
    """
    rooms = config.rooms
    settings = {**asdict(rooms), "count": None, "size": config.size, "format": _FORMAT, "split": split}
    settings["photos"] = [photo.key for photo in photos]
    if colors:
        settings["colors"] = True
    name = hashlib.blake2b(json.dumps(settings).encode(), digest_size=8).hexdigest()
    count = rooms.count if split == "train" else max(1, rooms.count // _VAL_PART)
    first = 0 if split == "train" else _FIRST_VAL_ROOM
    files = [cache / "rooms" / name / f"room-{first + number:05d}.safetensors" for number in range(count)]
    for number, file in enumerate(files):
        if file.is_file():
            continue
        if progress is not None:
            progress(number, count, f"rendering rooms ({split})")
        seed = _FIRST_SEED + _SEEDS_PER_SET * rooms.seed + first + number
        atomic_write_bytes(file, render_views(seed, rooms, config.size, photos, colors))
        if progress is not None:
            progress(number + 1, count, f"rendering rooms ({split})")
    return files


def render_views(
    seed: int, config: RoomsConfig, size: tuple[int, int], photos: Sequence[Photo], colors: bool = False
) -> bytes:
    """One room as the content of a .safetensors file.

    Returns:
        ``images`` (V, H, W) uint8 grey, or (V, H, W, 3) RGB, ``depths`` (V, H, W) float32, ``poses`` (V, 4, 4)
        T_world_cam, ``K`` (V, 3, 3) float64, ``pairs`` (N, 2) int32 of views that overlap and ``overlaps`` (N,)
        float32.
    """
    rng = np.random.default_rng([seed, 11])
    is_low = rng.random() < config.low_texture
    numbers = [] if is_low or not photos else rng.integers(len(photos), size=_PHOTOS_PER_ROOM).tolist()
    chosen = [photos[number].read() for number in numbers]
    plan = plan_room(seed, "low" if is_low else "normal")
    scene = build_scene(plan, seed=seed, texel_size=config.texel_size, photos=chosen)
    views: list[DepthView] = []
    least_contrast = _LEAST_CONTRAST
    while len(views) < config.views:
        views += _group(rng, scene, config, size, seed, least_contrast, colors)
        least_contrast *= 0.99  # in a very plain room it must end some time
    views = views[: config.views]
    pairs, overlaps = [], []
    for i, view0 in enumerate(views):
        for j, view1 in enumerate(views):
            share = overlap(view0, view1, DEPTH_TOLERANCE) if i != j else 0.0
            if share >= config.min_overlap:
                pairs.append((i, j))
                overlaps.append(share)
    return save(
        {
            "images": np.stack([view.image for view in views]),
            "depths": np.stack([view.depth for view in views]),
            "poses": np.stack([view.T_world_cam for view in views]),
            "K": np.stack([view.K for view in views]),
            "pairs": np.array(pairs, np.int32).reshape(-1, 2),
            "overlaps": np.array(overlaps, np.float32),
        }
    )


class RoomPairs:
    """Endless pairs from rooms that :func:`prepare_rooms` made; half of them mirrored, a tenth upside down.

    Args:
        files: of rooms; those without overlapping views are passed over.
        config: of all data.
        seed: pair ``index`` depends on this and the index alone.

    Raises:
        DatasetError: no room has overlapping views.
    """

    def __init__(self, files: Sequence[Path], config: DataConfig, seed: tuple[int, ...]) -> None:
        self._config, self._seed = config, seed
        self._files = [file for file in files if _has_pairs(file)]
        if not self._files:
            raise DatasetError(f"{files[0].parent}: no room has overlapping views; raise data.rooms.views or count")

    def __getitem__(self, index: int) -> Pair:
        rng = np.random.default_rng([*self._seed, index])
        for _ in range(_ATTEMPTS):
            view0, view1 = _load_pair(rng, self._files[int(rng.integers(len(self._files)))])
            if rng.random() < self._config.views.flips:
                view0, view1 = view0.mirrored(), view1.mirrored()
            if rng.random() < self._config.views.quarter_turns:
                view0, view1 = view0.upside_down(), view1.upside_down()
            pair = depth_pair(rng, view0, view1, self._config, DEPTH_TOLERANCE)
            if pair is not None:
                return pair
        raise DatasetError(
            f"no pair with {self._config.points} common points in {_ATTEMPTS} draws from the rooms: lower data.points "
            "or raise data.rooms.min_overlap"
        )


def _group(
    rng: np.random.Generator,
    scene: Scene,
    config: RoomsConfig,
    size: tuple[int, int],
    seed: int,
    least_contrast: float,
    colors: bool,
) -> list[DepthView]:
    """Some views that look at one place of the room."""
    room = np.array(scene.size)
    target = rng.uniform([0.2, 0.2, 0.2], room - 0.2)
    views = []
    for _ in range(_GROUP):
        position = rng.uniform([0.7, 0.7, 0.7], room - [0.7, 0.7, 0.5])
        aim = target + rng.normal(0, 0.3, 3) - position
        distance = float(np.linalg.norm(aim))
        if distance < 0.8:
            continue
        yaw, pitch = np.arctan2(aim[1], aim[0]), np.arcsin(np.clip(aim[2] / distance, -0.95, 0.95))
        T_world_cam = look_pose(position, float(yaw), float(pitch), float(rng.normal(0, np.deg2rad(15.0))))
        camera = _random_camera(rng, size)
        view = cast(scene, camera, T_world_cam)
        image = view.image
        if rng.random() < config.changing_light:
            image = changing_light(image, view.depth, camera, T_world_cam, float(rng.uniform(0.0, 60.0)), seed)
        gray = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), np.uint8)
        shown = np.asarray(image, np.uint8) if colors else gray
        # A camera inside a wardrobe, or before a blank wall, teaches nothing.
        if np.median(view.depth) >= 0.5 and gray.std() >= least_contrast:
            views.append(DepthView(image=shown, depth=view.depth, T_world_cam=T_world_cam, K=camera.matrix))
    return views


def _random_camera(rng: np.random.Generator, size: tuple[int, int]) -> PinholeCamera:
    width, height = size
    focal = 0.5 * width / np.tan(np.deg2rad(rng.uniform(*_FIELD_OF_VIEW_DEG)) / 2)
    return PinholeCamera(fx=focal, fy=focal, cx=(width - 1) / 2, cy=(height - 1) / 2, width=width, height=height)


def _has_pairs(file: Path) -> bool:
    with _open(file) as stored:
        return stored.get_slice("pairs").get_shape()[0] > 0


def _load_pair(rng: np.random.Generator, file: Path) -> tuple[DepthView, DepthView]:
    """A random pair of overlapping views; only these two are read from the file."""
    with _open(file) as stored:
        row = draw_by_overlap(rng, stored.get_tensor("overlaps"))
        images, depths, poses, K = (stored.get_slice(name) for name in ("images", "depths", "poses", "K"))
        first, second = (
            DepthView(image=images[i], depth=depths[i], T_world_cam=poses[i], K=K[i])
            for i in stored.get_slice("pairs")[row].tolist()
        )
    return first, second


def _open(file: Path) -> safe_open:
    try:
        return safe_open(file, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise DatasetError(f"{file}: not a readable room ({error}); delete it and it is rendered again") from None
