"""Files of matchers that ``semkey train-matcher`` writes: weights, and for which features they are."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from semkey.matching.lightglue.network import LightGlueShape, Network, build_network
from semkey.matching.network_file import fill_network, read_network, write_network
from semkey.settings import Settings, require_within

FORMAT = "semkey-lightglue-1"


@dataclass(frozen=True, kw_only=True)
class MatcherInfo(Settings):
    """What a file of a matcher says besides its weights.

    Attributes:
        features: name of the features that it was trained for.
        input_dim: width of their descriptors.
        shape: size of the network.
        filter_threshold: smallest confidence of a match.
        depth_confidence: share of keypoints that must be sure of their matches for the network to stop early, in (0,
            1); None: its confidence heads are not trained, it never does.
        width_confidence: probability of being unmatchable from which on sure keypoints are left out, in (0, 1); None:
            none are.
        training: how it was made, for people.
    """

    features: str
    input_dim: int
    shape: LightGlueShape = field(default_factory=LightGlueShape)
    filter_threshold: float = 0.1
    depth_confidence: float | None = None
    width_confidence: float | None = None
    training: str = ""

    def __post_init__(self) -> None:
        require_within(self, "[1, 4096]", "input_dim")
        require_within(self, "[0, 1]", "filter_threshold")
        for name in ("depth_confidence", "width_confidence"):
            if getattr(self, name) is not None:
                require_within(self, "(0, 1)", name)

    @property
    def is_adaptive(self) -> bool:
        """It may stop early or leave keypoints out."""
        return self.depth_confidence is not None or self.width_confidence is not None


def write_matcher(path: Path, network: Network, info: MatcherInfo) -> None:
    """Write a matcher whole or not at all, in float32.

    Raises:
        InputError: the file cannot be written.
    """
    write_network(path, network, info, FORMAT)


def read_matcher(path: Path) -> tuple[Network, MatcherInfo]:
    """The network of a file, on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind.
        ConfigError: kornia is not installed.
    """
    tensors, info = read_network(path, MatcherInfo, FORMAT, what="matcher", command="train-matcher")
    network = build_network(
        info.input_dim,
        info.shape,
        filter_threshold=info.filter_threshold,
        depth_confidence=info.depth_confidence,
        width_confidence=info.width_confidence,
    )
    fill_network(path, network, tensors, "LightGlue")
    return network, info
