"""The best weights of a stage, by a figure of the validation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


class BestWeights:
    """Keeps a copy of a model's weights where a figure was highest; of equal ones the first.

    Args:
        figure: name of the figure, higher is better.
    """

    def __init__(self, figure: str) -> None:
        self.figure, self.value, self.step = figure, -math.inf, 0
        self._weights: dict[str, torch.Tensor] | None = None

    def offer(self, model: nn.Module, figures: Mapping[str, float], step: int) -> None:
        """Take a model's weights if its figure is the highest so far; a figure that is missing or NaN is none."""
        value = figures.get(self.figure, math.nan)
        if value > self.value:
            self.value, self.step = value, step
            self._weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def restore(self, model: nn.Module, step: int) -> bool:
        """Give the model the best weights; whether they are others than those of ``step``, which it has."""
        if self._weights is None or self.step == step:
            return False
        model.load_state_dict(self._weights)
        return True

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {"value": self.value, "step": self.step, "weights": self._weights}

    def load(self, state: Mapping[str, Any]) -> None:
        """From a checkpoint."""
        self.value, self.step, self._weights = state["value"], state["step"], state["weights"]
