"""Fit the reliability head of finished weights in a few minutes; nothing else of them changes.

    python scripts/fit_reliability.py WEIGHTS.safetensors PHOTOS OUT.safetensors [--pairs 300]

The rest of the network is frozen, so what the head reads is computed once per image: at 1024 keypoints of each photo
and of its view through a random homography, made like the views of ``semkey eval reliability``: give other photos than
are evaluated. Then each step draws keypoints from all images. Stage ``reliability`` of ``semkey train`` takes a few
whole images per step, whose keypoints are alike, and needs far more pairs for the same. WEIGHTS may have the older
head; OUT has the new one, learned from its start.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from semkey.evaluation.data.homographies import random_homography_set
from semkey.evaluation.data.pairs import HomographyTruth, PoseTruth
from semkey.losses.reliability import match_success, reliability_bce_loss
from semkey.model.checkpoint import load_checkpoint, load_weights, save_checkpoint
from semkey.model.heads import score_from_log_probability
from semkey.model.precision import uses_bfloat16
from semkey.model.preprocess import prepare, prepare_colors, to_gray, to_rgb
from semkey.model.reliability import KeypointReliabilityHead
from semkey.model.semantic_detector import SemanticKeypointDetector

MATCH_PX = 3.0

View = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""Keypoints (N, 2), descriptors (N, D) and the inputs of the head (N, K) of one image."""


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch", type=int, default=4096, help="keypoints per step")
    parser.add_argument("--rate", type=float, default=4e-3)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    stored = load_checkpoint(args.weights)
    model = SemanticKeypointDetector(replace(stored.config, reliability="keypoint"), backbone=stored.backbone)
    fresh = {name: value.clone() for name, value in model.reliability.state_dict().items()}
    load_weights(model, args.weights)
    model.reliability.load_state_dict(fresh)
    model.eval().requires_grad_(False)
    inputs, labels = collect(model, args.photos, args.pairs, args.seed)
    print(f"{len(labels)} keypoints, {float(labels.float().mean()):.1%} with a right match", flush=True)
    loss = train(model.reliability, inputs, labels, steps=args.steps, batch=args.batch, rate=args.rate)
    save_checkpoint(model, args.out)
    print(f"cross-entropy {loss:.4f}; written: {args.out}")


def collect(model: SemanticKeypointDetector, photos: Path, pairs: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (S, K) float16 and labels (S,) bool of the co-visible keypoints of both views of all pairs."""
    inputs, labels = [], []
    for pair in random_homography_set(photos, count=pairs, seed=seed).pairs:
        images = pair.image0.read(), pair.image1.read()
        views = [look(model, image) for image in images]
        for own, other, truth, seen_by in (
            (views[0], views[1], pair.truth, images[1]),
            (views[1], views[0], pair.truth.swapped(), images[0]),
        ):
            if len(own[0]) == 0 or len(other[0]) == 0:
                continue
            success, seen = judge(own, other, truth, (seen_by.shape[1], seen_by.shape[0]))
            inputs.append(own[2][seen].half())
            labels.append(success[seen])
    return torch.cat(inputs), torch.cat(labels)


@torch.inference_mode()
def look(model: SemanticKeypointDetector, image: NDArray[np.uint8]) -> View:
    """One image as extraction sees it."""
    prepared = prepare(to_gray(image), model.extraction.max_side)
    reduced = uses_bfloat16(model.extraction.precision, torch.device("cpu"))
    colors = None if model.backbone is None else prepare_colors(to_rgb(image), prepared)
    with torch.autocast("cpu", torch.bfloat16, enabled=reduced):
        maps = model(prepared.tensor.contiguous(memory_format=torch.channels_last), colors)
    maps = maps.map(torch.Tensor.float)
    width, height = prepared.valid_size
    peaks = model.detect(score_from_log_probability(maps.log_probability[0, 0, :height, :width]))
    limit = torch.tensor([width - 1.0, height - 1.0])
    keypoints = torch.minimum(model.refine(maps.detail, peaks).clamp(min=0.0), limit)
    head = model.reliability
    assert isinstance(head, KeypointReliabilityHead)
    inputs = torch.zeros(0, 1)
    if len(keypoints):
        inputs = head.inputs(maps.log_probability, maps.fine, maps.detail, keypoints, peaks)
    return keypoints, model.describe(maps, keypoints[None])[0], inputs


def judge(
    own: View, other: View, truth: HomographyTruth | PoseTruth, size: tuple[int, int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Which keypoints get a right match, and which the other view, of ``size``, shows; (N,) bool both."""
    projected, seen = truth.project(own[0].numpy(), size)
    places = torch.from_numpy(np.nan_to_num(projected, nan=-math.inf)).float()
    return match_success(own[1], other[1], places, other[0], max_distance=MATCH_PX), torch.from_numpy(seen)


def train(
    head: torch.nn.Module, inputs: torch.Tensor, labels: torch.Tensor, *, steps: int, batch: int, rate: float
) -> float:
    """Fit the perceptron by AdamW under a one-cycle schedule; the mean loss of the last tenth of the steps."""
    layers = head.layers
    assert isinstance(layers, torch.nn.Sequential)
    layers.requires_grad_(True)
    optimizer = torch.optim.AdamW(layers.parameters(), rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    losses = []
    for _ in range(steps):
        drawn = torch.randint(len(labels), (batch,))
        loss = reliability_bce_loss(layers(inputs[drawn].float())[:, 0], labels[drawn])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    return float(np.mean(losses[-max(1, steps // 10) :]))


if __name__ == "__main__":
    main()
