"""``semkey slam``: track an RGB-D camera through a sequence."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from semkey.cli.console import DeviceOption, FeaturesOption, MaxKeypointsOption, print_table
from semkey.cli.inputs import (
    CalibrationOption,
    CameraOption,
    FormatOption,
    InputFormat,
    SensorChoice,
    open_input,
)
from semkey.cli.slam_session import (
    AutosaveOption,
    LoadMapOption,
    PlyOption,
    RecordOption,
    ResumeOption,
    SaveMapOption,
    SessionOptions,
    ViewerOption,
    prepare_session,
)

if TYPE_CHECKING:
    from semkey.slam import FrameRecord

EXIT_INTERRUPTED = 130
_SHOWN_PROBLEMS = 5


def slam(
    path: Path = typer.Argument(
        ..., metavar="INPUT", help="Folder of a sequence (docs/datasets.md), video, folder of images, or webcam:0."
    ),
    out: Path = typer.Option(..., "--out", "-o", metavar="DIR", help="Where the results go; made if missing."),
    format: InputFormat = FormatOption,
    camera: str | None = CameraOption,
    calibration: Path | None = CalibrationOption,
    features: str = FeaturesOption,
    max_keypoints: int = MaxKeypointsOption,
    seed: int = typer.Option(0, min=0, help="Seed of every random choice."),
    every: int = typer.Option(1, min=1, help="Use every n-th frame."),
    max_frames: int | None = typer.Option(None, min=1, help="Stop after so many used frames."),
    sensor: SensorChoice | None = typer.Option(
        None, help="What to track with (default: the best that the input has); mono has no absolute scale."
    ),
    lines: bool = typer.Option(False, "--lines", help="Use line segments beside keypoints."),
    realtime: bool = typer.Option(
        False, "--realtime", help="Play the input by its timestamps; frames that would come too late are dropped."
    ),
    device: str = DeviceOption,
    save_map: Path | None = SaveMapOption,
    load_map: Path | None = LoadMapOption,
    resume: bool = ResumeOption,
    autosave: float = AutosaveOption,
    viewer: bool = ViewerOption,
    record: Path | None = RecordOption,
    ply: Path | None = PlyOption,
) -> None:
    """Track an RGB-D camera, a stereo pair or a single camera: poses, a report and a picture of the trajectory.

    Writes trajectory.txt (TUM format: timestamp tx ty tz qx qy qz qw, camera to world), trajectory_live.txt (the poses
    as they were first estimated), report.json, trajectory.png and report.html into DIR. A frame that cannot be read
    or tracked gets no pose and is listed in the report. With ground truth in the input, the report has the errors.
    Ctrl-C saves what was tracked so far; --resume goes on from there, or from the last automatic save of a run that
    crashed.

    [bold]Examples[/]

        semkey slam rgbd_dataset_freiburg3_cabinet --out run

        semkey slam redkitchen/seq-01 --out run --features orb --every 2

        semkey slam my_recording --out run --camera 525,525,319.5,239.5

        semkey slam my_recording --out run --save-map room.semkey --record run.rrd
    """
    from semkey.extractors import create_extractor
    from semkey.slam import SlamConfig, SlamInterrupted, choose_sensor, run_slam
    from semkey.slam.config import LineConfig
    from semkey.slam.output.report import check_out_dir
    from semkey.slam.output.saving import save_run

    options = SessionOptions(
        out=out,
        save_map=save_map,
        load_map=load_map,
        resume=resume,
        autosave=autosave,
        viewer=viewer,
        record=record,
        ply=ply,
    )
    options.check()
    sequence = open_input(path, format, camera, calibration)
    chosen, _ = choose_sensor(sequence, None if sensor is None else sensor.value)
    extractor = create_extractor(features, max_keypoints=max_keypoints, device=device)
    config = SlamConfig(seed=seed, lines=LineConfig(enabled=lines))
    check_out_dir(out)
    session = prepare_session(options, sequence, extractor, config, every=every, sensor=chosen)
    total = sum(index > session.last_frame for index in range(0, len(sequence), every)[:max_frames])
    try:
        with _progress(total) as progress:
            result = run_slam(
                sequence,
                extractor,
                config,
                progress,
                every=every,
                max_frames=max_frames,
                sensor=chosen,
                realtime=realtime,
                observers=session.observers,
                slam_map=session.slam_map,
                resume=session.resume,
            )
    except SlamInterrupted as interruption:
        result = interruption.result
    for problem in result.problems[:_SHOWN_PROBLEMS]:
        typer.echo(f"warning: {problem}", err=True)
    if len(result.problems) > _SHOWN_PROBLEMS:
        typer.echo(f"warning: {len(result.problems) - _SHOWN_PROBLEMS} more problems are in the report", err=True)
    figures = save_run(result, out, lost_pictures=session.lost_pictures.pictures)
    print_table(["figure", "value"], _rows(figures))
    session.finish(result)
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
    if figures["dropped"]:
        rows.append(("frames dropped", str(figures["dropped"])))
    if "ate_rmse_m" in figures:
        rows += [
            ("ATE RMSE, m", _number(figures["ate_rmse_m"])),
            ("RPE translation, m", _number(figures["rpe_trans_m"])),
            ("RPE rotation, deg", _number(figures["rpe_rot_deg"])),
        ]
    return rows


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
