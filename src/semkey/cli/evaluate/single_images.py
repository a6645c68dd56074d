"""The kinds of ``semkey eval`` that look at the keypoints of single photos: shifted ones, and images of nothing."""

from __future__ import annotations

from pathlib import Path

import typer

from semkey.cli.evaluate.common import (
    MethodOptions,
    check_out,
    environment,
    finish,
    out_option,
    progress_bar,
    split_numbers,
)
from semkey.cli.options import configured


@configured
def shift(
    *,
    context: typer.Context,
    photos: list[Path] = typer.Argument(..., metavar="PHOTOS...", help="Photos, or folders of photos."),
    methods: MethodOptions,
    out: Path = out_option("shift"),
    count: int = typer.Option(20, min=1, help="Photos per folder, evenly spaced by name."),
    shifts: str = typer.Option(
        "1,2,3,4,5,6,7,8,0.25,0.5,0.75,1.5", metavar="PX,PX,...", help="By how many pixels, right and down alike."
    ),
) -> None:
    """Whether keypoints stay on the picture when it moves by pixels or parts of a pixel; needs no ground truth.

    [bold]Example[/]

        semkey eval shift my-photos --methods compact,sift,aliked-t16 --shifts 1,2,4,0.5
    """
    from semkey.evaluation.data.photo_folders import find_photos
    from semkey.evaluation.kinds.shift import ShiftConfig, run_shift

    config = ShiftConfig.of(split_numbers(shifts, "--shifts"))
    chosen = methods.create()
    found = find_photos(photos, count)
    check_out(out)
    with progress_bar() as progress:
        evaluation = run_shift(
            chosen, found, config, environment=environment(context, methods.device), progress=progress
        )
    finish(evaluation, out, options={"keypoints": methods.keypoints, "photos": len(found)})


@configured
def negatives(
    *,
    context: typer.Context,
    photos: list[Path] | None = typer.Argument(
        None, metavar="PHOTOS...", help="Photos or folders to put out of focus (default: none; the rest is synthetic)."
    ),
    methods: MethodOptions,
    out: Path = out_option("negatives"),
    count: int = typer.Option(4, min=1, help="Photos per folder, evenly spaced by name."),
) -> None:
    """Keypoints per image where there is nothing to find: blank, gradients, noise, and photos out of focus.

    [bold]Example[/]

        semkey eval negatives my-photos --methods compact,sift,orb
    """
    from semkey.evaluation.data.photo_folders import find_photos
    from semkey.evaluation.kinds.negatives import run_negatives

    chosen = methods.create()
    found = find_photos(photos or [], count)
    check_out(out)
    with progress_bar() as progress:
        evaluation = run_negatives(
            chosen, found, seed=methods.seed, environment=environment(context, methods.device), progress=progress
        )
    finish(evaluation, out, options={"keypoints": methods.keypoints})
