"""Six rendered rooms as a data set for SLAM, each with its own difficulty; rendered once into a cache folder."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import MappingProxyType

from semkey.errors import ConfigError, InputError
from semkey.evaluation.running.code import code_hash
from semkey.rendering import RoomConfig, write_room

_FRAMES = 180

ROOMS: Mapping[str, RoomConfig] = MappingProxyType(
    {
        "room-normal": RoomConfig(seed=21, frames=_FRAMES, depth_noise=True),
        "room-low-texture": RoomConfig(seed=22, frames=_FRAMES, texture="low", depth_noise=True),
        "room-loop": RoomConfig(seed=23, frames=_FRAMES, motion="loop", depth_noise=True),
        "room-fast": RoomConfig(seed=24, frames=_FRAMES, motion="fast", depth_noise=True),
        "room-kidnapped": RoomConfig(seed=25, frames=_FRAMES, motion="kidnapped", depth_noise=True),
        "room-light": RoomConfig(seed=26, frames=_FRAMES, light="changing", depth_noise=True),
    }
)
"""Twelve seconds at 15 Hz, 640x480, motion blur and sensor noise, depth as of a structured-light sensor."""

Progress = Callable[[int, int, str], None]


def rooms_folder() -> Path:
    """Where rooms are kept: ``$XDG_CACHE_HOME/semkey/rooms``, by default under ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "semkey" / "rooms"


def render_rooms(
    names: Sequence[str] | None = None,
    *,
    folder: Path | None = None,
    frames: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Path]:
    """The folders of rooms in the TUM RGB-D layout, by name; those that are not there yet are rendered.

    A folder's name holds a hash of the room's options and of the code that renders it, so that an old room is never
    taken for a new one. An interrupted run leaves no half-rendered room.

    Args:
        names: of :data:`ROOMS`; None for all.
        folder: where they are kept; None for :func:`rooms_folder`.
        frames: fewer than twelve seconds, for tests.
        progress: told about every frame.

    Raises:
        ConfigError: there is no such room.
        InputError: the folder cannot be written to.
    """
    wanted = list(ROOMS) if names is None else list(names)
    unknown = next((name for name in wanted if name not in ROOMS), None)
    if unknown is not None:
        raise ConfigError(f"there is no room '{unknown}'; choose among {', '.join(ROOMS)}")
    found: dict[str, Path] = {}
    for name in wanted:
        config = ROOMS[name] if frames is None else replace(ROOMS[name], frames=frames)
        path = (folder or rooms_folder()) / f"{name}-{_hash(config)}"
        if not path.is_dir():
            tell = None if progress is None else _tell(progress, f"rendering {name}")
            try:
                write_room(path, config, tell)
            except InputError:
                if not path.is_dir():  # another process may have been first
                    raise
        found[name] = path
    return found


def _tell(progress: Progress, what: str) -> Callable[[int, int], None]:
    return lambda done, total: progress(done, total, what)


def _hash(config: RoomConfig) -> str:
    content = {"room": asdict(config), "code": code_hash(("rendering",))}
    return hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=6).hexdigest()
