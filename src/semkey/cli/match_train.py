"""``semkey train-matcher``: LightGlue for any features, from photos and rendered rooms."""

from __future__ import annotations

import sys
import time
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
    from semkey.training.matcher import MatcherEvents, MatcherTrainConfig, fit_matcher

    settings = MatcherTrainConfig.load(config, changes)
    run = out or Path("runs") / settings.name
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

            events = MatcherEvents(
                preparing=show,
                stepped=lambda step, steps, loss: show(step, steps, f"steps, loss {loss:.3f}"),
                validated=validated,
            )
            path = fit_matcher(settings, run, resume=resume, events=events)
    except KeyboardInterrupt:
        print("stopped; --resume goes on", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    typer.echo(f"written: {path}")
