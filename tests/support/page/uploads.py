"""What the page of ``semkey ui`` is shown: two views of a rendered room, and a clip through it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2

from semkey.datasets import open_sequence
from semkey.images import read_image
from semkey.rendering import RoomConfig, write_room

FRAMES = 12


@dataclass(frozen=True)
class Uploads:
    images: tuple[Path, Path]
    clip: Path
    camera: str


def make_uploads(folder: Path) -> Uploads:
    config = RoomConfig(seed=3, frames=FRAMES, width=320, height=240, fps=8.0, blur=False, noise=False)
    write_room(folder / "room", config)
    frames = sorted((folder / "room" / "rgb").iterdir())
    writer = cv2.VideoWriter(str(folder / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 8.0, (320, 240))
    for frame in frames:
        writer.write(cv2.cvtColor(read_image(frame), cv2.COLOR_RGB2BGR))
    writer.release()
    camera = open_sequence(folder / "room").camera
    assert camera is not None
    return Uploads(
        images=(frames[0], frames[4]),
        clip=folder / "clip.avi",
        camera=f"{camera.fx},{camera.fy},{camera.cx},{camera.cy}",
    )
