"""Train the ``compact`` detector on photos.

    python -m torch.distributed.run --nproc-per-node 2 training/train_compact.py PHOTOS TEACHER RUN \
        [--steps N] [--resume] [--warm-start FILE.safetensors]

One joint stage. Detection: a teacher's keypoints (see extract_teacher.py) as places in cells, and their sub-pixel
position; description: dual softmax over corresponding points; offset: distance between detected keypoints of both
views; reliability: success of mutual matches, on detached features; place: InfoNCE between the views, on detached
features. The learning rate warms up, stays constant and falls linearly over the last ``--decay`` share of the steps.

``RUN/last.pt`` is written under a temporary name and renamed: a kill loses at most ``--save-every`` steps, and training
that resumes ends with the very same weights.
``RUN/compact.safetensors`` holds the exponential moving average of the weights. On a CPU one process per core with one
thread each is faster than one process with several threads; gradients are averaged over the processes.
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import os
import time
from collections import defaultdict
from pathlib import Path

import cv2
import torch
import torch.distributed as dist
from objectives import STAGES, compute
from pairs import Counter, PairConfig, PhotoPairs
from torch.utils.data import DataLoader

from semkey.model.checkpoint import load_weights, save_checkpoint
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.runtime import tune_process

log = logging.getLogger("train")

WARM_UP_STEPS = 300
LOG_EVERY = 50
DETECTED_EVERY = 2  # losses over detected keypoints cost as much as all others
MAX_NOT_FINITE = 50


class Trainer:
    """Model, moving average, optimiser and step counter; one per process."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.world, self.rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
        torch.manual_seed(args.seed)
        self.model = SemanticKeypointDetector()
        if args.warm_start:
            load_weights(self.model, args.warm_start)
        self.model.train().to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]
        self.average = copy.deepcopy(self.model).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=args.lr, weight_decay=1e-4)
        self.step, self.not_finite = 0, 0
        self.last = args.run / "last.pt"
        if args.resume and self.last.exists():
            self.load()

    def load(self) -> None:
        """Continue from ``last.pt``."""
        state = torch.load(self.last, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.not_finite = state["step"], state["not_finite"]
        log.info("resumed at step %d", self.step)

    def save(self) -> None:
        """Write ``last.pt`` and ``compact.safetensors``; batch-norm statistics are averaged over the processes."""
        for buffer in (*self.model.buffers(), *self.average.buffers()):
            if self.world > 1 and buffer.is_floating_point():
                dist.all_reduce(buffer)
                buffer /= self.world
        if self.rank != 0:
            return
        state = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "not_finite": self.not_finite,
        }
        temporary = self.last.with_suffix(".tmp")
        with temporary.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.last)
        save_checkpoint(self.average, self.args.run / "compact.safetensors")

    def rate(self) -> float:
        """Learning rate of the current step."""
        left = (self.args.steps - self.step) / (self.args.decay * self.args.steps)
        return self.args.lr * min(1.0, (self.step + 1) / WARM_UP_STEPS, max(0.0, left))

    def train_on(self, batch: dict[str, torch.Tensor]) -> dict[str, float]:
        """One optimiser step; returns losses and figures."""
        torch.manual_seed((self.args.seed * 1_000_003 + self.step) * self.world + self.rank)
        images = torch.cat([batch["image0"], batch["image1"]]).contiguous(memory_format=torch.channels_last)
        with torch.autocast("cpu", torch.bfloat16, enabled=not self.args.fp32):
            maps = self.model(images)
        has_keypoints = self.args.stage == "localise" or self.step >= WARM_UP_STEPS
        with_detected = has_keypoints and self.step % DETECTED_EVERY == 0
        objectives = compute(self.model, maps.map(torch.Tensor.float), batch, with_detected=with_detected)
        loss = objectives.total(STAGES[self.args.stage])
        if not self._all_finite(loss):
            self.not_finite += 1
            log.warning("step %d: loss is not finite (%d so far), step skipped", self.step, self.not_finite)
            if self.not_finite > MAX_NOT_FINITE:
                raise SystemExit(f"more than {MAX_NOT_FINITE} losses were not finite: stopped")
            return {}
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self._average_gradients()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.step()
        self._update_average()
        return {name: float(value.detach()) for name, value in objectives.losses.items()} | objectives.figures

    def _all_finite(self, loss: torch.Tensor) -> bool:
        finite = torch.isfinite(loss.detach()).float()
        if self.world > 1:
            dist.all_reduce(finite, op=dist.ReduceOp.MIN)
        return bool(finite)

    def _average_gradients(self) -> None:
        if self.world == 1:
            return
        parameters = list(self.model.parameters())
        gradients = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        for parameter, gradient in zip(parameters, flat.split([p.numel() for p in parameters]), strict=True):
            parameter.grad = (gradient / self.world).reshape(parameter.shape)

    @torch.no_grad()
    def _update_average(self) -> None:
        keep = min(0.999, (self.step + 1) / (self.step + 10))
        for mean, value in zip(self.average.state_dict().values(), self.model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1.0 - keep)
            else:
                mean.copy_(value)


