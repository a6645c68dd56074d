"""``semkey map``: what a map file holds, maps put together, and parts of them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from semkey.cli.console import print_table, progress_bar

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from semkey.slam.output.session import Session

app = typer.Typer(name="map", no_args_is_help=True, help="Look at map files, put them together, cut them out.")

_OUT = typer.Option(..., "--out", "-o", metavar="FILE", help="The map to write.")


@app.command("info")
def info(
    path: Path = typer.Argument(..., metavar="MAP", help="A map that semkey slam --save-map has written."),
) -> None:
    """Show what a map holds: features, camera, and for each submap its keyframes, landmarks and extent.

    [bold]Example[/]

        semkey map info room.semkey
    """
    from semkey.slam.output.session import load_session

    session = load_session(path)
    result = session.result
    camera = result.camera
    numbers = f"{camera.fx:.2f} {camera.fy:.2f} {camera.cx:.2f} {camera.cy:.2f}"
    rows = [
        ("map", f"{path} ({path.stat().st_size / 1e6:.1f} MB)"),
        ("made of", f"{result.sequence_name} ({result.sequence_format}), {len(result.frames)} frames"),
        ("features", result.features),
        ("camera", f"{camera.width}x{camera.height}, fx fy cx cy {numbers}"),
        ("unit", "no absolute scale (one camera)" if result.sensor == "mono" else "metres"),
        ("keyframes", str(len(session.slam_map.keyframes))),
        ("landmarks", str(len(session.slam_map.landmarks.ids))),
        ("loops closed", str(len(session.slam_map.loop_links))),
        ("lines", "none" if session.slam_map.lines is None else "yes"),
    ]
    print_table(["", "value"], rows)
    print_table(["submap", "keyframes", "landmarks", "extent x", "extent y", "extent z"], submap_rows(session))


def submap_rows(session: Session) -> list[list[str]]:
    """For each submap its number, keyframes, landmarks, and from where to where the middle 98 % of them reach."""
    import numpy as np

    slam_map = session.slam_map
    landmarks = slam_map.landmarks
    alive = landmarks.ids
    of = {key: keyframe.submap for key, keyframe in slam_map.keyframes.items()}
    submaps = np.array([of.get(int(key), -1) for key in landmarks.references[alive]])
    rows = []
    for submap in slam_map.tree.submaps:
        points = landmarks.positions[alive[submaps == submap]]
        extent = ["-"] * 3
        if len(points):
            low, high = np.percentile(points, [1, 99], axis=0)
            extent = [f"{a:.2f} to {b:.2f}" for a, b in zip(low, high, strict=True)]
        keyframes = sum(number == submap for number in of.values())
        rows.append([str(submap), str(keyframes), str(len(points)), *extent])
    return rows


@app.command("merge")
def merge(
    paths: list[Path] = typer.Argument(..., metavar="MAP MAP...", help="Two or more maps of one camera."),
    out: Path = _OUT,
) -> None:
    """Put maps together: submaps are joined where they show the same place, the others stay on their own.

    The world of the first map stays where it is. Poses of the runs' frames and lines stay in the old files.

    [bold]Example[/]

        semkey map merge monday.semkey tuesday.semkey --out house.semkey
    """
    from semkey.files import check_output_file
    from semkey.interop.map_editing import merge_maps
    from semkey.slam.output.session import load_session, save_session

    check_output_file(out)
    sessions = [load_session(path) for path in paths]
    with progress_bar("Looking for common places") as progress:
        merged = merge_maps(sessions, paths, progress=progress)
    save_session(out, merged.session)
    joined = sum(record.kind == "merge" for record in merged.meetings)
    submaps = len(merged.session.slam_map.tree.submaps)
    typer.echo(f"{len(paths)} maps in {out}: {joined} times joined, {submaps} submap{'s' if submaps > 1 else ''}")


@app.command("crop")
def crop(
    path: Path = typer.Argument(..., metavar="MAP", help="A map that semkey slam --save-map has written."),
    out: Path = _OUT,
    box: str | None = typer.Option(None, metavar="X0,X1,Y0,Y1,Z0,Z1", help="Keep what lies in this box of the world."),
    around: str | None = typer.Option(None, metavar="X,Y,Z,RADIUS", help="Keep what lies in this sphere."),
    submap: int | None = typer.Option(None, min=0, help="Which submap; needed where there are several."),
) -> None:
    """Cut a part out of a map: landmarks in a box or a sphere, and the keyframes that see at least 15 of them.

    Coordinates are those of the map (x right, y down, z forward as seen by its first keyframe); see semkey map info.

    [bold]Examples[/]

        semkey map crop house.semkey --out kitchen.semkey --box -2,3,-2,1,0,4

        semkey map crop house.semkey --out second.semkey --submap 1
    """
    from semkey.errors import ConfigError
    from semkey.files import check_output_file
    from semkey.interop.map_editing import crop_map
    from semkey.slam.output.session import load_session, save_session

    if box is not None and around is not None:
        raise ConfigError("--box and --around are two regions; give one of them")
    inside = _region(box, around)
    check_output_file(out)
    session = load_session(path)
    submaps = session.slam_map.tree.submaps
    if submap is None and len(submaps) > 1:
        raise ConfigError(
            f"{path}: has submaps {', '.join(map(str, submaps))}, each with a world of its own; choose with --submap"
        )
    cropped = crop_map(session, inside, submaps[0] if submap is None else submap)
    save_session(out, cropped)
    before, after = session.slam_map, cropped.slam_map
    typer.echo(
        f"{len(after.keyframes)} of {len(before.keyframes)} keyframes and {len(after.landmarks.ids)} of "
        f"{len(before.landmarks.ids)} landmarks in {out}"
    )


def _region(box: str | None, around: str | None) -> Callable[[NDArray[np.float64]], NDArray[np.bool_]]:
    import numpy as np

    from semkey.errors import ConfigError

    if box is not None:
        limits = np.array(_numbers("--box", box, 6)).reshape(3, 2)
        if (limits[:, 0] >= limits[:, 1]).any():
            raise ConfigError(f"--box '{box}': each lower limit must be below its upper one")
        return lambda points: np.all((points >= limits[:, 0]) & (points <= limits[:, 1]), axis=1)
    if around is not None:
        *centre, radius = _numbers("--around", around, 4)
        if radius <= 0:
            raise ConfigError(f"--around '{around}': the radius must be positive")
        return lambda points: np.linalg.norm(points - np.array(centre), axis=1) <= radius
    return lambda points: np.ones(len(points), dtype=bool)


def _numbers(option: str, text: str, count: int) -> list[float]:
    import math

    from semkey.errors import ConfigError

    try:
        values = [float(part) for part in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count or not all(math.isfinite(value) for value in values):
        raise ConfigError(f"{option} '{text}': expected {count} numbers, with commas between them")
    return values
