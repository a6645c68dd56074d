"""``semkey extract``: features of many images into a file."""

from __future__ import annotations

import sys
from pathlib import Path

import typer

from semkey.cli.console import progress_bar
from semkey.cli.inputs import FeatureOptions
from semkey.cli.options import configured

EXIT_BROKEN_IMAGES = 3
"""Some images could not be used; the features of all others are written."""
_SHOWN = 20


@configured
def extract(
    *,
    source: Path = typer.Argument(
        ...,
        metavar="FOLDER|LIST",
        help="A folder of images, folders in it included, or a text file with a name per line.",
    ),
    out: Path = typer.Option(
        ..., "--out", "-o", metavar="FILE.h5|DIR", help="An HDF5 file in hloc's layout, or a folder of NPZ files."
    ),
    features: FeatureOptions,
    images: Path | None = typer.Option(
        None, metavar="DIR", help="Where the names of a list begin; by default in the list's folder."
    ),
    workers: int = typer.Option(1, min=1, help="Processes of one core each; 1 uses all cores in this one."),
    chunk: int = typer.Option(16, min=1, help="Images of one unit of work: what a kill costs at most."),
    ray: str | None = typer.Option(
        None, metavar="ADDRESS|local", help="Extract on a Ray cluster, or with Ray on this machine."
    ),
) -> None:
    """Extract the features of many images, into a file that hloc reads, or a file for each.

    The same command goes on where a killed run stopped, and adds what is new in the folder. A broken image is named at
    the end; then the exit code is 3. HDF5: a group per image with keypoints (N, 2) x y, pixel centres at integers (hloc
    adds COLMAP's half pixel itself), descriptors (D, N), scores, image_size, reliability.

    [bold]Examples[/]

        semkey extract photos/ --out features.h5 --workers 8

        semkey extract list.txt --images photos/ --out features.h5 --features aliked-n16

        semkey extract photos/ --out features.h5 --ray 10.0.0.5:6379
    """
    from semkey.errors import InputError
    from semkey.interop.bulk import BulkConfig, extract_many, list_source
    from semkey.interop.bulk_workers import ExtractionJob

    if source.is_dir() and images is not None:
        raise InputError("--images goes with a list; the names in a folder begin in it")
    listed = list_source(source, images)
    job = ExtractionJob(
        features=features.features,
        max_keypoints=features.max_keypoints,
        device=features.device,
        runtime=features.runtime,
    )
    config = BulkConfig(workers=workers, chunk=chunk, ray=ray)
    with progress_bar("Extracting") as progress:
        summary = extract_many(listed, out, job, config, progress=progress)
    rate = summary.extracted / summary.seconds if summary.seconds else 0.0
    kept = f", {summary.kept} were there" if summary.kept else ""
    typer.echo(
        f"{summary.extracted} of {summary.images} images extracted{kept}, {rate:.1f} images per second; "
        f"written to {out}"
    )
    for _, reason in summary.broken[:_SHOWN]:
        print(f"broken: {reason}", file=sys.stderr)
    if len(summary.broken) > _SHOWN:
        print(f"broken: {len(summary.broken) - _SHOWN} more", file=sys.stderr)
    if summary.broken:
        print(f"{len(summary.broken)} of {summary.images} images cannot be used", file=sys.stderr)
        raise typer.Exit(EXIT_BROKEN_IMAGES)
