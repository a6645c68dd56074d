#!/usr/bin/env python3
"""Damage files of every kind that semkey reads, and see whether each is read right or refused in one line.

    .venv/bin/python scripts/fuzz.py --cases 1000 --seed 1 --kinds map,npz

What is found is printed, and the files are kept in --out; the exit code is 1 then. ``make test`` runs some hundred
cases of seed 0.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "support"))

from fuzz_targets import TARGETS
from fuzzing import fuzz


def main() -> int:
    """Run the cases that the command line asks for; 1 where some failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", type=int, default=200, help="of each kind (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", default=",".join(TARGETS), help="some of %(default)s")
    parser.add_argument("--out", type=Path, default=Path("out/fuzz"), help="folder for files that fail")
    options = parser.parse_args()
    found = 0
    for kind in options.kinds.split(","):
        start = time.monotonic()
        counts, failures = fuzz(kind, options.cases, seed=options.seed, folder=options.out)
        print(f"{kind}: {counts['read']} read, {counts['refused']} refused, {len(failures)} failed,", end=" ")
        print(f"{time.monotonic() - start:.0f} s")
        for failure in failures:
            print(f"  case {failure.case}, {failure.file}: {failure.reason}")
        found += len(failures)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
