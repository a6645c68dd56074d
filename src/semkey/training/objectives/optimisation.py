"""One optimiser step, the same whatever number of processes computes it: gradients, batch norms, moving average.

A step has a number of micro-batches. Each process computes some of them; gradients, batch-norm statistics and figures
are summed over all, so that the update is that of one process up to the order of additions.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from semkey.losses.gradients import cagrad, flat_gradients, pcgrad
from semkey.model.config import Precision
from semkey.model.precision import cpu_has_bfloat16
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.training.config import OptimizerConfig
from semkey.training.stage_config import Gradients

LAST_RATE = 0.01
"""The learning rate at the end of a stage, as a share of the highest."""


def rate_factor(step: int, steps: int, warm_up_steps: int) -> float:
    """Learning rate of a step as a share of the highest: linear warm-up, then half a cosine down to 1 %."""
    warm_up_steps = min(warm_up_steps, steps // 5)
    if step < warm_up_steps:
        return (step + 1) / warm_up_steps
    passed = (step - warm_up_steps) / max(steps - warm_up_steps, 1)
    return LAST_RATE + (1.0 - LAST_RATE) * 0.5 * (1.0 + math.cos(math.pi * min(passed, 1.0)))


def autocast_bfloat16(precision: Precision, device: torch.device) -> bool:
    """Whether training computes convolutions in bfloat16 on a device under this setting."""
    if precision != "auto":
        return precision == "bfloat16"
    return torch.cuda.is_bf16_supported(including_emulation=False) if device.type == "cuda" else cpu_has_bfloat16()


def make_optimizer(
    parameters: Sequence[nn.Parameter], learned_weights: nn.Module | None, config: OptimizerConfig, rate: float
) -> torch.optim.AdamW:
    """AdamW over the parameters and, without weight decay, over learned weights of losses."""
    groups = [{"params": list(parameters), "weight_decay": config.weight_decay}]
    if learned_weights is not None:
        groups.append({"params": list(learned_weights.parameters()), "weight_decay": 0.0})
    return torch.optim.AdamW(groups, lr=rate)


class MovingAverage:
    """Exponential moving average of a detector's weights and batch-norm statistics.

    Attributes:
        model: holds the average; in evaluation mode, without gradients.
    """

    def __init__(self, model: SemanticKeypointDetector, decay: float) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay

    @torch.no_grad()
    def update(self, model: SemanticKeypointDetector, step: int) -> None:
        """Take in the weights after ``step`` (0 for the first); early on the average forgets faster."""
        keep = min(self.decay, (step + 1) / (step + 10))
        for mean, value in zip(self.model.state_dict().values(), model.state_dict().values(), strict=True):
            if mean.is_floating_point():
                mean.lerp_(value, 1.0 - keep)
            else:
                mean.copy_(value)


class BatchNormStatistics:
    """Running statistics of the batch norms that learn, made independent of who computes which micro-batch.

    Every micro-batch of a step updates the statistics from before the step, and their mean over the micro-batches
    becomes the next ones.
    """

    def __init__(self, model: nn.Module) -> None:
        self.buffers = [
            buffer
            for module in model.modules()
            if isinstance(module, nn.BatchNorm2d) and module.training
            for buffer in (module.running_mean, module.running_var)
            if buffer is not None
        ]
        self.before = [buffer.clone() for buffer in self.buffers]
        self.total = torch.cat([torch.zeros_like(buffer) for buffer in self.buffers] or [torch.zeros(0)])

    @torch.no_grad()
    def collect(self) -> None:
        """Add the statistics after a micro-batch to the sum, and go back to those before it."""
        if self.buffers:
            self.total += torch.cat([buffer.detach() for buffer in self.buffers])
        self.restore()

    @torch.no_grad()
    def restore(self) -> None:
        """Back to the statistics before the step."""
        for buffer, value in zip(self.buffers, self.before, strict=True):
            buffer.copy_(value)

    @torch.no_grad()
    def assign(self, mean: torch.Tensor) -> None:
        """Take the mean over all micro-batches."""
        for buffer, value in zip(self.buffers, mean.split([b.numel() for b in self.buffers]), strict=True):
            buffer.copy_(value)


class GradientSum:
    """Sum of flat gradients over micro-batches: one row in all, or one per loss where they are combined later.

    Args:
        parameters: what learns, P numbers together.
        names: of the losses of this step.
        mode: how they are combined.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], names: Sequence[str], mode: Gradients) -> None:
        self.parameters = list(parameters)
        self.names = list(names)
        self.per_loss = mode in ("pcgrad", "cagrad")
        self.mode = mode
        size = sum(parameter.numel() for parameter in self.parameters)
        rows = len(self.names) if self.per_loss else 1
        self.total = torch.zeros(rows, size, device=self.parameters[0].device)

    def add(self, losses: Mapping[str, torch.Tensor], total: torch.Tensor) -> None:
        """Add the gradients of one micro-batch.

        Args:
            losses: weighted, by name.
            total: what is minimised where gradients are just added up.
        """
        if self.per_loss:
            self.total += flat_gradients([losses[name] for name in self.names], self.parameters)
            return
        if not total.requires_grad:
            return
        parts = torch.autograd.grad(total, self.parameters, allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(self.parameters, parts, strict=True)]
        self.total += torch.cat([part.reshape(-1) for part in filled])

    def combine(self, mean: torch.Tensor, generator: torch.Generator, c: float) -> torch.Tensor:
        """The update's gradient (P,) from the mean of :attr:`total` over micro-batches."""
        if self.mode == "pcgrad":
            return pcgrad(mean, generator)
        return cagrad(mean, c) if self.mode == "cagrad" else mean[0]


def shared_cosines(gradients: torch.Tensor) -> torch.Tensor:
    """How far losses agree about the weights that they share.

    Args:
        gradients: (L, P), one row per loss.

    Returns:
        (L, L): cosine between every two gradients over the weights where neither is 0; NaN where there are none.
        Weights that only one of two losses trains say nothing about a conflict, and would bring the cosine nearer to 0.
    """
    lengths = gradients.square() @ (gradients != 0).to(gradients.dtype).T
    return (gradients @ gradients.T) / (lengths * lengths.T).sqrt()


def clip(gradient: torch.Tensor, longest: float) -> torch.Tensor:
    """A gradient (P,) shortened to ``longest`` where it is longer."""
    return gradient * torch.clamp(longest / gradient.norm().clamp(min=1e-12), max=1.0)
