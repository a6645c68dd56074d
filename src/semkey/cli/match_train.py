"""``semkey train-matcher`` and ``train-refiner``: for any features, from photos and rendered rooms."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import typer

from semkey.cli.console import progress_bar
from semkey.cli.options import changes_option

EXIT_INTERRUPTED = 130
_SECONDS_BETWEEN_LINES = 30.0


def train_matcher(
    config: Path = typer.Argument(
        ..., metavar="CONFIG", help="What to train on what: a YAML file, or lightglue-compact of semkey."
    ),
    resume: bool = typer.Option(False, "--resume", help="Go on where the run in RUN stopped."),
    changes: list[str] = changes_option("MatcherTrainConfig", "data.photos=DIR"),
    out: Path | None = typer.Option(
        None, "--out", "-o", metavar="RUN", help="Folder of the run; default runs/NAME, after the configuration's name."
    ),
) -> None:
    """Train LightGlue to match the features of any detector.

    Pairs of views with their features and true matches are made once and kept in the cache (data.cache). Writes
    RUN/NAME.safetensors for [bold]semkey match --matcher[/]. Ctrl-C saves; [bold]--resume[/] goes on, after a kill as
    well.

    [bold]Examples[/]

        semkey train-matcher lightglue-compact --set data.photos=my_photos

        semkey train-matcher lightglue-compact --set data.photos=my_photos --set features=orb --set name=lightglue-orb
    """
    from semkey.training.matcher import MatcherTrainConfig, fit_matcher
    from semkey.training.resumable import TrainingEvents

    settings = MatcherTrainConfig.load(config, changes)
    run = out or Path("runs") / settings.name
    with _told() as told:
        path = fit_matcher(settings, run, resume=resume, events=TrainingEvents(**told))
    typer.echo(f"written: {path}")


def train_refiner(
    config: Path = typer.Argument(
        ..., metavar="CONFIG", help="What to train on what: a YAML file, or refiner-compact of semkey."
    ),
    features: str | None = typer.Option(
        None, "--features", "-f", metavar="NAME", help="Whose matches, instead of those CONFIG names; names the result."
    ),
    resume: bool = typer.Option(False, "--resume", help="Go on where the run in RUN stopped."),
    changes: list[str] = changes_option("RefinerTrainConfig", "data.photos=DIR"),
    out: Path | None = typer.Option(
        None, "--out", "-o", metavar="RUN", help="Folder of the run; default runs/NAME, after the configuration's name."
    ),
) -> None:
    """Train a small network to move the matches of any detector to where they lie, to a fraction of a pixel.

    Matches of views with known places and the patches around them are made once and kept in the cache (data.cache).
    Writes RUN/NAME.safetensors for [bold]semkey match --refiner[/]. Ctrl-C saves; [bold]--resume[/] goes on, after a
    kill as well.

    [bold]Examples[/]

        semkey train-refiner refiner-compact --set data.photos=my_photos

        semkey train-refiner refiner-compact --features orb --set data.photos=my_photos
    """
    from semkey.training.refiner import RefinerTrainConfig, fit_refiner
    from semkey.training.resumable import TrainingEvents

    if features is not None:
        stem = Path(features).stem
        changes = [*changes, f"features={features}"]
        if not any(change.startswith("name=") for change in changes):
            changes.append(f"name=refiner-{stem}")
    settings = RefinerTrainConfig.load(config, changes)
    run = out or Path("runs") / settings.name
    with _told() as told:
        path = fit_refiner(settings, run, resume=resume, events=TrainingEvents(**told))
    typer.echo(f"written: {path}")


@contextmanager
def _told() -> Generator[dict[str, Callable[..., None]]]:
    """What a training tells, shown as a bar or, without a terminal, as a line now and then."""
    try:
        with progress_bar() as bar:
            spoken = [0.0]

            def show(done: int, total: int, what: str) -> None:
                if bar is not None:
                    bar(done, total, what)
                elif time.monotonic() - spoken[0] > _SECONDS_BETWEEN_LINES or done >= total:
                    spoken[0] = time.monotonic()
                    print(f"{what} {done}/{total}", file=sys.stderr, flush=True)

            def validated(step: int, figures: dict[str, float]) -> None:
                said = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
                print(f"step {step}: {said}", file=sys.stderr, flush=True)

            yield {
                "preparing": show,
                "stepped": lambda step, steps, loss: show(step, steps, f"steps, loss {loss:.3f}"),
                "validated": validated,
            }
    except KeyboardInterrupt:
        print("stopped; --resume goes on", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from None
