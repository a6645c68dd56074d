"""Files of small networks that semkey trains: weights, and what they are for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from semkey.errors import CheckpointError, ConfigError
from semkey.files import atomic_write_bytes
from semkey.settings import Settings

Info = TypeVar("Info", bound=Settings)


def write_network(path: Path, network: nn.Module, info: Settings, kind: str) -> None:
    """Write weights whole or not at all, in float32.

    Raises:
        InputError: the file cannot be written.
    """
    tensors = {name: value.detach().float().cpu().contiguous() for name, value in network.state_dict().items()}
    atomic_write_bytes(path, save(tensors, metadata={"format": kind, "info": json.dumps(info.to_mapping())}))


def file_kind(path: Path) -> str | None:
    """What a ``.safetensors`` file says it is; None where it cannot be read or says nothing."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format")
    except (SafetensorError, OSError):
        return None


def read_network(
    path: Path, info: type[Info], kind: str, *, what: str, command: str
) -> tuple[dict[str, torch.Tensor], Info]:
    """Weights of a file by name, and what it says of them.

    Args:
        path: the file.
        info: class of what it says.
        kind: of the file, as :func:`write_network` was told.
        what: the kind in words, for messages.
        command: that writes such files.

    Raises:
        CheckpointError: the file is missing, damaged or of another kind, or has weights that are not finite.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file of a {what} (semkey {command} writes one)")
    try:
        with safe_open(path, framework="pt") as file:
            header: dict[str, str] = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as .safetensors ({' '.join(str(error).split())[:200]})"
        ) from None
    if header.get("format") != kind:
        raise CheckpointError(f"{path}: is no {what} of semkey: use what semkey {command} wrote")
    try:
        said = info.from_mapping(json.loads(header["info"]))
    except (ConfigError, KeyError, ValueError) as error:
        raise CheckpointError(f"{path}: what the file says of the {what} cannot be used ({error})") from None
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise CheckpointError(f"{path}: holds weights that are not finite")
    return tensors, said


def fill_network(path: Path, network: nn.Module, tensors: dict[str, torch.Tensor], what: str) -> None:
    """Put weights of a file into a network.

    Raises:
        CheckpointError: they are those of another one.
    """
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise CheckpointError(f"{path}: does not fit {what} ({' '.join(str(error).split())[:200]})") from None
