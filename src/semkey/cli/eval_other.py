"""The kinds of ``semkey eval`` that need no image pairs, and its tools: reports made again, lists converted."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Literal

import typer

from semkey.cli.eval_common import (
    DeviceOption,
    KeypointsOption,
    MethodsOption,
    SeedOption,
    WeightsOption,
    check_out,
    create_methods,
    environment,
    finish,
    out_option,
    progress_bar,
    split_names,
)

_PLANAR_FILES = ("H_1_*", "H1to*p", "*_H_A_to_B.txt")
_SEQUENCE_FILES = ("rgb.txt", "groundtruth.txt", "frame-*.pose.txt")


class AlignmentChoice(StrEnum):
    """How the estimate is laid on the ground truth."""

    SE3 = "se3"
    SIM3 = "sim3"
    NONE = "none"


def localisation(
    context: typer.Context,
    methods: str = MethodsOption,
    keypoints: int = KeypointsOption,
    out: Path = out_option("localisation"),
    corners: int = typer.Option(500, min=1, help="Corners per pattern."),
    patterns: str | None = typer.Option(
        None, metavar="NAME,...", help="Some of l-corner, x-junction, y-junction, blob (default: all)."
    ),
    radius: float = typer.Option(3.0, metavar="PX", help="A corner is found if a keypoint is nearer than this."),
    weights: list[Path] | None = WeightsOption,
    device: str = DeviceOption,
    seed: int = SeedOption,
) -> None:
    """Error and bias of keypoints on synthetic corners and blobs whose sub-pixel positions are known.

    [bold]Example[/]

        semkey eval localisation --corners 1000 --methods compact,sift,orb
    """
    from semkey.evaluation.localisation import LocalisationConfig, run_localisation

    config = LocalisationConfig(corners=corners, seed=seed, radius_px=radius)
    if patterns is not None:
        config = LocalisationConfig(
            corners=corners, seed=seed, radius_px=radius, patterns=tuple(split_names(patterns, "--patterns"))
        )
    chosen = create_methods(methods, keypoints=keypoints, device=device, weights=weights)
    check_out(out)
    with progress_bar() as progress:
        evaluation = run_localisation(chosen, config, environment=environment(context, device), progress=progress)
    finish(evaluation, out, options={"keypoints": keypoints})


def report(
    folder: Path = typer.Argument(..., metavar="DIR", help="A folder with results.json, or such a file."),
) -> None:
    """Make report.html again from results.json, with the pictures that lie beside it.

    [bold]Example[/]

        semkey eval report eval-planar
    """
    from semkey.evaluation.pictures import read_pictures
    from semkey.evaluation.report import RESULTS_FILE, write_report
    from semkey.evaluation.results import Evaluation

    file = folder / RESULTS_FILE if folder.is_dir() else folder
    evaluation = Evaluation.read(file)
    path = write_report(evaluation, file.parent, read_pictures(file.parent))
    typer.echo(f"written: {path}")


def convert_megadepth(
    folder: Path = typer.Argument(..., metavar="NPZ_FOLDER", help="LoFTR's scene files (*.npz)."),
    out: Path = typer.Argument(..., metavar="LIST", help="The pair list to write, for semkey eval posed-pairs."),
) -> None:
    """Turn the MegaDepth-1500 scene files of LoFTR into a text list, once; no code in them is run.

    [bold]Example[/]

        semkey eval convert-megadepth megadepth_test_1500_scene_info megadepth1500.txt
    """
    from semkey.evaluation.megadepth import convert_megadepth as convert

    count = convert(folder, out)
    typer.echo(f"{count} pairs written to {out}")


def folder_layout(path: Path) -> Literal["planar", "sequence", "photos"]:
    """What kind of pairs a folder gives, by the files that tell."""
    if any(next(path.glob(pattern), None) is not None for pattern in _SEQUENCE_FILES):
        return "sequence"
    below = (*_PLANAR_FILES, *(f"*/{pattern}" for pattern in _PLANAR_FILES), "*/*/H_1_*")
    if any(next(path.glob(pattern), None) is not None for pattern in below):
        return "planar"
    return "photos"
