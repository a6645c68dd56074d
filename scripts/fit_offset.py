"""Fit what corrects the places of keypoints between pixels, in a minute; nothing else of the weights changes.

    python scripts/fit_offset.py WEIGHTS.safetensors PHOTOS OUT.safetensors [--pairs 150] [--drawn 100]

As ``fit_covariance.py``: matches of photos with their views through random homographies say how far two keypoints lie
from one place; what a perceptron adds to both, from the 5 x 5 scores around each, shall bring them together. Two views
of a photo can agree on a wrong place, so that drawn corners and dots, whose places are known, have their say too.
WEIGHTS are those of a detector by pixels, with or without such a perceptron; it is learned from its start.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from scipy.spatial import KDTree

from fit_covariance import Samples, collect
from fit_reliability import look
from semkey.model.checkpoint import load_weights, read_config, save_checkpoint
from semkey.model.heads import WindowOffset
from semkey.model.reliability import KeypointReliabilityHead
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.training.data.shapes import draw_shapes

SPREAD_PX = 0.8
"""Differences far beyond this hardly count: such a match is of another point."""
DRAWN_PX = 2.0
"""A keypoint farther from all drawn corners and dots is none of theirs."""
SCORES = 10.0  # what the reliability head multiplies scores by


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pairs", type=int, default=150)
    parser.add_argument("--drawn", type=int, default=100, help="drawn pictures")
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=4096, help="matches per step")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=11)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    model = SemanticKeypointDetector(read_config(args.weights))
    head = model.offset
    if not isinstance(head, WindowOffset):
        raise SystemExit(f"{args.weights}: the offsets of a detector by cells are learned with it")
    fresh = {name: value.clone() for name, value in head.state_dict().items()}
    load_weights(model, args.weights)
    head.load_state_dict(fresh)
    model.eval().requires_grad_(False)
    samples = [collect(model, args.photos, args.pairs, args.seed)]
    if args.drawn:
        samples.append(collect_drawn(model, args.drawn, args.seed))
    train(head, samples, steps=args.steps, batch=args.batch, rate=args.rate)
    save_checkpoint(model, args.out)
    print(f"written: {args.out}")


def windows(inputs: torch.Tensor, side: int = 5) -> torch.Tensor:
    """The middle of the 15 x 15 scores that the reliability head reads, relative to the peak's: (S, side * side)."""
    radius = KeypointReliabilityHead.radius
    inner = slice(radius - side // 2, radius + side // 2 + 1)
    around = inputs[:, : (2 * radius + 1) ** 2].float().unflatten(1, (2 * radius + 1, 2 * radius + 1))
    return around[:, inner, inner].flatten(1) / SCORES


def collect_drawn(model: SemanticKeypointDetector, pictures: int, seed: int) -> Samples:
    """Keypoints of drawn pictures that lie at a corner or dot, whose place stands for the other view."""
    rng, parts = np.random.default_rng(seed), []
    for _ in range(pictures):
        image, places = draw_shapes(rng)
        points, _, inputs = look(model, np.repeat(image[..., None], 3, axis=2))
        if not len(points) or not len(places):
            continue
        gaps, nearest = KDTree(places).query(points.numpy())
        kept = np.flatnonzero(gaps < DRAWN_PX)
        parts.append((inputs[kept].half(), torch.from_numpy(places[nearest[kept]]).float() - points[kept]))
    inputs, displacement = (torch.cat(column) for column in zip(*parts, strict=True))
    still = torch.zeros(len(inputs), 2, 2)  # what the first view adds moves nothing
    return Samples(inputs0=inputs, inputs1=inputs, displacement=displacement, jacobian=still)


def train(head: WindowOffset, samples: Sequence[Samples], *, steps: int, batch: int, rate: float) -> None:
    """Fit by AdamW under a one-cycle schedule, each kind of samples with as many per step.

    Prints what became of the last tenth of each kind, held back.
    """
    scores = [(windows(kind.inputs0), windows(kind.inputs1)) for kind in samples]

    def gaps(number: int, rows: torch.Tensor | slice) -> torch.Tensor:
        kind, (first, second) = samples[number], scores[number]
        moved = (kind.jacobian[rows] @ head.correction(first[rows])[..., None])[..., 0]
        return kind.displacement[rows] + moved - head.correction(second[rows])

    learned_from = [int(0.9 * len(kind.displacement)) for kind in samples]
    head.requires_grad_(True)
    optimizer = torch.optim.AdamW(head.parameters(), rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for _ in range(steps):
        drawn = [torch.randint(count, (batch // len(samples),)) for count in learned_from]
        squared = torch.cat([gaps(number, rows) for number, rows in enumerate(drawn)]).square().sum(dim=1)
        loss = (1.0 - torch.exp(-squared / (2.0 * SPREAD_PX**2))).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    head.requires_grad_(False)
    for number, kind in enumerate(samples):
        held = slice(learned_from[number], None)
        before, after = kind.displacement[held].norm(dim=1), gaps(number, held).norm(dim=1)
        print(
            f"{len(before)} held-back {'drawn places' if number else 'matches'}, median gap "
            f"{float(before.median()):.3f} -> {float(after.median()):.3f} px, within 1 px "
            f"{float((before < 1).float().mean()):.1%} -> {float((after < 1).float().mean()):.1%}"
        )


if __name__ == "__main__":
    main()
