"""``fit``: the stages of a run one after the other, from a configuration to weights that ``semkey.load`` reads."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch.utils.data import Dataset

from semkey.errors import CheckpointError, ConfigError, InputError
from semkey.files import atomic_write_text
from semkey.model.building import grow_from, load_backbone_of
from semkey.model.checkpoint import load_checkpoint, load_weights, read_config, save_checkpoint
from semkey.model.presets import presets
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.training.backbone_feed import BackboneFeed
from semkey.training.checkpointing import CheckpointFolder
from semkey.training.config import TrainConfig
from semkey.training.data.opening import open_data
from semkey.training.data.pair import Pair
from semkey.training.data.photos import Split
from semkey.training.history import History
from semkey.training.loop import StageLoop
from semkey.training.objectives.imitation import guide_reads_colors
from semkey.training.objectives.optimisation import autocast_bfloat16
from semkey.training.processes import StopRequest, in_first, launch
from semkey.training.report import write_report
from semkey.training.stage_config import STAGES, StageName
from semkey.training.stage_events import StageEvents
from semkey.training.stages import TRUNK, StagePlan, plan_stage
from semkey.training.validation import Validation

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger(__name__)

CONFIG_FILE, HISTORY_FILE, REPORT_FILE, STAGE_FOLDER = "config.json", "log.jsonl", "report.html", "stages"

StageChoice = StageName | Literal["all"]


class TrainingInterrupted(KeyboardInterrupt):
    """The user stopped a run; a checkpoint was written, and ``resume`` goes on from it.

    Attributes:
        run: the folder.
        stage: which stage was stopped.
        step: after this many of its steps.
        is_first_process: false in all but one of several processes.
    """

    def __init__(self, run: Path, stage: str, step: int, is_first_process: bool = True) -> None:
        super().__init__(f"stopped in stage {stage} after step {step}")
        self.run, self.stage, self.step, self.is_first_process = run, stage, step, is_first_process


@dataclass(kw_only=True)
class TrainingEvents:
    """What :func:`fit` tells while it runs, in the first process; every entry may be left out.

    Attributes:
        preparing: data being made: done, total, what.
        noted: one line that the user should know of.
        stage_started: name, first step, steps.
        stepped: stage, step, steps, losses.
        validated: stage, step, figures.
    """

    preparing: Callable[[int, int, str], None] = lambda *_: None
    noted: Callable[[str], None] = lambda *_: None
    stage_started: Callable[[str, int, int], None] = lambda *_: None
    stepped: Callable[[str, int, int, dict[str, float]], None] = lambda *_: None
    validated: Callable[[str, int, dict[str, float]], None] = lambda *_: None


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """What a run made.

    Attributes:
        run: its folder.
        weights: ``RUN/<name>.safetensors``, readable with :func:`semkey.load`.
        report: ``RUN/report.html``.
        figures: of the last validation of each stage that ran, see :class:`semkey.training.validation.Validation`.
        is_first_process: false in all but one of several processes.
    """

    run: Path
    weights: Path
    report: Path
    figures: dict[str, dict[str, float]] = field(default_factory=dict)
    is_first_process: bool = True


def fit(
    config: TrainConfig,
    out: str | Path,
    *,
    stage: StageChoice = "all",
    resume: bool = False,
    train_pairs: Dataset[Any] | None = None,
    val_pairs: Dataset[Any] | None = None,
    events: TrainingEvents | None = None,
) -> FitResult:
    """Train a detector.

    A stage starts from the moving average that the stage before it ended with, which is in ``RUN/stages``, else from
    ``config.init``, else from random weights. With several processes (``run.devices``) this function runs in each, and
    the script that called it is started once per process.

    Into the folder go ``config.json``, ``log.jsonl``, ``checkpoints/``, ``stages/<stage>.safetensors``,
    ``tensorboard/``, ``report.html`` and ``<name>.safetensors``.

    Args:
        config: of the run.
        out: its folder, RUN.
        stage: which stage to train; ``all``: every one with epochs.
        resume: go on where the run in ``out`` stopped; stages that it has finished are not repeated. On a CPU the
            result is bit for bit that of a run that was never stopped.
        train_pairs: pairs by index, instead of those of ``config.data`` (see :mod:`semkey.training.data.pair`).
        val_pairs: likewise for validation.
        events: told of progress.

    Raises:
        ConfigError: the configuration cannot be used, Lightning Fabric is not installed, or ``out`` already holds what
            would be trained.
        InputError: ``out`` cannot be written.
        NotFiniteError: too many losses were NaN or infinite.
        TrainingInterrupted: Ctrl-C; a checkpoint was written.
        DatasetError: see :func:`semkey.training.data.open_data`.
    """
    run = Path(out)
    names = _stages(config, stage)
    fabric = launch(config)
    is_new = not run.exists()
    in_first(fabric, lambda: _check_run(run, config, names, resume))
    try:
        training = _Training(fabric, config, run, resume, events or TrainingEvents())
        training.open_pairs(train_pairs, val_pairs)
    except BaseException:
        if is_new and fabric.is_global_zero:
            _remove_empty(run)
        raise
    training.open_files()
    with StopRequest() as stop:
        for name in names:
            training.train(name, stop)
    return training.result()


class _Training:
    """A run in one process: model, pairs and what was logged."""

    def __init__(self, fabric: Fabric, config: TrainConfig, run: Path, resume: bool, events: TrainingEvents) -> None:
        self.fabric, self.config, self.run, self.resume, self.events = fabric, config, run, resume, events
        self.is_first = fabric.is_global_zero
        self.history = History(run / HISTORY_FILE)
        self.checkpoints = CheckpointFolder(run / "checkpoints", config.run.keep)
        self.validations: dict[str, Validation] = {}
        self.model: SemanticKeypointDetector | None = None
        self._held_out: list[Pair] | None = None
        self.feed = self._open_backbone()
        self.writer: Any = None

    def open_pairs(self, train_pairs: Dataset[Any] | None, val_pairs: Dataset[Any] | None) -> None:
        """Make the data ready, in the first process before the others."""
        if self.feed is not None:
            self._tell(self.events.noted, self.feed.note)
        data, seed = self.config.data, self.config.seed

        def open_both() -> tuple[Dataset[Any], Dataset[Any]]:
            progress = self.events.preparing if self.is_first else None

            guide = self.config.guide
            colors = self.feed is not None or (guide is not None and guide_reads_colors(guide))

            def opened(given: Dataset[Any] | None, split: Split) -> Dataset[Any]:
                if given is not None:
                    return given
                return open_data(data, split=split, seed=seed, progress=progress, colors=colors)

            return opened(train_pairs, "train"), opened(val_pairs, "val")

        first = in_first(self.fabric, open_both)
        self.train_pairs, self.val_pairs = open_both() if first is None else first

    def open_files(self) -> None:
        """Begin to write into the folder of the run, now that nothing of the input can be wrong any more."""
        if not self.is_first:
            return
        self.checkpoints.clean()
        atomic_write_text(self.run / CONFIG_FILE, json.dumps(self.config.to_mapping(), indent=2) + "\n")
        if self.config.run.tensorboard:
            self.writer = _summary_writer(self.run)

    def held_out(self) -> list[Pair]:
        """The validation pairs, made when they are first needed and kept."""
        if self._held_out is None:
            self._held_out = [cast("Any", self.val_pairs)[index] for index in range(self.config.validation.pairs)]
        return self._held_out

    def train(self, name: StageName, stop: StopRequest) -> None:
        """One stage from its start, or from its checkpoint, to its end."""
        finished = self.run / STAGE_FOLDER / f"{name}.safetensors"
        if self.resume and finished.is_file():
            log.info("stage %s is finished", name)
            self.model = None
            return
        plan = plan_stage(self.config, name)
        model = self._model_for(plan)
        events = StageEvents(
            stepped=lambda step, steps, losses: self._tell(self.events.stepped, name, step, steps, losses),
            logged=lambda kind, step, values: self._log(plan, kind, step, values),
            validated=lambda step, result: self._validated(plan, step, result),
            asked_to_stop=lambda: stop.is_set,
            noted=lambda line: self._tell(self.events.noted, line),
        )
        loop = StageLoop(self.fabric, model, plan, self.config, self.checkpoints, self.held_out, events, self.feed)
        state = self.checkpoints.newest(name, self.config, self.fabric.device) if self.resume else None
        if state is not None:
            loop.load(state)
            log.info("stage %s goes on at step %d", name, loop.step)
        if self.is_first:
            self.history.rewind(name, loop.step)
        self._tell(self.events.stage_started, name, loop.step, plan.steps)
        is_done = loop.run(self.train_pairs)
        if not is_done:
            self._report()
            self.fabric.barrier()
            raise TrainingInterrupted(self.run, name, loop.step, self.is_first)
        self.model = loop.average.model
        if self.is_first:
            finished.parent.mkdir(exist_ok=True)
            save_checkpoint(self.model, finished)
            save_checkpoint(self.model, self.weights)
            self._report()
        self.fabric.barrier()

    @property
    def weights(self) -> Path:
        """Where the result goes."""
        return self.run / f"{self.config.name}.safetensors"

    def result(self) -> FitResult:
        """What is there at the end."""
        if self.writer is not None:
            self.writer.close()
        figures = {}
        for row in self.history.of("validation"):
            figures[row["stage"]] = row["figures"]
        return FitResult(
            run=self.run,
            weights=self.weights,
            report=self.run / REPORT_FILE,
            figures=figures,
            is_first_process=self.is_first,
        )

    def _open_backbone(self) -> BackboneFeed | None:
        """The backbone, if there is one, on the device; the first process may have to fetch its weights."""
        if not self.config.model.uses_backbone:
            return None
        first = in_first(self.fabric, lambda: load_backbone_of(self.config.model))
        backbone = first or load_backbone_of(self.config.model)
        assert backbone is not None
        reduced = autocast_bfloat16(self.config.optimizer.precision, self.fabric.device)
        return BackboneFeed(backbone.to(self.fabric.device), self.config.data, bfloat16=reduced)

    def _model_for(self, plan: StagePlan) -> SemanticKeypointDetector:
        """A detector on the device with the weights that a stage starts from."""
        torch.manual_seed(self.config.seed)
        model = SemanticKeypointDetector(self.config.model, backbone=None if self.feed is None else self.feed.backbone)
        earlier = [self.run / STAGE_FOLDER / f"{name}.safetensors" for name in STAGES[: STAGES.index(plan.name)]]
        found = [path for path in earlier if path.is_file()]
        if self.model is not None:
            model.load_state_dict(self.model.state_dict())
        elif found:
            load_weights(model, found[-1])
            log.info("stage %s starts from %s", plan.name, found[-1])
        elif self.config.init is not None:
            _initialise(model, self.config.init)
        elif not set(TRUNK) <= set(plan.parts):
            raise ConfigError(
                f"stage {plan.name} needs a trained network: train the stages before it, or set init to a checkpoint"
            )
        return model.to(self.fabric.device).to(memory_format=torch.channels_last)  # ty: ignore[no-matching-overload]

    # -- telling ---------------------------------------------------------------------------------------------------

    def _tell(self, listener: Callable[..., None], *values: object) -> None:
        if self.is_first:
            listener(*values)

    def _log(self, plan: StagePlan, kind: str, step: int, values: dict[str, Any]) -> None:
        self.history.add(kind, plan.name, step, values)
        if self.writer is None or kind != "train":
            return
        for group in ("losses", "figures"):
            for name, value in values[group].items():
                self.writer.add_scalar(f"{plan.name}/{group}/{name}", value, step)
        for name in ("rate", "waiting"):
            self.writer.add_scalar(f"{plan.name}/{name}", values[name], step)

    def _validated(self, plan: StagePlan, step: int, result: Validation) -> None:
        values = {"figures": result.figures, "calibration": [list(row) for row in result.calibration]}
        self.history.add("validation", plan.name, step, values)
        self.validations[plan.name] = result
        self.events.validated(plan.name, step, result.figures)
        if self.writer is not None:
            for name, value in result.figures.items():
                self.writer.add_scalar(f"{plan.name}/validation/{name}", value, step)

    def _report(self) -> None:
        if self.is_first:
            write_report(self.run / REPORT_FILE, self.config, self.history, self.validations)
            if self.writer is not None:
                self.writer.flush()


# -- setting up --------------------------------------------------------------------------------------------------------


def _stages(config: TrainConfig, stage: StageChoice) -> tuple[StageName, ...]:
    if stage == "all":
        names = tuple(name for name in STAGES if config.steps(name) > 0)
        if not names:
            raise ConfigError("every stage has 0 epochs: give one some")
        return names
    if stage not in STAGES:
        raise ConfigError(f"unknown stage '{stage}', there are: {', '.join(STAGES)}, all")
    if config.steps(stage) == 0:
        raise ConfigError(f"stages.{stage}.epochs is 0: there is nothing to train")
    return (stage,)


def _check_run(run: Path, config: TrainConfig, names: Sequence[StageName], resume: bool) -> None:
    """Tell before any work that a run cannot be written, or would be overwritten.

    Raises:
        ConfigError: results are there already.
        InputError: the folder cannot be made.
    """
    if run.exists() and not run.is_dir():
        raise InputError(f"{run} is a file: name a folder with --out")
    folder = CheckpointFolder(run / "checkpoints", config.run.keep)
    for name in names:
        if not resume and (folder.files(name) or (run / STAGE_FOLDER / f"{name}.safetensors").is_file()):
            raise ConfigError(
                f"{run} already holds stage {name}: continue with --resume, or name another folder with --out"
            )
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {run}: {error.strerror or error}") from error


def _remove_empty(folder: Path) -> None:
    """Remove a folder with nothing in it: a run that could not begin leaves no folder behind."""
    with contextlib.suppress(OSError):
        folder.rmdir()


def _initialise(model: SemanticKeypointDetector, source: str) -> None:
    """Copy the weights of a preset or checkpoint; a hybrid network may start from one without a backbone."""
    preset = presets().get(source)
    path, sha256 = (source, None) if preset is None else (preset.path, preset.sha256)
    try:
        if model.backbone is not None and not read_config(path).uses_backbone:
            left = grow_from(model, load_checkpoint(path, sha256))
        else:
            left = load_weights(model, path, sha256)
    except CheckpointError as error:
        raise (error if preset is None else ConfigError(f"init is '{source}': {error}")) from None
    for head in left:
        log.warning("%s has no such head for %s: that part starts anew, and has to be trained", source, head)


def _summary_writer(run: Path) -> Any:
    """TensorBoard's writer; None, with a warning, where TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        log.warning("no TensorBoard files: pip install 'semkey[train]', or set run.tensorboard to false")
        return None
    return SummaryWriter(str(run / "tensorboard"))
