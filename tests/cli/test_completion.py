"""Completion in a shell: its script is printed, and asks the command line, which answers without heavy imports."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import Run

SOURCE = Path(__file__).resolve().parents[2] / "src"


def ask(words: str, place: int) -> list[str]:
    """What bash is told could stand at a place of the words."""
    asked = {"_SEMKEY_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(place)}
    environment = os.environ | asked | {"PYTHONPATH": str(SOURCE)}
    program = "import sys; from semkey.cli.main import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout.split()


def test_commands_options_and_values_are_completed() -> None:
    assert ask("semkey ma", 1) == ["match", "match-all", "map"]
    assert {"--features", "--layout"} <= set(ask("semkey match --", 2))
    assert ask("semkey match --layout ver", 3) == ["vertical"]
    assert ask("semkey export m", 2) == ["map"]


def test_without_a_shell_that_asks_nothing_is_completed(run: Run) -> None:
    outcome = run("completion", "bash")
    assert outcome.code == 0
    assert "complete -o default -F _semkey_completion semkey" in outcome.out
    assert "#compdef semkey" in run("completion", "zsh").out
    assert "complete --command semkey" in run("completion", "fish").out
    assert run("completion", "cmd").code == 2


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
def test_bash_completes_with_the_script(run: Run, tmp_path: Path) -> None:
    (tmp_path / "semkey").write_text(f'#!/bin/sh\nPYTHONPATH={SOURCE} exec {sys.executable} -m semkey "$@"\n')
    (tmp_path / "semkey").chmod(0o755)
    (tmp_path / "script").write_text(run("completion", "bash").out)
    program = (
        f"source {tmp_path}/script; COMP_WORDS=(semkey doc); COMP_CWORD=1; _semkey_completion {tmp_path}/semkey; "
        'echo "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.split() == ["doctor"]
