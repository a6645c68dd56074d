"""Sub-pixel accuracy on synthetic corners whose true position is known.

    python benchmarks/localisation.py --methods compact,sift,orb,xfeat --peers ../shared/weights

Each image shows one X-junction (two bright and two dark sectors, area-sampled by 8x8 supersampling) at a random
sub-pixel position, angle and contrast, with blur and noise. The nearest keypoint within 3 px counts; the error is
its distance to the true corner and the bias the length of the mean difference vector. A corner without a keypoint is
a miss.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import cv2
import numpy as np
from methods import create


def corner_image(rng: np.random.Generator, size: int = 96, factor: int = 8) -> tuple[np.ndarray, np.ndarray]:
    """One X-junction; returns the RGB image and its position x y in pixels, pixel centres at integers."""
    position = size / 2 + rng.uniform(-4, 4, 2)
    fine = (np.arange(size * factor) + 0.5) / factor - 0.5
    x, y = np.meshgrid(fine - position[0], fine - position[1])
    first = rng.uniform(0, np.pi)
    second = first + rng.uniform(np.pi / 4, 3 * np.pi / 4)
    side0 = np.cos(first) * x + np.sin(first) * y > 0
    side1 = np.cos(second) * x + np.sin(second) * y > 0
    dark, bright = rng.uniform(0.05, 0.35), rng.uniform(0.6, 0.95)
    image = np.where(side0 ^ side1, bright, dark).astype(np.float32)
    image = image.reshape(size, factor, size, factor).mean(axis=(1, 3))
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.0))
    image += rng.normal(0, 0.01, image.shape)
    gray = (np.clip(image, 0, 1) * 255).round().astype(np.uint8)
    return np.repeat(gray[..., None], 3, axis=2), position


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", default="compact,sift,orb")
    parser.add_argument("--peers", type=Path, default=Path("."))
    parser.add_argument("--corners", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = {}
    for name in args.methods.split(","):
        method = create(name, 64, args.peers)
        rng = np.random.default_rng(args.seed)
        differences = []
        for _ in range(args.corners):
            image, position = corner_image(rng)
            keypoints = method.extract(image).keypoints.numpy()
            if len(keypoints):
                gaps = keypoints - position
                nearest = gaps[np.linalg.norm(gaps, axis=1).argmin()]
                if np.linalg.norm(nearest) < 3.0:
                    differences.append(nearest)
        gaps = np.array(differences).reshape(-1, 2)
        errors = np.linalg.norm(gaps, axis=1)
        rows[name] = {
            "median_error_px": round(float(np.median(errors)), 3) if len(errors) else None,
            "bias_px": round(float(np.linalg.norm(gaps.mean(axis=0))), 3) if len(errors) else None,
            "found": len(errors),
            "corners": args.corners,
        }
        print(name.ljust(12), rows[name], flush=True)
    if args.out:
        temporary = args.out.with_suffix(".tmp")
        temporary.write_text(json.dumps({"seed": args.seed, "methods": rows}, indent=2) + "\n")
        os.replace(temporary, args.out)


if __name__ == "__main__":
    main()
