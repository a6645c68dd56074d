"""``semkey eval slam``: the same back end with different features, on whole sequences."""

from __future__ import annotations

from pathlib import Path

import typer

from semkey.cli.console import print_table
from semkey.cli.evaluate.common import (
    MethodOptions,
    check_out,
    environment,
    finish,
    out_option,
    progress_bar,
    resumable,
    split_names,
)
from semkey.cli.inputs import RuntimeChoice, SensorChoice
from semkey.cli.options import changes_option, field_option


def slam(
    context: typer.Context,
    data: list[Path] | None = typer.Argument(
        None,
        metavar="DATA...",
        help="Sequences, as semkey slam takes them; [bold]PATH@2[/] uses every 2nd frame of that one.",
    ),
    features: str = typer.Option(
        "compact,sift,orb",
        "--features",
        "-f",
        metavar="NAME,NAME,...",
        help="compact, nano, sift, orb, aliked-n16, xfeat, ..., a checkpoint (.safetensors), your own module:function; "
        "[bold]NAME+lines[/] uses line segments as well; cv2-odometry is OpenCV's RGB-D odometry without features.",
    ),
    places: str | None = typer.Option(
        None,
        "--places",
        metavar="BACKBONE:cls|gem,...",
        help="Also all features with these global descriptors, to choose loops by (vit-tiny:gem, own@vit-tiny:gem).",
    ),
    rooms: bool = typer.Option(
        False,
        "--rooms",
        help="Also six rendered rooms: normal, low texture, loop, fast with blur, kidnapped, changing light. They are "
        "rendered once, into a cache folder (minutes).",
    ),
    torture: bool = typer.Option(
        False,
        "--torture",
        help="Instead of sequences: cases of broken, dark, covered and foreign input with ground truth, made from a "
        "rendered room; with two RGB-D sequences of different places as DATA, cases of those as well.",
    ),
    cases: str | None = typer.Option(
        None, "--cases", metavar="NAME,NAME,...", help="Only these cases of --torture (default: all)."
    ),
    runs: int = typer.Option(3, min=1, help="Runs of every method on every sequence, each with another seed."),
    every: int = typer.Option(1, min=1, help="Use every n-th frame of all sequences without @N."),
    max_frames: int | None = typer.Option(None, min=1, help="Stop after so many used frames."),
    sensor: SensorChoice | None = typer.Option(
        None, help="What to track with (default: the best that each sequence has)."
    ),
    realtime: bool = typer.Option(
        False, "--realtime", help="Play sequences by their timestamps and drop frames that would come too late."
    ),
    camera: str | None = typer.Option(
        None, metavar="FX,FY,CX,CY", help="Pinhole camera of DATA, instead of the data sets' own."
    ),
    changes: list[str] = changes_option("SlamConfig", "tracking.min_inliers=20"),
    keypoints: int = field_option(MethodOptions, "keypoints", min=1),
    cache: Path | None = typer.Option(
        None,
        "--cache",
        metavar="DIR",
        help="Keep features for later runs of the same method. Only the first run of a method on a sequence extracts, "
        "and frames/s and memory are those of that run (default: every run extracts).",
    ),
    out: Path = out_option("slam"),
    weights: list[Path] | None = field_option(MethodOptions, "weights"),
    device: str = field_option(MethodOptions, "device"),
    runtime: RuntimeChoice = field_option(MethodOptions, "runtime"),
    seed: int = field_option(MethodOptions, "seed", min=0),
) -> None:
    """ATE, RPE, share of frames tracked, frames per second and memory of SLAM with different features.

    Every run is a process of its own; the figures are medians over runs. Trajectories are kept in DIR/trajectories.
    After an interruption the same command goes on; a higher --runs adds to what is there.

    [bold]Examples[/]

        semkey eval slam rgbd_dataset_freiburg3_cabinet redkitchen/seq-01 redkitchen/seq-01@2 --features compact,orb

        semkey eval slam --rooms --features compact,orb,cv2-odometry --runs 1

        semkey eval slam rgbd_dataset_freiburg3_cabinet --features compact,compact+lines

        semkey eval slam --torture --features compact,nano --out torture
    """
    from semkey.errors import ConfigError

    if torture or cases is not None:
        if changes:
            raise ConfigError("--torture takes no --set")
        if runtime != MethodOptions.runtime:
            raise ConfigError("--torture takes no --runtime")
        check_out(out)
        _torture(context, data or [], features, cases, keypoints, device, weights or [], seed, sensor, out)
        return
    from semkey.evaluation.slam.methods import create_slam_methods, names_with_places
    from semkey.evaluation.slam.pictures import slam_pictures
    from semkey.evaluation.slam.rooms import render_rooms
    from semkey.evaluation.slam.run import SlamRunConfig, run_slam_evaluation
    from semkey.evaluation.slam.sets import slam_sets

    if not data and not rooms:
        raise ConfigError("give sequences, or --rooms for the rendered ones, or --torture")
    config = SlamRunConfig(
        runs=runs,
        keypoints=keypoints,
        device=device,
        max_frames=max_frames,
        sensor=sensor,
        realtime=realtime,
        seed=seed,
        settings=tuple(changes),
    )
    names = split_names(features, "--features")
    if places is not None:
        names = names_with_places(names, split_names(places, "--places"))
    methods = create_slam_methods(
        names, keypoints=keypoints, device=device, weights=list(weights or ()), runtime=runtime
    )
    sets = slam_sets(data or [], every=every, camera=camera)
    check_out(out)
    with resumable(), progress_bar() as progress:
        if rooms:
            found = render_rooms(progress=progress)
            sets += slam_sets(list(found.values()), every=every, names=list(found))
        evaluation = run_slam_evaluation(
            methods, sets, config, out=out, cache=cache, environment=environment(context, device), progress=progress
        )
        pictures = slam_pictures(evaluation, sets, out)
    finish(evaluation, out, pictures)


def _torture(
    context: typer.Context,
    data: list[Path],
    features: str,
    cases: str | None,
    keypoints: int,
    device: str,
    weights: list[Path],
    seed: int,
    sensor: SensorChoice | None,
    out: Path,
) -> None:
    """Cases with faults instead of sequences; a table, ``torture.json`` and ``report.html``."""
    from semkey.errors import ConfigError
    from semkey.evaluation.slam.torture.report import HEADER, REPORT_FILE, RESULTS_FILE, table_rows, write_torture
    from semkey.evaluation.slam.torture.run import open_places, run_torture

    if data and len(data) != 2:
        raise ConfigError(f"--torture takes no sequences, or two of different places; got {len(data)}")
    with resumable(), progress_bar() as progress:
        results = run_torture(
            split_names(features, "--features"),
            cases=None if cases is None else split_names(cases, "--cases"),
            places=open_places(data),
            keypoints=keypoints,
            device=device,
            weights=weights,
            seed=seed,
            sensor=sensor or "rgbd",
            out=out,
            progress=progress,
        )
    write_torture(results, out, environment=environment(context, device))
    print_table(HEADER, table_rows(results))
    typer.echo(f"written: {out / RESULTS_FILE}, {out / REPORT_FILE}")
