"""``semkey train-refiner``: patches, steps, validations, checkpoints, and the file that comes out."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

from semkey.errors import ConfigError
from semkey.extractors import create_extractor
from semkey.matching.alignment.network import PatchNetwork, RefinerInfo, soft_argmax, write_refiner
from semkey.training.refiner.config import RefinerTrainConfig
from semkey.training.refiner.patches import Arrays, prepare_patches
from semkey.training.resumable import (
    CHECKPOINT,
    TrainingEvents,
    learning_rate_factor,
    read_checkpoint,
    run_steps,
    write_checkpoint,
)

FORMAT = "semkey-refiner-training-1"
_NOT_COMPARED = ("run", "name", "validate_every", "validation_pairs")
# Errors have heavier tails than a normal distribution: Student's t of so many degrees of freedom.
_FREEDOM = 4.0
_LIKELIHOOD = 0.2
_EVENNESS = 0.1
_VALIDATION_BATCH = 4096


def fit_refiner(
    config: RefinerTrainConfig, out: Path, *, resume: bool = False, events: TrainingEvents | None = None
) -> Path:
    """Train a refiner; interrupted by Ctrl-C or a kill, ``resume`` goes on as if nothing had happened.

    Args:
        config: everything that decides the result.
        out: folder of the run: ``checkpoint.pt``, ``history.jsonl`` and ``<name>.safetensors``.
        resume: go on where the run in ``out`` stopped.
        events: told what happens.

    Returns:
        The file for ``semkey match --refiner FILE``.

    Raises:
        ConfigError: the run exists and ``resume`` is not set, or was made with other settings.
        CheckpointError: the checkpoint is damaged.
        KeyboardInterrupt: after the checkpoint is written.
    """
    events = events or TrainingEvents()
    state = read_checkpoint(out / CHECKPOINT, config, resume=resume, kind=FORMAT, not_compared=_NOT_COMPARED)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    detector = create_extractor(config.features, max_keypoints=config.keypoints, device="cpu")
    matches = prepare_patches(config, detector, "train", events.preparing)
    held_out = prepare_patches(config, detector, "val", events.preparing)
    trainer = _Trainer(config, int(matches["descriptors"].shape[1]))
    if state is not None:
        trainer.restore(state)
    return run_steps(
        trainer,
        config,
        out,
        events,
        update=lambda: trainer.update(matches),
        validate=lambda: trainer.validate(held_out),
    )


def refinement_loss(
    network: PatchNetwork,
    patches: tuple[torch.Tensor, torch.Tensor],
    descriptors: torch.Tensor,
    deformations: torch.Tensor,
    misses: torch.Tensor,
    unrelated: torch.Tensor,
) -> torch.Tensor:
    """What moves cost: their distance from the truth, how well the covariance says it, and certainty without grounds.

    Args:
        network: the refiner.
        patches: (M, 11, 11) each, of both keypoints.
        descriptors: (M, D) mean ones.
        deformations: (M, 2, 2) from the patches to view 1.
        misses: (M, 2) where the truth lies from the keypoint in view 1, pixels.
        unrelated: (M,) bool, matches whose patches show different things.
    """
    heat = network.heat(*patches, descriptors)
    moves, spreads = soft_argmax(heat)
    eye = torch.eye(2, dtype=spreads.dtype)
    covariances = network.spread.exp() * spreads + network.floor.exp() * eye
    errors = misses - (deformations @ moves[:, :, None])[:, :, 0]
    in_view = deformations @ covariances @ deformations.transpose(1, 2)
    squares = (errors[:, None] @ torch.linalg.solve(in_view, errors[:, :, None]))[:, 0, 0]
    surprise = torch.logdet(in_view) / 2 + (_FREEDOM + 2) / 2 * torch.log1p(squares / _FREEDOM)
    distance = torch.sqrt(errors.square().sum(dim=1) + 1e-4)
    uneven = -heat.flatten(1).log_softmax(dim=1).mean(dim=1)
    related = distance + _LIKELIHOOD * surprise
    return torch.where(unrelated, _EVENNESS * uneven, related).mean()


class _Trainer:
    """Weights, their moving average and the optimiser."""

    def __init__(self, config: RefinerTrainConfig, input_dim: int) -> None:
        self.config, self.step = config, 0
        self._input_dim = input_dim
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(config.seed)
            self._network = PatchNetwork(input_dim, config.shape)
        self._average = copy.deepcopy(self._network).requires_grad_(False)
        self._optimizer = torch.optim.AdamW(
            self._network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def update(self, matches: Arrays) -> float:
        """One step; which matches it sees depends on the seed and the step alone."""
        config = self.config
        for group in self._optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(self.step, config.steps, config.warm_up)
        rng = np.random.default_rng([config.seed, 7, self.step])
        rows = rng.integers(len(matches["misses"]), size=config.batch)
        first = rows.copy()
        unrelated = rng.random(config.batch) < config.unrelated
        first[unrelated] = rng.integers(len(matches["misses"]), size=int(unrelated.sum()))
        chosen = {name: torch.from_numpy(values[rows]).float() for name, values in matches.items()}
        patches0 = torch.from_numpy(matches["patches0"][first]).float()
        loss = refinement_loss(
            self._network,
            (patches0, chosen["patches1"]),
            chosen["descriptors"],
            chosen["deformations"],
            chosen["misses"],
            torch.from_numpy(unrelated),
        )
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(self._network.parameters(), 1.0)
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

    def validate(self, held_out: Arrays) -> dict[str, float]:
        """Median distance from the truth before and after, pixels, and how large errors are against covariances."""
        errors, squares = [], []
        with torch.no_grad():
            for first in range(0, len(held_out["misses"]), _VALIDATION_BATCH):
                part = {k: torch.from_numpy(v[first : first + _VALIDATION_BATCH]).float() for k, v in held_out.items()}
                moves, covariances = self._average(part["patches0"], part["patches1"], part["descriptors"])
                A = part["deformations"]
                error = part["misses"] - (A @ moves[:, :, None])[:, :, 0]
                solved = torch.linalg.solve(A @ covariances @ A.transpose(1, 2), error[:, :, None])
                errors.append(error.norm(dim=1))
                squares.append((error[:, None] @ solved)[:, 0, 0])
        return {
            "before_px": float(np.median(np.linalg.norm(held_out["misses"], axis=1))),
            "after_px": float(torch.cat(errors).median()),
            "median_chi2": float(torch.cat(squares).median()),
        }

    def export(self, path: Path) -> None:
        """Write the averaged weights as a refiner."""
        config = self.config
        info = RefinerInfo(
            features=config.features,
            input_dim=self._input_dim,
            shape=config.shape,
            training=f"{config.name}, step {self.step} of {config.steps}, {config.batch} matches each",
        )
        write_refiner(path, self._average, info)

    def save(self, path: Path) -> None:
        """Write a checkpoint whole or not at all."""
        state = {
            "step": self.step,
            "network": self._network.state_dict(),
            "average": self._average.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        write_checkpoint(path, state, self.config, FORMAT)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self._network.load_state_dict(state["network"])
        self._average.load_state_dict(state["average"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.step = int(state["step"])
