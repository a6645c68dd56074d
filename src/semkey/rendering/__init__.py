"""Furnished rooms rendered on the CPU with exact depth and pose, for demos, tests and training pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from semkey.lazy import lazy_exports
from semkey.rendering.config import RoomConfig as RoomConfig

if TYPE_CHECKING:
    from semkey.rendering.dataset import render_room as render_room
    from semkey.rendering.dataset import room_camera as room_camera
    from semkey.rendering.dataset import write_room as write_room

__getattr__, __dir__, __all__ = lazy_exports(__name__)
