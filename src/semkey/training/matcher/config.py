"""Configuration of ``semkey train-matcher``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from semkey.matching.lightglue.network import LightGlueShape
from semkey.settings import Settings, override, read_yaml, require, require_within
from semkey.training.config import find_config
from semkey.training.data.config import DataConfig


@dataclass(frozen=True, kw_only=True)
class TruthConfig(Settings):
    """Which keypoints of two views belong together.

    Attributes:
        positive_px: mutual nearest keypoints are a pair that lie closer than this in view 1.
        negative_px: a keypoint is unmatchable that has none nearer than this; those in between are left out.
    """

    positive_px: float = 3.0
    negative_px: float = 5.0

    def __post_init__(self) -> None:
        require_within(self, "(0, inf)", "positive_px", "negative_px")
        require(self.positive_px <= self.negative_px, "positive_px must not exceed negative_px")


@dataclass(frozen=True, kw_only=True)
class ConfidenceConfig(Settings):
    """The heads with which the matcher stops early and leaves keypoints out; trained after it, on its frozen weights.

    Attributes:
        steps: updates of the heads; 0 trains none, and the matcher always runs whole.
        learning_rate: at its highest, as that of the matcher.
        depth: share of keypoints that must be sure of their matches for the matcher to stop.
        width: probability of being unmatchable from which on a sure keypoint is left out of further layers.
    """

    steps: int = 400
    learning_rate: float = 3e-3
    depth: float = 0.95
    width: float = 0.99

    def __post_init__(self) -> None:
        require_within(self, "[0, inf)", "steps")
        require_within(self, "(0, inf)", "learning_rate")
        require_within(self, "(0, 1)", "depth", "width")


@dataclass(frozen=True, kw_only=True)
class MatcherRunConfig(Settings):
    """How it runs; nothing here changes the weights.

    Attributes:
        threads: of the CPU; 0 leaves it to torch.
        save_every: seconds between checkpoints; a kill loses at most so much.
        log_every: steps between lines of the log.
    """

    threads: int = 0
    save_every: float = 120.0
    log_every: int = 50

    def __post_init__(self) -> None:
        require_within(self, "[0, inf)", "threads", "save_every")
        require_within(self, "[1, inf)", "log_every")


@dataclass(frozen=True, kw_only=True)
class MatcherTrainConfig(Settings):
    """Everything that decides the training of a matcher.

    Attributes:
        name: of the result, ``RUN/<name>.safetensors``.
        seed: of the pairs and of every other random choice.
        features: whose descriptors it learns to match: ``compact``, ``orb``, a checkpoint, ...
        start: a matcher's file whose weights training begins with, of the same shape; None begins as a dual softmax.
        cached_keypoints: of each view, extracted once.
        keypoints: of those, in a step: half of the time the strongest, else any.
        pairs: made once and kept in the cache; training goes through them again and again.
        validation_pairs: of photos and rooms that training does not see.
        unrelated: share of pairs whose view 1 comes from another pair, where nothing may match.
        steps: updates.
        batch_pairs: pairs per step.
        learning_rate: at its highest; it falls along a half cosine to a hundredth.
        warm_up: steps over which it rises.
        weight_decay: of AdamW.
        clip_norm: gradients longer than this are shortened.
        average: decay of the moving average of the weights, which is what is validated and written.
        validate_every: steps between validations.
        filter_threshold: smallest confidence of a match, written into the file: low, since what RANSAC needs are right
            matches, and wrong ones cost it little.
        shape: size of the network.
        confidence: heads with which it stops early.
        truth: which keypoints belong together.
        data: where pairs come from, as in ``semkey train``.
        run: how it runs.
    """

    name: str
    seed: int = 0
    features: str = "compact"
    start: Path | None = None
    cached_keypoints: int = 400
    keypoints: int = 320
    pairs: int = 6000
    validation_pairs: int = 100
    unrelated: float = 0.08
    steps: int = 6000
    batch_pairs: int = 8
    learning_rate: float = 1e-3
    warm_up: int = 200
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    average: float = 0.998
    validate_every: int = 500
    filter_threshold: float = 0.02
    shape: LightGlueShape = field(default_factory=LightGlueShape)
    confidence: ConfidenceConfig = field(default_factory=ConfidenceConfig)
    truth: TruthConfig = field(default_factory=TruthConfig)
    data: DataConfig = field(default_factory=lambda: DataConfig(width=416, height=320))
    run: MatcherRunConfig = field(default_factory=MatcherRunConfig)

    def __post_init__(self) -> None:
        require_within(self, "[1, inf)", "pairs", "validation_pairs", "steps", "batch_pairs", "validate_every")
        require_within(self, "[16, inf)", "keypoints", "cached_keypoints")
        require(self.keypoints <= self.cached_keypoints, "keypoints must not exceed cached_keypoints")
        require_within(self, "[0, 0.5]", "unrelated")
        require_within(self, "[0, 1]", "filter_threshold")
        require_within(self, "[0, inf)", "seed", "warm_up", "weight_decay")
        require_within(self, "(0, inf)", "learning_rate", "clip_norm")
        require_within(self, "[0, 1)", "average")
        require(bool(self.name) and Path(self.name).name == self.name, f"name '{self.name}' is no name of a file")
        require(":" not in self.features, "features: a recipe never names code to run, so no module:function")

    @property
    def head_steps(self) -> int:
        """Updates of the confidence heads; a single layer has none."""
        return self.confidence.steps if self.shape.layers > 1 else 0

    @classmethod
    def load(cls, path: str | Path, changes: Sequence[str] = ()) -> Self:
        """Read a YAML file, or a configuration of semkey by name, and apply ``a.b=value`` changes.

        Raises:
            ConfigError: the file is missing or broken, or a key or value is wrong; the message names it.
        """
        return cls.from_mapping(override(read_yaml(find_config(path)), changes))
