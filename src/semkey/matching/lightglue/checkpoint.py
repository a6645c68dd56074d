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
        training: how it was made, for people.
    """

    features: str
    input_dim: int
    shape: LightGlueShape = field(default_factory=LightGlueShape)
    filter_threshold: float = 0.1
    training: str = ""

    def __post_init__(self) -> None:
        require_within(self, "[1, 4096]", "input_dim")
        require_within(self, "[0, 1]", "filter_threshold")


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
    network = build_network(info.input_dim, info.shape, filter_threshold=info.filter_threshold)
    fill_network(path, network, tensors, "LightGlue")
    return network, info
