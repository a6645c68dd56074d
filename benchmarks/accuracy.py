"""Homography and relative-pose accuracy of keypoint methods on real pairs.

    python benchmarks/accuracy.py ../shared/data --peers ../shared/weights --methods compact,sift,orb

Protocol, the same for every method: images at their own size, 1024 keypoints, mutual nearest neighbours, no
ratio test.

- Planar (Oxford graf, CMP homogr): homography by PoseLib (3 px); the error is the mean distance of the mapped image
  corners; AUC at 3, 5 and 10 px over all pairs. "correct" is the mean number of matches within 3 px of the true place.
- 7-Scenes redkitchen: pairs 10 and 20 kept frames apart; essential matrix by PoseLib (1 px); the error is the larger of
  the rotation and translation-direction errors; AUC at 5, 10 and 20 degrees. "inliers" is their mean number.

A failed estimate counts as an infinite error.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import numpy as np
from methods import create
from tqdm import tqdm

import semkey
from semkey.datasets import open_sequence
from semkey.datasets.sequence import FrameSequence
from semkey.extractors.registry import Extractor
from semkey.geometry.homography import corner_error, warp_points
from semkey.geometry.transforms import inverse
from semkey.images.reading import read_image
from semkey.matching.robust import estimate_homography, estimate_relative_pose
from semkey.metrics.two_view import area_under_curve, relative_pose_error
from semkey.model.features import Features


def planar_pairs(root: Path) -> list[tuple[Path, Path, np.ndarray]]:
    """(image 0, image 1, homography 0 -> 1) of both planar folders."""
    pairs = []
    for k in range(2, 7):
        graf = root / "graf"
        pairs.append((graf / "img1.png", graf / f"img{k}.png", np.loadtxt(graf / f"H1to{k}p")))
    for matrix in sorted((root / "homogr").glob("*_H_A_to_B.txt")):
        stem = matrix.name.removesuffix("_H_A_to_B.txt")
        first, second = (sorted((root / "homogr").glob(f"{stem}{side}.*"))[0] for side in "AB")
        pairs.append((first, second, np.loadtxt(matrix)))
    return pairs


def matched_points(extractor: Extractor, image0: np.ndarray, image1: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Matched keypoints of two images, (M, 2) each."""
    features0, features1 = extractor.extract(image0), extractor.extract(image1)
    indices = semkey.match(features0, features1).indices
    return features0.keypoints[indices[:, 0]].numpy(), features1.keypoints[indices[:, 1]].numpy()


def planar(extractor: Extractor, root: Path) -> dict:
    """Homography accuracy over the planar pairs."""
    errors, correct, matches, rows = [], [], [], {}
    for first, second, H in planar_pairs(root):
        image0, image1 = read_image(first), read_image(second)
        points0, points1 = matched_points(extractor, image0, image1)
        estimate = estimate_homography(points0, points1, max_error_px=3.0)
        height, width = image0.shape[:2]
        error = corner_error(estimate.model, H, width, height)
        errors.append(error)
        correct.append(int((np.linalg.norm(warp_points(H, points0) - points1, axis=1) < 3.0).sum()))
        matches.append(len(points0))
        rows[f"{first.parent.name}/{second.stem}"] = round(float(error), 2)
    return {
        "auc_3_5_10_px": area_under_curve(errors, [3.0, 5.0, 10.0]),
        "correct": float(np.mean(correct)),
        "precision": float(np.mean([c / max(m, 1) for c, m in zip(correct, matches, strict=True)])),
        "pairs": len(errors),
        "corner_error_px": rows,
    }


def posed(extractor: Extractor, sequence: FrameSequence, gaps: list[int], stride: int, name: str) -> dict:
    """Relative-pose accuracy over pairs of a posed sequence, by their distance in frames."""
    features: dict[int, Features] = {}
    poses: dict[int, np.ndarray] = {}
    results = {}
    camera = sequence.camera
    assert camera is not None
    wanted = [(i, i + gap, gap) for gap in gaps for i in range(0, len(sequence) - gap, stride)]
    errors: dict[int, list[float]] = {gap: [] for gap in gaps}
    inliers: dict[int, list[int]] = {gap: [] for gap in gaps}
    for i, j, gap in tqdm(wanted, desc=f"{name} posed", leave=False, disable=None):
        for k in (i, j):
            if k not in features:
                frame = sequence[k]
                assert frame.T_world_cam is not None
                poses[k], features[k] = frame.T_world_cam, extractor.extract(frame.image)
        indices = semkey.match(features[i], features[j]).indices
        estimate = estimate_relative_pose(
            features[i].keypoints[indices[:, 0]],
            features[j].keypoints[indices[:, 1]],
            camera,
            camera,
            max_error_px=1.0,
        )
        T_true = inverse(poses[j]) @ poses[i]
        errors[gap].append(max(relative_pose_error(estimate.model, T_true)))
        inliers[gap].append(int(estimate.inliers.sum()))
    for gap in gaps:
        results[f"gap_{gap}"] = {
            "auc_5_10_20_deg": area_under_curve(errors[gap], [5.0, 10.0, 20.0]),
            "inliers": float(np.mean(inliers[gap])),
            "pairs": len(errors[gap]),
        }
    return results


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--peers", type=Path, default=Path("."), help="folder with the peers' weights")
    parser.add_argument("--methods", default="compact,sift,orb")
    parser.add_argument("--keypoints", type=int, default=1024)
    parser.add_argument("--stride", type=int, default=6, help="use every n-th start frame of the posed sequence")
    parser.add_argument("--sets", default="planar,redkitchen")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    results = {}
    for name in args.methods.split(","):
        extractor = create(name, args.keypoints, args.peers)
        row = {}
        if "planar" in args.sets:
            row["planar"] = planar(extractor, args.data / "planar")
            auc = " ".join(f"{100 * value:5.1f}" for value in row["planar"]["auc_3_5_10_px"])
            print(f"{name:12s} planar      AUC@3/5/10 {auc}  correct {row['planar']['correct']:.0f}", flush=True)
        if "redkitchen" in args.sets:
            sequence = open_sequence(args.data / "7scenes" / "redkitchen" / "seq-01")
            row["redkitchen"] = posed(extractor, sequence, [10, 20], args.stride, name)
            for gap, values in row["redkitchen"].items():
                auc = " ".join(f"{100 * value:5.1f}" for value in values["auc_5_10_20_deg"])
                print(f"{name:12s} {gap:10s}  AUC@5/10/20 {auc}  inliers {values['inliers']:.0f}", flush=True)
        results[name] = row
    if args.out:
        temporary = args.out.with_suffix(".tmp")
        temporary.write_text(
            json.dumps({"keypoints": args.keypoints, "stride": args.stride, "methods": results}, indent=2)
        )
        os.replace(temporary, args.out)


if __name__ == "__main__":
    main()
