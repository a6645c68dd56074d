"""Teach a detector by pixels what a detector by cells says on average over shifts and warps of a picture.

    python scripts/distil_detector.py crops TEACHER.safetensors PHOTOS CACHE [--count 3000]
    python scripts/distil_detector.py shapes CACHE [--count 800]
    python scripts/distil_detector.py train TRUNK.safetensors OUT.safetensors CACHE ... [--steps 1800]

``crops`` cuts crops from photos and keeps them with two maps each: the teacher's probabilities averaged over 8 shifts
of the crop, and over 8 rotations by up to 25 degrees and scales from 0.78 to 1.35. A corner stays where it is in all of
them; an edge, whose place in a cell decided where along it a keypoint appeared, is spread out.

``shapes`` draws polygons, checkerboards, junctions and dots instead, whose corners and centres are known: photos have
hardly a dot, and what is learned from them alone finds none.

``train`` gives the network of TRUNK a detector by pixels and trains its detail stem and detector alone to give these
maps, and the same from two cuts of one picture, under other light, blur and noise; one in twelve views is blank,
smoothly lit, out of focus or pure noise and has no keypoints. Everything that descriptors come from stays as it is. It
writes OUT every 500 steps with a state beside it (OUT.state), from which the same command goes on.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from distil_views import KEPT, PHASES, SIDE, WARPED_SHARE, Views, make_crops, make_shapes
from semkey.losses.detection import pixel_cross_entropy
from semkey.model.checkpoint import load_checkpoint, save_checkpoint
from semkey.model.config import ModelConfig
from semkey.model.layers import cells_to_image
from semkey.model.pixels import WINDOW, CellSmoothing, window_log_probability
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.model.stem import GRID_STRIDE, DetailStem
from semkey.training.data.pair import normalize
from semkey.training.objectives.optimisation import MovingAverage

SAVE_EVERY = 500


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How ``train`` learns.

    Attributes:
        steps: in all; the rate rises over the first 200 and falls as a cosine to a hundredth at the last.
        batch: views per step, two of each picture.
        rate: of AdamW; the head on the grid, which is good already, has a quarter of it.
        seed: of the views.
        following: weight of the squared difference between the evidence and the detail stem that it replaces, averaged
            over all places of its cells; falls to nothing at half the steps.
        consistency: weight of :func:`inconsistency`.
    """

    steps: int
    batch: int
    rate: float
    seed: int
    following: float
    consistency: float


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    crops = commands.add_parser("crops")
    crops.add_argument("teacher", type=Path)
    crops.add_argument("photos", type=Path)
    crops.add_argument("cache", type=Path)
    crops.add_argument("--count", type=int, default=3000)
    crops.add_argument("--seed", type=int, default=1)
    crops.add_argument("--video", action="store_true", help="as a moving camera sees: enlarged, blurred, noisy, dull")
    shapes = commands.add_parser("shapes")
    shapes.add_argument("cache", type=Path)
    shapes.add_argument("--count", type=int, default=800)
    shapes.add_argument("--seed", type=int, default=201)
    learn = commands.add_parser("train")
    learn.add_argument("trunk", type=Path)
    learn.add_argument("out", type=Path)
    learn.add_argument("caches", type=Path, nargs="+", metavar="CACHE", help="folders of crops, each drawn as often")
    learn.add_argument("--init", type=Path, help="detector by pixels whose weights to start from")
    learn.add_argument("--model", default="{}", help='shapes of the detector, JSON, e.g. {"pixel_channels": 4}')
    learn.add_argument("--steps", type=int, default=1800)
    learn.add_argument("--batch", type=int, default=8)
    learn.add_argument("--rate", type=float, default=4e-3)
    learn.add_argument("--following", type=float, default=0.03, help="the averaged detail stem, at first")
    learn.add_argument("--consistency", type=float, default=0.0, help="weight of the difference between two phases")
    learn.add_argument(
        "--smoothing", type=float, help="sigma in pixels that the grid's logits are smoothed by at first"
    )
    learn.add_argument("--seed", type=int, default=0)
    judge = commands.add_parser("divergence")
    judge.add_argument("detector", type=Path)
    judge.add_argument("caches", type=Path, nargs="+", metavar="CACHE")
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.command == "crops":
        make_crops(args.teacher, args.photos, args.cache, args.count, args.seed, video=args.video)
    elif args.command == "shapes":
        make_shapes(args.cache, args.count, args.seed)
    elif args.command == "divergence":
        model = load_checkpoint(args.detector).optimize()
        for cache in args.caches:
            print(f"{cache.name}: {divergence(model, cache):.4f}")
    else:
        torch.manual_seed(args.seed)
        model = load_checkpoint(args.init) if args.init else with_pixels(args.trunk, json.loads(args.model))
        if args.smoothing is not None and model.smoothing is not None:
            model.smoothing = CellSmoothing(sigma=args.smoothing)
        cells = load_checkpoint(args.trunk).optimize().detail
        if not isinstance(cells, DetailStem):
            raise SystemExit(f"{args.trunk}: needs a detector by cells")
        names = ("steps", "batch", "rate", "seed", "following", "consistency")
        train(model, cells, args.caches, args.out, Schedule(**{name: getattr(args, name) for name in names}))


