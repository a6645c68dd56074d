"""Memory that a method takes, measured in a process of its own.

The process first imports everything, so that libraries do not count, and notes its resident memory. Then it makes the
method, extracts from two images and matches them, twice per size. The figure is the peak of resident memory since
the start minus the noted one: weights, activations, and what libraries set up on first use. On a GPU the peak of
PyTorch's allocator on that device is noted beside it (weights included, the CUDA context not).

Peaks are read from ``/proc`` on Linux and from ``getrusage`` elsewhere; on Linux the peak is reset between sizes where
the system allows that, otherwise a size's figure is that of the largest so far, so sizes go from small to large.
"""

from __future__ import annotations

import importlib
import math
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semkey.errors import SemkeyError
from semkey.evaluation.running.question import NoAnswerError, answer, ask

REPETITIONS = 2
TIMEOUT_S = 600
_LIBRARIES = (
    "cv2",
    "torch",
    "safetensors.torch",
    "kornia.feature",
    "kornia.contrib",
    "scipy.optimize",
    "poselib",
    "transformers.models.vit.modeling_vit",
    "transformers.models.dinov2.modeling_dinov2",
    "transformers.models.dinov2_with_registers.modeling_dinov2_with_registers",
    "transformers.models.dinov3_vit.modeling_dinov3_vit",
)
_STATUS, _CLEAR_REFS = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_MEGABYTE = 1e6
_START = f"from {__name__} import main; main()"


@dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """Of one method at one size, in MB (10^6 bytes).

    Attributes:
        host_mb: peak of resident memory over that before the method was made; NaN where it could not be measured.
        device_mb: peak of PyTorch's memory on the GPU; NaN without one.
    """

    host_mb: float
    device_mb: float


class MemoryMeasurementError(SemkeyError):
    """The process that measures memory failed; the message holds its last line."""


def measure_memory(
    arguments: Mapping[str, Any], images: Sequence[Sequence[NDArray[np.uint8]]], *, threads: int | None = None
) -> list[MemoryUse]:
    """Memory of one method, per size.

    Args:
        arguments: of :func:`semkey.evaluation.running.methods.create_method`, ``name`` among them.
        images: per size at least one uint8 (H, W, 3) RGB image; the first two are used.
        threads: of PyTorch and OpenCV; None leaves their defaults.

    Returns:
        One per size, in the order given.

    Raises:
        MemoryMeasurementError: the process failed or took more than ten minutes.
    """
    order = sorted(range(len(images)), key=lambda index: images[index][0].size)
    plain = {key: [str(path) for path in value] if key == "weights" else value for key, value in arguments.items()}
    with tempfile.TemporaryDirectory(prefix="semkey-memory-") as folder:
        for rank, index in enumerate(order):
            for side in (0, 1):
                np.save(Path(folder) / f"{rank}-{side}.npy", images[index][side % len(images[index])])
        request = {
            "arguments": plain,
            "images": folder,
            "sizes": len(order),
            "threads": threads,
            "libraries": [name for name in _LIBRARIES if name in sys.modules],
        }
        try:
            answers = ask(_START, request, timeout=TIMEOUT_S)
        except NoAnswerError as error:
            raise MemoryMeasurementError(f"memory of '{arguments['name']}' could not be measured: {error}") from None
    measured = [
        MemoryUse(**{key: math.nan if value is None else value for key, value in use.items()}) for use in answers
    ]
    by_size = dict(zip(order, measured, strict=True))
    return [by_size[index] for index in range(len(images))]


def _measure_here(request: Mapping[str, Any]) -> list[dict[str, float | None]]:
    """What the child does: see the module's text."""
    for name in request["libraries"]:
        importlib.import_module(name)
    import cv2
    import torch

    from semkey.evaluation.running.methods import create_method
    from semkey.runtime import select_device

    if request["threads"] is not None:
        torch.set_num_threads(request["threads"])
        cv2.setNumThreads(request["threads"])
    arguments = dict(request["arguments"])
    arguments["weights"] = [Path(path) for path in arguments.get("weights", ())]
    device = select_device(arguments.get("device", "auto"))
    torch.zeros(1, device=device)  # the CUDA context is no method's own
    folder = Path(request["images"])
    pairs = [[np.load(folder / f"{rank}-{side}.npy") for side in (0, 1)] for rank in range(request["sizes"])]
    reset_peak()
    before = resident_bytes()
    method = create_method(**arguments)
    uses: list[dict[str, float | None]] = []
    for image0, image1 in pairs:
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        for _ in range(REPETITIONS):
            method.match(method.extract(image0), method.extract(image1))
        peak = peak_bytes()
        uses.append(
            {
                "host_mb": None if before is None or peak is None else max(0, peak - before) / _MEGABYTE,
                "device_mb": torch.cuda.max_memory_allocated(device) / _MEGABYTE if device.type == "cuda" else None,
            }
        )
        reset_peak()
    return uses


def resident_bytes() -> int | None:
    """Resident memory now; on systems without ``/proc`` its peak so far, which imports have set."""
    resident = _status_bytes("VmRSS")
    return peak_bytes() if resident is None else resident


def peak_bytes() -> int | None:
    """Peak of resident memory since the process began or :func:`reset_peak`; None where the system does not say."""
    peak = _status_bytes("VmHWM")
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:
        return None
    # Bytes on macOS, kilobytes on other systems.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def reset_peak() -> None:
    """Count the peak from now on, where the system allows that."""
    # Containers may forbid it.
    try:
        _CLEAR_REFS.write_text("5", encoding="ascii")
    except OSError:
        return


def _status_bytes(name: str) -> int | None:
    try:
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def main() -> None:
    """The process."""
    answer(_measure_here)
