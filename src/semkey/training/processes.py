"""The processes of a run: started through Lightning Fabric, failing together, stopped by Ctrl-C."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from semkey.errors import ConfigError
from semkey.training.config import RunConfig, TrainConfig
from semkey.training.objectives.optimisation import autocast_bfloat16

if TYPE_CHECKING:
    from lightning_fabric import Fabric


_TASKS_PER_CORE = 8


def launch(config: TrainConfig) -> Fabric:
    """Fabric with its processes running.

    Raises:
        ConfigError: Lightning Fabric is missing, or the device is not there.
    """
    try:
        from lightning_fabric import Fabric
    except ImportError:
        raise ConfigError("training needs Lightning Fabric: pip install 'semkey[train]'") from None
    # Fabric reports on standard error what it found; the run's own log says it where it matters.
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    run = config.run
    is_gpu = run.device == "cuda" or (run.device == "auto" and torch.cuda.is_available())
    if run.device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"run.device is '{run.device}', must be auto, cpu or cuda")
    if run.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("run.device is cuda, but torch sees no GPU: use auto or cpu")
    _check_count(run, is_gpu)
    if is_gpu and run.devices > torch.cuda.device_count():
        raise ConfigError(f"run.devices is {run.devices}, torch sees {torch.cuda.device_count()} GPUs")
    if not is_gpu and (run.threads or run.devices > 1):
        torch.set_num_threads(run.threads or max(1, (os.cpu_count() or 1) // run.devices))
    reduced = autocast_bfloat16(config.optimizer.precision, torch.device("cuda" if is_gpu else "cpu"))
    fabric = Fabric(
        accelerator="cuda" if is_gpu else "cpu",
        devices=run.devices,
        strategy="ddp" if run.devices > 1 else "auto",
        precision="bf16-mixed" if reduced else "32-true",
    )
    fabric.launch()
    return fabric


def _check_count(run: RunConfig, is_gpu: bool) -> None:
    """Refuse more processes and threads than there is anything for them to run on.

    Raises:
        ConfigError: which number is too large, and what the largest is.
    """
    cores = os.cpu_count() or 1
    if not is_gpu and run.devices > cores:
        raise ConfigError(f"run.devices is {run.devices}, more than the {cores} cores of this machine")
    most = _TASKS_PER_CORE * cores
    for name, count in (("workers", run.workers * run.devices), ("threads", run.threads)):
        if count > most:
            raise ConfigError(
                f"run.{name} makes {count}, more than {_TASKS_PER_CORE} for each of the {cores} cores of this machine"
            )


def in_first(fabric: Fabric, action: Callable[[], Any]) -> Any:
    """Do something in the first process; where it fails, all fail. None in the others."""
    result, failure = None, None
    if fabric.is_global_zero:
        try:
            result = action()
        except Exception as error:
            if fabric.world_size == 1:
                raise
            failure = error
    if fabric.world_size > 1:
        message = fabric.broadcast(None if failure is None else str(failure))
        if failure is not None:
            raise failure
        if message is not None:
            sys.exit(2)
    return result


class StopRequest:
    """Turns the first Ctrl-C (SIGTERM, SIGHUP) into a wish to stop after the step; a second one interrupts at once.

    A context manager; outside the main thread it changes nothing.
    """

    def __init__(self) -> None:
        self.is_set = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) == signal.SIG_IGN:  # nohup
                continue
            try:
                self._before[number] = signal.signal(number, self._handle)
            except ValueError:  # not the main thread
                break
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        if self.is_set:
            raise KeyboardInterrupt
        self.is_set = True
