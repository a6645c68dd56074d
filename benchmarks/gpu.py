"""Frames per second and memory of every preset on a GPU, as JSON; benchmarks/gpu.sh calls it.

    python benchmarks/gpu.py OUT.json [--seconds 400] [--quick] [--device auto]

A frame is everything: uint8 image in the host's memory, copy, network, suppression, choice of keypoints, descriptors,
and the features back in the host's memory. Modes are float32, half (bfloat16), their networks as CUDA graphs, and
compiled by torch.compile. Presets whose weights are not on the machine get random ones, on which neither time nor
memory depends. What is most wanted is measured first; what did not fit into the seconds is listed in the file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from semkey import __version__
from semkey.errors import SemkeyError
from semkey.files import atomic_write_text
from semkey.model.features import Features
from semkey.model.presets import load_random, preset_names
from semkey.model.semantic_detector import DenseMaps, SemanticKeypointDetector
from semkey.runtime import select_device

FIRST = ("compact", "dinov2-base", "dinov2-small", "vit-tiny", "nano", "dinov3-base")
SIZES = ((448, 448), (640, 480))
BATCHES = (1, 8, 32)
MODES = ("half", "float32", "half, CUDA graphs", "half, compiled")
COMPILED = ("compact", "dinov2-base")
"""Compiling takes a minute: only these, on one size and batch."""
GOALS = ("dinov2-base: 72 frames/s and less than 1 GB at 448x448, batch 1", "compact: 2000 frames/s, batched")


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row of the result."""

    preset: str
    mode: str
    size: tuple[int, int]
    batch: int

    @property
    def name(self) -> str:
        """In words."""
        return f"{self.preset}, {self.mode}, {self.size[0]}x{self.size[1]}, batch {self.batch}"


class Graph:
    """A network's pass as a CUDA graph of one size: recorded at the first call, replayed at the others."""

    def __init__(self, forward: Callable[..., DenseMaps]) -> None:
        self._forward = forward
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[torch.Tensor | None] = []
        self._maps: DenseMaps | None = None

    def __call__(self, images: torch.Tensor, colors: torch.Tensor | None = None) -> DenseMaps:
        """The maps of these inputs, in memory that the next call writes to again."""
        given = [images, colors]
        if self._graph is None:
            self._inputs = [None if one is None else one.clone() for one in given]
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):
                for _ in range(3):
                    self._forward(*self._inputs)
            torch.cuda.current_stream().wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph):
                self._maps = self._forward(*self._inputs)
        for kept, new in zip(self._inputs, given, strict=True):
            if kept is not None and new is not None:
                kept.copy_(new)
        self._graph.replay()
        assert self._maps is not None
        return self._maps


def cases(quick: bool) -> list[Case]:
    """What is measured, the most wanted first."""
    names = [*FIRST, *(name for name in preset_names() if name not in FIRST)]
    if quick:
        return [
            Case(preset=name, mode=mode, size=(112, 112), batch=batch)
            for name, mode, batch in itertools.product(("compact", "dinov2-small"), MODES, (1, 2))
            if mode != "half, compiled"
        ]
    found = [
        Case(preset=name, mode=mode, size=size, batch=batch)
        for name, mode, size, batch in itertools.product(names, MODES[:3], SIZES, BATCHES)
    ]
    wanted = [case for case in found if case.preset in FIRST]
    compiled = [Case(preset=name, mode=MODES[3], size=SIZES[0], batch=8) for name in COMPILED]
    return [*wanted, *compiled, *(case for case in found if case.preset not in FIRST)]


def pictures(size: tuple[int, int], count: int) -> list[np.ndarray]:
    """Pictures full of corners, (H, W, 3) uint8, each another one."""
    rng = np.random.default_rng(0)
    width, height = size
    noise = (rng.uniform(0, 255, (height, width, 3)).astype(np.float32) for _ in range(count))
    blurred = (cv2.GaussianBlur(one, (0, 0), 1.5) for one in noise)
    return [cv2.normalize(one, one, 0, 255, cv2.NORM_MINMAX).astype(np.uint8) for one in blurred]


