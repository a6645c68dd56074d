"""Furnished rooms rendered on the CPU with exact depth and pose, for demos, tests and training pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semkey.lazy import lazy_names
from semkey.rendering.config import RoomConfig

if TYPE_CHECKING:
    from semkey.rendering.dataset import render_room, room_camera, write_room

__all__ = ["RoomConfig", "render_room", "room_camera", "write_room"]

__getattr__ = lazy_names(
    __name__, dict.fromkeys(("render_room", "room_camera", "write_room"), "semkey.rendering.dataset")
)
