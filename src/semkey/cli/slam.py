"""``semkey slam``: track an RGB-D camera through a sequence."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from semkey.cli.console import print_table
from semkey.cli.inputs import FeatureOptions, InputOptions, MaskOptions
from semkey.cli.options import changes_option, configured, field_option
from semkey.cli.slam_session import RunOptions, SessionOptions, prepare_session
from semkey.cli.terminal.messages import is_quiet, say_warning
from semkey.cli.terminal.progress import show_progress
from semkey.slam.config import LineConfig, SlamConfig

if TYPE_CHECKING:
    from semkey.slam import FrameRecord

EXIT_INTERRUPTED = 130
EXIT_LOST = 3
"""Less than half of the frames were tracked; the results are written all the same."""
_SHOWN_PROBLEMS = 5


@configured
def slam(
    *,
    path: Path = typer.Argument(
        ...,
        metavar="INPUT",
        help="Folder of a sequence (docs/datasets.md), video, folder of images, or camera: webcam:0, realsense:, oak:.",
    ),
    source: InputOptions,
    mask: MaskOptions,
    features: FeatureOptions,
    seed: int = field_option(SlamConfig, "seed", min=0),
    run: RunOptions,
    lines: bool = typer.Option(LineConfig.enabled, "--lines", help="Use line segments beside keypoints."),
    places: str | None = typer.Option(
        None,
        "--places",
        metavar="BACKBONE:cls|gem|vlad=FILE",
        help="Look for loops, and for a lost camera, by a backbone's global descriptor as well (vit-tiny:gem, "
        "dinov2-small:gem, own@dinov2-small:gem with the features' own); FILE is of semkey vocabulary.",
    ),
    changes: list[str] = changes_option("SlamConfig", "tracking.min_inliers=20"),
    session: SessionOptions,
) -> None:
    """Track an RGB-D camera, a stereo pair or a single camera: poses, a report and a picture of the trajectory.

    Writes trajectory.txt (TUM format: timestamp tx ty tz qx qy qz qw, camera to world), trajectory_live.txt (the poses
    as they were first estimated), report.json, trajectory.png and report.html into DIR. A frame that cannot be read
    or tracked gets no pose and is listed in the report. With ground truth in the input, the report has the errors.
    Ctrl-C saves what was tracked so far; --resume goes on from there, or from the last automatic save of a run that
    crashed. Where less than half of the frames were tracked, a sentence says why, and the exit code is 3.

    [bold]Examples[/]

        semkey slam rgbd_dataset_freiburg3_cabinet --out run

        semkey slam redkitchen/seq-01 --out run --features orb --every 2

        semkey slam my_recording --out run --camera 525,525,319.5,239.5

        semkey slam my_recording --out run --set loops.enabled=false --set tracking.max_depth=4

        semkey slam my_recording --out run --places dinov2-small:gem

        semkey slam my_recording --out run --save-map room.semkey --record run.rrd

        semkey slam another --out run2 --load-map room.semkey --localize-only
    """
    from semkey.slam import SlamInterrupted, choose_sensor, run_slam
    from semkey.slam.output.report import check_out_dir
    from semkey.slam.output.saving import save_run

    asked = [] if places is None else ["loops.retrieval=joined"]
    config = SlamConfig(seed=seed, lines=LineConfig(enabled=lines)).with_changes([*asked, *changes])
    session.check()
    sequence = source.open(path)
    if (masks := mask.open()) is not None:
        sequence = sequence.with_masks(masks)
    sensor, _ = choose_sensor(sequence, run.sensor)
    extractor = features.create(places)
    check_out_dir(session.out)
    prepared = prepare_session(session, sequence, extractor, config, every=run.every, sensor=sensor)
    used = range(0, len(sequence), run.every)[: run.max_frames]
    try:
        with _progress(sum(index > prepared.last_frame for index in used)) as progress:
            result = run_slam(
                sequence,
                extractor,
                config,
                progress=progress,
                every=run.every,
                max_frames=run.max_frames,
                sensor=sensor,
                realtime=run.realtime,
                listeners=prepared.listeners,
                slam_map=prepared.slam_map,
                resume=prepared.resume,
                localize_only=session.localize_only,
            )
    except SlamInterrupted as interruption:
        result = interruption.result
    # All is saved before anything is printed: nobody may read what is printed.
    slam_map = result.slam_map  # without a keyframe it has no landmarks: a run may track nothing
    colors = prepared.colors.colors(len(slam_map.landmarks)) if slam_map is not None and slam_map.keyframes else None
    figures = save_run(result, session.out, lost_pictures=prepared.lost_pictures.pictures, colors=colors)
    saved = prepared.finish(result)
    for problem in result.problems[:_SHOWN_PROBLEMS]:
        say_warning(problem)
    if len(result.problems) > _SHOWN_PROBLEMS:
        say_warning(f"{len(result.problems) - _SHOWN_PROBLEMS} more problems are in the report")
    if figures["scale"] is not None:
        say_warning(figures["scale"]["statement"])
    print_table(["figure", "value"], _rows(figures))
    for line in saved:
        typer.echo(line)
    names = sorted(file.name for file in session.out.iterdir() if file.is_file())
    typer.echo(f"written to {session.out}: {', '.join(names)}")
    if not is_quiet():
        typer.echo(f"look at {session.out / 'report.html'}; {_next_step(session)}")
    if result.interrupted:
        typer.echo("interrupted: the results cover the frames tracked until then", err=True)
        if prepared.options.autosave_path.exists():
            typer.echo(f"go on with --resume, from {prepared.options.autosave_path}", err=True)
        raise typer.Exit(EXIT_INTERRUPTED)
    if result.shortfall is not None:
        typer.echo(f"lost: {result.shortfall}", err=True)
        raise typer.Exit(EXIT_LOST)


@contextmanager
def _progress(total: int) -> Generator[Callable[[FrameRecord], None]]:
    """Progress with inliers and lost frames; behind the last frame the whole map is adjusted, which is said."""
    done = lost = 0
    with show_progress("Tracking") as show:
        show(0, total, detail="")

        def advance(record: FrameRecord) -> None:
            nonlocal done, lost
            done += 1
            lost += record.T_world_cam is None
            detail = f"{record.inliers} inliers, {lost} lost"
            show(done, total, detail=f"{detail}; adjusting the whole map" if done == total else detail)

        yield advance


def _next_step(session: SessionOptions) -> str:
    if session.save_map is None:
        return "--save-map FILE keeps the map, to localise photos in it or to go on with it"
    return f"localise photos in the map with: semkey localize {session.save_map} PHOTOS --out found"


def _rows(figures: dict[str, Any]) -> list[tuple[str, str]]:
    rows = [
        ("features", figures["features"]),
        ("frames", str(figures["frames"])),
        ("tracked", f"{figures['tracked']} ({figures['tracked_percent']:.1f} %){_verdict(figures)}"),
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


def _verdict(figures: dict[str, Any]) -> str:
    """What a share of tracked frames means, where it is small: errors are of the tracked frames only."""
    if figures["tracked_percent"] >= 50:
        return ""
    return ": lost" if figures["tracked"] == 0 else ": mostly lost, the errors below are of the rest"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
