"""``semkey completion``: commands, options and their values completed by the shell."""

from __future__ import annotations

import os
from typing import Literal

import typer

_VARIABLE = "_SEMKEY_COMPLETE"
"""In the environment while a shell asks what could stand next."""


def completion(
    shell: Literal["bash", "zsh", "fish"] = typer.Argument(..., metavar="bash|zsh|fish", help="The shell you use."),
) -> None:
    """Print what makes a shell complete commands, options and their values.

    [bold]Examples[/]

        semkey completion bash >> ~/.bashrc

        semkey completion zsh > ~/.zfunc/_semkey

        semkey completion fish > ~/.config/fish/completions/semkey.fish
    """
    from typer.completion import get_completion_script

    typer.echo(get_completion_script(prog_name="semkey", complete_var=_VARIABLE, shell=shell))


def answer_shells() -> None:
    """Let the next run of the command line answer a shell, if one asks; without one nothing is imported."""
    if _VARIABLE in os.environ:
        from typer.completion import completion_init

        completion_init()
