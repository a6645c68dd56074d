"""Time extraction with each runtime that is installed, in turns in one process; XFeat beside them.

Prints median and least milliseconds, and the least one's ratio to XFeat's least: other programs lengthen some rounds,
the least ones hardly. The first line says when, how busy the machine was, and with which weights.

python benchmarks/runtimes.py [NAME] [--threads 1] [--rounds 30] [--weights FOLDER]
"""

from __future__ import annotations

import argparse
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from skimage import data

import semkey
from semkey.model.presets import presets

RUNS: dict[str, dict[str, Any]] = {
    "torch float32": {"precision": "float32"},
    "torch bfloat16": {"precision": "bfloat16"},
    "onnxruntime float32": {"runtime": "onnxruntime", "precision": "float32"},
    "OpenVINO float32": {"runtime": "openvino", "precision": "float32"},
    "OpenVINO bfloat16": {"runtime": "openvino", "precision": "bfloat16"},
}


def main() -> None:
    """Print a row of Markdown per runtime."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", default="nano")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--weights", type=Path, help="folder of XFeat's weights; without it XFeat is left out")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    image = cv2.resize(data.coffee(), (640, 480))
    detectors = {name: semkey.load(args.name, device="cpu", **settings) for name, settings in RUNS.items()}
    if args.weights is not None:
        detectors["XFeat"] = semkey.load("xfeat", device="cpu", weights=[args.weights])
    own = presets().get(args.name)
    load = " ".join(f"{value:.1f}" for value in os.getloadavg())
    print(f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC, load {load}, {own.sha256[:12] if own else args.name}")
    seconds: dict[str, list[float]] = {name: [] for name in detectors}
    for round_number in range(args.rounds + 1):
        for name, detector in detectors.items():
            started = time.perf_counter()
            detector.extract(image)
            if round_number:  # the first one compiles
                seconds[name].append(time.perf_counter() - started)
    peer = min(seconds["XFeat"]) if "XFeat" in seconds else float("nan")
    for name, taken in seconds.items():
        times = f"{1e3 * np.median(taken):.1f} | {1e3 * min(taken):.1f} | {min(taken) / peer:.2f}"
        print(f"| {args.name} | {args.threads} | {name} | {times} |")


if __name__ == "__main__":
    main()
