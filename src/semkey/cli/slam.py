"""``semkey slam``: track an RGB-D camera through a sequence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from semkey.cli.console import DeviceOption, FeaturesOption, MaxKeypointsOption, print_table

if TYPE_CHECKING:
    from semkey.slam import FrameRecord

EXIT_INTERRUPTED = 130


class InputFormat(StrEnum):
    """Kinds of input."""

    AUTO = "auto"
    TUM = "tum"
    SEVEN_SCENES = "7scenes"
    VIDEO = "video"
    FOLDER = "folder"


def slam(
    path: Path = typer.Argument(..., metavar="INPUT", help="A TUM RGB-D folder or a 7-Scenes sequence folder."),
    out: Path = typer.Option(..., "--out", "-o", metavar="DIR", help="Where the results go; made if missing."),
    format: InputFormat = typer.Option(InputFormat.AUTO, help="Kind of input; auto looks at what is there."),
    camera: str | None = typer.Option(
        None, metavar="FX,FY,CX,CY", help="Pinhole camera in pixels, instead of the data set's own."
    ),
    features: str = FeaturesOption,
    max_keypoints: int = MaxKeypointsOption,
    seed: int = typer.Option(0, min=0, help="Seed of every random choice."),
    every: int = typer.Option(1, min=1, help="Use every n-th frame."),
    max_frames: int | None = typer.Option(None, min=1, help="Stop after so many used frames."),
    device: str = DeviceOption,
) -> None:
    """Track an RGB-D camera: poses, a report and a picture of the trajectory.

    Writes trajectory.txt (TUM format: timestamp tx ty tz qx qy qz qw, camera to world), report.json, trajectory.png
    and report.html into DIR. A frame that cannot be tracked gets no pose and is listed in the report. With ground
    truth in the input, the report has the errors. Ctrl-C saves what was tracked so far.

    [bold]Examples[/]

        semkey slam rgbd_dataset_freiburg3_cabinet --out run

        semkey slam redkitchen/seq-01 --out run --features orb --every 2

        semkey slam my_recording --out run --camera 525,525,319.5,239.5
    """
    from semkey.datasets import open_sequence, parse_camera
    from semkey.extractors import create_extractor
    from semkey.slam import SlamConfig, SlamInterrupted, require_rgbd, run_slam
    from semkey.slam.report import check_out_dir, write_report

    parameters = None if camera is None else parse_camera(camera)
    sequence = open_sequence(path, format=format.value, camera=parameters)
    require_rgbd(sequence)
    extractor = create_extractor(features, max_keypoints=max_keypoints, device=device)
    check_out_dir(out)
    total = len(range(0, len(sequence), every)[:max_frames])
    try:
        with _progress(total) as progress:
            result = run_slam(sequence, extractor, SlamConfig(seed=seed), progress, every=every, max_frames=max_frames)
    except SlamInterrupted as interruption:
        result = interruption.result
    figures = write_report(result, out)
    print_table(["figure", "value"], _rows(figures))
    typer.echo(f"written to {out}: {', '.join(sorted(file.name for file in out.iterdir() if file.is_file()))}")
    if result.interrupted:
        typer.echo("interrupted: the results cover the frames tracked until then", err=True)
        raise typer.Exit(EXIT_INTERRUPTED)


@contextmanager
def _progress(total: int) -> Generator[Callable[[FrameRecord], None] | None]:
    """A bar with inliers and lost frames on stderr, or nothing where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [
        TextColumn("Tracking"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[inliers]} inliers, {task.fields[lost]} lost"),
    ]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Tracking", total=total, inliers=0, lost=0)
        lost = 0

        def advance(record: FrameRecord) -> None:
            nonlocal lost
            lost += record.T_world_cam is None
            bar.update(task, advance=1, inliers=record.inliers, lost=lost)

        yield advance


def _rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("features", figures["features"]),
        ("frames", str(figures["frames"])),
        ("tracked", f"{figures['tracked']} ({figures['tracked_percent']:.1f} %)"),
        ("lost events", str(figures["lost_events"])),
        ("submaps", str(len(figures["submaps"]))),
        ("keyframes", str(figures["keyframes"])),
        ("frames per second", f"{figures['fps']:.1f}"),
    ]
    if "ate_rmse_m" in figures:
        rows += [
            ("ATE RMSE, m", _number(figures["ate_rmse_m"])),
            ("RPE translation, m", _number(figures["rpe_trans_m"])),
            ("RPE rotation, deg", _number(figures["rpe_rot_deg"])),
        ]
    return rows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
