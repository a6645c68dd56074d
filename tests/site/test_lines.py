"""Lines of `semkey ...` in README, docs and examples of --help name commands, options and choices that there are.

That they do what they say is tested where the tutorials run, and by ``scripts/release_check.py``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import typer

from semkey.cli.main import app

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Options of the program itself, which may stand anywhere.
ANYWHERE = {"-q", "--quiet", "-v", "--verbose", "--log", "--help", "--version", "--traceback"}


def lines_of(text: str) -> Iterator[str]:
    """The lines of code blocks that call semkey, joined where they go on with a backslash."""
    kind: str | None = None
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("```"):
            kind = line.removeprefix("```").strip() if kind is None else None
        elif kind in ("", "sh", "bash", "text"):
            for part in re.split(r"&&|\|\s", line):
                if part.strip().startswith("semkey "):
                    yield part.strip()


def examples(command: Any, name: str = "semkey") -> Iterator[tuple[str, str]]:
    """(Command, line) of the examples in the help of a command and its own."""
    for line in (command.help or "").splitlines():
        if line.strip().startswith("semkey "):
            yield name, line.strip()
    for inner in getattr(command, "commands", {}).values():
        yield from examples(inner, f"{name} {inner.name}")


def literals(annotation: Any) -> set[str]:
    """The values of a ``Literal``, also of one that may be None."""
    if get_origin(annotation) is Literal:
        return set(get_args(annotation))
    return set().union(*map(literals, get_args(annotation)))


def fault(line: str) -> str | None:
    """What is wrong with a line; None where nothing is."""
    words = shlex.split(line, comments=True)[1:]
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        if words[0] in ANYWHERE:
            words.pop(0)
            continue
        if words[0] not in command.commands:
            return f"no command '{words[0]}'"
        command = command.commands[words.pop(0)]
    options = {name: one for one in command.params for name in (*one.opts, *one.secondary_opts)}
    for place, word in enumerate(words):
        name, _, value = word.partition("=")
        if not re.match(r"--?[a-z]", name) or name in ANYWHERE:
            continue
        if name not in options:
            return f"no option '{name}'"
        choices = literals(options[name].type_descriptor.annotation)
        given = value or (words[place + 1] if place + 1 < len(words) else "")
        if choices and given not in choices:
            return f"{name} takes {', '.join(sorted(choices))}, not '{given}'"
    return None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_lines_of_a_page(page: Path) -> None:
    faults = [f"{line}: {found}" for line in lines_of(page.read_text()) if (found := fault(line))]
    assert not faults, "\n".join(faults)


def test_examples_of_the_help() -> None:
    found = list(examples(typer.main.get_command(app)))
    assert len(found) > 40
    faults = [f"{name}: {line}: {wrong}" for name, line in found if (wrong := fault(line))]
    assert not faults, "\n".join(faults)


def test_there_is_something_to_look_at() -> None:
    assert sum(len(list(lines_of(page.read_text()))) for page in PAGES) > 100
    assert fault("semkey detekt a.jpg") == "no command 'detekt'"
    assert fault("semkey detect a.jpg --colour red") == "no option '--colour'"
    assert (fault("semkey match a.jpg b.jpg --layout diagonal") or "").startswith("--layout takes ")
    assert fault("semkey -v detect a.jpg -o drawn  # and more") is None
