"""``semkey match-all``: a folder of images, matched pair by pair into HDF5 files as hloc has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from semkey.cli.console import print_table, progress_bar
from semkey.cli.inputs import ClusterOptions, FeatureOptions, MatcherOptions
from semkey.cli.options import configured

if TYPE_CHECKING:
    import numpy as np

    from semkey.interop.match_workers import FolderWorkers
    from semkey.matching.image_pairs import IndexPair

EXIT_INTERRUPTED = 130
DEFAULT_RETRIEVED = 20


@configured
def match_all(
    *,
    folder: Path = typer.Argument(..., metavar="FOLDER", help="Images, searched with the subfolders."),
    out: Path = typer.Option(
        Path("matches"), "--out", "-o", metavar="DIR", help="Gets features.h5, matches.h5 and pairs.txt."
    ),
    pairs: Path | None = typer.Option(
        None, metavar="FILE", help="Match these pairs: two names in a line, by their paths below FOLDER."
    ),
    retrieve: int | None = typer.Option(
        None,
        metavar="N",
        help=f"Match each image with the N most alike by global descriptor (default: {DEFAULT_RETRIEVED}).",
    ),
    exhaustive: bool = typer.Option(False, "--exhaustive", help="Match all pairs."),
    sequential: int | None = typer.Option(
        None, metavar="N", help="Match each image with the N that follow it in the order of their names."
    ),
    features: FeatureOptions,
    matcher: MatcherOptions,
    cluster: ClusterOptions,
) -> None:
    """Match all images of a folder and write features and matches in hloc's HDF5 layout.

    What is done is kept as it goes along: after Ctrl-C or a kill the same command goes on where it stopped.

    [bold]Examples[/]

        semkey match-all photos --exhaustive -o matched

        semkey match-all photos --retrieve 20 --features aliked-n16 --matcher lightglue -o matched

        semkey match-all video-frames --sequential 10 -o matched

        semkey match-all photos --retrieve 20 -o matched --ray 10.0.0.5:6379
    """
    from semkey.interop.match_folder import match_folder

    workers = folder_workers(features, matcher, cluster)
    choose = pair_choice(pairs, retrieve, exhaustive, sequential)
    extractor = features.create()
    chosen = matcher.create(features)
    try:
        with progress_bar() as bar:
            result = match_folder(folder, out, extractor, chosen, choose, workers=workers, progress=bar)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    mean = result.matches / max(1, result.pairs)
    rows = [[str(len(result.images)), str(result.pairs), f"{mean:.0f}"]]
    print_table(["images", "pairs", "matches per pair"], rows)
    typer.echo(f"written: {result.features_file}, {result.matches_file}")


def folder_workers(features: FeatureOptions, matcher: MatcherOptions, options: ClusterOptions) -> FolderWorkers | None:
    """Who extracts and matches; None for this process.

    Raises:
        ConfigError: options of a cluster that do not go together.
    """
    from semkey.interop.match_workers import FolderWorkers

    cluster = options.cluster(features.device)
    if cluster is None:
        return None
    return FolderWorkers(
        cluster=cluster,
        detector=partial(features.create),
        matcher=partial(matcher.create, features),
        device=features.device,
    )


def pair_choice(
    pairs: Path | None, retrieve: int | None, exhaustive: bool, sequential: int | None
) -> Callable[[Sequence[str], Callable[[], np.ndarray]], list[IndexPair]]:
    """How pairs are chosen.

    Raises:
        ConfigError: more than one way is asked for.
    """
    from semkey.errors import ConfigError
    from semkey.matching import image_pairs

    asked = {"--pairs": pairs, "--retrieve": retrieve, "--exhaustive": exhaustive or None, "--sequential": sequential}
    given = [name for name, value in asked.items() if value is not None]
    if len(given) > 1:
        raise ConfigError(f"{given[0]} and {given[1]} exclude each other: give one way to choose pairs")
    if pairs is not None:
        return lambda names, _: image_pairs.listed_pairs(pairs, names)
    if exhaustive:
        return lambda names, _: image_pairs.exhaustive_pairs(len(names))
    if sequential is not None:
        return lambda names, _: image_pairs.sequential_pairs(len(names), sequential)
    return lambda _, descriptors: image_pairs.retrieved_pairs(
        descriptors(), DEFAULT_RETRIEVED if retrieve is None else retrieve
    )
