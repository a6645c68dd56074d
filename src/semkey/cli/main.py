"""Entry point of the ``semkey`` command: registers the commands and turns errors into one line and an exit code."""

from __future__ import annotations

import errno
import sys
from collections.abc import Sequence

import typer

from semkey import __version__
from semkey.cli import (
    backbones,
    data,
    detect,
    doctor,
    info,
    localize,
    match,
    match_all,
    match_train,
    render_room,
    slam,
    train,
)
from semkey.cli.console import DownloadBar, print_error
from semkey.cli.demo import command as demo
from semkey.cli.evaluate import pairs as eval_commands
from semkey.cli.export import colmap
from semkey.cli.export.commands import app as export_app
from semkey.cli.interop import calibrate, extract, map_files, ui
from semkey.cli.terminal.completion import answer_shells, completion
from semkey.cli.terminal.messages import messages, take_verbosity
from semkey.cli.terminal.process import is_of_stream, open_closed_streams, printed, signals_as_interrupts, unprintable
from semkey.downloads import report_downloads
from semkey.errors import SemkeyError
from semkey.runtime import tune_process

DOCUMENTATION = "https://semkey.readthedocs.io/en/latest/"
"""As pyproject.toml has it; an installed package would have to read its metadata for it, which takes longer."""
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="semkey",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with [bold]semkey demo[/]; each command explains itself with [bold]semkey COMMAND --help[/]. "
    f"Documentation: {DOCUMENTATION}. When something goes wrong: [bold]semkey doctor[/], "
    f"{DOCUMENTATION}troubleshooting/",
)


def _print_version(requested: bool) -> None:
    if requested:
        print(f"semkey {__version__}")
        raise typer.Exit


@app.callback()
def _semkey(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
    quiet: bool = typer.Option(False, "--quiet", "-q", help="Results and errors only; may stand behind any command."),
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Also say what the library logs."),
    log: str | None = typer.Option(None, "--log", metavar="FILE", help="Append all that is logged to a file."),
) -> None:
    """Semantic keypoints for visual SLAM: detect and describe keypoints, match images, track a camera.

    Pixels are [bold]x y[/] with pixel centres at integers; poses map camera to world coordinates in metres.
    Bad input ends with one line [bold]error: ...[/] that names the file, exit code 2, and nothing half-written.
    """


app.command("demo")(demo.demo)
app.command("detect")(detect.detect)
app.command("match")(match.match)
app.command("match-all")(match_all.match_all)
app.command("colmap")(colmap.colmap)
app.command("slam")(slam.slam)
app.command("calibrate")(calibrate.calibrate)
app.command("extract")(extract.extract)
app.command("localize")(localize.localize)
app.add_typer(map_files.app, name="map")
app.add_typer(eval_commands.app, name="eval")
app.add_typer(export_app, name="export")
app.add_typer(data.app, name="data")
app.command("train")(train.train)
app.command("train-matcher")(match_train.train_matcher)
app.command("train-refiner")(match_train.train_refiner)
app.command("configs")(train.configs)
app.command("cache-features")(backbones.cache_features)
app.command("vocabulary")(backbones.vocabulary)
app.command("ui")(ui.ui)
app.command("render-room")(render_room.render_room)
app.command("info")(info.info)
app.command("doctor")(doctor.doctor)
app.command("completion")(completion)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit: 0 done, 2 bad input, usage or nowhere to print, 130 interrupted.

    SIGTERM and SIGHUP save what Ctrl-C saves, and give 143 and 129; 141 where nobody reads the output any more.

    Args:
        arguments: without the program's name; ``None`` takes them from ``sys.argv``.
    """
    tune_process()
    open_closed_streams()
    typed = sys.argv[1:] if arguments is None else list(arguments)
    streams = sys.stdout, sys.stderr
    with signals_as_interrupts() as told_by_signal:
        code = told_by_signal(_code(typed))
    if sys.stdout is not streams[0]:  # how typer leaves a pipe that nobody reads
        sys.stdout, sys.stderr = streams
        code = unprintable(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    sys.exit(printed(code))


def _code(typed: list[str]) -> int:
    try:
        verbosity, rest = take_verbosity(typed)
        with messages(verbosity, typed), report_downloads(DownloadBar()):
            _run(rest)
    except SemkeyError as error:
        print_error(error)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except OSError as error:
        if not is_of_stream(error):
            raise
        return unprintable(error)
    return 0


def _run(typed: list[str]) -> None:
    answer_shells()
    # Commands that state how they were called find it in the context's object.
    app(args=typed, prog_name="semkey", obj=tuple(typed))
