"""``semkey data``: look at training data before training on them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import typer

from semkey.cli.console import print_table, progress_bar
from semkey.cli.options import changes_option

app = typer.Typer(name="data", no_args_is_help=True, help="Look at training data before training on them.")


@app.callback()
def _data() -> None:
    """Keeps ``show`` a command with a name of its own."""


DataSplit = Literal["train", "val"]


@app.command("show")
def show(
    config: Path = typer.Argument(
        ..., metavar="CONFIG", help="A training configuration: a YAML file, or a name such as compact-small."
    ),
    out: Path = typer.Option(Path("pairs.html"), "--out", "-o", metavar="HTML", help="The report to write."),
    changes: list[str] = changes_option("TrainConfig", "data.photos=DIR"),
    pairs: int = typer.Option(4, min=1, max=200, help="Pairs of each source."),
    split: DataSplit = typer.Option("train", help="Pairs for training, or those kept for validation."),
    seed: int | None = typer.Option(None, min=0, help="Other pairs; by default the configuration's."),
    png: Path | None = typer.Option(None, "--png", metavar="DIR", help="Also write the pictures as PNG files."),
) -> None:
    """Draw training pairs with their correspondences.

    Shows, for every source in the configuration: corresponding points joined by lines, detection targets, and view 0
    taking turns with view 1 brought into view 0, where nothing may move. The table says how well the two views agree.
    What training needs and is not in the cache (keypoints of a teacher, rendered rooms) is made first.

    [bold]Examples[/]

        semkey data show compact-small --set data.photos=photos

        semkey data show compact --set data.photos=photos --split val --pairs 8 --png pictures
    """
    from semkey.errors import InputError
    from semkey.files import atomic_write_bytes, atomic_write_text
    from semkey.training.config import TrainConfig
    from semkey.training.data.report import collect_pairs, data_report, pair_pictures, summarise

    if out.suffix.lower() != ".html":
        raise InputError(f"cannot write {out}: the report's name ends in .html")
    settings = TrainConfig.load(config, changes)
    seed = settings.seed if seed is None else seed
    with progress_bar() as progress:
        shown = collect_pairs(settings.data, split=split, seed=seed, count=pairs, progress=progress)
    subtitle = f"{config.name}, {split} pairs, seed {seed}"
    atomic_write_text(
        out, data_report(shown, settings.data, title=f"Training data of {settings.name}", subtitle=subtitle)
    )
    if png is not None:
        for item in shown:
            for kind, data in pair_pictures(item).items():
                atomic_write_bytes(png / f"{item.source}-{item.index:03d}-{kind}.png", data)
    print_table(
        ["source", "pairs", "agreement", "lowest", "seen in both", "targets", "ms per pair"],
        [
            [
                row.source,
                row.pairs,
                f"{row.agreement:.3f}",
                f"{row.lowest_agreement:.3f}",
                f"{row.seen:.2f}",
                f"{row.targets:.0f}",
                f"{row.milliseconds:.1f}",
            ]
            for row in summarise(shown)
        ],
    )
    typer.echo(f"{len(shown)} pairs in {out}" + (f", pictures in {png}" if png is not None else ""))