def run(trainer: Trainer) -> None:
    """Train until the wanted number of steps."""
    args = trainer.args
    pairs = PhotoPairs(args.photos, args.teacher, PairConfig(shapes=args.shapes), seed=args.seed)
    indices = Counter(trainer.step * args.batch * trainer.world + trainer.rank, trainer.world)
    loader = iter(DataLoader(pairs, batch_size=args.batch, sampler=indices, num_workers=args.workers))
    values: dict[str, list[float]] = defaultdict(list)
    started, waited, since = time.monotonic(), 0.0, trainer.step
    while trainer.step < args.steps:
        before = time.monotonic()
        batch = next(loader)
        waited += time.monotonic() - before
        for name, value in trainer.train_on(batch).items():
            values[name].append(value)
        trainer.step += 1
        if trainer.step % args.save_every == 0 or trainer.step == args.steps:
            trainer.save()
        if trainer.step % LOG_EVERY == 0 and trainer.rank == 0:
            means = {name: round(sum(part) / len(part), 3) for name, part in values.items()}
            passed = time.monotonic() - started
            speed = (trainer.step - since) / passed
            waiting, left = 100 * waited / passed, (args.steps - trainer.step) / speed / 60
            head = f"step {trainer.step} lr {trainer.rate():.1e}"
            log.info("%s %s | %.2f steps/s, %.0f%% waiting for data, %.0f min left", head, means, speed, waiting, left)
            with (args.run / "log.jsonl").open("a") as file:
                file.write(json.dumps({"step": trainer.step, **means}) + "\n")
            values.clear()
            started, waited, since = time.monotonic(), 0.0, trainer.step


def read_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line; None takes it from ``sys.argv``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("teacher", type=Path, help="folder written by extract_teacher.py")
    parser.add_argument("run", type=Path)
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--decay", type=float, default=0.35, help="share of the steps with a falling learning rate")
    parser.add_argument("--batch", type=int, default=4, help="pairs per process")
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=250)
    parser.add_argument("--workers", type=int, default=0, help="data processes per training process")
    parser.add_argument("--fp32", action="store_true", help="no bfloat16 autocast")
    parser.add_argument("--stage", choices=STAGES, default="joint", help="weights of the losses")
    parser.add_argument("--shapes", type=float, default=0.12, help="share of synthetic pictures")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--warm-start", type=Path)
    return parser.parse_args(arguments)


def main() -> None:
    """Train as the command line says."""
    args = read_arguments()
    args.run.mkdir(parents=True, exist_ok=True)
    tune_process()
    cv2.setNumThreads(0)  # the processes share the cores already
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
        torch.set_num_threads(1)
    is_first = os.environ.get("RANK", "0") == "0"
    level = logging.INFO if is_first else logging.WARNING
    logging.basicConfig(level=level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    run(Trainer(args))
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
