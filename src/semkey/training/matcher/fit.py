"""``semkey train-matcher``: pairs, steps, validations, checkpoints, and the file that comes out."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch

from semkey.errors import ConfigError
from semkey.extractors import create_extractor
from semkey.matching.lightglue.checkpoint import MatcherInfo, read_matcher, write_matcher
from semkey.matching.lightglue.network import Network, build_network, layer_states, start_as_dual_softmax
from semkey.matching.lightglue.trained import assign
from semkey.model.precision import uses_bfloat16
from semkey.training.matcher.batches import MatcherBatch, draw_batch, whole_pair
from semkey.training.matcher.config import MatcherTrainConfig
from semkey.training.matcher.heads import AdaptiveFigures, HeadsTrainer
from semkey.training.matcher.losses import assignment_loss, match_figures
from semkey.training.matcher.pairs import Arrays, prepare_pairs
from semkey.training.resumable import (
    CHECKPOINT,
    TrainingEvents,
    learning_rate_factor,
    read_checkpoint,
    run_steps,
    write_checkpoint,
)

FORMAT = "semkey-matcher-training-1"
_NOT_COMPARED = ("run", "name", "validate_every", "validation_pairs", "filter_threshold")


def fit_matcher(
    config: MatcherTrainConfig, out: Path, *, resume: bool = False, events: TrainingEvents | None = None
) -> Path:
    """Train a matcher; interrupted by Ctrl-C or a kill, ``resume`` goes on as if nothing had happened.

    Args:
        config: everything that decides the result.
        out: folder of the run: ``checkpoint.pt``, ``history.jsonl`` and ``<name>.safetensors``.
        resume: go on where the run in ``out`` stopped.
        events: told what happens.

    Returns:
        The file for ``semkey match --matcher FILE``.

    Raises:
        ConfigError: the run exists and ``resume`` is not set, or was made with other settings.
        CheckpointError: the checkpoint is damaged.
        KeyboardInterrupt: after the checkpoint is written.
    """
    events = events or TrainingEvents()
    state = read_checkpoint(out / CHECKPOINT, config, resume=resume, kind=FORMAT, not_compared=_NOT_COMPARED)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    detector = create_extractor(config.features, max_keypoints=config.cached_keypoints, device="cpu")
    pairs = prepare_pairs(config, detector, "train", events.preparing)
    held_out = prepare_pairs(config, detector, "val", events.preparing)
    trainer = _Trainer(config, int(pairs["descriptors0"].shape[2]))
    if state is not None:
        trainer.restore(state)
    return run_steps(
        trainer,
        config,
        out,
        events,
        update=lambda: trainer.update(draw_batch(pairs, trainer.step, config)),
        validate=lambda: trainer.validate(held_out),
        steps=trainer.total,
    )


def _first_weights(path: Path, config: MatcherTrainConfig, input_dim: int) -> dict[str, torch.Tensor]:
    """Weights of a matcher of the same shape."""
    network, info = read_matcher(path)
    if (info.input_dim, info.shape) != (input_dim, config.shape):
        raise ConfigError(
            f"start: {path} has descriptors of width {info.input_dim}, {info.shape.layers} layers, width "
            f"{info.shape.width} and {info.shape.heads} heads; this run has {input_dim}, {config.shape.layers}, "
            f"{config.shape.width} and {config.shape.heads}"
        )
    return network.state_dict()


class _Trainer:
    """Weights, their moving average and the optimiser; then the confidence heads of the average, with their own."""

    def __init__(self, config: MatcherTrainConfig, input_dim: int) -> None:
        self.config, self.step = config, 0
        self._input_dim = input_dim
        self._network = build_network(input_dim, config.shape)
        if config.start is None:
            start_as_dual_softmax(self._network)
        else:
            self._network.load_state_dict(_first_weights(config.start, config, input_dim))
        self._average = build_network(input_dim, config.shape, filter_threshold=config.filter_threshold)
        self._average.load_state_dict(self._network.state_dict())
        self._average.eval().requires_grad_(False)
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self._heads = HeadsTrainer(self._average, config)
        self._reduced = uses_bfloat16("auto", torch.device("cpu"))

    @property
    def total(self) -> int:
        """Steps of the matcher and then of its confidence heads."""
        return self.config.steps + self.config.head_steps

    def update(self, batch: MatcherBatch) -> float:
        """One step; returns the loss, and leaves the weights alone where it is not finite."""
        return self._update_matcher(batch) if self.step < self.config.steps else self._update_heads(batch)

    def _update_heads(self, batch: MatcherBatch) -> float:
        with torch.no_grad():
            states = self._states(self._average, batch)
        value = self._heads.update(self.step - self.config.steps, states)
        self.step += 1
        return value

    def _update_matcher(self, batch: MatcherBatch) -> float:
        config = self.config
        for group in self._optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(self.step, config.steps, config.warm_up)
        loss = assignment_loss(self._network, self._states(self._network, batch), batch)
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._network.parameters(), config.clip_norm)
        value = float(loss.detach())
        if not math.isfinite(value) or not bool(torch.isfinite(norm)):
            raise ConfigError(f"step {self.step}: the loss is not finite; lower learning_rate")
        self._optimizer.step()
        self.step += 1
        decay = min(config.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            for mean, now in zip(self._average.parameters(), self._network.parameters(), strict=True):
                mean.lerp_(now, 1 - decay)
        return value

    def _states(self, network: Network, batch: MatcherBatch) -> list[tuple[torch.Tensor, torch.Tensor]]:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self._reduced):
            return layer_states(network, batch.keypoints, batch.descriptors, self._sizes(len(batch.keypoints[0])))

    def _sizes(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        size = torch.tensor([self.config.data.size]).expand(count, 2)
        return size, size

    def validate(self, held_out: Arrays) -> dict[str, float]:
        """Loss, precision and recall on pairs that training does not see, and matches of unrelated views.

        With confidence heads in training also what stopping early does, see :class:`AdaptiveFigures`.
        """
        adaptive = AdaptiveFigures(self._average, self.config) if self.step > self.config.steps else None
        losses, right, decided, possible, unrelated = [], 0, 0, 0, 0
        count = len(held_out["counts"])
        with torch.no_grad():
            for index in range(count):
                batch = whole_pair(held_out, index, self.config)
                losses.append(float(assignment_loss(self._average, self._states(self._average, batch), batch)))
                found = self._assign(batch, batch)
                if adaptive is not None:
                    adaptive.add(batch, self._sizes(1), found)
                figures = match_figures(found, batch.partners[0][0])
                right, decided, possible = right + figures[0], decided + figures[1], possible + figures[2]
                other = whole_pair(held_out, (index + count // 2) % count, self.config)
                unrelated += len(self._assign(batch, other))
        return {
            "loss": sum(losses) / count,
            "precision": right / max(1, decided),
            "recall": right / max(1, possible),
            "unrelated_matches": unrelated / count,
            **(adaptive.summary() if adaptive is not None else {}),
        }

    def _assign(self, first: MatcherBatch, second: MatcherBatch) -> torch.Tensor:
        keypoints, descriptors = (
            (getattr(first, name)[0], getattr(second, name)[1]) for name in ("keypoints", "descriptors")
        )
        return assign(self._average, keypoints, descriptors, self._sizes(1), self._average.conf.filter_threshold)[0][0]

    def export(self, path: Path) -> None:
        """Write the averaged weights as a matcher."""
        config, confidence = self.config, self.config.confidence
        is_adaptive = config.head_steps > 0 and self.step >= self.total
        info = MatcherInfo(
            features=config.features,
            input_dim=self._input_dim,
            shape=config.shape,
            filter_threshold=self._average.conf.filter_threshold,
            depth_confidence=confidence.depth if is_adaptive else None,
            width_confidence=confidence.width if is_adaptive else None,
            training=f"{config.name}, step {self.step} of {self.total}, {config.batch_pairs} pairs each",
        )
        write_matcher(path, self._average, info)

    def save(self, path: Path) -> None:
        """Write a checkpoint whole or not at all."""
        state = {
            "step": self.step,
            "network": self._network.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "heads_optimizer": self._heads.state(),
        }
        write_checkpoint(path, state, self.config, FORMAT)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._network.load_state_dict(state["network"])
        self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._heads.restore(state.get("heads_optimizer"))
        self.step = int(state["step"])
