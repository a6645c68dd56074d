"""Configuration of training: everything that ``semkey train CONFIG.yaml`` reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any, Self

from semkey.backbones.specs import BACKBONES
from semkey.errors import ConfigError
from semkey.model.checkpoint import read_config
from semkey.model.config import ModelConfig, Precision
from semkey.model.presets import presets
from semkey.settings import Settings, did_you_mean, override, read_yaml, require, require_within
from semkey.training.data.config import DataConfig
from semkey.training.stage_config import IMITATION_LOSSES, STAGES, ObjectiveOptions, StageName, StagesConfig

_SHARED = "dinov2-small"
"""The configuration of presets over a backbone that have none of their own."""


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
        require_within(self, "[1, inf)", "micro_batch")
        if self.batch_pairs < 1 or self.batch_pairs % self.micro_batch:
            raise ConfigError(
                f"batch_pairs is {self.batch_pairs}, must be a multiple of micro_batch {self.micro_batch}"
            )
        require_within(self, "(0, inf)", "clip_norm")
        require_within(self, "[0, 1)", "average", "cagrad_c")
        require_within(self, "[0, inf)", "warm_up", "max_not_finite")


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
        require_within(self, "[1, inf)", "pairs", "every")
        require_within(self, "[16, inf)", "keypoints")
        require(0 <= self.pictures <= self.pairs, f"pictures is {self.pictures}, must lie in 0 to {self.pairs}")


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
        require_within(self, "[1, inf)", "devices", "keep", "log_every")
        require_within(self, "[0, inf)", "threads", "workers", "save_every", "cosines_every")


@dataclass(frozen=True, kw_only=True)
class TrainConfig(Settings):
    """Everything that decides a training run.

    Attributes:
        name: of the result, ``RUN/<name>.safetensors``.
        seed: of the first weights, the pairs and every other random choice.
        init: preset or checkpoint whose weights the first stage starts from; None starts from random ones. A hybrid
            over a backbone may start from a detector without one: what it adds then starts from zero. In a file,
            ``model`` says only what is to be another than in ``init``.
        guide: preset or checkpoint that the losses ``imitate_scores`` and ``imitate_descriptors`` imitate.
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
    guide: str | None = None
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
        require_within(self, "[0, inf)", "seed")
        if self.guide is None:
            for name in STAGES:
                stage = self.stages.get(name)
                imitating = [loss for loss in IMITATION_LOSSES if loss in stage.active_losses]
                if imitating and stage.epochs > 0:
                    raise ConfigError(f"stages.{name}.losses.{imitating[0]} needs guide: a preset or a checkpoint")
        require_within(self, "[1, inf)", "pairs_per_epoch")

    @classmethod
    def load(cls, path: str | Path, changes: Sequence[str] = ()) -> Self:
        """Read a YAML file, with changes such as ``data.photos=DIR`` on top.

        Args:
            path: of the file, or the name of a configuration that comes with semkey, such as ``compact-small``, or of
                any preset over a backbone, such as ``dinov3-base``. Shapes of the network that the file leaves out are
                those of ``init``.
            changes: see :func:`semkey.settings.override`.

        Raises:
            ConfigError: the file cannot be read, an unknown key or a value that cannot be; the message has the file.
        """
        path, own = _find(path)
        values = override(read_yaml(path), [*own, *changes])
        try:
            return cls.from_mapping(_with_model_of_init(values))
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    def steps(self, stage: StageName) -> int:
        """Steps of a stage."""
        return round(self.stages.get(stage).epochs * self.pairs_per_epoch / self.optimizer.batch_pairs)


def shipped_configs() -> dict[str, Path]:
    """The configurations that come with semkey, by name; in a checkout they lie beside the sources."""
    package = Path(str(files("semkey")))
    folder = next((one for one in (package / "configs", package.parents[1] / "configs") if one.is_dir()), None)
    return {} if folder is None else {file.stem: file for file in sorted(folder.glob("*.yaml"))}


def find_config(name: str | Path) -> Path:
    """The file of a configuration: a path as it is, a bare name among those that come with semkey.

    Raises:
        ConfigError: a bare name that none has.
    """
    path = Path(name)
    if path.exists() or path.suffix or len(path.parts) != 1:
        return path
    shipped = shipped_configs()
    if str(name) not in shipped:
        hint = did_you_mean(name, shipped)
        raise ConfigError(
            f"no configuration '{name}'{hint and ', '}{hint} (a YAML file, or one of {', '.join(shipped)})"
        )
    return shipped[str(name)]


def _find(name: str | Path) -> tuple[Path, list[str]]:
    """The file of a configuration, and what is changed in it: backbones without one of their own share a file."""
    is_shared = str(name) in BACKBONES and str(name) not in shipped_configs() and not Path(name).exists()
    if not is_shared:
        return find_config(name), []
    return find_config(_SHARED), [f"name={name}", f"model.backbone={name}"]


def _with_model_of_init(values: Mapping[str, Any]) -> Mapping[str, Any]:
    """A configuration whose network has the shapes of the one that it starts from, where it names no others."""
    init, own = values.get("init"), values.get("model") or {}
    if not isinstance(init, str) or not isinstance(own, Mapping):
        return values
    path = presets()[init].path if init in presets() else Path(init)
    if not path.is_file():  # the run says so when it starts
        return values
    return {**values, "model": {**read_config(path).to_mapping(), **own}}
