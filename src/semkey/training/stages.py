"""What each stage trains: which parts of the network learn, which are frozen, and on what they learn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from semkey.errors import ConfigError
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.training.config import TrainConfig
from semkey.training.stage_config import (
    DETECTED_LOSSES,
    STAGES,
    DetectorStage,
    FinetuneStage,
    Gradients,
    StageConfig,
    StageName,
)

TRUNK = ("stem", "context", "pyramid")
DETECTION = ("detail", "detector", "offset")
JUDGES: dict[str, Sequence[str]] = {
    "reliability": ("reliability_bce", "reliability_ap"),
    "covariance": ("covariance_nll",),
}


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """A stage with everything decided.

    Attributes:
        name: of the stage.
        config: its part of the configuration.
        parts: modules of the detector that learn; all others keep their weights and batch-norm statistics.
        decoupled: the detector's gradients do not enter the features that descriptors are made of.
        gradients: how the losses' gradients are combined.
        steps: of the optimiser.
        first_pair: index of the first training pair: stages do not see each other's pairs.
    """

    name: StageName
    config: StageConfig
    parts: tuple[str, ...]
    decoupled: bool
    gradients: Gradients
    steps: int
    first_pair: int

    def weights(self, step: int, batch_pairs: int) -> dict[str, float]:
        """Weight of each loss at a step; those over detected keypoints rest on some."""
        active = self.config.active_losses
        others = {name: weight for name, weight in active.items() if name not in DETECTED_LOSSES}
        resting = step % self.config.detected_every != 0 or step * batch_pairs < self.config.detected_from
        return others if resting and others else active


_PAIRS_OF_A_STAGE = 10**9


def plan_stage(config: TrainConfig, name: StageName) -> StagePlan:
    """What a stage does under a configuration."""
    stage = config.stages.get(name)
    losses = stage.active_losses
    extra = ("place",) if "place" in losses else ()
    judges = tuple(part for part, names in JUDGES.items() if any(loss in losses for loss in names))
    if "covariance" in judges and not config.model.covariance:
        raise ConfigError(f"stages.{name}.losses.covariance_nll needs a head for it: set model.covariance to true")
    extra = (*extra, *judges)
    decoupled = True
    gradients: Gradients = "sum"
    if isinstance(stage, DetectorStage):
        parts = DETECTION if stage.mode == "decoupled" else (*TRUNK, "descriptor", *DETECTION, *extra)
        decoupled, gradients = stage.mode != "joint", stage.gradients
    elif isinstance(stage, FinetuneStage):
        parts = (*TRUNK, "descriptor", *DETECTION, *extra)
        decoupled, gradients = False, stage.gradients
    elif name == "reliability":
        parts = judges
    else:
        parts = (*TRUNK, "descriptor", *extra)
    return StagePlan(
        name=name,
        config=stage,
        parts=parts,
        decoupled=decoupled,
        gradients=gradients,
        steps=config.steps(name),
        first_pair=STAGES.index(name) * _PAIRS_OF_A_STAGE,
    )


def freeze(model: SemanticKeypointDetector, plan: StagePlan) -> list[nn.Parameter]:
    """Let only the plan's parts learn; the others go to evaluation mode. Returns what learns, in a fixed order.

    A backbone is never among them.
    """
    model.eval().requires_grad_(False)
    for part in plan.parts:
        model.get_submodule(part).train().requires_grad_(True)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]
