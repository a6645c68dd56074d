"""Rendered rooms as frames, and as a folder in the TUM RGB-D layout."""

from __future__ import annotations

import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from semkey.datasets.sequence import Frame
from semkey.errors import InputError
from semkey.geometry.camera import PinholeCamera
from semkey.geometry.transforms import inverse, quaternion_xyzw_from_rotation
from semkey.images.writing import atomic_write_text, write_image
from semkey.rendering.config import RoomConfig
from semkey.rendering.layout import plan_room
from semkey.rendering.motion import trajectory
from semkey.rendering.noise import changing_light, motion_blur, sensor_noise, structured_light_depth
from semkey.rendering.raycast import cast
from semkey.rendering.scene import build_scene

DEPTH_UNITS_PER_METRE = 5000.0

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
    plan = plan_room(config.seed, config.texture)
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


def write_room(out_dir: Path | str, config: RoomConfig, progress: Callable[[int, int], None] | None = None) -> Path:
    """Render a room into a new folder in the TUM RGB-D layout.

    Writes ``rgb/``, ``depth/`` (16-bit PNG, 5000 per metre, 0 for none), ``rgb.txt``, ``depth.txt``,
    ``groundtruth.txt`` (``timestamp tx ty tz qx qy qz qw``) and ``camera.txt`` (``fx fy cx cy``). The folder appears
    under its name when it is complete.

    Args:
        out_dir: folder to make; an empty one may be there already.
        config: the room.
        progress: called with (frames done, frames in all) after each frame.

    Returns:
        The folder's path.

    Raises:
        InputError: ``out_dir`` is a file or holds something already, or cannot be written.
    """
    target = Path(out_dir)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists and is not an empty folder; remove it or choose another name")
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(6)}.tmp")
    try:
        (temporary / "rgb").mkdir(parents=True)
        (temporary / "depth").mkdir()
        lists: dict[str, list[str]] = {"rgb": [], "depth": [], "groundtruth": []}
        for frame in render_room(config):
            stamp = f"{frame.timestamp:.6f}"
            write_image(temporary / "rgb" / f"{stamp}.png", frame.image)
            assert frame.depth is not None
            assert frame.T_world_cam is not None
            raw = np.round(np.clip(frame.depth * DEPTH_UNITS_PER_METRE, 0, 65535)).astype(np.uint16)
            write_image(temporary / "depth" / f"{stamp}.png", raw)
            values = [*frame.T_world_cam[:3, 3], *quaternion_xyzw_from_rotation(frame.T_world_cam[:3, :3])]
            lists["rgb"].append(f"{stamp} rgb/{stamp}.png")
            lists["depth"].append(f"{stamp} depth/{stamp}.png")
            lists["groundtruth"].append(" ".join([stamp, *(f"{value:.9f}" for value in values)]))
            if progress is not None:
                progress(frame.index + 1, config.frames)
        camera = room_camera(config)
        headers = {"rgb": "timestamp filename", "depth": "timestamp filename"}
        for name, rows in lists.items():
            header = headers.get(name, "timestamp tx ty tz qx qy qz qw")
            atomic_write_text(temporary / f"{name}.txt", "\n".join([f"# {header}", *rows]) + "\n")
        camera_row = f"{camera.fx:.9g} {camera.fy:.9g} {camera.cx:.9g} {camera.cy:.9g}\n"
        atomic_write_text(temporary / "camera.txt", "# fx fy cx cy\n" + camera_row)
        if target.exists():
            target.rmdir()
        temporary.rename(target)
    except OSError as error:
        raise InputError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return target
