"""The kinds of ``semkey eval`` that need no image pairs, and its tools: reports made again, lists converted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

import typer

from semkey.cli.evaluate.common import (
    MethodOptions,
    check_out,
    environment,
    finish,
    out_option,
    progress_bar,
    split_names,
)
from semkey.cli.options import configured

AlignmentChoice = Literal["se3", "sim3", "none"]
DeltaUnitChoice = Literal["frames", "s", "m"]


@configured
def localisation(
    *,
    context: typer.Context,
    methods: MethodOptions,
    out: Path = out_option("localisation"),
    corners: int = typer.Option(500, min=1, help="Corners per pattern."),
    patterns: str | None = typer.Option(
        None, metavar="NAME,...", help="Some of l-corner, x-junction, y-junction, blob (default: all)."
    ),
    radius: float = typer.Option(3.0, metavar="PX", help="A corner is found if a keypoint is nearer than this."),
) -> None:
    """Error and bias of keypoints on synthetic corners and blobs whose sub-pixel positions are known.

    [bold]Example[/]

        semkey eval localisation --corners 1000 --methods compact,sift,orb
    """
    from semkey.evaluation.kinds.corners import LocalisationConfig, run_localisation

    config = LocalisationConfig(corners=corners, seed=methods.seed, radius_px=radius)
    if patterns is not None:
        config = replace(config, patterns=tuple(split_names(patterns, "--patterns")))
    chosen = methods.create()
    check_out(out)
    with progress_bar() as progress:
        evaluation = run_localisation(
            chosen, config, environment=environment(context, methods.device), progress=progress
        )
    finish(evaluation, out, options={"keypoints": methods.keypoints})


@configured
def speed(
    *,
    context: typer.Context,
    images: list[Path] | None = typer.Argument(
        None, metavar="IMAGES...", help="Image files or folders (default: a synthetic texture)."
    ),
    methods: MethodOptions,
    out: Path = out_option("speed"),
    sizes: str = typer.Option("640x480", metavar="WxH,...", help="Sizes of the images; each is a set of its own."),
    rounds: int = typer.Option(30, min=3, help="Counted rounds; in each, every method runs once."),
    warmup: int = typer.Option(3, min=1, help="Rounds before them."),
    reference: str | None = typer.Option(
        None, metavar="NAME", help="The method that ratios are to (default: the first one)."
    ),
    threads: int | None = typer.Option(None, min=1, help="CPU threads (default: as PyTorch and OpenCV choose)."),
    random_weights: bool = typer.Option(
        False, "--random-weights", help="Presets of semkey with random weights, where theirs are not at hand."
    ),
    memory: bool = typer.Option(True, "--memory/--no-memory", help="Measure memory, in a process per method."),
) -> None:
    """Time of extraction and matching, memory and parameters, all methods interleaved in one process.

    [bold]Example[/]

        semkey eval speed --methods compact,xfeat,orb --reference xfeat --sizes 640x480,1280x960

        semkey eval speed --methods presets --random-weights --sizes 448x448,640x480
    """
    from semkey.evaluation.kinds.speed import SpeedConfig, run_speed

    config = SpeedConfig(
        sizes=parse_sizes(sizes), rounds=rounds, warmup=warmup, reference=reference, threads=threads, seed=methods.seed
    )
    chosen = methods.create(random_weights=random_weights)
    check_out(out)
    arguments = {"keypoints": methods.keypoints, "device": methods.device, "weights": methods.weights or []}
    arguments |= {"random_weights": random_weights, "runtime": methods.runtime}
    with progress_bar() as progress:
        evaluation = run_speed(
            chosen,
            config,
            images=images or (),
            memory_arguments=arguments if memory else None,
            environment=environment(context, methods.device),
            progress=progress,
        )
    finish(evaluation, out, options={"keypoints": methods.keypoints})


def trajectory(
    context: typer.Context,
    estimates: list[Path] = typer.Argument(
        ..., metavar="EST...", help="Estimated trajectories (TUM format: timestamp tx ty tz qx qy qz qw)."
    ),
    ground_truth: Path = typer.Argument(
        ..., metavar="GT", help="Ground truth in the same format, or a sequence's folder (TUM RGB-D, 7-Scenes)."
    ),
    out: Path = out_option("trajectory"),
    alignment: AlignmentChoice = typer.Option(
        "se3", help="se3: metric trajectories; sim3: scale unknown; none: as given."
    ),
    frames: Path | None = typer.Option(
        None, metavar="FILE", help="Text file with the stamps of all frames, for the share that was tracked."
    ),
    max_difference: float = typer.Option(0.02, metavar="S", help="Poses nearer in time than this belong together."),
    delta: float = typer.Option(1.0, help="Distance of the two poses of a relative error."),
    unit: DeltaUnitChoice = typer.Option("frames", help="Unit of --delta."),
    all_pairs: bool = typer.Option(False, "--all-pairs", help="Relative errors from every pose."),
) -> None:
    """ATE, RPE and the share of tracked frames of estimated trajectories.

    [bold]Examples[/]

        semkey eval trajectory run/trajectory.txt rgbd_dataset_freiburg3_cabinet

        semkey eval trajectory orb.txt compact.txt groundtruth.txt --alignment sim3
    """
    from semkey.evaluation.data.trajectories import (
        in_order,
        name_estimates,
        read_estimate,
        read_ground_truth,
        require_common_time,
    )
    from semkey.evaluation.kinds.trajectory import TrajectoryConfig, evaluate_trajectory, trajectory_pictures

    config = TrajectoryConfig(
        alignment=alignment,
        max_difference_s=max_difference,
        delta=delta,
        unit=unit,
        all_pairs=all_pairs,
    )
    estimates, ground_truth = in_order(estimates, ground_truth)
    files = name_estimates(estimates)
    truth = read_ground_truth(ground_truth, frames=frames)
    found = {name: read_estimate(file) for name, file in files.items()}
    for name, estimate in found.items():
        require_common_time(str(files[name]), estimate, truth.trajectory, max_difference)
    check_out(out)
    with progress_bar() as progress:
        evaluation = evaluate_trajectory(
            found, truth, config, files=files, environment=environment(context, "cpu"), progress=progress
        )
    finish(evaluation, out, trajectory_pictures(found, truth, config))


def report(
    folder: Path = typer.Argument(..., metavar="DIR", help="A folder with results.json, or such a file."),
) -> None:
    """Make report.html again from results.json, with the pictures that lie beside it.

    [bold]Example[/]

        semkey eval report eval-planar
    """
    from semkey.evaluation.report.page import RESULTS_FILE, write_report
    from semkey.evaluation.report.pictures import read_pictures
    from semkey.evaluation.running.results import Evaluation

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
    from semkey.evaluation.data.megadepth import convert_megadepth as convert

    count = convert(folder, out)
    typer.echo(f"{count} pairs written to {out}")


def parse_sizes(text: str) -> tuple[tuple[int, int], ...]:
    """``640x480,1280x960`` as (width, height) pairs.

    Raises:
        ConfigError: another form.
    """
    from semkey.errors import ConfigError

    sizes = []
    for name in split_names(text, "--sizes"):
        sides = name.lower().split("x")
        if len(sides) != 2 or not all(side.isdecimal() for side in sides):
            raise ConfigError(f"--sizes takes WIDTHxHEIGHT between commas, such as 640x480, got '{name}'")
        sizes.append((int(sides[0]), int(sides[1])))
    return tuple(sizes)
