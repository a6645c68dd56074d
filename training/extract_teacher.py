"""Store ALIKED keypoints of every training photo as detection targets.

Usage: python training/extract_teacher.py PHOTOS WEIGHTS.pth OUT [--shard i/n]

Writes one ``<photo stem>.npz`` per photo with ``keypoints`` (N, 2) float32 pixels (x y, pixel centres at integers) and
``scores`` (N,) float32. Existing files are kept, so an interrupted run resumes.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import kornia.feature as KF
import numpy as np
import torch
from tqdm import tqdm

from semkey.images.reading import read_image


def load_teacher(weights: Path, max_keypoints: int) -> torch.nn.Module:
    """ALIKED in top-k mode from a released state dict (BSD-3); only the constant DKD grid is missing from the file."""
    name = weights.stem
    teacher = KF.ALIKED(name, max_num_keypoints=max_keypoints, detection_threshold=0.0)
    missing, unexpected = teacher.load_state_dict(torch.load(weights, weights_only=True), strict=False)
    if unexpected or set(missing) - {"dkd.hw_grid"}:
        raise SystemExit(f"{weights}: not an {name} checkpoint (missing {missing}, unexpected {unexpected})")
    return teacher.eval()


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("weights", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shard", default="0/1", help="process photos i, i+n, i+2n, ... (for several processes)")
    parser.add_argument("--max-keypoints", type=int, default=1500)
    args = parser.parse_args()
    index, count = (int(part) for part in args.shard.split("/"))

    teacher = load_teacher(args.weights, args.max_keypoints)
    args.out.mkdir(parents=True, exist_ok=True)
    photos = sorted(path for path in args.photos.iterdir() if path.suffix.lower() in {".webp", ".jpg", ".png"})
    for photo in tqdm(photos[index::count], desc=f"teacher {args.shard}"):
        target = args.out / f"{photo.stem}.npz"
        if target.exists():
            continue
        image = read_image(photo)
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255.0
        with torch.inference_mode():
            features = teacher(tensor)[0]
        temporary = target.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            np.savez(file, keypoints=features.keypoints.numpy(), scores=features.keypoint_scores.numpy())
        os.replace(temporary, target)


if __name__ == "__main__":
    main()
