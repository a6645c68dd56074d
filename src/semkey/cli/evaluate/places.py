"""``semkey eval places``: is the nearest earlier image of the same place?"""

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
    split_names,
)
from semkey.cli.options import field_option


def places(
    context: typer.Context,
    sequences: list[Path] = typer.Argument(
        ..., metavar="SEQUENCE...", help="Posed sequences (TUM RGB-D, 7-Scenes, ...) whose camera comes back to places."
    ),
    methods: str = typer.Option(
        "compact,vit-tiny:cls,vit-tiny:gem",
        "--methods",
        "-m",
        metavar="NAME,...",
        help="BACKBONE:cls, BACKBONE:gem, BACKBONE:vlad, features with a global descriptor of their own (compact), or "
        "both joined: [bold]compact@own@vit-tiny:gem[/].",
    ),
    out: Path = out_option("places"),
    max_distance: float = typer.Option(0.3, metavar="M", help="Cameras nearer than this, and"),
    max_angle: float = typer.Option(20.0, metavar="DEG", help="turned by less than this, see the same place."),
    min_gap: float = typer.Option(5.0, metavar="S", help="Only frames at least so much older are compared with."),
    stride: int = typer.Option(1, min=1, help="Take every so manyth frame."),
    together: bool = typer.Option(
        False,
        "--together",
        help="Choose from the frames of all SEQUENCES: which rooms are taken for each other?",
    ),
    vocabulary: Path | None = typer.Option(None, metavar="FILE", help="Of vlad, from semkey vocabulary."),
    vocabulary_images: Path | None = typer.Option(
        None, metavar="FOLDER", help="Images to train vlad's vocabulary on, where there is no file."
    ),
    clusters: int = typer.Option(16, min=1, help="Words of that vocabulary."),
    weights: list[Path] | None = field_option(MethodOptions, "weights"),
    device: str = field_option(MethodOptions, "device"),
    seed: int = field_option(MethodOptions, "seed", min=0),
) -> None:
    """Recall of global descriptors on the revisits of posed sequences.

    [bold]Example[/]

        semkey eval places redkitchen/seq-01 --methods compact,vit-tiny:cls,vit-tiny:gem
    """
    from semkey.datasets import open_sequence
    from semkey.evaluation.kinds.place_methods import create_place_methods
    from semkey.evaluation.kinds.places import PlacesConfig, run_places
    from semkey.training.feature_folder import some_images

    config = PlacesConfig(
        max_distance_m=max_distance,
        max_angle_deg=max_angle,
        min_gap_s=min_gap,
        stride=stride,
        seed=seed,
        together=together,
    )
    opened = [open_sequence(path, strict=True) for path in sequences]
    images = list(some_images(vocabulary_images, 300)) if vocabulary_images is not None else []
    chosen = create_place_methods(
        split_names(methods, "--methods"),
        device=device,
        weights=list(weights or ()),
        vocabulary=vocabulary,
        vocabulary_images=images,
        clusters=clusters,
        seed=seed,
    )
    check_out(out)
    with progress_bar() as progress:
        evaluation = run_places(chosen, opened, config, environment=environment(context, device), progress=progress)
    finish(evaluation, out)
