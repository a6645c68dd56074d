"""What a frozen backbone could add to `compact`, before anything is trained.

    python benchmarks/probe_backbone.py ROOM... --gap 10 --stride 4 [--backbone vit-tiny] [--weights DIR]

Of the keypoints of image 0 that have a keypoint of image 1 within 2 px of where depth puts them: how many have it (or
another within 3 px) as the most similar one? Similarities are those of `compact`'s descriptors (D), those of the
backbone's features at the keypoints (V, cosine, the image's mean taken off, per layer; the image as it is and at half
size), and D + s V. If no sum is better than D alone, no fusion that is linear in the features will help much.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from semkey.backbones.backbone import Backbone
from semkey.backbones.loading import load_backbone
from semkey.evaluation.data.pairs import ImagePair, PoseTruth
from semkey.evaluation.data.posed import posed_sequence_sets
from semkey.model.presets import load_detector
from semkey.model.semantic_detector import SemanticKeypointDetector

HAS_MATCH_PX, RIGHT_PX = 2.0, 3.0


def backbone_features(
    backbone: Backbone, image: np.ndarray, keypoints: torch.Tensor, shrink: int
) -> Iterator[torch.Tensor]:
    """Unit vectors (N, C) at keypoints (N, 2), one tensor per layer."""
    colors = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() / 255
    features = backbone(F.avg_pool2d(colors, shrink) if shrink > 1 else colors)
    for tokens in features.maps:
        covered = torch.tensor([tokens.shape[-1], tokens.shape[-2]]) * features.patch * shrink
        grid = 2.0 * (keypoints + 0.5) / covered - 1.0
        read = F.grid_sample(tokens.float(), grid[None, None], padding_mode="border", align_corners=False)[0, :, 0].T
        yield F.normalize(read - tokens.float().mean((2, 3)), dim=1)


def similarities(
    pair: ImagePair, detector: SemanticKeypointDetector, backbone: Backbone, weights: tuple[float, ...]
) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Matrices (N, M) by name, distances (N, M) to the true place in pixels, and which rows have one (N,)."""
    images = pair.image0.read(), pair.image1.read()
    found = [detector.extract(image) for image in images]
    points = [torch.as_tensor(features.keypoints, dtype=torch.float32) for features in found]
    descriptors = [torch.as_tensor(features.descriptors, dtype=torch.float32) for features in found]
    truth = pair.truth
    assert isinstance(truth, PoseTruth)
    height, width = images[1].shape[:2]
    places, visible = truth.project(points[0].numpy(), (width, height))
    distances = torch.cdist(torch.as_tensor(np.nan_to_num(places, nan=-1e6), dtype=torch.float32), points[1])
    own = descriptors[0] @ descriptors[1].T
    named = {"D": own}
    for shrink in (1, 2):
        read = [backbone_features(backbone, image, at, shrink) for image, at in zip(images, points, strict=True)]
        for layer, first, second in zip(backbone.layers, *read, strict=True):
            name = f"V{layer}" + (", half size" if shrink > 1 else "")
            added = first @ second.T
            named[name] = added
            named.update({f"D + {weight} {name}": own + weight * added for weight in weights})
    return named, distances, torch.as_tensor(visible)


def main() -> None:
    """Read the arguments and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sequences", type=Path, nargs="+", help="RGB-D sequences with true poses")
    parser.add_argument("--gap", type=int, default=10, help="frames between the two images")
    parser.add_argument("--stride", type=int, default=4, help="frames between first images")
    parser.add_argument("--backbone", default="vit-tiny")
    parser.add_argument("--weights", type=Path, action="append", default=[], help="folder with the backbone's weights")
    args = parser.parse_args()
    detector = load_detector("compact")
    backbone = load_backbone(args.backbone, weights=args.weights)
    shares: dict[str, list[float]] = defaultdict(list)
    for sequence in args.sequences:
        for found in posed_sequence_sets(sequence, gaps=[args.gap], stride=args.stride, min_overlap=0.1):
            for pair in found.pairs:
                named, distances, visible = similarities(pair, detector, backbone, (0.1, 0.3))
                asked = visible & (distances.min(dim=1).values < HAS_MATCH_PX)
                rows = torch.arange(len(distances))
                for name, matrix in named.items():
                    right = distances[rows, matrix.argmax(dim=1)] < RIGHT_PX
                    shares[name].append(float(right[asked].float().mean()))
    print(f"most similar is right, % of keypoints with a match; {len(shares['D'])} pairs")
    for name, values in shares.items():
        print(f"{name}\t{100 * float(np.nanmean(values)):.1f}")


if __name__ == "__main__":
    main()
