"""Where and how the process computes: the device, and settings that make extraction faster on a CPU.

The settings are for programs, and never made on import.

OpenMP threads that wait at a barrier spin. On cores that other programs use as well, the spinning thread keeps the one
it waits for from running. Measured for ``compact`` at 640x480 with 2 threads on 2 cores, in ms: idle machine 25 with
the default, 29 with short spinning, 37 with none; two other busy processes 154, 83 and 56. OpenBLAS spins as well: with
a numpy product of 1000 x 256 matrices between images, extraction took 117 ms with its 2 threads and 26 with one.

Python's threads take turns every 5 ms, so that a thread which calls into PyTorch a hundred times per image waits for
one that runs Python code. With turns of 0.5 ms, SLAM with ``nano`` on 2 cores went from 26 to 29 frames per second.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING

from semkey.errors import ConfigError

if TYPE_CHECKING:
    import torch

_SWITCH_INTERVAL_S = 0.0005  # Python's default is ten times longer
_SPIN_COUNT = 10_000  # some tens of microseconds; libgomp's default is 30 times longer
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4


def tune_process() -> None:
    """Let waiting threads go to sleep soon, Python's take turns often, and glibc keep freed memory for the next image.

    Call it before numpy and torch are imported: they read their settings when they are loaded. A value the user has set
    in the environment (``OMP_WAIT_POLICY``, ``GOMP_SPINCOUNT``, ``OPENBLAS_NUM_THREADS``, ``MALLOC_TRIM_THRESHOLD_``)
    is kept. The command line calls this; a program that uses the library may.
    """
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", str(_SPIN_COUNT))
    # numpy's matrices here are small, and OpenBLAS threads spin for tens of milliseconds after each product
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if sys.platform != "linux" or "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # not glibc
        return
    # Feature maps of some megabytes come and go with every image. Giving them back to the system each time costs more
    # than the arithmetic on them, because each page is zeroed again.
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_TOP_PAD, 2**26)


def give_memory_back() -> None:
    """Give freed memory back to the system, which :func:`tune_process` keeps for the next image: after a huge one."""
    if sys.platform != "linux":
        return
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):  # not glibc
        return


def _after_fork() -> None:
    """One thread in a forked child: those of its parent are gone, and computing with them would wait for ever.

    OpenCV gets none: told to use one, it first waits for its workers to end, and those of the parent never do. That is
    also what every ``subprocess`` with a ``preexec_fn`` ran into.
    """
    for name, set_count, count in (("torch", "set_num_threads", 1), ("cv2", "setNumThreads", 0)):
        module = sys.modules.get(name)
        if module is not None and hasattr(module, set_count):
            getattr(module, set_count)(count)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def select_device(device: str | torch.device) -> torch.device:
    """The torch device for ``"auto"`` (the first GPU where there is one, else the CPU), ``"cpu"``, ``"cuda:1"``, ...

    Raises:
        ConfigError: no such device here.
    """
    import torch  # after tune_process

    if isinstance(device, str) and device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).item()  # "meta" has no values, and a GPU of another build fails only when used
    except (RuntimeError, AssertionError, TypeError, NotImplementedError, ImportError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if "device type at start" in reason or "device string" in reason:
            reason = "no such name"
        raise ConfigError(
            f"device '{device}' cannot be used here ({reason.split('. ')[0][:90]}): use auto or cpu"
        ) from None
    return chosen
