"""What the steps of a stage tell while they run."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from semkey.training.validation import Validation


@dataclass(kw_only=True)
class StageEvents:
    """What a loop tells while it runs; every entry may be left out.

    Attributes:
        stepped: after each step: step, steps, mean losses since the last line of the log.
        logged: a row of the log: kind, step, values.
        validated: step and result of a validation.
        asked_to_stop: whether the user wants to stop.
        noted: one line that the user should know of.
    """

    stepped: Callable[[int, int, dict[str, float]], None] = lambda *_: None
    logged: Callable[[str, int, dict[str, Any]], None] = lambda *_: None
    validated: Callable[[int, Validation], None] = lambda *_: None
    asked_to_stop: Callable[[], bool] = lambda: False
    noted: Callable[[str], None] = lambda _: None


@dataclass
class StageSums:
    """Losses, figures and waiting time since the last line of the log.

    Attributes:
        losses: values of each loss, a step each.
        figures: values of each figure, a micro-batch each.
        waited: seconds for pairs.
        started: by the monotonic clock.
        steps: how many.
    """

    losses: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    figures: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    waited: float = 0.0
    started: float = field(default_factory=time.monotonic)
    steps: int = 0

    def means(self) -> tuple[dict[str, float], dict[str, float]]:
        """Means of losses and of figures, by name."""
        return _means(self.losses), _means(self.figures)


def _means(values: dict[str, list[float]]) -> dict[str, float]:
    return {name: sum(part) / len(part) for name, part in values.items() if part}
