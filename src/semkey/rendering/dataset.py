"""Rendered rooms as frames, and as a folder in the TUM RGB-D layout."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from semkey.datasets.sequence import Frame
from semkey.errors import InputError
from semkey.files import atomic_write_text
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, quaternion_xyzw_from_rotation
from semkey.images.writing import write_image
from semkey.rendering.config import RoomConfig
from semkey.rendering.layout import plan_room
from semkey.rendering.motion import trajectory
from semkey.rendering.noise import changing_light, motion_blur, sensor_noise, structured_light_depth
from semkey.rendering.raycast import cast
from semkey.rendering.scene import build_scene
from semkey.temporaries import temporary_beside

DEPTH_UNITS_PER_METRE = 5000.0
ROOM_FILE = "room.json"

_FOCAL_LENGTH_PER_WIDTH = 525.0 / 640.0
_EXPOSURE = 0.3  # share of a frame interval during which the shutter is open
_LONGEST_EXPOSURE = 0.012  # seconds, indoors with a lamp on


def room_camera(config: RoomConfig) -> PinholeCamera:
    """The camera of a rendered room: 62.7 degrees wide, principal point in the middle of the pixel grid."""
    focal = _FOCAL_LENGTH_PER_WIDTH * config.width
    cx, cy = 0.5 * (config.width - 1), 0.5 * (config.height - 1)
    return PinholeCamera(fx=focal, fy=focal, cx=cx, cy=cy, width=config.width, height=config.height)


def render_room(config: RoomConfig) -> Iterator[Frame]:
    """Render the frames of a room one by one.

    Building the room takes a few seconds before the first frame. Images are uint8 RGB; depth is exact z in metres
    through pixel centres (float32) unless ``config.depth_noise``; poses are T_world_cam at mid-exposure, world z up.
    """
    plan = plan_room(config.seed if config.layout is None else config.layout, config.texture)
    scene = build_scene(plan, seed=config.seed, texel_size=config.texel_size)
    camera, pose_at = room_camera(config), trajectory(config, plan.size)
    half_exposure = 0.5 * min(_EXPOSURE / config.fps, _LONGEST_EXPOSURE)
    for index in range(config.frames):
        time = index / config.fps
        T_world_cam = pose_at(time)
        view = cast(scene, camera, T_world_cam)
        image, depth = view.image, view.depth
        if config.light == "changing":
            image = changing_light(image, depth, camera, T_world_cam, time, config.seed)
        if config.blur:
            start, end = (inverse(pose_at(time + sign * half_exposure)) @ T_world_cam for sign in (-1, 1))
            image = motion_blur(image, depth, camera, start, end)
        rng = np.random.default_rng([config.seed, 6, index])
        if config.noise:
            image = sensor_noise(image, rng)
        if config.depth_noise:
            depth = structured_light_depth(depth, camera, rng)
        yield Frame(index=index, timestamp=time, image=image, depth=depth, T_world_cam=T_world_cam)


def write_room(
    out_dir: Path | str,
    config: RoomConfig,
    progress: Callable[[int, int], None] | None = None,
    *,
    replace: bool = False,
) -> Path:
    """Render a room into a new folder in the TUM RGB-D layout.

    Writes ``rgb/``, ``depth/`` (16-bit PNG, 5000 per metre, 0 for none), ``rgb.txt``, ``depth.txt``,
    ``groundtruth.txt`` (``timestamp tx ty tz qx qy qz qw``), ``camera.txt`` (``fx fy cx cy``) and ``room.json`` (the
    configuration). The folder appears under its name when it is complete.

    Args:
        out_dir: folder to make; an empty one may be there already.
        config: the room.
        progress: called with (frames done, frames in all) after each frame.
        replace: put the new room in the place of an earlier one; any other folder is still left alone.

    Returns:
        The folder's path.

    Raises:
        InputError: ``out_dir`` is a file or holds something already, or cannot be written.
    """
    target = Path(out_dir)
    check_room_dir(target, replace=replace)
    temporary = temporary_beside(target)
    try:
        (temporary / "rgb").mkdir(parents=True)
        (temporary / "depth").mkdir()
        _write_frames(temporary, config, progress)
        _put_in_place(temporary, target)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target


def check_room_dir(target: Path, *, replace: bool) -> None:
    """Tell before the work whether :func:`write_room` can be given this folder.

    Raises:
        InputError: it is a file, or a folder that holds something else than, with ``replace``, an earlier room.
    """
    if not target.exists() or (target.is_dir() and not any(target.iterdir())):
        return
    is_room = target.is_dir() and (target / ROOM_FILE).is_file()
    if is_room and not replace:
        raise InputError(f"{target} holds a rendered room already; pass --overwrite or choose another name")
    if not is_room:
        raise InputError(f"{target} exists and is not an empty folder; remove it or choose another name")


def _write_frames(folder: Path, config: RoomConfig, progress: Callable[[int, int], None] | None) -> None:
    images = ["# timestamp filename"]
    depths = ["# timestamp filename"]
    truth = ["# timestamp tx ty tz qx qy qz qw"]
    for frame in render_room(config):
        stamp = f"{frame.timestamp:.6f}"
        assert frame.depth is not None
        assert frame.T_world_cam is not None
        write_image(folder / "rgb" / f"{stamp}.png", frame.image)
        raw = np.round(np.clip(frame.depth * DEPTH_UNITS_PER_METRE, 0, 65535)).astype(np.uint16)
        write_image(folder / "depth" / f"{stamp}.png", raw)
        values = [*frame.T_world_cam[:3, 3], *quaternion_xyzw_from_rotation(frame.T_world_cam[:3, :3])]
        images.append(f"{stamp} rgb/{stamp}.png")
        depths.append(f"{stamp} depth/{stamp}.png")
        truth.append(" ".join([stamp, *(f"{value:.9f}" for value in values)]))
        if progress is not None:
            progress(frame.index + 1, config.frames)
    camera = room_camera(config)
    for name, rows in (("rgb.txt", images), ("depth.txt", depths), ("groundtruth.txt", truth)):
        atomic_write_text(folder / name, "\n".join(rows) + "\n")
    intrinsics = f"{camera.fx:.9g} {camera.fy:.9g} {camera.cx:.9g} {camera.cy:.9g}"
    atomic_write_text(folder / "camera.txt", f"# fx fy cx cy\n{intrinsics}\n")
    atomic_write_text(folder / ROOM_FILE, json.dumps(dataclasses.asdict(config), indent=2) + "\n")


def _put_in_place(temporary: Path, target: Path) -> None:
    """Rename a finished folder to its name; an earlier one steps aside and is deleted last."""
    if not target.exists():
        temporary.rename(target)
        return
    aside = temporary.with_suffix(".old")
    target.rename(aside)
    temporary.rename(target)
    shutil.rmtree(aside, ignore_errors=True)
