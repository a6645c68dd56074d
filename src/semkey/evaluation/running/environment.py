"""Where and with what an evaluation ran: versions, machine, threads, device."""

from __future__ import annotations

import os
import platform
import shlex
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from semkey import __version__

_PACKAGES = ("numpy", "scipy", "torch", "opencv-python-headless", "poselib", "kornia")
_CPU_LIST = Path("/proc/cpuinfo")


def describe_environment(device: str = "auto", *, command: Sequence[str] | None = None) -> dict[str, str | int]:
    """What a reader needs to know of the machine that made the numbers.

    Args:
        device: what the run was asked to use: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        command: the command line that started the run, program name first; left out where there is none.

    Returns:
        ``semkey``, ``python``, ``system``, ``cpu`` (its name), ``cores`` (that this process may use), ``threads`` (of
        torch), ``device``, ``gpu`` (only on one), a version per package that is installed, ``started`` (UTC, to the
        second) and ``command`` (quoted for a shell).

    Raises:
        ConfigError: the device cannot be used.
    """
    import torch

    from semkey.runtime import select_device

    chosen = select_device(device)
    found: dict[str, str | int] = {
        "semkey": __version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "device": str(chosen),
    }
    if chosen.type == "cuda":
        found["gpu"] = torch.cuda.get_device_name(chosen)
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["started"] = datetime.now(UTC).isoformat(timespec="seconds")
    if command is not None:
        found["command"] = shlex.join(command)
    return found


def _cpu_name() -> str:
    """The processor's name as Linux gives it, else what Python knows of it."""
    try:
        for line in _CPU_LIST.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
