"""``semkey colmap``: a folder of images to a COLMAP database and a reconstruction."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import typer

from semkey.cli.console import print_table, progress_bar
from semkey.cli.inputs import FeatureOptions, MatcherOptions
from semkey.cli.match_all import pair_choice
from semkey.cli.options import configured

if TYPE_CHECKING:
    import numpy as np

    from semkey.datasets.cameras.lens import Lens
    from semkey.matching.image_pairs import IndexPair

EXIT_LOST = 3
"""Nothing was reconstructed; the database is written all the same."""


@configured
def colmap(
    *,
    folder: Path = typer.Argument(..., metavar="IMAGES", help="Folder of images, searched with its subfolders."),
    out: Path = typer.Option(..., "--out", "-o", metavar="DIR", help="Gets database.db, sparse/ and matches/."),
    pairs: Path | None = typer.Option(None, metavar="FILE", help="Match these pairs: two names in a line."),
    retrieve: int | None = typer.Option(
        None, metavar="N", help="Match each image with the N most alike (default: 20)."
    ),
    exhaustive: bool = typer.Option(False, "--exhaustive", help="Match all pairs."),
    sequential: int | None = typer.Option(
        None, metavar="N", help="Match each image with the N that follow it in the order of their names."
    ),
    camera: str | None = typer.Option(
        None, metavar="FX,FY,CX,CY|FILE", help="Camera of all images, pixel centres at integers; else what EXIF says."
    ),
    single_camera: bool = typer.Option(False, "--single-camera", help="One camera took all images."),
    mapper: Literal["incremental", "global"] = typer.Option("incremental", help="COLMAP's mapper."),
    seed: int = typer.Option(0, min=0, help="Of COLMAP's random numbers."),
    features: FeatureOptions,
    matcher: MatcherOptions,
) -> None:
    r"""Reconstruct a folder of images with COLMAP from semkey's features; pip install 'semkey\[colmap,h5]'.

    Writes DIR/matches (features.h5 and matches.h5 as hloc has them), DIR/database.db (keypoints, matches, verified
    geometries, cameras) and DIR/sparse/0 (the model), and prints what is in it. After Ctrl-C while matching the same
    command goes on. A camera that is given is kept; one from EXIF is refined.

    [bold]Examples[/]

        semkey colmap photos --out room --exhaustive --single-camera

        semkey colmap photos --out room --retrieve 20 --camera 600,600,319.5,239.5
    """
    from semkey.errors import InputError
    from semkey.interop.colmap import import_pycolmap
    from semkey.interop.colmap_mapping import reconstruct, write_database
    from semkey.interop.hloc import require_h5py
    from semkey.interop.match_folder import match_folder

    import_pycolmap()
    require_h5py()
    choose = pair_choice(pairs, retrieve, exhaustive, sequential)
    sparse, database = out / "sparse", out / "database.db"
    if sparse.exists() and any(sparse.iterdir()):
        raise InputError(f"{sparse} holds a reconstruction; remove it or choose another --out")
    lens = None if camera is None else _lens(camera, folder)
    extractor = features.create()
    chosen: list[tuple[str, str]] = []

    def remember(names: Sequence[str], descriptors: Callable[[], np.ndarray]) -> list[IndexPair]:
        found = choose(names, descriptors)
        chosen.extend((names[i], names[j]) for i, j in found)
        return found

    with progress_bar() as bar:
        matched = match_folder(folder, out / "matches", extractor, matcher.create(features), remember, progress=bar)
    typer.echo(f"{len(matched.images)} images, {matched.pairs} pairs, {matched.matches} matches; now COLMAP")
    with progress_bar() as bar:
        write_database(database, folder, matched, chosen, lens=lens, single=single_camera, seed=seed, progress=bar)
        result = reconstruct(
            sparse,
            folder,
            database,
            len(matched.images),
            mapper=mapper,
            refine_camera=lens is None,
            seed=seed,
            progress=bar,
        )
    error = "-" if result.folder is None else f"{result.reprojection_error:.2f}"
    row = [f"{result.registered} of {result.images}", result.points, error, result.models]
    print_table(["registered images", "points", "reprojection error, px", "models"], [row])
    if result.folder is None:
        typer.echo(
            f"nothing could be reconstructed: too few images hang together; {database} has the matches", err=True
        )
        raise typer.Exit(EXIT_LOST)
    typer.echo(f"written: {database}, {result.folder}")


def _lens(camera: str, folder: Path) -> Lens:
    """The camera that is given, of the size of the folder's images."""
    from semkey.datasets import parse_camera
    from semkey.datasets.cameras.lens import Calibration, Lens
    from semkey.images import read_image
    from semkey.interop.match_folder import folder_images

    given = parse_camera(camera)
    if isinstance(given, Calibration):
        return given.left
    height, width = read_image(folder / folder_images(folder)[0]).shape[:2]
    return Lens(model="pinhole", intrinsics=given, size=(width, height))
