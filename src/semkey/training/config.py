"""Configuration of training: everything that ``semkey train CONFIG.yaml`` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

from semkey.errors import ConfigError
from semkey.model.config import ModelConfig, Precision
from semkey.training.data.config import DataConfig
from semkey.training.settings import Settings, override, read_yaml, unknown_key

StageName = Literal["descriptor", "detector", "reliability", "finetune"]
STAGES: tuple[StageName, ...] = ("descriptor", "detector", "reliability", "finetune")

MATCHING_LOSSES = ("match_dual_softmax", "match_triplet", "match_nre", "relations")
DETECTION_LOSSES = (
    "heat",
    "position",
    "reprojection",
    "anchor",
    "repeatability",
    "dispersity",
    "peakiness",
    "coverage",
)
RELIABILITY_LOSSES = ("reliability_bce", "reliability_ap")
PLACE_LOSSES = ("place",)
LOSSES = (*MATCHING_LOSSES, *DETECTION_LOSSES, *RELIABILITY_LOSSES, *PLACE_LOSSES)
"""Every loss that a stage can be given; see :mod:`semkey.training.objectives`."""

DETECTED_LOSSES = ("reprojection", "anchor", "dispersity", *RELIABILITY_LOSSES)
"""Losses over keypoints that are detected in both views: they cost as much as all others together."""

Gradients = Literal["sum", "kendall", "pcgrad", "cagrad"]
DetectorMode = Literal["decoupled", "joint", "parallel"]


@dataclass(frozen=True, kw_only=True)
class ObjectiveOptions(Settings):
    """How losses are computed, whatever their weight.

    Attributes:
        max_keypoints: detected per view for the losses over keypoints.
        jitter_px: standard deviation of noise on the points of view 1 that descriptors are read at, pixels: keypoints
            are never detected exactly.
        match_px: a match is right when it lies within this distance of the true place, pixels.
        same_px: keypoints of both views closer than this show the same point (``reprojection``), pixels.
        anchor_px: a keypoint belongs to a target within this distance (``anchor``), pixels.
        strong: strength of targets that sub-pixel positions are learned from, in [0, 1].
        exclusion_px: neighbours of the true match this close are no negatives, pixels.
        softmax_temperature: of ``match_dual_softmax``.
        nre_temperature: of ``match_nre``.
        relation_temperature: of ``relations``.
        triplet_margin: of ``match_triplet``.
        window: side of the windows of ``repeatability`` and ``peakiness``, pixels, even.
    """

    max_keypoints: int = 384
    jitter_px: float = 0.5
    match_px: float = 3.0
    same_px: float = 2.0
    anchor_px: float = 1.5
    strong: float = 0.3
    exclusion_px: float = 5.0
    softmax_temperature: float = 0.05
    nre_temperature: float = 0.05
    relation_temperature: float = 0.1
    triplet_margin: float = 1.0
    window: int = 16

    def __post_init__(self) -> None:
        if self.max_keypoints < 16:
            raise ConfigError(f"max_keypoints is {self.max_keypoints}, must be at least 16")
        if self.window < 2 or self.window % 2:
            raise ConfigError(f"window is {self.window}, must be even and at least 2")
        for name in ("match_px", "same_px", "anchor_px", "softmax_temperature", "nre_temperature"):
            _require(getattr(self, name) > 0, f"{name} is {getattr(self, name)}, must be positive")


@dataclass(frozen=True, kw_only=True)
class StageConfig(Settings):
    """One stage of training.

    Attributes:
        epochs: of ``pairs_per_epoch`` pairs each; 0 leaves the stage out.
        learning_rate: after warm-up; falls along a cosine to 1 % at the end.
        losses: weight of each loss by name; names that are not given keep their default, 0 switches one off.
        detected_every: losses over detected keypoints are computed on every n-th step.
        detected_from: ... and only once the stage has seen this many pairs: an untrained detector has no keypoints.
    """

    epochs: float = 1.0
    learning_rate: float = 1e-4
    losses: Mapping[str, float] = field(default_factory=dict)
    detected_every: int = 1
    detected_from: int = 0

    allowed_losses = LOSSES

    def __post_init__(self) -> None:
        _require(self.epochs >= 0, f"epochs is {self.epochs}, must be 0 or more")
        _require(0 < self.learning_rate < 1, f"learning_rate is {self.learning_rate}, must lie in (0, 1)")
        _require(self.detected_every >= 1, f"detected_every is {self.detected_every}, must be at least 1")
        for name, weight in self.losses.items():
            if name not in LOSSES:
                raise unknown_key("losses", name, LOSSES)
            _require(weight >= 0, f"losses.{name} is {weight}, must be 0 or more")
        foreign = [name for name in self.active_losses if name not in self.allowed_losses]
        if foreign:
            raise ConfigError(
                f"losses.{foreign[0]} trains nothing in this stage, it can have: {', '.join(self.allowed_losses)}"
            )
        if self.epochs > 0 and not self.active_losses:
            raise ConfigError("losses are all 0: give one a weight, or epochs 0 to leave the stage out")

    @property
    def active_losses(self) -> dict[str, float]:
        """The losses with a weight above 0."""
        return {name: weight for name, weight in self.losses.items() if weight > 0}


@dataclass(frozen=True, kw_only=True)
class DescriptorStage(StageConfig):
    """Stage 1: trunk (stem, context, pyramid), descriptor and, with its loss, the place descriptor."""

    epochs: float = 5.0
    losses: Mapping[str, float] = field(default_factory=lambda: {"match_dual_softmax": 1.0, "place": 0.1})

    allowed_losses = (*MATCHING_LOSSES, *PLACE_LOSSES)


@dataclass(frozen=True, kw_only=True)
class DetectorStage(StageConfig):
    """Stage 2: detail stem, detector, offset.

    Attributes:
        mode: ``decoupled`` freezes trunk and descriptor; ``joint`` trains everything on all losses; ``parallel`` trains
            everything at once, but the detector's gradients do not enter the features that descriptors are made of.
        gradients: how the gradients of the losses become one: ``sum`` of the weighted losses, ``pcgrad``, ``cagrad``
            (of the weighted losses), or ``kendall`` (weights are learned, those given are their factors).
    """

    epochs: float = 10.0
    losses: Mapping[str, float] = field(
        default_factory=lambda: {"heat": 1.0, "position": 0.5, "reprojection": 1.0, "anchor": 1.0}
    )
    detected_from: int = 2000
    mode: DetectorMode = "decoupled"
    gradients: Gradients = "sum"

    def __post_init__(self) -> None:
        super().__post_init__()
        active = self.active_losses
        if self.mode == "decoupled":
            foreign = [name for name in active if name not in DETECTION_LOSSES]
            if foreign:
                raise ConfigError(
                    f"losses.{foreign[0]} trains nothing with mode 'decoupled': use mode 'joint' or 'parallel'"
                )
        elif self.epochs > 0 and not any(name in MATCHING_LOSSES for name in active):
            raise ConfigError(
                f"mode '{self.mode}' trains the descriptors too: give one of {', '.join(MATCHING_LOSSES)} a weight"
            )


@dataclass(frozen=True, kw_only=True)
class ReliabilityStage(StageConfig):
    """Stage 3: reliability alone on detached features; every other part is frozen, so matching cannot change."""

    epochs: float = 3.0
    learning_rate: float = 1e-5
    losses: Mapping[str, float] = field(default_factory=lambda: {"reliability_bce": 1.0})

    allowed_losses = RELIABILITY_LOSSES


@dataclass(frozen=True, kw_only=True)
class FinetuneStage(StageConfig):
    """Stage 4: all parts together at a low rate; stops, and restores, when descriptors get worse.

    Attributes:
        gradients: see :class:`DetectorStage`.
        tolerance: the stage stops when the descriptor accuracy on validation pairs falls below that before the stage by
            more than this; the weights of the best validation that did not fall are restored.
    """

    epochs: float = 2.0
    learning_rate: float = 1e-5
    losses: Mapping[str, float] = field(
        default_factory=lambda: {
            "match_dual_softmax": 1.0,
            "heat": 1.0,
            "position": 0.5,
            "reprojection": 1.0,
            "anchor": 1.0,
            "reliability_bce": 1.0,
        }
    )
    gradients: Gradients = "pcgrad"
    tolerance: float = 0.005

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(0 <= self.tolerance < 1, f"tolerance is {self.tolerance}, must lie in [0, 1)")


@dataclass(frozen=True, kw_only=True)
class StagesConfig(Settings):
    """The stages, in the order they run."""

    descriptor: DescriptorStage = field(default_factory=DescriptorStage)
    detector: DetectorStage = field(default_factory=DetectorStage)
    reliability: ReliabilityStage = field(default_factory=ReliabilityStage)
    finetune: FinetuneStage = field(default_factory=FinetuneStage)

    def get(self, name: StageName) -> StageConfig:
        """The configuration of a stage by its name."""
        return getattr(self, name)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig(Settings):
    """AdamW and what surrounds it.

    Attributes:
        batch_pairs: pairs per step, over all processes.
        micro_batch: pairs computed at once; batch norms see these. ``batch_pairs`` is a multiple. The result does not
            depend on how many processes share the micro-batches of a step.
        weight_decay: of AdamW.
        warm_up: pairs over which the learning rate rises linearly.
        clip_norm: gradients longer than this are shortened.
        average: decay of the moving average of the weights per step; the average is what is validated and written.
        precision: of the convolutions: ``auto`` is bfloat16 where the CPU or GPU has instructions for it.
        max_not_finite: training stops with an error after so many steps whose loss or gradient was not finite.
        cagrad_c: how far CAGrad's update may lie from the mean gradient, in [0, 1).
    """

    batch_pairs: int = 8
    micro_batch: int = 8
    weight_decay: float = 1e-4
    warm_up: int = 2000
    clip_norm: float = 5.0
    average: float = 0.999
    precision: Precision = "auto"
    max_not_finite: int = 50
    cagrad_c: float = 0.5

    def __post_init__(self) -> None:
        _require(self.micro_batch >= 1, f"micro_batch is {self.micro_batch}, must be at least 1")
        if self.batch_pairs < 1 or self.batch_pairs % self.micro_batch:
            raise ConfigError(
                f"batch_pairs is {self.batch_pairs}, must be a multiple of micro_batch {self.micro_batch}"
            )
        _require(self.clip_norm > 0, f"clip_norm is {self.clip_norm}, must be positive")
        _require(0 <= self.average < 1, f"average is {self.average}, must lie in [0, 1)")
        _require(0 <= self.cagrad_c < 1, f"cagrad_c is {self.cagrad_c}, must lie in [0, 1)")
        _require(self.warm_up >= 0 and self.max_not_finite >= 0, "warm_up and max_not_finite must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class ValidationConfig(Settings):
    """What is measured on held-out pairs during training.

    Attributes:
        pairs: how many.
        every: pairs of training between validations; there is one at the end of each stage in any case.
        keypoints: per view.
        pictures: pairs that are drawn in the report.
    """

    pairs: int = 64
    every: int = 4000
    keypoints: int = 512
    pictures: int = 4

    def __post_init__(self) -> None:
        _require(self.pairs >= 1 and self.every >= 1, "pairs and every must be at least 1")
        _require(self.keypoints >= 16, f"keypoints is {self.keypoints}, must be at least 16")
        _require(0 <= self.pictures <= self.pairs, f"pictures is {self.pictures}, must lie in 0 to {self.pairs}")


@dataclass(frozen=True, kw_only=True)
class RunConfig(Settings):
    """Where and how it runs; nothing here changes the weights that come out.

    Attributes:
        device: ``auto`` (GPUs if there are any), ``cpu``, ``cuda``.
        devices: processes, one per GPU or, on a CPU, one per core or so.
        threads: of each process on a CPU; 0 leaves it to torch.
        workers: processes that make pairs, per training process; 0 makes them in between.
        save_every: seconds between checkpoints; a kill loses at most so much.
        keep: checkpoints that are kept.
        log_every: steps between lines of the log.
        cosines_every: steps between measurements of how far the losses' gradients agree; 0 for none.
        tensorboard: write event files for TensorBoard.
    """

    device: str = "auto"
    devices: int = 1
    threads: int = 0
    workers: int = 1
    save_every: float = 120.0
    keep: int = 2
    log_every: int = 20
    cosines_every: int = 200
    tensorboard: bool = True

    def __post_init__(self) -> None:
        for name in ("devices", "keep", "log_every"):
            _require(getattr(self, name) >= 1, f"{name} is {getattr(self, name)}, must be at least 1")
        for name in ("threads", "workers", "save_every", "cosines_every"):
            _require(getattr(self, name) >= 0, f"{name} is {getattr(self, name)}, must be 0 or more")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """Everything that decides a training run.

    Attributes:
        name: of the result, ``RUN/<name>.safetensors``.
        seed: of the first weights, the pairs and every other random choice.
        init: preset or checkpoint whose weights the first stage starts from; None starts from random ones.
        pairs_per_epoch: length of an epoch.
        model: shapes of the network.
        data: what it sees, see :class:`semkey.training.data.config.DataConfig`.
        stages: what is trained on which losses.
        objectives: details of the losses.
        optimizer: step size and all that.
        validation: what is measured meanwhile.
        run: processes, checkpoints, logs.
    """

    name: str = "compact"
    seed: int = 0
    init: str | None = None
    pairs_per_epoch: int = 8000
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    stages: StagesConfig = field(default_factory=StagesConfig)
    objectives: ObjectiveOptions = field(default_factory=ObjectiveOptions)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    validation: ValidationConfig = field(default_factory=ValidationConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        if not self.name or any(not (c.isalnum() or c in "-_.") for c in self.name):
            raise ConfigError(f"name is '{self.name}': letters, digits, '-', '_' and '.' only, it becomes a file name")
        _require(self.seed >= 0, f"seed is {self.seed}, must be 0 or more")
        _require(self.pairs_per_epoch >= 1, f"pairs_per_epoch is {self.pairs_per_epoch}, must be at least 1")

    @classmethod
    def load(cls, path: str | Path, changes: Sequence[str] = ()) -> Self:
        """Read a YAML file, with changes such as ``data.photos=DIR`` on top.

        Raises:
            ConfigError: the file cannot be read, an unknown key or a value that cannot be; the message has the file.
        """
        values = override(read_yaml(path), changes)
        try:
            return cls.from_mapping(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def steps(self, stage: StageName) -> int:
        """Steps of a stage."""
        return round(self.stages.get(stage).epochs * self.pairs_per_epoch / self.optimizer.batch_pairs)


def _require(holds: bool, message: str) -> None:
    if not holds:
        raise ConfigError(message)