def prepared(case: Case, device: torch.device) -> SemanticKeypointDetector:
    """The detector of a case."""
    detector = load_random(case.preset, device="cpu")
    precision = "bfloat16" if case.mode.startswith("half") else "float32"
    detector.extraction = replace(detector.extraction, precision=precision)
    detector.to(device)
    if detector.backbone is not None and precision == "bfloat16":
        detector.backbone.reduce()
    return detector


def quicken(detector: SemanticKeypointDetector, mode: str) -> None:
    """Record or compile a detector's pass, where its mode says so."""
    changed: Any = detector
    if mode.endswith("graphs"):
        changed.forward = Graph(detector.forward)
    elif mode.endswith("compiled"):
        changed.forward = torch.compile(detector.forward)


def agreement(found: Features, wanted: Features) -> float:
    """Share of keypoints that the other features have as well, within half a pixel."""
    if not len(found) or not len(wanted):
        return float(len(found) == len(wanted))
    return float((torch.cdist(found.keypoints, wanted.keypoints).min(dim=1).values < 0.5).float().mean())


def measure(case: Case, device: torch.device, seconds: float) -> dict[str, Any]:
    """Frames per second and memory of one case."""
    is_cuda = device.type == "cuda"
    detector = prepared(case, device)
    images = pictures(case.size, case.batch)

    def run() -> list[Features]:
        return [found.to("cpu") for found in detector.extract_batch(images)]

    plain = run()
    quicken(detector, case.mode)
    if is_cuda:
        torch.cuda.reset_peak_memory_stats(device)
    features = [run() for _ in range(3)][-1]
    times: list[float] = []
    started = time.perf_counter()
    while len(times) < 3 or (len(times) < 100 and time.perf_counter() - started < seconds):
        before = time.perf_counter()
        run()
        times.append(time.perf_counter() - before)
    median = float(np.median(times))
    return {
        "ms_per_frame": round(1000.0 * median / case.batch, 3),
        "frames_per_second": round(case.batch / median, 2),
        "slowest_ms": round(1000.0 * max(times), 3),
        "rounds": len(times),
        "keypoints_per_frame": round(sum(map(len, features)) / case.batch, 1),
        "agreement_with_eager": round(min(map(agreement, features, plain)), 4),
        "peak_mb": round(torch.cuda.max_memory_allocated(device) / 1e6, 1) if is_cuda else None,
    }


def environment(device: torch.device) -> dict[str, Any]:
    """What it ran on."""
    is_cuda = device.type == "cuda"
    return {
        "semkey": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if is_cuda else f"cpu, {torch.get_num_threads()} threads",
        "cuda": torch.version.cuda if is_cuda else None,
    }


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Frames per second and memory of every preset, as JSON.")
    parser.add_argument("out", type=Path)
    parser.add_argument("--seconds", type=float, default=400.0, help="stop beginning new cases after so many")
    parser.add_argument("--quick", action="store_true", help="a few cases of tiny pictures, to see that it runs")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    device = select_device(options.device)
    started = time.monotonic()
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    for case in cases(options.quick):
        if time.monotonic() - started > options.seconds:
            left_out.append(f"{case.name}: no time left")
            continue
        if device.type != "cuda" and case.mode.endswith("graphs"):
            left_out.append(f"{case.name}: needs CUDA")
            continue
        row = {"preset": case.preset, "mode": case.mode, "size": list(case.size), "batch": case.batch}
        try:
            row |= measure(case, device, 0.2 if options.quick else 1.0)
        except (SemkeyError, RuntimeError) as error:  # out of memory, or an operation that cannot be compiled
            left_out.append(f"{case.name}: {' '.join(str(error).split())[:200]}")
            continue
        finally:
            if device.type == "cuda":
                torch.cuda.empty_cache()
        rows.append(row)
        print(f"{case.name}: {row['frames_per_second']} frames/s, {row['peak_mb']} MB", flush=True)
        result = {"environment": environment(device), "goals": GOALS, "rows": rows, "left_out": left_out}
        atomic_write_text(options.out, json.dumps(result, indent=1) + "\n")
    result = {"environment": environment(device), "goals": GOALS, "rows": rows, "left_out": left_out}
    atomic_write_text(options.out, json.dumps(result, indent=1) + "\n")
    print(f"written to {options.out}: {len(rows)} rows, {len(left_out)} left out")


if __name__ == "__main__":
    main()
