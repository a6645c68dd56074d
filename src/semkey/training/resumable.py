"""What small trainings share: one checkpoint that is whole or not there, a history, and a learning rate that falls."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import torch

from semkey.errors import CheckpointError, ConfigError
from semkey.files import atomic_write_text
from semkey.training.data.config import DataConfig

CHECKPOINT = "checkpoint.pt"
HISTORY = "history.jsonl"
_LAST_RATE = 0.01


@dataclass(kw_only=True)
class TrainingEvents:
    """What a training tells while it runs; every entry may be left out.

    Attributes:
        preparing: done, total, what.
        stepped: step, steps, mean loss since the last call.
        validated: step, figures.
    """

    preparing: Callable[[int, int, str], None] = lambda *_: None
    stepped: Callable[[int, int, float], None] = lambda *_: None
    validated: Callable[[int, dict[str, float]], None] = lambda *_: None


class RunSettings(Protocol):
    """The configuration of a small training."""

    @property
    def data(self) -> DataConfig:
        """Where its pairs come from."""
        ...

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Read it."""
        ...

    def to_mapping(self) -> dict[str, Any]:
        """Write it."""
        ...


class SmallTrainer(Protocol):
    """Weights, their moving average and the optimiser of a small training; ``step`` counts its updates."""

    step: int

    def save(self, path: Path) -> None:
        """Write the checkpoint."""
        ...

    def export(self, path: Path) -> None:
        """Write the weights that are used."""
        ...


def run_steps(
    trainer: SmallTrainer,
    config: Any,
    out: Path,
    events: TrainingEvents,
    *,
    update: Callable[[], float],
    validate: Callable[[], dict[str, float]],
    steps: int | None = None,
) -> Path:
    """Make the steps that are left, with a history, validations and checkpoints on the way, and one at the end.

    Args:
        trainer: at the step that it goes on from.
        config: ``name``, ``steps``, ``validate_every`` and ``run`` count.
        out: folder of the run.
        events: told what happens.
        update: makes one step; its loss.
        validate: the figures of pairs held out.
        steps: in all; None: ``config.steps``.

    Returns:
        The file of weights.
    """
    weights = out / f"{config.name}.safetensors"
    steps = config.steps if steps is None else steps
    saved, total, count = time.monotonic(), 0.0, 0
    try:
        while trainer.step < steps:
            total, count = total + update(), count + 1
            if trainer.step % config.run.log_every == 0 or trainer.step == steps:
                events.stepped(trainer.step, steps, total / count)
                log_row(out, {"step": trainer.step, "loss": total / count})
                total, count = 0.0, 0
            if trainer.step % config.validate_every == 0 or trainer.step == steps:
                figures = validate()
                events.validated(trainer.step, figures)
                log_row(out, {"step": trainer.step, **figures})
                trainer.export(weights)
            if time.monotonic() - saved > config.run.save_every:
                trainer.save(out / CHECKPOINT)
                saved = time.monotonic()
    finally:
        trainer.save(out / CHECKPOINT)
    return weights


def write_checkpoint(path: Path, state: Mapping[str, Any], config: RunSettings, kind: str) -> None:
    """Write a checkpoint whole or not at all.

    Raises:
        CheckpointError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        torch.save({**state, "format": kind, "config": json.dumps(config.to_mapping())}, temporary)
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise CheckpointError(f"cannot write {path}: {error.strerror or error}") from error


def read_checkpoint(
    path: Path, config: RunSettings, *, resume: bool, kind: str, not_compared: Collection[str]
) -> dict[str, Any] | None:
    """The state that a run goes on from; None where it begins.

    Args:
        path: ``RUN/checkpoint.pt``; where nothing is to be resumed, the configuration is written beside it.
        config: of the run that is asked for.
        resume: go on with what is there.
        kind: of the checkpoint, as :func:`write_checkpoint` was told.
        not_compared: names of settings that may change between the two; everything else decides the result.

    Raises:
        ConfigError: the run exists and ``resume`` is not set, or was made with other settings.
        CheckpointError: the checkpoint is damaged, or of another kind or version.
    """
    if not path.exists():
        if not resume:
            atomic_write_text(path.with_name("config.json"), json.dumps(config.to_mapping(), indent=1) + "\n")
        return None
    if not resume:
        raise ConfigError(f"{path.parent}: holds a run already; --resume goes on with it, or give another --out")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        known = state["format"] == kind
        before = _compared(config.from_mapping(json.loads(state["config"])), not_compared) if known else {}
    except ConfigError:
        raise CheckpointError(f"{path}: was made by another version of semkey, start a new run") from None
    except Exception as error:  # torch raises many kinds for a damaged file
        raise CheckpointError(f"{path}: cannot be read ({' '.join(str(error).split())[:200]})") from None
    if not known:
        raise CheckpointError(f"{path}: is no checkpoint of this training")
    now = _compared(config, not_compared)
    if before != now:
        key = next(key for key in now if before.get(key) != now[key])
        raise ConfigError(f"{path} was made with another '{key}': set it back to resume, or give another --out")
    return state


def log_row(out: Path, row: Mapping[str, float]) -> None:
    """Append a line to the run's history."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / HISTORY).open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


def learning_rate_factor(step: int, steps: int, warm_up: int) -> float:
    """Share of the highest learning rate at a step: a linear rise, then half a cosine down to a hundredth."""
    rise = min(1.0, (step + 1) / max(1, warm_up))
    return rise * (_LAST_RATE + (1 - _LAST_RATE) * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


def _compared(config: RunSettings, not_compared: Collection[str]) -> dict[str, Any]:
    values = {**config.to_mapping(), "data": replace(config.data, cache=None).to_mapping()}
    return {key: value for key, value in values.items() if key not in not_compared}
