"""``semkey train``: a detector from photos, rendered rooms and RGB-D sequences."""

from __future__ import annotations

import itertools
import math
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import typer

from semkey.cli.console import print_table
from semkey.cli.options import changes_option

if TYPE_CHECKING:
    from semkey.training import TrainingEvents

EXIT_INTERRUPTED = 130

_SHOWN = ("descriptor_accuracy", "matching_score", "precision", "repeatability", "error_px", "reliability_auroc")


Stage = Literal["descriptor", "detector", "reliability", "finetune", "all"]


def train(
    config: Path = typer.Argument(
        ...,
        metavar="CONFIG",
        help="What to train on what: a YAML file, one of semkey configs, or a preset over a backbone (dinov2-small).",
    ),
    stage: Stage = typer.Option("all", help="Train one stage alone, on top of those that RUN already has."),
    resume: bool = typer.Option(False, "--resume", help="Go on where the run in RUN stopped."),
    changes: list[str] = changes_option("TrainConfig", "data.photos=DIR"),
    out: Path | None = typer.Option(
        None, "--out", "-o", metavar="RUN", help="Folder of the run; default runs/NAME, after the configuration's name."
    ),
) -> None:
    """Train a detector in stages: descriptor, detector, reliability, and a fine-tune of all.

    Writes RUN/NAME.safetensors (for [bold]--features[/] and semkey.load), a report with curves and matches
    (report.html), logs and checkpoints. Ctrl-C saves; [bold]--resume[/] goes on, after a kill as well.

    [bold]Examples[/]

        semkey train compact-small --set data.photos=my_photos

        semkey train compact --set data.photos=my_photos --out runs/first --resume

        semkey train dinov2-small --set data.photos=my_photos

        semkey train my.yaml --stage reliability --set stages.reliability.epochs=1
    """
    from semkey.training import TrainConfig, TrainingInterrupted, fit

    settings = TrainConfig.load(config, changes)
    run = out or Path("runs") / settings.name
    reporter = _Reporter()
    try:
        with reporter:
            result = fit(settings, run, stage=stage, resume=resume, events=reporter.events())
    except TrainingInterrupted as interruption:
        if interruption.is_first_process:
            print(f"stopped: {interruption.stage}, step {interruption.step}; --resume goes on", file=sys.stderr)
        raise typer.Exit(EXIT_INTERRUPTED) from None
    if result.is_first_process:
        rows = [[name, *(_number(figures.get(key)) for key in _SHOWN)] for name, figures in result.figures.items()]
        print_table(["stage", *_SHOWN], rows)
        typer.echo(f"written: {result.weights}, {result.report}")


def configs(
    name: str | None = typer.Argument(None, metavar="[NAME]", help="Show this one, to be saved and changed."),
) -> None:
    """List the training configurations that come with semkey, or show one.

    [bold]Examples[/]

        semkey configs

        semkey configs compact-small > my.yaml
    """
    from semkey.backbones.specs import BACKBONES
    from semkey.training.config import find_config, shipped_configs

    if name is not None:
        sys.stdout.write(find_config(name).read_text(encoding="utf-8"))
        return
    rows = [[one, _purpose(path), str(path)] for one, path in shipped_configs().items()]
    print_table(["configuration", "what it trains", "file"], rows)
    shared = [one for one in BACKBONES if one not in shipped_configs()]
    typer.echo(f"semkey train also takes {', '.join(shared)}: dinov2-small over that backbone")


def _purpose(path: Path) -> str:
    """The first sentence of a configuration's first comment, which ends at an empty line or the comment's end."""
    lines = path.read_text(encoding="utf-8").splitlines()
    comment = (line.lstrip("# ") for line in itertools.takewhile(lambda line: line.startswith("#"), lines))
    words = " ".join(itertools.takewhile(bool, comment))
    return re.split(r"(?<=\.)\s", words, maxsplit=1)[0].rstrip(".:")


class _Reporter:
    """A progress bar on a terminal, a line now and then elsewhere; of several processes only the first speaks."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._started = 0.0
        self._spoken = 0.0

    def __enter__(self) -> _Reporter:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                TextColumn("{task.completed:.0f}/{task.total:.0f}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=Console(stderr=True),
            )
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def events(self) -> TrainingEvents:
        """The listeners."""
        from semkey.training import TrainingEvents

        return TrainingEvents(
            preparing=self._preparing,
            noted=self._line,
            stage_started=self._stage,
            stepped=self._step,
            validated=self._validated,
        )

    def _preparing(self, done: int, total: int, what: str) -> None:
        self._show(what, done, total, "")

    def _stage(self, stage: str, step: int, steps: int) -> None:
        self._task, self._spoken = None, 0.0
        self._line(f"stage {stage}: {steps} steps" + (f", going on after step {step}" if step else ""))

    def _step(self, stage: str, step: int, steps: int, losses: dict[str, float]) -> None:
        self._show(stage, step, steps, " ".join(f"{name} {value:.3f}" for name, value in losses.items()))

    def _validated(self, stage: str, step: int, figures: dict[str, float]) -> None:
        shown = ", ".join(f"{name} {_number(figures.get(name))}" for name in _SHOWN if name in figures)
        self._line(f"{stage} step {step}: {shown}")

    def _show(self, what: str, done: int, total: int, note: str) -> None:
        import time

        if self._bar is not None:
            self._bar.start()
            if self._task is None or self._bar.tasks[-1].description != what:
                for task in self._bar.tasks:
                    self._bar.remove_task(task.id)
                self._task = self._bar.add_task(what, total=total, note=note)
            self._bar.update(self._task, completed=done, total=total, note=note)
            return
        now = time.monotonic()
        if now - self._spoken > 30.0 or done >= total:
            self._spoken = now
            self._line(f"{what} {done}/{total} {note}".rstrip())

    def _line(self, text: str) -> None:
        if self._bar is not None:
            self._bar.console.print(text, highlight=False)
        else:
            print(text, file=sys.stderr, flush=True)


def _number(value: float | None) -> str:
    return "-" if value is None or math.isnan(value) else f"{value:.3f}"
