"""``semkey doctor``: what a bug report needs to know about an installation, and what is wrong with it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import typer

from semkey import __version__
from semkey.cli.console import is_stdout, print_table, write_json

_PACKAGES = ("torch", "numpy", "opencv-python-headless", "poselib", "gtsam", "safetensors", "transformers", "kornia")
_RUNTIMES = (
    "onnxruntime",
    "openvino",
    "tensorrt",
    "pycolmap",
    "rerun-sdk",
    "rosbags",
    "h5py",
    "ray",
    "gradio",
    "pyrealsense2",
    "depthai",
)
# A machine whose processes want this many times its cores is busy: times and --realtime mean little then.
_BUSY = 1.5


def doctor(
    json_file: str | None = typer.Option(None, "--json", metavar="FILE", help="Write it as JSON; - for stdout."),
) -> None:
    """Look the installation over: versions, devices, weights, caches, and what is wrong with them.

    Paste the table into bug reports: it names no files but those of semkey itself. Exits with 3 where something is
    wrong.

    [bold]Example[/]

        semkey doctor
    """
    sections = [*_machine(), *_packages(), *_weights(), *_caches()]
    troubles = list(_troubles(dict(sections)))
    if json_file is not None:
        write_json(json_file, {"facts": dict(sections), "troubles": troubles})
    print_table(["", "value"], sections, to_stderr=is_stdout(json_file))
    for trouble in troubles:
        typer.echo(f"trouble: {trouble}", err=True)
    if troubles:
        raise typer.Exit(3)
    typer.echo("nothing is wrong that could be seen from here", err=is_stdout(json_file))


def _machine() -> Iterator[tuple[str, str]]:
    import platform

    import torch

    from semkey.model.precision import cpu_has_bfloat16
    from semkey.runtime import select_device

    yield "semkey", __version__
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.release()} {platform.machine()}"
    yield "cores", f"{_usable_cores()} usable of {os.cpu_count()}, load {_load()}"
    yield "threads", f"torch {torch.get_num_threads()}, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', '-')}"
    yield "memory", _memory()
    yield "bfloat16", "on the CPU, used where precision is auto" if cpu_has_bfloat16() else "not on this CPU"
    device = select_device("auto")
    yield "device", torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    yield "CUDA", f"{torch.version.cuda}, {torch.cuda.device_count()} found" if torch.version.cuda else "torch has none"


def _packages() -> Iterator[tuple[str, str]]:
    for name in (*_PACKAGES, *_RUNTIMES):
        found = _version(name)
        if found is not None or name in _PACKAGES:
            yield name, found or "not installed"
    absent = [name for name in _RUNTIMES if _version(name) is None]
    if absent:
        yield "not installed", ", ".join(absent)


def _weights() -> Iterator[tuple[str, str]]:
    import hashlib

    from semkey.model.presets import presets

    for name, preset in presets().items():
        if not preset.path.is_file():
            yield f"weights of {name}", "missing"
            continue
        found = hashlib.sha256(preset.path.read_bytes()).hexdigest()
        state = "as shipped" if found == preset.sha256 else f"DAMAGED, should be {preset.sha256[:12]}"
        yield f"weights of {name}", f"{preset.path.stat().st_size / 1e6:.1f} MB, SHA-256 {found[:12]}, {state}"


def _caches() -> Iterator[tuple[str, str]]:
    from semkey.downloads import cache_folder

    folder = cache_folder()
    if folder.is_dir():
        files = [file for file in folder.rglob("*") if file.is_file()]
        total = sum(file.stat().st_size for file in files)
        yield "downloaded weights", f"{len(files)} files, {total / 1e6:.0f} MB in {folder}"
    else:
        yield "downloaded weights", "none"


def _troubles(facts: dict[str, str]) -> Iterator[str]:
    """What a person would want to do something about."""
    load = _load_value()
    if load is not None and load > _BUSY * _usable_cores():
        busy = f"other programs keep the cores busy (load {load:.1f} on {_usable_cores()})"
        yield f"{busy}: times are not to be trusted, and --realtime drops frames"
    if _usable_cores() < (os.cpu_count() or 1):
        import torch

        if torch.get_num_threads() > _usable_cores():
            many = (
                f"torch uses {torch.get_num_threads()} threads on {_usable_cores()} usable cores, which makes it slow"
            )
            yield f"{many}: set OMP_NUM_THREADS={_usable_cores()}"
    for name, value in facts.items():
        if name.startswith("weights of ") and ("missing" in value or "DAMAGED" in value):
            yield f"{name}: {value}: install semkey again"
    if _version("opencv-python") and _version("opencv-python-headless"):
        yield "opencv-python and opencv-python-headless are both installed and overwrite each other: uninstall one"
    for name in ("torch", "numpy", "opencv-python-headless", "poselib"):
        if facts.get(name) == "not installed" and not (name.startswith("opencv") and _version("opencv-python")):
            yield f"{name} is not installed, and semkey needs it"


def _version(name: str) -> str | None:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _usable_cores() -> int:
    """Cores that this process may run on, which in a container can be fewer than there are."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, int(quota) // int(period)))


def _load_value() -> float | None:
    try:
        return os.getloadavg()[0]
    except (OSError, AttributeError):
        return None


def _load() -> str:
    load = _load_value()
    return "unknown" if load is None else f"{load:.1f}"


def _memory() -> str:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return "unknown"
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in lines if len(line.split()) > 1}
    return f"{kilobytes['MemAvailable'] / 1e6:.1f} of {kilobytes['MemTotal'] / 1e6:.1f} GB free"
