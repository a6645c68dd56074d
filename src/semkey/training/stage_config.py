"""Configuration of the stages of training and of the losses they minimise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from semkey.errors import ConfigError
from semkey.settings import Settings, require, require_choice, require_within, unknown_key

StageName = Literal["descriptor", "detector", "reliability", "finetune"]
STAGES: tuple[StageName, ...] = ("descriptor", "detector", "reliability", "finetune")

MATCHING_LOSSES = ("match_dual_softmax", "match_triplet", "match_nre", "relations", "imitate_descriptors")
DETECTION_LOSSES = (
    "heat",
    "position",
    "reprojection",
    "anchor",
    "repeatability",
    "dispersity",
    "success",
    "peakiness",
    "coverage",
    "imitate_scores",
    "reward_inliers",
    "reward_tracks",
    "temporal_scores",
)
RELIABILITY_LOSSES = ("reliability_bce", "reliability_ap", "covariance_nll")
"""Losses of what judges keypoints: by default their gradients reach the heads of reliability and covariance alone."""
PLACE_LOSSES = ("place",)
TRACK_LOSSES = ("temporal_descriptors",)
"""Losses of descriptors along tracks, which have no negatives: beside one of the matching losses."""
CLIP_LOSSES = ("reward_inliers", "reward_tracks", "temporal_scores", *TRACK_LOSSES)
"""Losses over clips, see :mod:`semkey.training.objectives.clips`."""
IMITATION_LOSSES = ("imitate_scores", "imitate_descriptors")
"""Losses that need a guide, see :mod:`semkey.training.objectives.imitation`."""

LOSSES = (*MATCHING_LOSSES, *TRACK_LOSSES, *DETECTION_LOSSES, *RELIABILITY_LOSSES, *PLACE_LOSSES)
"""Every loss that a stage can be given; see :mod:`semkey.training.objectives.losses`."""

DETECTED_LOSSES = ("reprojection", "anchor", "dispersity", "success", *RELIABILITY_LOSSES)
"""Losses over keypoints that are detected in both views: they cost as much as all others together."""

Gradients = Literal["sum", "kendall", "pcgrad", "cagrad"]
KeptBy = Literal["descriptor_accuracy", "matching_score", "precision", "repeatability", "reliability_auroc"]
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
        graded_success: ``success`` falls linearly from 1 for a keypoint found at its very place to 0 at ``same_px``,
            instead of being 1 everywhere below: what slides along an edge is worth less than what stays.
        guide_shifts: probabilities of the guide are averaged over so many shifts of the picture, 1 to 8: a detector
            with cells answers differently at each of them, and its imitator learns what does not depend on the grid.
        anchor_px: a keypoint belongs to a target within this distance (``anchor``), pixels.
        strong: strength of targets that sub-pixel positions are learned from, in [0, 1].
        exact_positions: learn sub-pixel positions from drawn shapes alone (``position``, ``anchor``), whose corners are
            known exactly; a teacher's keypoints lie a pixel off and say only that there is one.
        exclusion_px: neighbours of the true match this close are no negatives, pixels.
        softmax_temperature: of ``match_dual_softmax``.
        nre_temperature: of ``match_nre``.
        relation_temperature: of ``relations``.
        triplet_margin: of ``match_triplet``.
        window: side of the windows of ``repeatability`` and ``peakiness``, pixels, even.
        reward_px: how far an inlier of a fundamental matrix may lie from its epipolar line (``reward_inliers``,
            ``reward_tracks``), pixels.
        attached_judges: gradients of ``reliability_*`` and ``covariance_nll`` also reach the features and the score map
            that they judge; docs/decoupling.md says what that does.
        foreign_penalty: what a keypoint loses whose match in an image of another scene agrees with a fundamental matrix
            (``reward_inliers``); an inlier of its own scene gains 1.
    """

    max_keypoints: int = 384
    jitter_px: float = 0.5
    match_px: float = 3.0
    same_px: float = 2.0
    graded_success: bool = False
    guide_shifts: int = 1
    anchor_px: float = 1.5
    strong: float = 0.3
    exact_positions: bool = False
    exclusion_px: float = 5.0
    softmax_temperature: float = 0.05
    nre_temperature: float = 0.05
    relation_temperature: float = 0.1
    triplet_margin: float = 1.0
    window: int = 16
    reward_px: float = 1.5
    foreign_penalty: float = 0.5
    attached_judges: bool = False

    def __post_init__(self) -> None:
        require_within(self, "[16, inf)", "max_keypoints")
        require_within(self, "[1, 8]", "guide_shifts")
        if self.window < 2 or self.window % 2:
            raise ConfigError(f"window is {self.window}, must be even and at least 2")
        require_within(self, "(0, inf)", "match_px", "same_px", "anchor_px", "softmax_temperature", "nre_temperature")
        require_within(self, "(0, inf)", "reward_px")
        require_within(self, "[0, inf)", "foreign_penalty")


