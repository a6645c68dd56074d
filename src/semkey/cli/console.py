"""What the commands share: tables, progress, JSON output and one-line errors."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from semkey.cli.terminal.messages import is_quiet
from semkey.cli.terminal.progress import show_progress

Item = TypeVar("Item")


def print_error(error: Exception | str) -> None:
    """One line ``error: ...`` on stderr."""
    print("error:", " ".join(str(error).splitlines()), file=sys.stderr)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    to_stderr: bool = False,
    marks: Sequence[Sequence[str]] | None = None,
) -> None:
    """A table on a terminal; elsewhere plain lines with tabs, header first, so that scripts can read them.

    ``marks`` has an entry per cell: on a terminal ``best`` is set bold and green, ``close`` green.
    """
    stream = sys.stderr if to_stderr else sys.stdout
    cells = [[str(value) for value in row] for row in rows]
    if not stream.isatty():
        print(*("\t".join(row) for row in [list(columns), *cells]), sep="\n", file=stream)
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold")
    for index, column in enumerate(columns):
        is_numeric = all(row[index][:1].isdigit() or row[index] in ("-", "inf") for row in cells)
        table.add_column(column, justify="right" if is_numeric else "left", overflow="fold")
    styles = {"best": "bold green", "close": "green"}
    for number, row in enumerate(cells):
        row_marks = [""] * len(row) if marks is None else marks[number]
        table.add_row(*(Text(cell, style=styles.get(mark, "")) for cell, mark in zip(row, row_marks, strict=True)))
    Console(file=stream).print(table)


def track(items: Sequence[Item], description: str) -> Iterator[Item]:
    """Iterate with progress on stderr; without for a single item."""
    if len(items) < 2:
        yield from items
        return
    with show_progress(description) as show:
        for done, item in enumerate(items):
            show(done, len(items))
            yield item


@contextmanager
def progress_bar(description: str = "") -> Generator[Callable[..., None]]:
    """Progress on stderr for ``progress(done, total, what=description)``."""
    with show_progress(description) as show:

        def advance(done: int, total: int, what: str = "") -> None:
            show(done, total, detail=what)

        yield advance


class DownloadBar:
    """Progress of downloads on stderr: a bar on a terminal, a line at the start elsewhere."""

    def __init__(self) -> None:
        self._bar: Any = None
        self._task: Any = None
        self._name = ""

    def __call__(self, done: int, total: int, name: str) -> None:
        """Show ``done`` of ``total`` bytes (0: unknown) of a file."""
        if name != self._name:
            self._name = name
            if not sys.stderr.isatty() and not is_quiet():
                size = f" ({total / 1e6:.0f} MB)" if total else ""
                print(f"downloading {name}{size}", file=sys.stderr)
        if is_quiet() or not sys.stderr.isatty():
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn

            columns = [TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn()]
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(name, total=total or None)
            self._bar.start()
        self._bar.update(self._task, description=name, completed=done, total=total or None)
        if done >= total:
            self._bar.stop()
            self._bar = None


def is_stdout(path: str | None) -> bool:
    """Whether a file to write is stdout: what people are told then goes to stderr."""
    return path in ("-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")


def write_json(path: str, value: Any) -> None:
    """Write ``value`` as JSON to a file, atomically, or to stdout for ``-``."""
    text = json.dumps(value, allow_nan=False) + "\n"
    if is_stdout(path):
        sys.stdout.write(text)
        return
    from semkey.files import atomic_write_text

    atomic_write_text(path, text)


def check_json_path(path: str | None) -> None:
    """Tell before the work that a JSON file cannot be written where it is asked for.

    Raises:
        InputError: the path is a folder or a read-only file.
    """
    if path is not None and not is_stdout(path):
        from semkey.files import check_output_file

        check_output_file(path)
