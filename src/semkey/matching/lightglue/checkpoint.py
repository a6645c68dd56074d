"""Files of matchers that ``semkey train-matcher`` writes: weights, and for which features they are."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from semkey.errors import CheckpointError, ConfigError
from semkey.files import atomic_write_bytes
from semkey.matching.lightglue.network import LightGlueShape, Network, build_network
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
    tensors = {name: value.detach().float().cpu().contiguous() for name, value in network.state_dict().items()}
    header = {"format": FORMAT, "info": json.dumps(info.to_mapping())}
    atomic_write_bytes(path, save(tensors, metadata=header))


def read_matcher(path: Path) -> tuple[Network, MatcherInfo]:
    """The network of a file, on the CPU.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind.
        ConfigError: kornia is not installed.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file of a matcher (semkey train-matcher writes one)")
    try:
        with safe_open(path, framework="pt") as file:
            header: dict[str, Any] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as .safetensors ({' '.join(str(error).split())[:200]})"
        ) from None
    if header.get("format") != FORMAT:
        raise CheckpointError(f"{path}: is no matcher of semkey: use what semkey train-matcher wrote")
    try:
        info = MatcherInfo.from_mapping(json.loads(header["info"]))
    except (ConfigError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: what the file says of the matcher cannot be used ({error})") from None
    network = build_network(info.input_dim, info.shape, filter_threshold=info.filter_threshold)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: does not fit LightGlue ({' '.join(str(error).split())[:200]})") from None
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise CheckpointError(f"{path}: holds weights that are not finite")
    return network, info
