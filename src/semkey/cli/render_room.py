"""``semkey render-room``: a furnished room as an RGB-D sequence with exact depth and poses."""

from __future__ import annotations

from pathlib import Path

import typer

from semkey.cli.console import progress_bar
from semkey.cli.options import configured
from semkey.rendering.config import RoomConfig


@configured
def render_room(
    *,
    out: Path = typer.Option(..., "--out", "-o", metavar="DIR", help="Folder to make, in the TUM RGB-D layout."),
    config: RoomConfig,
    overwrite: bool = typer.Option(False, "--overwrite", help="Replace a room that was rendered there before."),
) -> None:
    """Render a furnished room: images, exact depth and exact poses, without any download.

    Writes rgb/, depth/ (16-bit PNG, 5000 per metre), rgb.txt, depth.txt, groundtruth.txt, camera.txt (fx fy cx cy)
    and room.json into DIR, which appears when it is complete. The same options give the same pixels.

    [bold]Examples[/]

        semkey render-room --out room && semkey slam room --out run

        semkey render-room --out blank --texture low --motion loop --frames 300 --seed 7
    """
    from semkey.rendering import room_camera, write_room
    from semkey.rendering.dataset import check_room_dir

    check_room_dir(out, replace=overwrite)
    with progress_bar("Rendering") as progress:
        write_room(out, config, progress, replace=overwrite)
    camera = room_camera(config)
    typer.echo(
        f"{config.frames} frames of {config.width}x{config.height} in {out} (TUM RGB-D layout, camera "
        f"{camera.fx:g},{camera.fy:g},{camera.cx:g},{camera.cy:g}); next: semkey slam {out} --out run"
    )
