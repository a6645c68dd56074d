"""What the kinds of ``semkey eval`` share: options, methods, progress, and what a run leaves behind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from semkey.cli.console import print_table

if TYPE_CHECKING:
    from semkey.evaluation.data.pairs import PairSet
    from semkey.evaluation.report.pictures import ReportPicture
    from semkey.evaluation.running.feature_cache import FeatureCache
    from semkey.evaluation.running.methods import Method
    from semkey.evaluation.running.pair_runner import PairProtocol
    from semkey.evaluation.running.results import Evaluation

EXIT_INTERRUPTED = 130
DEFAULT_METHODS = "compact,sift,orb"

MethodsOption = typer.Option(
    DEFAULT_METHODS,
    "--methods",
    "-m",
    metavar="NAME,NAME,...",
    help="compact, sift, orb, aliked-t16, aliked-n16, aliked-n16rot, aliked-n32, xfeat, disk, "
    "clidd-n64, clidd-s64, clidd-m64, clidd-l64, aliked-n16+lightglue, disk+lightglue, a checkpoint (.safetensors), "
    "or your own: module:function or an entry point.",
)
KeypointsOption = typer.Option(1024, "--keypoints", "-n", min=1, help="Largest number of keypoints per image.")
WeightsOption = typer.Option(
    None, "--weights", metavar="DIR", help="Where released weights of peers are looked for first; may be repeated."
)
DeviceOption = typer.Option("auto", metavar="DEVICE", help="auto (the GPU if there is one), cpu, cuda or cuda:N.")
SeedOption = typer.Option(0, min=0, help="Seed of every random choice.")
MinSimilarityOption = typer.Option(
    None, min=-1.0, max=1.0, help="Drop mutual nearest neighbours of a smaller cosine similarity."
)
RatioOption = typer.Option(None, metavar="0..1", help="Lowe's ratio test on mutual nearest neighbours (default: none).")
CacheOption = typer.Option(
    None, "--cache", metavar="DIR", help="Where features are kept, to share between runs (default: OUT/cache)."
)
NoCacheOption = typer.Option(False, "--no-cache", help="Keep no features on disk.")
ResizeOption = typer.Option(
    None, "--resize", metavar="SIDE|WxH", help="Resize images to this longest side, or to this size (default: as is)."
)
TogetherOption = typer.Option(
    False, "--together", help="Average all sets as one; each set becomes a part that is also reported on its own."
)
PicturesOption = typer.Option(True, "--pictures/--no-pictures", help="Draw the worst and best pairs in the report.")


def out_option(kind: str) -> Any:
    """``--out``; the results of different kinds go to different folders."""
    return typer.Option(
        Path(f"eval-{kind}"), "--out", "-o", metavar="DIR", help="Where the results go; made if missing."
    )


def split_names(text: str, option: str) -> list[str]:
    """Names between commas.

    Raises:
        ConfigError: there is none.
    """
    from semkey.errors import ConfigError

    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise ConfigError(f"{option} is empty: give at least one name")
    return names


def split_numbers(text: str, option: str) -> tuple[float, ...]:
    """Numbers between commas.

    Raises:
        ConfigError: one is not a number, or there is none.
    """
    from semkey.errors import ConfigError

    try:
        return tuple(float(number) for number in split_names(text, option))
    except ValueError:
        raise ConfigError(f"{option} takes numbers between commas, got '{text}'") from None


def split_integers(text: str, option: str) -> tuple[int, ...]:
    """Whole numbers between commas.

    Raises:
        ConfigError: one is not a whole number, or there is none.
    """
    from semkey.errors import ConfigError

    try:
        return tuple(int(number) for number in split_names(text, option))
    except ValueError:
        raise ConfigError(f"{option} takes whole numbers between commas, got '{text}'") from None


def create_methods(
    text: str,
    *,
    keypoints: int,
    device: str,
    weights: Sequence[Path] | None,
    min_similarity: float | None = None,
    ratio: float | None = None,
    random_weights: bool = False,
) -> list[Method]:
    """All methods, before any work: an unknown name or missing weights end the run at once.

    ``presets`` stands for all presets of semkey.
    """
    from semkey.errors import ConfigError
    from semkey.evaluation.running.methods import create_method
    from semkey.model.presets import preset_names

    given = split_names(text, "--methods")
    names = [name for one in given for name in (preset_names() if one == "presets" else [one])]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError(f"--methods names '{twice}' twice")
    return [
        create_method(
            name,
            keypoints=keypoints,
            device=device,
            weights=list(weights or ()),
            min_similarity=min_similarity,
            ratio=ratio,
            random_weights=random_weights,
        )
        for name in names
    ]


def open_cache(out: Path, cache: Path | None, no_cache: bool) -> FeatureCache:
    """The feature cache that the options ask for.

    Raises:
        ConfigError: a folder and none are asked for.
    """
    from semkey.errors import ConfigError
    from semkey.evaluation.running.feature_cache import FeatureCache
    from semkey.evaluation.running.pair_runner import CACHE_FOLDER

    if no_cache and cache is not None:
        raise ConfigError("--cache and --no-cache exclude each other")
    return FeatureCache(None if no_cache else cache or out / CACHE_FOLDER)


def environment(context: typer.Context, device: str) -> dict[str, Any]:
    """Versions and machine, with the command line as it was typed."""
    from semkey.evaluation.running.environment import describe_environment

    typed = context.find_root().obj
    return describe_environment(device, command=["semkey", *(sys.argv[1:] if typed is None else typed)])


def run_pair_kind(
    protocol: PairProtocol,
    sets: Sequence[PairSet],
    methods: Sequence[Method],
    *,
    out: Path,
    cache: FeatureCache,
    environment: Mapping[str, Any],
    options: Mapping[str, Any],
    unit: str,
    pictures: bool,
) -> None:
    """Run a protocol over pairs, and write and show the results."""
    from semkey.evaluation.report.pair_pictures import pair_pictures
    from semkey.evaluation.running.pair_runner import run_pairs

    check_out(out)
    with resumable(), progress_bar() as progress:
        evaluation = run_pairs(
            protocol,
            sets,
            methods,
            out=out,
            cache=cache,
            options=options,
            environment=environment,
            progress=progress,
        )
        drawn = pair_pictures(evaluation, sets, methods, cache, unit=unit) if pictures else []
    finish(evaluation, out, drawn)


def check_out(out: Path) -> None:
    """Make the folder before a long run.

    Raises:
        InputError: it cannot be made.
    """
    from semkey.errors import InputError

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: cannot be used as output folder ({error.strerror or error})") from None


def finish(
    evaluation: Evaluation,
    out: Path,
    pictures: Sequence[ReportPicture] = (),
    *,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Write ``results.json``, the pictures and ``report.html``, and print the headline metrics."""
    from semkey.evaluation.report.page import REPORT_FILE, RESULTS_FILE, write_report
    from semkey.evaluation.report.pictures import write_pictures
    from semkey.evaluation.report.tables import headline_table

    if options:
        evaluation = replace(evaluation, options={**options, **evaluation.options})
    evaluation.write(out / RESULTS_FILE)
    write_pictures(out, pictures)
    write_report(evaluation, out, pictures)
    header, rows, marks = headline_table(evaluation)
    print_table(header, rows, marks=marks)
    typer.echo(f"written: {out / RESULTS_FILE}, {out / REPORT_FILE}", err=not sys.stdout.isatty())


@contextmanager
def resumable() -> Generator[None]:
    """Say on Ctrl-C that nothing is lost, and exit with 130."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("interrupted: run the same command again to go on from here", err=True)
        raise typer.Exit(EXIT_INTERRUPTED) from None


@contextmanager
def progress_bar() -> Generator[Callable[[int, int, str], None] | None]:
    """A bar on stderr for ``progress(done, total, what)``, or nothing where that is no terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = [BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}")]
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def advance(done: int, total: int, what: str) -> None:
            bar.update(task, completed=done, total=total, description=what)

        yield advance
