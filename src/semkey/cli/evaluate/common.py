"""What the kinds of ``semkey eval`` share: options, methods, progress, and what a run leaves behind."""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from semkey.cli.console import print_table, progress_bar
from semkey.cli.inputs import ClusterOptions, FeatureOptions, RuntimeChoice
from semkey.cli.options import option
from semkey.settings import Settings, require_within

if TYPE_CHECKING:
    from semkey.evaluation.data.pairs import PairSet
    from semkey.evaluation.report.pictures import ReportPicture
    from semkey.evaluation.running.feature_cache import FeatureCache
    from semkey.evaluation.running.methods import Method
    from semkey.evaluation.running.pair_runner import PairProtocol, PairWorkers
    from semkey.evaluation.running.results import Evaluation

EXIT_INTERRUPTED = 130
DEFAULT_METHODS = "compact,sift,orb"

ResizeOption = typer.Option(
    None, "--resize", metavar="SIDE|WxH", help="Resize images to this longest side, or to this size (default: as is)."
)
TogetherOption = typer.Option(
    False, "--together", help="Average all sets as one; each set becomes a part that is also reported on its own."
)


@dataclass(frozen=True, kw_only=True)
class MethodOptions(Settings):
    """Which methods are measured.

    Attributes:
        methods: compact, sift, orb, aliked-t16, aliked-n16, aliked-n16rot, aliked-n32, xfeat, disk,
            clidd-n64, clidd-s64, clidd-m64, clidd-l64, a checkpoint (.safetensors), or your own: module:function or an
            entry point. Behind any of them +ratio, +dual-softmax, +lightglue (aliked-n16, disk) or +FILE of
            semkey train-matcher instead of nearest neighbours, +guided to look for these among what vit-tiny finds
            alike, and +refine to align the matches in the images (+refine=FILE of semkey train-refiner).
        keypoints: largest number of keypoints per image.
        weights: where released weights of peers are looked for first; may be repeated.
        device: auto (the GPU if there is one), cpu, cuda or cuda:N.
        runtime: what computes the networks of semkey's own, on a CPU; other methods are as ever.
        seed: seed of every random choice.
    """

    methods: str = option(DEFAULT_METHODS, "--methods", "-m", metavar="NAME,NAME,...")
    keypoints: int = option(FeatureOptions.max_keypoints, "--keypoints", "-n")
    weights: list[Path] | None = option(None, metavar="DIR")
    device: str = option("auto", metavar="DEVICE")
    runtime: RuntimeChoice = FeatureOptions.runtime
    seed: int = 0

    def __post_init__(self) -> None:
        require_within(self, "[1, inf)", "keypoints")
        require_within(self, "[0, inf)", "seed")

    def create(self, matching: MatchOptions | None = None, *, random_weights: bool = False) -> list[Method]:
        """All methods, before any work: an unknown name or missing weights end the run at once.

        ``presets`` stands for all presets of semkey.
        """
        from semkey.errors import ConfigError
        from semkey.model.presets import preset_names

        given = split_names(self.methods, "--methods")
        names = [name for one in given for name in (preset_names() if one == "presets" else [one])]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ConfigError(f"--methods names '{twice}' twice")
        matching = matching or MatchOptions()
        make = self.maker(matching, random_weights=random_weights)
        return [make(name) for name in names]

    def maker(self, matching: MatchOptions, *, random_weights: bool = False) -> Callable[[str], Method]:
        """What makes a method from its name, here or in a worker."""
        from semkey.evaluation.running.methods import create_method

        return partial(
            create_method,
            keypoints=self.keypoints,
            device=self.device,
            weights=self.weights or [],
            min_similarity=matching.min_similarity,
            ratio=matching.ratio,
            random_weights=random_weights,
            runtime=self.runtime,
        )


@dataclass(frozen=True, kw_only=True)
class MatchOptions(Settings):
    """Which mutual nearest neighbours are matches.

    Attributes:
        min_similarity: drop mutual nearest neighbours of a smaller cosine similarity.
        ratio: Lowe's ratio test on mutual nearest neighbours (default: none).
    """

    min_similarity: float | None = None
    ratio: float | None = option(None, metavar="0..1")

    def __post_init__(self) -> None:
        if self.min_similarity is not None:
            require_within(self, "[-1, 1]", "min_similarity")


@dataclass(frozen=True, kw_only=True)
class KeptOptions(Settings):
    """What a run over pairs keeps beside its figures.

    Attributes:
        cache: where features are kept, to share between runs (default: OUT/cache).
        no_cache: keep no features on disk.
        pictures: draw the worst and best pairs in the report.
    """

    cache: Path | None = option(None, metavar="DIR")
    no_cache: bool = option(False, "--no-cache")
    pictures: bool = True

    def open_cache(self, out: Path) -> FeatureCache:
        """The feature cache.

        Raises:
            ConfigError: a folder and none are asked for.
        """
        from semkey.errors import ConfigError
        from semkey.evaluation.running.feature_cache import FeatureCache
        from semkey.evaluation.running.pair_runner import CACHE_FOLDER

        if self.no_cache and self.cache is not None:
            raise ConfigError("--cache and --no-cache exclude each other")
        return FeatureCache(None if self.no_cache else self.cache or out / CACHE_FOLDER)


def pair_workers(
    cluster: ClusterOptions, methods: MethodOptions, matching: MatchOptions, kept: KeptOptions, out: Path
) -> PairWorkers | None:
    """Who measures pairs; None for this process.

    Raises:
        ConfigError: options that do not go together.
    """
    from semkey.evaluation.running.spread import RayPairs

    chosen = cluster.cluster(methods.device)
    if chosen is None:
        return None
    return RayPairs(cluster=chosen, create=methods.maker(matching), cache=kept.open_cache(out).folder)


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
    kept: KeptOptions,
    environment: Mapping[str, Any],
    options: Mapping[str, Any],
    unit: str,
    workers: PairWorkers | None = None,
) -> None:
    """Run a protocol over pairs, and write and show the results."""
    from semkey.evaluation.report.pair_pictures import pair_pictures
    from semkey.evaluation.running.pair_runner import run_pairs

    cache = kept.open_cache(out)
    check_out(out)
    around = nullcontext() if workers is None else workers.connected()
    with resumable(), around, progress_bar() as progress:
        evaluation = run_pairs(
            protocol,
            sets,
            methods,
            out=out,
            cache=cache,
            options=options,
            environment=environment,
            progress=progress,
            workers=workers,
        )
        drawn = pair_pictures(evaluation, sets, methods, cache, unit=unit) if kept.pictures else []
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
