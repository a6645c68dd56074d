"""Extraction time at 640x480 of several methods, interleaved in one process.

    python benchmarks/speed.py IMAGE --peers ../shared/weights --methods compact,xfeat,orb --out speed.json

Each round extracts once with every method, in turn, so that a slow spell of a shared machine hits all alike; the median
over rounds is printed with the ratio to ``--reference``. Every method gets a uint8 RGB array and returns ``Features``.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path

import cv2
import numpy as np
import torch
from methods import create

from semkey.images.reading import read_image


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("image", type=Path)
    parser.add_argument("--peers", type=Path, default=Path("."))
    parser.add_argument("--methods", default="compact,xfeat,orb,sift")
    parser.add_argument("--reference", default="xfeat")
    parser.add_argument("--keypoints", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="auto", help="of semkey's detectors: auto, float32 or bfloat16")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    cv2.setNumThreads(args.threads)
    image = cv2.resize(read_image(args.image), (640, 480), interpolation=cv2.INTER_AREA)
    methods = {name: create(name, args.keypoints, args.peers, args.precision) for name in args.methods.split(",")}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for index in range(args.rounds + 3):
        for name, method in methods.items():
            start = time.perf_counter()
            method.extract(image)
            if index >= 3:
                seconds[name].append(time.perf_counter() - start)
    reference = np.array(seconds[args.reference])
    rows = {}
    for name, values in seconds.items():
        array = np.array(values)
        rows[name] = {
            "median_ms": round(1e3 * float(np.median(array)), 2),
            "fastest_ms": round(1e3 * float(array.min()), 2),
            f"median_ratio_to_{args.reference}": round(float(np.median(array / reference)), 3),
        }
        print(name.ljust(12), rows[name])
    if args.out:
        temporary = args.out.with_suffix(".tmp")
        report = {"size": [640, 480], "threads": args.threads, "keypoints": args.keypoints, "precision": args.precision}
        report["methods"] = rows
        temporary.write_text(json.dumps(report, indent=2) + "\n")
        os.replace(temporary, args.out)


if __name__ == "__main__":
    main()
