"""``semkey calibrate``: a camera's numbers from pictures of a board."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from semkey.cli.console import print_table, track

if TYPE_CHECKING:
    import numpy as np

    from semkey.datasets.cameras.boards import BoardView

# Live: a view counts when its corners have moved this far on average, as a share of the image's width.
_LEAST_MOVE = 0.04


def calibrate(
    source: str = typer.Argument(
        ..., metavar="IMAGES|VIDEO|webcam:N", help="A folder of pictures of the board, a video, or a webcam."
    ),
    out: Path = typer.Option(..., "--out", "-o", metavar="FILE.yaml", help="The calibration file to write."),
    board: Literal["charuco", "chessboard"] = typer.Option("charuco", help="Kind of board."),
    size: str = typer.Option(
        "9x6", metavar="COLUMNSxROWS", help="Squares of a charuco board; inner corners of a chessboard."
    ),
    square: float = typer.Option(0.03, help="Side of a square, metres."),
    marker: float = typer.Option(0.75, help="Side of a charuco marker as a share of the square's."),
    dictionary: str = typer.Option("DICT_5X5_100", help="Markers of a charuco board, as OpenCV names them."),
    lens: Literal["radial-tangential", "fisheye"] = typer.Option("radial-tangential", help="Kind of lens."),
    views: int = typer.Option(40, min=5, help="Most views that are used; of a webcam so many are collected."),
    picture: Path | None = typer.Option(None, metavar="PNG", help="Draw the residuals; by default beside FILE."),
) -> None:
    """Calibrate a camera from pictures of a chessboard or charuco board, for --camera FILE of the other commands.

    Hold the board near and far, tilted to all sides, and into the corners of the image. The table shows each view's
    residual, the picture every corner's, 40 times as long: good calibrations are below 0.5 px without a pattern.

    [bold]Examples[/]

        semkey calibrate photos/ --board chessboard --size 9x6 --out camera.yaml

        semkey calibrate webcam:0 --board charuco --size 9x6 --square 0.03 --out camera.yaml
    """
    import numpy as np

    from semkey.datasets.cameras.boards import BoardConfig, calibrate_views, draw_residuals
    from semkey.datasets.cameras.formats.own import calibration_text
    from semkey.errors import ConfigError
    from semkey.files import atomic_write_text, check_output_file
    from semkey.images.writing import write_image

    columns, cross, rows = size.partition("x")
    if not (cross and columns.isdecimal() and rows.isdecimal()):
        raise ConfigError(f"--size '{size}': expected COLUMNSxROWS, such as 9x6")
    config = BoardConfig(
        board=board,
        columns=int(columns),
        rows=int(rows),
        square=square,
        marker=marker,
        dictionary=dictionary,
        lens=lens,
    )
    drawing = out.with_suffix(".png") if picture is None else picture
    check_output_file(out)
    check_output_file(drawing)
    names, found, image_size = _collect(source, config, views)
    calibration = calibrate_views(found, image_size, config)
    errors = [float(np.sqrt((residual**2).sum(axis=1).mean())) for residual in calibration.residuals]
    table = [
        [names[k], len(found[k].pixels), f"{error:.3f}"] for k, error in zip(calibration.kept, errors, strict=True)
    ]
    print_table(["view", "corners", "residual, px"], table)
    comment = f"semkey calibrate: {len(table)} views of a {board}, rms {calibration.rms_px:.3f} px"
    atomic_write_text(out, calibration_text(calibration.lens, comment))
    write_image(drawing, draw_residuals(calibration))
    fx, fy, cx, cy = calibration.lens.intrinsics
    typer.echo(
        f"fx fy cx cy {fx:.2f} {fy:.2f} {cx:.2f} {cy:.2f}, rms {calibration.rms_px:.3f} px from {len(table)} of "
        f"{len(found)} views; written to {out}, residuals in {drawing}"
    )


def _collect(source: str, config: object, most: int) -> tuple[list[str], list[BoardView], tuple[int, int]]:
    """Names, corners and image size of the views in which the board was found."""
    import numpy as np

    from semkey.datasets import Frame, open_sequence
    from semkey.datasets.cameras.boards import BoardConfig, find_board

    assert isinstance(config, BoardConfig)
    sequence = open_sequence(source)
    names: list[str] = []
    found: list[BoardView] = []
    size = (0, 0)
    last: np.ndarray | None = None
    every = 1 if sequence.is_live or sequence.format != "video" else max(1, len(sequence) // (3 * most))
    indices = range(len(sequence)) if sequence.is_live else range(0, len(sequence), every)
    frames = (
        sequence.read(index) for index in (indices if sequence.is_live else track(indices, "Looking for the board"))
    )
    for frame in frames:
        if not isinstance(frame, Frame):
            typer.echo(f"warning: {frame.error}", err=True)
            continue
        size = (frame.image.shape[1], frame.image.shape[0])
        view = find_board(frame.image, config)
        if view is None:
            continue
        centre = view.pixels.mean(axis=0)
        if sequence.is_live:
            if last is not None and np.linalg.norm(centre - last) < _LEAST_MOVE * size[0]:
                continue
            typer.echo(f"view {len(found) + 1} of {most}", err=True)
        last = centre
        names.append(sequence.image_name(frame.index))
        found.append(view)
        if len(found) >= most:
            break
    return names, found, size