def with_pixels(trunk: Path, shapes: dict) -> SemanticKeypointDetector:
    """The network of a checkpoint with a new detector by pixels; all else is copied."""
    source = load_checkpoint(trunk)
    config = replace(source.config, detector="pixels", covariance=False)
    model = SemanticKeypointDetector(ModelConfig.from_mapping({**config.to_mapping(), **shapes}))
    known, own = source.state_dict(), model.state_dict()
    for name, value in own.items():
        if name in known and known[name].shape == value.shape:
            value.copy_(known[name])
    return model


def train(
    model: SemanticKeypointDetector,
    cells: DetailStem,
    caches: Sequence[Path],
    out: Path,
    schedule: Schedule,
) -> None:
    """Fit the detail stem and the detector; the rest computes as it does in extraction."""
    trunk = copy.deepcopy(model).optimize()
    model.eval().requires_grad_(False)
    assert model.smoothing is not None
    for part in (model.detail, model.detector, model.smoothing):
        part.train().requires_grad_(True)
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    # what comes from the detector by cells is good already
    groups = [
        {"params": [*model.detail.parameters(), *model.smoothing.parameters()], "share": 1.0},
        {"params": [*model.detector.parameters()], "share": 0.25},
    ]
    optimizer = torch.optim.AdamW(groups, schedule.rate, weight_decay=1e-4)
    average = MovingAverage(model, 0.998)
    state_file, first = out.with_name(out.name + ".state"), 0
    if state_file.is_file():
        state = torch.load(state_file, weights_only=True)
        model.load_state_dict(state["model"])
        average.model.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        first = state["step"]
    views = iter(
        torch.utils.data.DataLoader(
            Views(caches, schedule.batch, (schedule.seed, first)), batch_size=None, num_workers=1
        )
    )
    started, seen = time.monotonic(), []
    for step in range(first, schedule.steps):
        sample = next(views)
        part = step / schedule.steps
        rate = schedule.rate * min(1.0, (step + 1) / 200) * (0.01 + 0.495 * (1 + math.cos(math.pi * part)))
        for group in optimizer.param_groups:
            group["lr"] = group["share"] * rate
        with torch.autocast("cpu", torch.bfloat16):
            with torch.no_grad():
                stem = trunk.stem(sample["image"].bfloat16())
                grid, _ = trunk.pyramid(stem, trunk.context(stem))
            evidence = model.detail(sample["image"]).float()
            found = window_log_probability(model.smoothing(model.detector.logits(grid)) + evidence)[:, 0]
        valid = torch.zeros_like(sample["target"], dtype=torch.bool)
        valid[:, PHASES:-PHASES, PHASES:-PHASES] = True
        loss = pixel_cross_entropy(found, sample["target"], valid)
        varying = inconsistency(found, sample["target"], sample["corner"])
        seen.append((float(loss.detach()) - entropy(sample["target"], valid), float(varying.detach())))
        loss = loss + schedule.consistency * varying
        follow = schedule.following * max(0.0, 1.0 - 2.0 * part)
        if follow > 0.0:
            loss = loss + follow * ((evidence - over_phases(cells, sample["image"]))[:, 0][valid] ** 2).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 5.0)
        optimizer.step()
        average.update(model, step)
        if (step + 1) % 50 == 0:
            passed = time.monotonic() - started
            apart, varied = np.mean(seen[-50:], axis=0)
            print(f"step {step + 1}: divergence {apart:.4f}, between phases {varied:.4f}, {passed:.0f} s", flush=True)
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == schedule.steps:
            save_checkpoint(average.model, out)
            parts = {"model": model.state_dict(), "average": average.model.state_dict()}
            torch.save({**parts, "optimizer": optimizer.state_dict(), "step": step + 1}, state_file)