@dataclass(frozen=True, kw_only=True)
class StageConfig(Settings):
    """One stage of training.

    Attributes:
        epochs: of ``pairs_per_epoch`` pairs each; 0 leaves the stage out.
        learning_rate: after warm-up; falls along a cosine to 1 % at the end.
        losses: weight of each loss by name; names that are not given keep their default, 0 switches one off.
        detected_every: losses over detected keypoints are computed on every n-th step.
        detected_from: ... and only once the stage has seen this many pairs: an untrained detector has no keypoints.
        keep_best: a figure of the validation (:class:`semkey.training.validation.Validation`): the stage ends with the
            weights of its validation where that was highest, those that it started from among them; None ends with the
            last ones.
    """

    epochs: float = 1.0
    learning_rate: float = 1e-4
    losses: Mapping[str, float] = field(default_factory=dict)
    detected_every: int = 1
    detected_from: int = 0
    keep_best: KeptBy | None = None

    allowed_losses = LOSSES

    def __post_init__(self) -> None:
        require_within(self, "[0, inf)", "epochs")
        require_within(self, "(0, 1)", "learning_rate")
        require_within(self, "[1, inf)", "detected_every")
        require_choice(self, "keep_best")
        for name, weight in self.losses.items():
            if name not in LOSSES:
                raise unknown_key("losses", name, LOSSES)
            require(weight >= 0, f"losses.{name} is {weight}, must be 0 or more")
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


def _require_positive(stage: DetectorStage | FinetuneStage) -> None:
    """Refuse losses below 0 where their weights are learned: the sum would have no minimum."""
    if stage.gradients == "kendall" and "covariance_nll" in stage.active_losses:
        raise ConfigError(
            "gradients 'kendall' learns weights of losses that are never negative, and covariance_nll can be: use "
            "'sum', 'pcgrad' or 'cagrad', or train it in stage reliability"
        )


def _require_negatives(stage: StageConfig) -> None:
    """Refuse losses that equal descriptors everywhere would satisfy, where no other loss minds."""
    active = stage.active_losses
    alone = [name for name in TRACK_LOSSES if name in active]
    if alone and not any(name in MATCHING_LOSSES for name in active):
        raise ConfigError(
            f"losses.{alone[0]} alone makes all descriptors equal: give one of {', '.join(MATCHING_LOSSES)} a weight"
        )


@dataclass(frozen=True, kw_only=True)
class DescriptorStage(StageConfig):
    """Stage 1: trunk (stem, context, pyramid), descriptor and, with its loss, the place descriptor."""

    epochs: float = 5.0
    losses: Mapping[str, float] = field(default_factory=lambda: {"match_dual_softmax": 1.0, "place": 0.1})

    allowed_losses = (*MATCHING_LOSSES, *TRACK_LOSSES, *PLACE_LOSSES)

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_negatives(self)


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
        _require_negatives(self)
        _require_positive(self)


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
        require_within(self, "[0, 1)", "tolerance")
        _require_negatives(self)
        _require_positive(self)


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
