"""The steps of one stage: pairs in, updates out; logs, validations and checkpoints in between."""

from __future__ import annotations

import logging
import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.utils.data import Dataset

from semkey.errors import ConfigError, SemkeyError
from semkey.losses.gradients import KendallWeighting, flat_gradients, set_gradient
from semkey.training.backbone_feed import BackboneFeed
from semkey.training.checkpointing import CheckpointFolder, random_state, restore_random_state
from semkey.training.config import TrainConfig
from semkey.training.data.pair import Pair
from semkey.training.feeding import MicroBatches, next_batch, pair_loader
from semkey.training.keeping import BestWeights
from semkey.training.objectives.clips import clip_rows, middle_images
from semkey.training.objectives.imitation import Guide, wants_guide
from semkey.training.objectives.losses import Batch, Objectives, compute
from semkey.training.objectives.optimisation import (
    BatchNormStatistics,
    GradientSum,
    MovingAverage,
    autocast_bfloat16,
    clip,
    make_optimizer,
    rate_factor,
    shared_cosines,
)
from semkey.training.stage_config import CLIP_LOSSES, STAGES, FinetuneStage
from semkey.training.stage_events import StageEvents, StageSums
from semkey.training.stages import StagePlan, freeze
from semkey.training.validation import Validation, validate

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from semkey.model.semantic_detector import SemanticKeypointDetector

log = logging.getLogger(__name__)

CLASSIFICATION = ("match_dual_softmax", "match_nre", "relations", "heat", "imitate_scores", "reliability_bce", "place")
"""Losses that are cross-entropies, for Kendall weighting."""

_DESCRIPTOR_METRIC = "descriptor_accuracy"


class NotFiniteError(SemkeyError):
    """Too many losses or gradients were NaN or infinite."""


