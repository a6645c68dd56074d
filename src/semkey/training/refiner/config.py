"""Configuration of ``semkey train-refiner``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from semkey.matching.alignment.network import RefinerShape
from semkey.settings import Settings, override, read_yaml, require, require_within
from semkey.training.config import find_config
from semkey.training.data.config import DataConfig
from semkey.training.matcher.config import MatcherRunConfig


@dataclass(frozen=True, kw_only=True)
class RefinerTrainConfig(Settings):
    """Everything that decides the training of a refiner.

    Attributes:
        name: of the result, ``RUN/<name>.safetensors``.
        seed: of the pairs and of every other random choice.
        features: whose matches it learns to refine: ``compact``, ``orb``, a checkpoint, ...
        keypoints: of each view, extracted once and matched as mutual nearest neighbours.
        pairs: of views, made once; their matches with patches are kept in the cache.
        validation_pairs: of photos and rooms that training does not see.
        positive_px: matches that are off by less than this are learned from.
        unrelated: share of matches whose first keypoint is another one's: there the heat must stay even.
        steps: updates.
        batch: matches per step.
        learning_rate: at its highest; it falls along a half cosine to a hundredth.
        warm_up: steps over which it rises.
        weight_decay: of AdamW.
        average: decay of the moving average of the weights, which is what is validated and written.
        validate_every: steps between validations.
        shape: size of the network.
        data: where pairs come from, as in ``semkey train``.
        run: how it runs.
    """

    name: str
    seed: int = 0
    features: str = "compact"
    keypoints: int = 400
    pairs: int = 1000
    validation_pairs: int = 60
    positive_px: float = 2.0
    unrelated: float = 0.1
    steps: int = 5000
    batch: int = 512
    learning_rate: float = 2e-3
    warm_up: int = 100
    weight_decay: float = 0.01
    average: float = 0.998
    validate_every: int = 500
    shape: RefinerShape = field(default_factory=RefinerShape)
    data: DataConfig = field(default_factory=lambda: DataConfig(width=416, height=320))
    run: MatcherRunConfig = field(default_factory=MatcherRunConfig)

    def __post_init__(self) -> None:
        require_within(self, "[1, inf)", "pairs", "validation_pairs", "steps", "batch", "validate_every")
        require_within(self, "[16, inf)", "keypoints")
        require_within(self, "(0, 3]", "positive_px")
        require_within(self, "[0, 0.5]", "unrelated")
        require_within(self, "[0, inf)", "seed", "warm_up", "weight_decay")
        require_within(self, "(0, inf)", "learning_rate")
        require_within(self, "[0, 1)", "average")
        require(bool(self.name) and Path(self.name).name == self.name, f"name '{self.name}' is no name of a file")
        require(":" not in self.features, "features: a recipe never names code to run, so no module:function")

    @classmethod
    def load(cls, path: str | Path, changes: Sequence[str] = ()) -> Self:
        """Read a YAML file, or a configuration of semkey by name, and apply ``a.b=value`` changes.

        Raises:
            ConfigError: the file is missing or broken, or a key or value is wrong; the message names it.
        """
        return cls.from_mapping(override(read_yaml(find_config(path)), changes))
