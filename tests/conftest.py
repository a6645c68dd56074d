"""Shared fixtures: where development data lies, and small deterministic images."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from command_line import Outcome, Run
from semkey.runtime import tune_process

# Before any test module imports numpy or torch. Sums of another number of threads differ in the last digit, and several
# workers (make test) share the cores anyway: one thread each, also in the processes that tests start.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")
tune_process()  # the tests run several times faster on a busy machine

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development data folder (``$SEMKEY_SHARED``, default ``../shared``); skips where it is absent."""
    folder = Path(os.environ.get("SEMKEY_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"development data not found at {folder}: set SEMKEY_SHARED")
    return folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process."""
    from semkey.cli.main import main

    def run_main(*arguments: object) -> Outcome:
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            main([str(argument) for argument in arguments])
        captured = capfd.readouterr()
        code = caught.value.code
        return Outcome(
            code=code if isinstance(code, int) else 0 if code is None else 1, out=captured.out, err=captured.err
        )

    return run_main


@pytest.fixture(autouse=True, scope="module")
def _threads_as_before() -> Iterator[None]:
    """Training sets the number of threads of its process; the next module gets back what it had."""
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _memory_given_back() -> Iterator[None]:
    """What a test has freed goes back to the system where it is much.

    The process keeps it otherwise (see :func:`tune_process`): 3.5 GB after the images of a hundred megapixels, and
    several processes run tests at a time.
    """
    yield
    if sys.platform == "linux" and _resident_bytes() > _MUCH_MEMORY:
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):  # glibc
            libc.malloc_trim(0)


_MUCH_MEMORY = 1_200_000_000  # bytes


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