class StageLoop:
    """Model, moving average, optimiser and counters of a stage; one per process.

    Args:
        fabric: launched.
        model: on the device, with the weights the stage starts from.
        plan: what the stage does.
        config: of the run.
        checkpoints: where this stage's states go.
        val_pairs: gives the validation pairs; called where they are first needed.
        events: what to tell.
        feed: features of the model's backbone; None where it has none.
    """

    def __init__(
        self,
        fabric: Fabric,
        model: SemanticKeypointDetector,
        plan: StagePlan,
        config: TrainConfig,
        checkpoints: CheckpointFolder,
        val_pairs: Callable[[], Sequence[Pair]],
        events: StageEvents | None = None,
        feed: BackboneFeed | None = None,
    ) -> None:
        micro_batches = config.optimizer.batch_pairs // config.optimizer.micro_batch
        if micro_batches < fabric.world_size:
            raise ConfigError(
                f"optimizer.batch_pairs {config.optimizer.batch_pairs} gives {micro_batches} micro-batches of"
                f" optimizer.micro_batch {config.optimizer.micro_batch}, fewer than {fabric.world_size} processes"
            )
        self.fabric, self.model, self.plan, self.config = fabric, model, plan, config
        self.checkpoints, self.val_pairs, self.events = checkpoints, val_pairs, events or StageEvents()
        self.feed = feed
        self.micro_batches = micro_batches
        self.parameters = freeze(model, plan)
        names = list(plan.config.active_losses)
        classes = [name for name in names if name in CLASSIFICATION]
        self.kendall = KendallWeighting(names, classes).to(fabric.device) if plan.gradients == "kendall" else None
        self.learned = [*self.parameters, *(self.kendall.parameters() if self.kendall else ())]
        rate = plan.config.learning_rate
        self.optimizer = make_optimizer(self.parameters, self.kendall, config.optimizer, rate)
        self.average = MovingAverage(model, config.optimizer.average)
        self.step, self.not_finite, self.is_stopped = 0, 0, False
        self.baseline: float | None = None
        self.best: dict[str, torch.Tensor] | None = None
        self.kept = None if plan.config.keep_best is None else BestWeights(plan.config.keep_best)
        self.bfloat16 = autocast_bfloat16(config.optimizer.precision, fabric.device)
        self.guide: Guide | None = None
        if config.guide is not None and wants_guide(plan.config.active_losses):
            self.guide = Guide(config.guide, config.model, fabric.device, shifts=config.objectives.guide_shifts)
        self._saved_at = time.monotonic()
        self._sums = StageSums()

    # -- state -----------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything that continuing needs."""
        return {
            "model": self.model.state_dict(),
            "average": self.average.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": {"step": self.step, "steps": self.plan.steps, "factor": self._rate_factor()},
            "kendall": self.kendall.state_dict() if self.kendall else None,
            "rng": random_state(),
            "not_finite": self.not_finite,
            "baseline": self.baseline,
            "best": self.best,
            "kept": None if self.kept is None else self.kept.state(),
            "is_stopped": self.is_stopped,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Continue from a :meth:`state`."""
        self.model.load_state_dict(state["model"])
        self.average.model.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.kendall is not None:
            self.kendall.load_state_dict(state["kendall"])
        restore_random_state(state["rng"])
        self.step, self.not_finite = state["step"], state["not_finite"]
        self.baseline, self.best, self.is_stopped = state["baseline"], state["best"], state["is_stopped"]
        if self.kept is not None and state.get("kept") is not None:
            self.kept.load(state["kept"])

    def save(self) -> Path | None:
        """Write a checkpoint, in the first process."""
        self._saved_at = time.monotonic()
        if not self.fabric.is_global_zero:
            return None
        return self.checkpoints.write(self.plan.name, self.step, self.state(), self.config)

    # -- steps -----------------------------------------------------------------------------------------------------

    def run(self, pairs: Dataset[Any]) -> bool:
        """Train to the end of the stage; False where the user stopped it (after a checkpoint)."""
        is_watched = isinstance(self.plan.config, FinetuneStage)
        if self.step == 0 and (is_watched or self.kept is not None):
            self.best = _copy(self.average.model) if is_watched else None
            self.baseline = self._validate().get(_DESCRIPTOR_METRIC)
        rank, world = self.fabric.global_rank, self.fabric.world_size
        order = MicroBatches(self.plan, self.config, self.step, rank, world)
        loader = pair_loader(pairs, order, self.config.run.workers, self.fabric.device)
        own = len(range(rank, self.micro_batches, world))
        self._sums = StageSums()
        while self.step < self.plan.steps and not self.is_stopped:
            before = time.monotonic()
            batches = [next_batch(loader) for _ in range(own)]
            self._sums.waited += time.monotonic() - before
            wants_stop, wants_save = self._train_on(batches)
            self.step += 1
            self._after_step()
            if wants_stop:
                self.save()
                return False
            if wants_save and self.step < self.plan.steps:
                self.save()
        if self.best is not None:
            self._restore_if_fallen()
        self._restore_best()
        self.save()
        return True

    def _rate_factor(self) -> float:
        warm_up = round(self.config.optimizer.warm_up / self.config.optimizer.batch_pairs)
        return rate_factor(self.step, self.plan.steps, warm_up)

    def _train_on(self, batches: Sequence[Batch]) -> tuple[bool, bool]:
        """One update from this process's micro-batches; whether to stop and whether to save, agreed by all."""
        weights = self.plan.weights(self.step, self.config.optimizer.batch_pairs)
        names = list(weights)
        gradients = GradientSum(self.learned, names, self.plan.gradients)
        norms = BatchNormStatistics(self.model)
        losses = torch.zeros(len(names), device=self.fabric.device)
        figures: dict[str, list[float]] = defaultdict(list)
        for number, batch in enumerate(batches):
            part = self.fabric.global_rank + number * self.fabric.world_size
            torch.manual_seed(self._random_key(part))
            objectives = self._objectives(batch, weights)
            values = torch.stack([objectives.losses[name].detach() for name in names])
            losses += values
            if bool(torch.isfinite(values).all()):
                self._add_gradients(gradients, objectives.weighted(weights), measure=number == 0)
            else:  # no step then; and going backward through NaN positions can crash torch
                gradients.total.fill_(float("nan"))
            norms.collect()
            for name, figure in objectives.figures.items():
                figures[name].append(figure)
        is_due = time.monotonic() - self._saved_at >= self.config.run.save_every
        flags = torch.tensor(
            [float(self.events.asked_to_stop()), float(is_due and self.fabric.is_global_zero)],
            device=self.fabric.device,
        )
        parts = [gradients.total.reshape(-1), norms.total.to(self.fabric.device), losses, flags]
        sums = torch.cat(parts)
        if self.fabric.world_size > 1:
            sums = cast("torch.Tensor", self.fabric.all_reduce(sums, reduce_op="sum"))
        flat, statistics, losses, flags = sums.split([len(part) for part in parts])
        self._update(gradients, flat / self.micro_batches, norms, statistics / self.micro_batches, losses)
        for name, value in zip(names, (losses / self.micro_batches).tolist(), strict=True):
            if math.isfinite(value):
                self._sums.losses[name].append(value)
        for name, found in figures.items():
            self._sums.figures[name] += found
        self._sums.steps += 1
        return bool(flags[0] > 0), bool(flags[1] > 0)

    def _add_gradients(self, gradients: GradientSum, weighted: dict[str, torch.Tensor], *, measure: bool) -> None:
        if measure and self.fabric.is_global_zero:
            self._measure_cosines(weighted)
        total = self.kendall(weighted) if self.kendall else torch.stack(list(weighted.values())).sum()
        gradients.add(weighted, total)

    def _random_key(self, part: int) -> int:
        """A seed that depends on the place of a micro-batch alone, not on who computes it or what came before."""
        key = [self.config.seed, STAGES.index(self.plan.name), self.step, part]
        return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))

    def _objectives(self, batch: Batch, weights: dict[str, float]) -> Objectives:
        batch = {name: value.to(self.fabric.device, non_blocking=True) for name, value in batch.items()}
        images = torch.cat([batch["image0"], batch["image1"]]).contiguous(memory_format=torch.channels_last)
        rows = clip_rows(batch) if any(name in weights for name in CLIP_LOSSES) else []
        between = middle_images(batch, rows)
        shown = images if between is None else torch.cat([images, between])
        with self.fabric.autocast():
            semantic = None if self.feed is None else self.feed.training_views(batch, [] if between is None else rows)
            maps = self.model(shown, semantic=semantic, decoupled=self.plan.decoupled).map(torch.Tensor.float)
            guide = None if self.guide is None else (self.guide, self.guide.maps(images, _colors(batch)))
        count = len(images)
        middle = None if between is None else maps.map(lambda m: m[count:])
        views = maps.map(lambda m: m[:count])
        return compute(self.model, views, batch, weights, self.config.objectives, guide, middle)

    def _update(
        self,
        gradients: GradientSum,
        flat: torch.Tensor,
        norms: BatchNormStatistics,
        statistics: torch.Tensor,
        losses: torch.Tensor,
    ) -> None:
        """Change the weights, unless something is not finite."""
        mean = flat.reshape(gradients.total.shape)
        if not all(bool(torch.isfinite(values).all()) for values in (losses, mean, statistics)):
            self.not_finite += 1
            log.warning("%s step %d: not finite (%d so far), skipped", self.plan.name, self.step, self.not_finite)
            if self.not_finite > self.config.optimizer.max_not_finite:
                raise NotFiniteError(
                    f"stage {self.plan.name}, step {self.step}: more than {self.config.optimizer.max_not_finite} losses"
                    " or gradients were not finite: lower the learning rate, or set optimizer.precision to float32"
                )
            return
        order = torch.Generator().manual_seed(self._random_key(self.micro_batches))
        combined = gradients.combine(mean, order, self.config.optimizer.cagrad_c)
        set_gradient(self.learned, clip(combined, self.config.optimizer.clip_norm))
        for group in self.optimizer.param_groups:
            group["lr"] = self.plan.config.learning_rate * self._rate_factor()
        self.optimizer.step()
        norms.assign(statistics)
        self.average.update(self.model, self.step)

    # -- watching --------------------------------------------------------------------------------------------------

    def _measure_cosines(self, weighted: dict[str, torch.Tensor]) -> None:
        every = self.config.run.cosines_every
        if not every or self.step % every or len(weighted) < 2:
            return
        matrix = shared_cosines(flat_gradients(list(weighted.values()), self.parameters))
        self.events.logged("cosines", self.step, {"names": list(weighted), "matrix": matrix.tolist()})

    def _after_step(self) -> None:
        losses, figures = self._sums.means()
        self.events.stepped(self.step, self.plan.steps, losses)
        if self.step % self.config.run.log_every == 0 or self.step == self.plan.steps:
            passed = max(time.monotonic() - self._sums.started, 1e-9)
            row = {
                "pairs": self.step * self.config.optimizer.batch_pairs,
                "rate": self.optimizer.param_groups[0]["lr"],
                "losses": losses,
                "figures": figures,
                "seconds": passed,
                "steps": self._sums.steps,
                "waiting": self._sums.waited / passed,
                "not_finite": self.not_finite,
            }
            if self.kendall is not None:
                row["weights"] = self.kendall.weights()
            if self.fabric.is_global_zero:
                self.events.logged("train", self.step, row)
            self._sums = StageSums()
        every = max(1, round(self.config.validation.every / self.config.optimizer.batch_pairs))
        if self.step % every == 0 or self.step == self.plan.steps:
            before = time.monotonic()
            figures = self._validate()
            self._sums.started += time.monotonic() - before
            if self.best is not None:
                self._watch_descriptors(figures)

    def _validate(self) -> dict[str, float]:
        """Validate the moving average in the first process; all get the figures."""
        result = Validation(figures={})
        if self.fabric.is_global_zero:
            result = validate(
                self.average.model,
                self.val_pairs(),
                self.config.validation,
                bfloat16=self.bfloat16,
                pictures=self.config.validation.pictures,
                feed=self.feed,
            )
            self.events.validated(self.step, result)
        figures = result.figures if self.fabric.world_size == 1 else self.fabric.broadcast(result.figures)
        if self.kept is not None:
            self.kept.offer(self.average.model, figures, self.step)
        return figures

    def _watch_descriptors(self, figures: dict[str, float]) -> None:
        """Keep the weights whose descriptors did not get worse; stop where they did."""
        assert isinstance(self.plan.config, FinetuneStage)
        found = figures.get(_DESCRIPTOR_METRIC)
        if self.baseline is None or found is None:
            return
        if found < self.baseline - self.plan.config.tolerance:
            log.warning("descriptor accuracy fell from %.4f to %.4f: stopped, restored", self.baseline, found)
            self.is_stopped = True
        else:
            self.best = _copy(self.average.model)

    def _restore_if_fallen(self) -> None:
        if self.is_stopped and self.best is not None:
            self.average.model.load_state_dict(self.best)

    def _restore_best(self) -> None:
        """End with the weights of the best validation, and say so where these are not the last ones."""
        if self.kept is None or not self.kept.restore(self.average.model, self.step):
            return
        kept = self.kept
        which = f"of step {kept.step}" if kept.step else "that it started from"
        self.events.noted(f"stage {self.plan.name} keeps the weights {which}: {kept.figure} {kept.value:.4f}")
        self._validate()


def _colors(batch: Batch) -> torch.Tensor | None:
    """Both views in colour, in [0, 1], if the pairs have them."""
    if "color0" not in batch:
        return None
    return torch.cat([batch["color0"], batch["color1"]]).float() / 255.0


def _copy(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}
