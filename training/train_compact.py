"""Train the ``compact`` detector on photos.

    python -m torch.distributed.run --nproc-per-node 2 training/train_compact.py PHOTOS TEACHER RUN \
        [--steps N] [--resume] [--warm-start FILE.safetensors]

One joint stage. Detection: heat maps at a teacher's keypoints (see extract_teacher.py) and sub-pixel position;
description: dual softmax over corresponding points; offset: reprojection of detected keypoints; reliability: success
of mutual matches, on detached features; place: InfoNCE between the two views, on detached features. The learning rate
warms up, stays constant and decays linearly over the last ``--decay`` share of the steps. ``RUN/last.pt`` is written
under a temporary name and renamed, so a kill loses at most ``--save-every`` steps; ``RUN/compact.safetensors`` holds
the exponential moving average of the weights. On a CPU one process per core with one thread each is faster than one
process with several threads; gradients are averaged over the processes.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import json
import logging
import os
import time
from pathlib import Path

import torch
import torch.distributed as dist
from pairs import PairConfig, PhotoPairs
from torch.utils.data import DataLoader

from semkey.losses.description import dual_softmax_loss, place_loss
from semkey.losses.detection import quality_focal_loss, render_targets, subpixel_loss
from semkey.model.checkpoint import load_weights, save_checkpoint
from semkey.model.config import ExtractionConfig
from semkey.model.dkd import read_windows
from semkey.model.semantic_detector import DenseMaps, SemanticKeypointDetector, _one

log = logging.getLogger("train")


def warp_points(H: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Points (N, 2) through a homography (3, 3)."""
    mapped = torch.cat([points, torch.ones_like(points[:, :1])], dim=1).double() @ H.T
    return (mapped[:, :2] / mapped[:, 2:]).float()


