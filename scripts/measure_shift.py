"""Shift equivariance of extractors on photos: position of keypoints, and descriptors of the same points.

    python scripts/measure_shift.py PHOTOS compact nano other.safetensors [--count 20] [--weights DIR]

Each photo is cropped at (12, 12) and again ``s`` pixels further right and down; fractions of a pixel by the Fourier
transform of the photo, slightly blurred. Crops are as large as the photo allows, so that their sides differ.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from semkey.extractors import create_extractor
from semkey.images.reading import read_image
from semkey.metrics.shift import ShiftErrors, band_limited, shift_errors, shifted_crop
from semkey.model.semantic_detector import SemanticKeypointDetector

ORIGIN = (12, 12)
WHOLE = ((1.0, 0.0), (1.0, 1.0), (2.0, 1.0), (3.0, 2.0), (4.0, 4.0), (5.0, 3.0), (7.0, 6.0), (8.0, 8.0))
FRACTIONS = ((0.25, 0.5), (0.5, 0.5), (1.5, 0.75))


def main() -> None:
    """Read the arguments and print a table per method."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("methods", nargs="+")
    parser.add_argument("--count", type=int, default=20)
    parser.add_argument("--keypoints", type=int, default=512)
    parser.add_argument("--weights", type=Path, action="append", default=[])
    parser.add_argument("--shifts", default="all", choices=("all", "few"))
    args = parser.parse_args()
    files = sorted(path for path in args.photos.iterdir() if path.is_file())
    files = files[:: max(1, len(files) // args.count)][: args.count]
    whole, fractions = (WHOLE, FRACTIONS) if args.shifts == "all" else (WHOLE[1:3], FRACTIONS[1:2])
    for method in args.methods:
        extractor = create_extractor(method, max_keypoints=args.keypoints, weights=tuple(args.weights))
        pictures = [read_image(path) for path in files]
        report(method, extractor, pictures, whole)
        report(method, extractor, [band_limited(picture) for picture in pictures], fractions)


def report(method: str, extractor, pictures: list[NDArray[np.uint8]], shifts: tuple[tuple[float, float], ...]) -> None:
    """One line per shift: keypoints that count, median distance, share within half a pixel, cosine of descriptors."""
    for shift in shifts:
        errors, cosines = [], []
        for picture in pictures:
            size = (picture.shape[1] - ORIGIN[0] - 12, picture.shape[0] - ORIGIN[1] - 12)
            crops = [shifted_crop(picture, (0.0, 0.0), size, ORIGIN), shifted_crop(picture, shift, size, ORIGIN)]
            first = extractor.extract(crops[0])
            if isinstance(extractor, SemanticKeypointDetector):
                second, own = extractor.extract_and_describe(crops[1], first.keypoints - torch.tensor(shift))
                inner = ((first.keypoints > 24) & (first.keypoints < torch.tensor(size) - 24)).all(dim=1)
                cosines.append((own * first.descriptors).sum(dim=1)[inner].numpy())
            else:
                second = extractor.extract(crops[1])
            errors.append(shift_errors(first.keypoints.numpy(), second.keypoints.numpy(), shift, size))
        joined = ShiftErrors.joined(errors)
        text = f"{method:>28} {shift!s:>12}: {len(joined.distances):6d} keypoints, median {joined.median_px:.3f} px, "
        text += f"{joined.share_within(0.5):.1%} within 0.5 px"
        if cosines:
            values = np.concatenate(cosines)
            text += f", cosine median {np.median(values):.3f}, 10th percentile {np.percentile(values, 10):.3f}"
        print(text, flush=True)


if __name__ == "__main__":
    main()
