"""Pairs for the steps: which one each process computes, and the processes that make them meanwhile."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from semkey.errors import SemkeyError
from semkey.training.config import TrainConfig
from semkey.training.data.mixture import tune_worker
from semkey.training.objectives.losses import Batch
from semkey.training.stages import StagePlan


class MicroBatches(Sampler[list[int]]):
    """Pair indices of the micro-batches that one of ``world`` processes computes, step after step without end."""

    def __init__(self, plan: StagePlan, config: TrainConfig, first_step: int, rank: int, world: int) -> None:
        self.first_pair, self.first_step, self.rank, self.world = plan.first_pair, first_step, rank, world
        self.batch, self.size = config.optimizer.batch_pairs, config.optimizer.micro_batch

    def __iter__(self) -> Iterator[list[int]]:
        step = self.first_step
        while True:
            for part in range(self.rank, self.batch // self.size, self.world):
                start = self.first_pair + step * self.batch + part * self.size
                yield list(range(start, start + self.size))
            step += 1


def pair_loader(pairs: Dataset[Any], order: MicroBatches, workers: int, device: torch.device) -> Iterator[Batch]:
    """Collated micro-batches without end, made by ``workers`` processes, or in between where that is 0."""
    return iter(
        DataLoader(
            pairs,
            batch_sampler=order,
            num_workers=workers,
            worker_init_fn=_start_worker,
            prefetch_factor=4 if workers else None,
            pin_memory=device.type == "cuda",
        )
    )


def next_batch(loader: Iterator[Batch]) -> Batch:
    """The next batch; an error of a worker is told in its own words, without the traceback torch wraps it in."""
    try:
        return next(loader)
    except SemkeyError as error:
        lines = str(error).splitlines()
        if len(lines) < 2 or not lines[0].startswith("Caught "):
            raise
        raise type(error)(lines[-1].partition(": ")[2] or lines[-1]) from error


def _start_worker(number: int) -> None:
    # Ctrl-C reaches every process of a terminal; the workers go on until the trainer has finished its step.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    tune_worker(number)