def detection_losses(maps: DenseMaps, targets: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Heat map loss and sub-pixel loss of one side of a batch; targets (B, T, 3), valid (B, H, W)."""
    logits = maps.logits[:, 0]
    heat = torch.stack([render_targets(t[:, :2], t[:, 2], logits.shape[-2:]) for t in targets])
    weight = valid.float()
    heat_loss = quality_focal_loss(logits.where(valid, logits.new_tensor(-20.0)), heat * weight)
    windows, shifts = [], []
    for row, target in enumerate(targets):
        points = target[target[:, 2] > 0.3, :2]
        pixels = points.round().long()
        windows.append(read_windows(torch.sigmoid(logits[row]), pixels, 5))
        shifts.append(points - pixels)
    return heat_loss, subpixel_loss(torch.cat(windows), torch.cat(shifts))


def detected_losses(
    model: SemanticKeypointDetector, maps: tuple[DenseMaps, DenseMaps], batch: dict, extraction: ExtractionConfig
) -> tuple[torch.Tensor, torch.Tensor, dict[str, float]]:
    """Reprojection loss of the offset head, reliability loss, and matching figures, over detected keypoints."""
    reprojection, reliability = [], []
    figures = {"repeat": 0.0, "precision": 0.0, "matches": 0.0}
    count = len(batch["H01"])
    for row in range(count):
        sides = []
        for side in (0, 1):
            one = _one(maps[side], row)
            peaks = model.detect(torch.sigmoid(one.logits[0, 0]), extraction)
            inside = batch[f"valid{side}"][row][peaks.pixels[:, 1], peaks.pixels[:, 0]]
            sides.append((one, model.refine(one.stride2, peaks)[inside]))
        (one0, k0), (one1, k1) = sides
        if len(k0) < 8 or len(k1) < 8:
            continue
        H01 = batch["H01"][row]
        projected = warp_points(H01, k0)
        distance = torch.cdist(projected, k1)
        value, nearest = distance.detach().min(dim=1)
        mutual = (distance.detach().min(dim=0).indices[nearest] == torch.arange(len(k0))) & (value < 2.0)
        if mutual.any():
            gap = (projected[mutual] - k1[nearest[mutual]]).abs().sum(dim=1)
            reprojection.append(gap.mean())
        with torch.no_grad():
            d0, d1 = model.describe(one0, k0[None])[0], model.describe(one1, k1[None])[0]
            similarity = d0 @ d1.T
            best = similarity.argmax(dim=1)
            is_match = similarity.argmax(dim=0)[best] == torch.arange(len(k0))
            right = is_match & (distance[torch.arange(len(k0)), best] < 3.0)
            size = torch.tensor(one1.logits.shape[-2:][::-1])
            seen = ((projected > 2) & (projected < size - 3)).all(dim=1)
        logits = model.reliability(one0.grid, k0.detach()[None])[0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, right.float(), reduction="none")
        reliability.append(loss[seen].mean() if seen.any() else loss.sum() * 0)
        figures["repeat"] += float((value[seen] < 3.0).float().mean()) / count
        figures["precision"] += float(right.sum() / is_match.sum().clamp(min=1)) / count
        figures["matches"] += float(right.sum()) / count
    zero = maps[0].logits.sum() * 0
    total = [torch.stack(part).mean() if part else zero for part in (reprojection, reliability)]
    return total[0], total[1], figures


def keep_memory() -> None:
    """Let glibc keep freed memory: returning large blocks to the system costs more than the arithmetic on them."""
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:
        return
    for option, value in ((-4, 0), (-1, 2**31 - 1), (-2, 2**28)):  # M_MMAP_MAX, M_TRIM_THRESHOLD, M_TOP_PAD
        libc.mallopt(option, value)


def average_gradients(model: torch.nn.Module, world: int) -> None:
    """Mean of the gradients over the processes, in one transfer."""
    if world == 1:
        return
    gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in model.parameters()]
    flat = torch.cat([g.reshape(-1) for g in gradients])
    dist.all_reduce(flat)
    offset = 0
    for parameter in model.parameters():
        size = parameter.numel()
        parameter.grad = (flat[offset : offset + size] / world).reshape(parameter.shape)
        offset += size


def average_buffers(model: torch.nn.Module, world: int) -> None:
    """Mean of the batch-norm statistics over the processes."""
    for buffer in model.buffers() if world > 1 else ():
        if buffer.is_floating_point():
            dist.all_reduce(buffer)
            buffer /= world


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("teacher", type=Path, help="folder written by extract_teacher.py")
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=20000)
    parser.add_argument("--decay", type=float, default=0.3, help="share of the steps with a falling learning rate")
    parser.add_argument("--batch", type=int, default=4, help="pairs per process")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--fp32", action="store_true", help="no bfloat16 autocast")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--warm-start", type=Path)
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    args.run.mkdir(parents=True, exist_ok=True)
    keep_memory()
    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if world > 1:
        dist.init_process_group("gloo")
        torch.set_num_threads(1)
    log.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    torch.manual_seed(args.seed)

    config = PairConfig()
    model = SemanticKeypointDetector()
    if args.warm_start:
        load_weights(model, args.warm_start)
    model = model.to(memory_format=torch.channels_last).train()
    average = copy.deepcopy(model).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=1e-4)
    step, not_finite = 0, 0
    last = args.run / "last.pt"
    if args.resume and last.exists():
        state = torch.load(last, weights_only=True)
        model.load_state_dict(state["model"])
        average.load_state_dict(state["average"])
        optimizer.load_state_dict(state["optimizer"])
        step, not_finite = state["step"], state["not_finite"]
        log.info("resumed at step %d", step)
    extraction = ExtractionConfig(max_keypoints=384)
    loader = DataLoader(
        PhotoPairs(args.photos, args.teacher, config, seed=args.seed + 1000 * step + 100 * rank),
        batch_size=args.batch,
        num_workers=args.workers,
        prefetch_factor=6 if args.workers else None,
    )

    def rate(at: int) -> float:
        return args.lr * min(1.0, (at + 1) / 300, max(0.0, (args.steps - at) / (args.decay * args.steps)))

    def save() -> None:
        state = {
            "model": model.state_dict(),
            "average": average.state_dict(),
            "optimizer": optimizer.state_dict(),
            "step": step,
            "not_finite": not_finite,
        }
        temporary = last.with_suffix(".tmp")
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, last)
        save_checkpoint(average, args.run / "compact.safetensors")

    sums: dict[str, float] = {}
    started, waited, since = time.monotonic(), 0.0, step
    batches = iter(loader)
    while step < args.steps:
        before = time.monotonic()
        batch = next(batches)
        waited += time.monotonic() - before
        for group in optimizer.param_groups:
            group["lr"] = rate(step)

        both = torch.cat([batch["image0"], batch["image1"]]).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=not args.fp32):
            maps = model(both)
        half = len(batch["image0"])
        maps = DenseMaps(
            logits=maps.logits.float(),
            grid=maps.grid.float(),
            fine=maps.fine.float(),
            stride2=maps.stride2.float(),
            coarse=tuple(c.float() for c in maps.coarse),
        )
        sides = tuple(
            DenseMaps(
                logits=maps.logits[rows],
                grid=maps.grid[rows],
                fine=maps.fine[rows],
                stride2=maps.stride2[rows],
                coarse=tuple(c[rows] for c in maps.coarse),
            )
            for rows in (slice(0, half), slice(half, None))
        )
        heat, position = zip(
            *(detection_losses(sides[s], batch[f"targets{s}"], batch[f"valid{s}"]) for s in (0, 1)), strict=True
        )
        jitter = torch.randn_like(batch["points1"]) * 0.5
        points = torch.cat([batch["points0"], batch["points1"] + jitter])
        descriptors = model.describe(maps, points)
        match = dual_softmax_loss(descriptors[:half], descriptors[half:], batch["points1"])
        place = place_loss(*model.place(maps.coarse).split(half))
        losses = {
            "heat": sum(heat) / 2,
            "position": sum(position) / 2,
            "match": match.mean(),
            "place": place,
        }
        weights = {"heat": 1.0, "position": 0.25, "match": 0.5, "place": 0.1, "reprojection": 0.25, "reliability": 0.5}
        figures: dict[str, float] = {}
        if step % 4 == 0 and step > 300:
            losses["reprojection"], losses["reliability"], figures = detected_losses(model, sides, batch, extraction)
        loss = sum(weights[name] * value for name, value in losses.items())
        finite = torch.isfinite(loss.detach()).float()
        if world > 1:
            dist.all_reduce(finite, op=dist.ReduceOp.MIN)
        if not bool(finite):
            not_finite += 1
            log.warning("step %d: loss is not finite (%d so far), step skipped", step, not_finite)
            if not_finite > 50:
                raise SystemExit("more than 50 losses were not finite: stopped")
            optimizer.zero_grad(set_to_none=True)
            step += 1
            continue
        loss.backward()
        average_gradients(model, world)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            keep = min(0.999, (step + 1) / (step + 10))
            for mean, value in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
                if mean.is_floating_point():
                    mean.lerp_(value, 1.0 - keep)
                else:
                    mean.copy_(value)
        for name, value in {**{k: float(v.detach()) for k, v in losses.items()}, **figures}.items():
            total, number = sums.get(name, (0.0, 0))
            sums[name] = (total + value, number + 1)
        step += 1
        if step % 50 == 0:
            passed = time.monotonic() - started
            means = {name: round(total / number, 3) for name, (total, number) in sums.items()}
            speed = (step - since) / passed
            log.info("step %d lr %.1e %s | %.2f steps/s, %.0f%% waiting for data, %.0f min left", step, rate(step),
                     means, speed, 100 * waited / passed, (args.steps - step) / speed / 60)  # fmt: skip
            if rank == 0:
                with (args.run / "log.jsonl").open("a") as file:
                    file.write(json.dumps({"step": step, **means}) + "\n")
            sums.clear()
            started, waited, since = time.monotonic(), 0.0, step
        if step % args.save_every == 0 or step == args.steps:
            average_buffers(model, world)
            average_buffers(average, world)
            if rank == 0:
                save()


if __name__ == "__main__":
    main()
