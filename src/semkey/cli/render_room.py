"""``semkey render-room``: a furnished room as an RGB-D sequence with exact depth and poses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path

import typer


class RoomTexture(StrEnum):
    """How much there is to see."""

    NORMAL = "normal"
    LOW = "low"


class RoomMotion(StrEnum):
    """How the camera moves."""

    HAND_HELD = "hand-held"
    LOOP = "loop"
    FAST = "fast"
    KIDNAPPED = "kidnapped"


class RoomLight(StrEnum):
    """Whether the light stays the same."""

    STEADY = "steady"
    CHANGING = "changing"


def render_room(
    out: Path = typer.Option(..., "--out", "-o", metavar="DIR", help="Folder to make, in the TUM RGB-D layout."),
    frames: int = typer.Option(90, min=1, help="Number of frames."),
    seed: int = typer.Option(0, min=0, help="Room, path and noise all follow from it."),
    width: int = typer.Option(640, min=16, max=8192, help="Image width in pixels."),
    height: int = typer.Option(480, min=16, max=8192, help="Image height in pixels."),
    fps: float = typer.Option(15.0, help="Frames per second."),
    texture: RoomTexture = typer.Option(RoomTexture.NORMAL, help="low: plain walls and few things."),
    motion: RoomMotion = typer.Option(
        RoomMotion.HAND_HELD,
        help="hand-held: slow walk; loop: one closed round; fast: quick turns; kidnapped: one jump half-way.",
    ),
    light: RoomLight = typer.Option(RoomLight.STEADY, help="changing: exposure, tint and a lamp vary."),
    blur: bool = typer.Option(True, help="Motion blur."),
    noise: bool = typer.Option(True, help="Vignetting and sensor noise in the images."),
    depth_noise: bool = typer.Option(False, help="Depth like a structured-light sensor's instead of exact depth."),
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace a room that was rendered there before."),
) -> None:
    """Render a furnished room: images, exact depth and exact poses, without any download.

    Writes rgb/, depth/ (16-bit PNG, 5000 per metre), rgb.txt, depth.txt, groundtruth.txt, camera.txt (fx fy cx cy)
    and room.json into DIR, which appears when it is complete. The same options give the same pixels.

    [bold]Examples[/]

        semkey render-room --out room && semkey slam room --out run

        semkey render-room --out blank --texture low --motion loop --frames 300 --seed 7
    """
    from semkey.rendering import RoomConfig, room_camera, write_room
    from semkey.rendering.dataset import check_room_dir

    config = RoomConfig(
        seed=seed,
        frames=frames,
        width=width,
        height=height,
        fps=fps,
        texture=texture.value,
        motion=motion.value,
        light=light.value,
        blur=blur,
        noise=noise,
        depth_noise=depth_noise,
    )
    check_room_dir(out, replace=overwrite)
    with count_progress("Rendering") as progress:
        write_room(out, config, progress, replace=overwrite)
    camera = room_camera(config)
    typer.echo(
        f"{frames} frames of {width}x{height} in {out} (TUM RGB-D layout, camera "
        f"{camera.fx:g},{camera.fy:g},{camera.cx:g},{camera.cy:g}); next: semkey slam {out} --out run"
    )


@contextmanager
def count_progress(description: str) -> Generator[Callable[[int, int], None] | None]:
    """A progress bar on stderr, fed with (done, total); nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(description, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
