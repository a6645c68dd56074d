"""Damaged files of every kind are read right or refused in one line; ``scripts/fuzz.py`` runs more cases."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import fuzzing
from fuzz_targets import TARGETS, Target

CASES = 46  # of each of eleven kinds


@pytest.mark.parametrize("kind", list(TARGETS))
def test_damaged_files_are_read_right_or_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    counts, failures = fuzzing.fuzz(kind, CASES, seed=0, folder=tmp_path)
    assert not failures, "\n".join(f"{one.case}: {one.reason}" for one in failures)
    assert sum(counts.values()) == CASES


@pytest.mark.parametrize("fault", ["traceback", "hang", "memory", "lines", "nameless"])
def test_the_fuzzer_finds_what_it_looks_for(fault: str, tmp_path: Path) -> None:
    """In a process of its own: signals and limits are set off here, which others of these tests rarely see."""
    call = f"import runpy, sys; runpy.run_path({__file__!r})['find'](*sys.argv[1:])"
    support = os.pathsep.join(path for path in sys.path if path)
    done = subprocess.run(
        [sys.executable, "-c", call, fault, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": support},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def find(fault: str, folder: str) -> None:
    """Make a kind of file that fails in one way, and see that the fuzzer says so."""
    from semkey.errors import InputError

    def use(path: Path) -> object:
        if path.read_bytes() == b"whole":
            return None
        if fault == "traceback":
            raise KeyError("x")
        if fault == "memory":
            return bytearray(1 << 33)
        if fault in ("lines", "nameless"):
            raise InputError(f"{path}: first\nsecond" if fault == "lines" else "is broken")
        while True:
            pass

    def make(folder: Path) -> list[Path]:
        (folder / "seed.txt").write_bytes(b"whole")
        return [folder / "seed.txt"]

    fuzzing.SECONDS = 0.2
    TARGETS["broken"] = Target(make=make, mutations=(lambda data, rng: data + b"!",), use=use)
    _, failures = fuzzing.fuzz("broken", 2, seed=0, folder=Path(folder))
    assert len(failures) == 2
    assert all(failure.file.read_bytes().startswith(b"whole!") for failure in failures)
    expected = {
        "traceback": "KeyError",
        "hang": "more than 0.2 s",
        "memory": "MemoryError",
        "lines": "not one short line",
        "nameless": "does not name",
    }
    assert all(expected[fault] in failure.reason for failure in failures)
