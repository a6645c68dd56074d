"""Fit the covariance head of finished weights in a few minutes; nothing else of them changes.

    python scripts/fit_covariance.py WEIGHTS.safetensors PHOTOS OUT.safetensors [--pairs 300] [--val OTHER_PHOTOS]

As ``fit_reliability.py``: the inputs of the head are computed once, for keypoints of photos and of their views through
random homographies. A match within 3 px of the truth says how far its two keypoints lie from one place; the
covariance of that difference is the second keypoint's and the first one's under the homography's Jacobian. The head
learns the likelihood of these differences; at the end all covariances are scaled so that the mean squared normalised
error is 2 on photos that were not learned from, and it is printed how well errors then follow chi-square.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from fit_reliability import MATCH_PX, look
from semkey.evaluation.data.homographies import random_homography_set
from semkey.losses.covariance import displacement_nll, moved_covariance, squared_normalised_error
from semkey.model.checkpoint import load_checkpoint, load_weights, save_checkpoint
from semkey.model.covariance import CovarianceHead
from semkey.model.semantic_detector import SemanticKeypointDetector

_STEP_PX = 0.5


@dataclass(frozen=True, kw_only=True)
class Samples:
    """Right matches: inputs of the head of both keypoints (S, K), differences (S, 2) and Jacobians (S, 2, 2)."""

    inputs0: torch.Tensor
    inputs1: torch.Tensor
    displacement: torch.Tensor
    jacobian: torch.Tensor


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument(
        "--val", type=Path, help="photos for the final scale and the report; default: a tenth of PHOTOS'"
    )
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--steps", type=int, default=2500)
    parser.add_argument("--batch", type=int, default=4096, help="matches per step")
    parser.add_argument("--rate", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=2)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    stored = load_checkpoint(args.weights)
    model = SemanticKeypointDetector(replace(stored.config, covariance=True), backbone=stored.backbone)
    load_weights(model, args.weights)
    model.eval().requires_grad_(False)
    assert model.covariance is not None
    samples = collect(model, args.photos, args.pairs, args.seed)
    held = collect(model, args.val or args.photos, max(20, args.pairs // 10), args.seed + 1000)
    print(f"{len(samples.displacement)} matches to learn from, {len(held.displacement)} to check", flush=True)
    train(model.covariance, samples, steps=args.steps, batch=args.batch, rate=args.rate)
    rescale(model.covariance, held)
    report(model.covariance, held)
    save_checkpoint(model, args.out)
    print(f"written: {args.out}")


def collect(model: SemanticKeypointDetector, photos: Path, pairs: int, seed: int) -> Samples:
    """Right matches of photos and their views through random homographies."""
    parts = []
    for pair in random_homography_set(photos, count=pairs, seed=seed).pairs:
        images = pair.image0.read(), pair.image1.read()
        own, other = (look(model, image) for image in images)
        if min(len(own[0]), len(other[0])) < 2:
            continue
        size = (images[1].shape[1], images[1].shape[0])
        similarity = own[1] @ other[1].T
        best = similarity.argmax(dim=1)
        mutual = similarity.argmax(dim=0)[best] == torch.arange(len(best))
        points = own[0].double().numpy()
        projected, seen = pair.truth.project(points, size)
        gaps = torch.from_numpy(np.nan_to_num(projected, nan=math.inf)).float() - other[0][best]
        kept = torch.nonzero(mutual & torch.from_numpy(seen) & (gaps.norm(dim=1) < MATCH_PX))[:, 0]
        columns = []
        for step in ([_STEP_PX, 0.0], [0.0, _STEP_PX]):
            ends = [pair.truth.project(points[kept.numpy()] + sign * np.array(step), size)[0] for sign in (1, -1)]
            columns.append((ends[0] - ends[1]) / (2.0 * _STEP_PX))
        jacobian = torch.from_numpy(np.stack(columns, axis=-1)).float()
        known = torch.isfinite(jacobian).all(dim=-1).all(dim=-1)
        kept, jacobian = kept[known], jacobian[known]
        parts.append((own[2][kept].half(), other[2][best[kept]].half(), gaps[kept], jacobian))
    inputs0, inputs1, displacement, jacobian = (torch.cat(column) for column in zip(*parts, strict=True))
    return Samples(inputs0=inputs0, inputs1=inputs1, displacement=displacement, jacobian=jacobian)


def differences(head: CovarianceHead, samples: Samples, rows: torch.Tensor | slice) -> torch.Tensor:
    """Predicted covariances of the differences of matches."""
    first, second = head(samples.inputs0[rows].float()), head(samples.inputs1[rows].float())
    return moved_covariance(first, samples.jacobian[rows]) + second


def train(head: CovarianceHead, samples: Samples, *, steps: int, batch: int, rate: float) -> None:
    """Fit the perceptron by AdamW under a one-cycle schedule."""
    head.requires_grad_(True)
    optimizer = torch.optim.AdamW(head.parameters(), rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    for step in range(steps):
        drawn = torch.randint(len(samples.displacement), (batch,))
        loss = displacement_nll(samples.displacement[drawn], differences(head, samples, drawn))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(head.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 500 == 0:
            print(f"step {step + 1}: {float(loss.detach()):.4f}", flush=True)
    head.requires_grad_(False)


@torch.no_grad()
def rescale(head: CovarianceHead, held: Samples) -> None:
    """Scale all covariances so that the mean squared normalised error is 2."""
    error = squared_normalised_error(held.displacement, differences(head, held, slice(None)))
    factor = math.sqrt(float(error.mean()) / 2.0)  # of standard deviations
    last = head.layers[2]
    assert isinstance(last, torch.nn.Linear)
    last.bias[:2] += math.log(factor)
    last.bias[2] *= factor
    last.weight[2] *= factor


@torch.no_grad()
def report(head: CovarianceHead, held: Samples) -> None:
    """Print how errors of held-out matches follow chi-square, and how long covariances are."""
    predicted = differences(head, held, slice(None))
    error = squared_normalised_error(held.displacement, predicted)
    shares = []
    for level in (0.5, 0.9, 0.99):
        bound = -2.0 * math.log(1.0 - level)  # chi-square of two degrees of freedom
        shares.append(f"{float((error <= bound).float().mean()):.3f} (of {level})")
    values = torch.linalg.eigvalsh(head(held.inputs1.float())).sqrt()
    print(f"mean squared normalised error {float(error.mean()):.3f} (2), within the bounds {', '.join(shares)}")
    print(
        f"likelihood {float(displacement_nll(held.displacement, predicted)):.4f}; of one covariance for all matches "
        f"{constant_likelihood(held):.4f}"
    )
    print(
        f"standard deviations along / across: median {values[:, 1].median():.2f} / {values[:, 0].median():.2f} px, "
        f"ratio 10 / 50 / 90 %: {np.percentile((values[:, 1] / values[:, 0]).numpy(), [10, 50, 90]).round(2)}"
    )


def constant_likelihood(samples: Samples) -> float:
    """What one round covariance for all keypoints would reach, with the best size of it."""
    jacobian = samples.jacobian
    shape = jacobian @ jacobian.transpose(-1, -2) + torch.eye(2)
    scale = squared_normalised_error(samples.displacement, shape).mean() / 2.0
    return float(displacement_nll(samples.displacement, shape * scale))


if __name__ == "__main__":
    main()
