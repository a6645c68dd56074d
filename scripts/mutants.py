"""Do the tests notice? Makes each wrong change of scripts/mutants.toml in a copy of the repository; tests must fail.

    .venv/bin/python scripts/mutants.py [-k WORD ...] [--list]

A mutant is killed when its tests fail, and survives when they pass: then a test is missing. The repository itself stays
as it is; each mutant takes as long as its tests, all of them some ten minutes.
"""

from __future__ import annotations

import argparse
import importlib
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
TABLE = Path(__file__).with_suffix(".toml")
PACKAGE = Path("src/semkey")
PASSED, FAILED = 0, 1  # exit codes of pytest; others mean that no test was run to its end
TIME_LIMIT_S = 600
PRELOADED = ("numpy", "scipy.optimize", "scipy.spatial", "torch", "cv2", "hypothesis", "pytest")


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """A wrong change of the sources.

    Attributes:
        name: what is wrong.
        file: below src/semkey.
        old: text that occurs there exactly once.
        new: what stands there instead.
        tests: arguments of pytest that must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def read_table(path: Path = TABLE) -> list[Mutant]:
    """The mutants of a table (TOML), in its order."""
    rows = tomllib.loads(path.read_text(encoding="utf-8"))["mutant"]
    return [Mutant(tests=tuple(row.pop("tests")), **row) for row in rows]


def mutated(source: str, mutant: Mutant) -> str:
    """The text of a file with the change.

    Raises:
        ValueError: the old text is not there, or more than once.
    """
    if (count := source.count(mutant.old)) != 1:
        raise ValueError(f"{mutant.file}: the old text occurs {count} times; adapt scripts/mutants.toml")
    return source.replace(mutant.old, mutant.new)


def copy_repository(target: Path) -> None:
    """What git knows of the working tree, and new files that it does not ignore."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (REPOSITORY / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPOSITORY / name, target / name)


def _pytest(copy: Path, tests: tuple[str, ...], log: Path) -> None:
    """In a process of its own: what is imported here is as the copy has it."""
    import pytest

    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(copy)
    sys.path.insert(0, str(copy / "src"))
    os.environ.update(PYTHONPATH=str(copy / "src"), PYTHONDONTWRITEBYTECODE="1")
    sys.dont_write_bytecode = True
    code = int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]))
    sys.stdout.flush()
    os._exit(code)


def run_tests(copy: Path, tests: tuple[str, ...]) -> int:
    """Exit code of pytest in a copy of the repository; a process that hangs or dies has noticed the change."""
    log = copy / "pytest.log"
    child = multiprocessing.get_context("fork").Process(target=_pytest, args=(copy, tests, log))
    child.start()
    child.join(TIME_LIMIT_S)
    if child.is_alive():
        child.kill()
        child.join()
    code = FAILED if child.exitcode is None or child.exitcode < 0 else child.exitcode
    if code not in (PASSED, FAILED):
        print(log.read_text(errors="replace")[-2000:], file=sys.stderr)
    return code


def main() -> int:
    """Exit code 1 if any mutant survives or cannot be applied."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-k", dest="words", action="append", default=[], help="only mutants whose name or file has it")
    parser.add_argument("--list", action="store_true", help="print the table and change nothing")
    options = parser.parse_args()
    chosen = [m for m in read_table() if not options.words or any(w in f"{m.name} {m.file}" for w in options.words)]
    if options.list:
        for mutant in chosen:
            print(f"{mutant.file}: {mutant.name}")
        return 0
    os.environ.setdefault("SEMKEY_SHARED", str(REPOSITORY.parent / "shared"))
    for name in PRELOADED:  # once instead of once a mutant; forked processes have them
        importlib.import_module(name)
    bad = 0
    with tempfile.TemporaryDirectory(prefix="semkey-mutants-") as folder:
        copy = Path(folder)
        copy_repository(copy)
        for mutant in chosen:
            path, began = copy / PACKAGE / mutant.file, time.monotonic()
            try:
                original = path.read_text(encoding="utf-8")
                path.write_text(mutated(original, mutant), encoding="utf-8")
                code = run_tests(copy, mutant.tests)
                path.write_text(original, encoding="utf-8")
            except (OSError, ValueError) as error:
                print(error, file=sys.stderr)
                code = -1
            verdict = {FAILED: "killed", PASSED: "SURVIVES"}.get(code, "NOT TRIED")
            bad += code != FAILED
            print(f"{verdict:9}  {mutant.file}: {mutant.name} ({time.monotonic() - began:.0f} s)", flush=True)
    print(f"{len(chosen) - bad} of {len(chosen)} mutants killed")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
