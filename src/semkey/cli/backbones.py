"""``semkey cache-features`` and ``semkey vocabulary``: frozen backbones over a folder of images."""

from __future__ import annotations

from pathlib import Path

import typer

from semkey.cli.console import progress_bar
from semkey.cli.inputs import FeatureOptions
from semkey.cli.options import field_option

BackboneArgument = typer.Argument(
    ...,
    metavar="PRESET",
    help="vit-tiny, dinov2-small|base|large (each also -reg), dinov3-small|base, owner/name on the hub, or a folder.",
)
FolderArgument = typer.Argument(..., metavar="FOLDER", help="Images, searched with the subfolders.")
LicenceOption = typer.Option(
    False, "--accept-license", help="You have read the licence of the weights and accept it (DINOv3)."
)


def cache_features(
    preset: str = BackboneArgument,
    folder: Path = FolderArgument,
    out: Path | None = typer.Option(
        None, "--out", "-o", metavar="DIR", help="The cache; training reads it as data.cache (default: its default)."
    ),
    size: str | None = typer.Option(
        None, metavar="WxH", help="Size of training views: images are scaled and cropped to it (default: as they are)."
    ),
    layers: str | None = typer.Option(
        None, metavar="N,...", help="Layers that give maps, from 1 (default: four at equal distances)."
    ),
    accept_license: bool = LicenceOption,
    device: str = field_option(FeatureOptions, "device"),
) -> None:
    """Compute a frozen backbone's features of all images of a folder once, and keep them in half precision.

    Features that are there already are not computed again; a changed image or another backbone has entries of its own.

    [bold]Examples[/]

        semkey cache-features vit-tiny photos --size 320x256

        semkey cache-features dinov2-base-reg photos --size 448x448 --out cache
    """
    from semkey.backbones.loading import load_backbone
    from semkey.cli.evaluate.common import split_integers
    from semkey.cli.evaluate.other import parse_sizes
    from semkey.errors import ConfigError
    from semkey.runtime import select_device
    from semkey.training.data.config import DataConfig
    from semkey.training.data.opening import cache_folder
    from semkey.training.feature_folder import cache_features as fill
    from semkey.training.objectives.optimisation import autocast_bfloat16

    sizes = parse_sizes(size) if size is not None else (None,)
    if len(sizes) != 1:
        raise ConfigError(f"--size takes one size, got {size}")
    chosen = split_integers(layers, "--layers") if layers is not None else ()
    target = select_device(device)
    backbone = load_backbone(preset, chosen, accept_licence=accept_license).to(target)
    cache = cache_folder(DataConfig()) if out is None else out
    with progress_bar() as progress:
        done = fill(
            backbone,
            folder,
            cache,
            size=sizes[0],
            bfloat16=autocast_bfloat16("auto", target),
            progress=progress,
        )
    bad = f", {done.bad} left out" if done.bad else ""
    typer.echo(
        f"{done.computed} images computed, {done.known} were there{bad}; {done.megabytes:.0f} MB in {done.folder}"
    )


def vocabulary(
    preset: str = BackboneArgument,
    folder: Path = FolderArgument,
    out: Path = typer.Option(..., "--out", "-o", metavar="FILE", help="The vocabulary (.safetensors)."),
    clusters: int = typer.Option(16, min=1, help="Words; a descriptor has clusters times channels numbers."),
    images: int = typer.Option(300, min=1, help="At most so many images, evenly chosen."),
    layer: int | None = typer.Option(None, help="Layer whose tokens are clustered (default: the last but one given)."),
    seed: int = typer.Option(0, min=0, help="Seed of every random choice."),
    accept_license: bool = LicenceOption,
    device: str = field_option(FeatureOptions, "device"),
) -> None:
    """Train a small VLAD vocabulary over a frozen backbone's tokens, for recognising places.

    [bold]Example[/]

        semkey vocabulary vit-tiny my_rooms --out rooms.safetensors

        semkey eval places SEQUENCE --methods vit-tiny:vlad --vocabulary rooms.safetensors
    """
    from semkey.backbones.global_descriptors import train_vlad
    from semkey.backbones.loading import load_backbone
    from semkey.model.precision import uses_bfloat16
    from semkey.runtime import select_device
    from semkey.training.feature_folder import some_images

    target = select_device(device)
    backbone = load_backbone(preset, accept_licence=accept_license).to(target)
    with progress_bar() as progress:
        words = train_vlad(
            backbone,
            some_images(folder, images, progress),
            clusters=clusters,
            layer=layer,
            seed=seed,
            bfloat16=uses_bfloat16("auto", target),
        )
    words.write(out)
    typer.echo(f"{len(words.centers)} words of layer {words.layer} written to {out}")