def inconsistency(found: torch.Tensor, target: torch.Tensor, corners: torch.Tensor) -> torch.Tensor:
    """How much the log-probabilities of views 2k and 2k + 1, cut from one picture at ``corners``, differ.

    A quarter of the squared difference, weighted by the targets: to second order the divergence of either from their
    mean, in the units of the other loss.
    """
    total = found.new_zeros(())
    for first in range(0, len(found), 2):
        start = torch.maximum(corners[first], corners[first + 1]) + PHASES
        end = torch.minimum(corners[first], corners[first + 1]) + SIDE - PHASES
        parts = []
        for index in (first, first + 1):
            (y, x), (bottom, right) = (start - corners[index]).tolist(), (end - corners[index]).tolist()
            parts.append((index, slice(y, bottom), slice(x, right)))
        weight = target[parts[0]]
        total = total + (weight * (found[parts[0]] - found[parts[1]]) ** 2).mean()
    return WINDOW**2 * 0.25 * total / (len(found) // 2)


@torch.no_grad()
def over_phases(cells: DetailStem, images: torch.Tensor) -> torch.Tensor:
    """What a detail stem says of every pixel (B, 1, H, W), averaged over all places of its cells."""
    total = torch.zeros(images.shape)
    places = [(x, y) for x in range(cells.stride) for y in range(cells.stride)]
    for x, y in places:
        with torch.autocast("cpu", torch.bfloat16):
            logits = cells(torch.roll(images, (-y, -x), (2, 3)).bfloat16())[1]
        total += torch.roll(cells_to_image(logits.float(), GRID_STRIDE), (y, x), (2, 3)) / len(places)
    return total


@torch.inference_mode()
def divergence(model: SemanticKeypointDetector, cache: Path) -> float:
    """Mean divergence of a detector, of either kind, from the targets of all crops of a cache, as they are."""
    crops, shifted, warped = (np.load(cache / f"{name}.npy", mmap_mode="r") for name in ("gray", "shifted", "warped"))
    side, found = KEPT // 32 * 32, []
    valid = torch.zeros(1, side, side, dtype=torch.bool)
    valid[:, 2 * PHASES : -2 * PHASES, 2 * PHASES : -2 * PHASES] = True
    for index, crop in enumerate(crops):
        part = (slice((index % 8) * 3, (index % 8) * 3 + side), slice((index % 8), (index % 8) + side))
        target = (1 - WARPED_SHARE) * shifted[index][part].astype(np.float32)
        target += WARPED_SHARE * warped[index][part].astype(np.float32)
        goal = torch.from_numpy(target)[None]
        with torch.autocast("cpu", torch.bfloat16):
            maps = model(normalize(np.ascontiguousarray(crop[part]))[None].bfloat16()).log_probability[:, 0].float()
        found.append(float(pixel_cross_entropy(maps, goal, valid)) - entropy(goal, valid))
    return float(np.mean(found))


def entropy(target: torch.Tensor, valid: torch.Tensor) -> float:
    """What the loss of a perfect imitation would be."""
    return float(pixel_cross_entropy(target.clamp(1e-9, 1.0).log(), target, valid))


if __name__ == "__main__":
    main()
