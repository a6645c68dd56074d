"""Furnished rooms rendered on the CPU with exact depth and pose, for demos, tests and training pairs."""

from __future__ import annotations

from semkey.rendering.config import RoomConfig
from semkey.rendering.dataset import render_room, room_camera, write_room

__all__ = ["RoomConfig", "render_room", "room_camera", "write_room"]
