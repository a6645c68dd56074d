"""Checkpoints: safetensors with the network's configuration in the header; read with hash and key checks.

A backbone's weights are not in them. The header says which backbone it was, by name, revision and hash of its tensors,
and a detector is only put together with that one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from semkey.backbones.backbone import Backbone, BackboneIdentity
from semkey.errors import CheckpointError, ConfigError
from semkey.files import atomic_write_bytes
from semkey.model.building import changed_heads, is_of, load_backbone_of, with_heads_of
from semkey.model.config import ModelConfig
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.untrusted import one_line

FORMAT = "semkey-detector-1"


def save_checkpoint(model: SemanticKeypointDetector, path: str | Path) -> str:
    """Write a checkpoint as :func:`semkey.files.atomic_write_bytes` does; returns its SHA-256 (hex).

    Equal weights give equal bytes.
    """
    tensors = {name: value.contiguous().cpu() for name, value in model.state_dict().items()}
    metadata = {"format": FORMAT, "config": json.dumps(model.config.to_mapping())}
    if model.backbone is not None:
        metadata["backbone"] = json.dumps(asdict(model.backbone.identity))
    data = _in_order(save(tensors, metadata=metadata))
    atomic_write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def _in_order(data: bytes) -> bytes:
    """The same safetensors file with the entries of its header in order: safetensors shuffles those of metadata."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    tensors = sorted(header.items(), key=lambda entry: entry[1].get("data_offsets", [-1]))
    ordered = {name: dict(sorted(entry.items())) for name, entry in tensors}
    text = json.dumps(ordered, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight bytes
    return len(text).to_bytes(8, "little") + text + data[8 + length :]


def load_checkpoint(
    path: str | Path,
    sha256: str | None = None,
    *,
    backbone: Backbone | None = None,
    weights: Sequence[Path] = (),
) -> SemanticKeypointDetector:
    """Read a checkpoint into a new detector on the CPU.

    Args:
        path: a .safetensors file written by :func:`save_checkpoint`.
        sha256: expected hash (hex); None accepts any.
        backbone: the one it was trained over, where it is loaded already; None loads it (which may be a download).
        weights: folders where the backbone's weights are looked for first.

    Raises:
        CheckpointError: missing, unreadable, another hash, another format, foreign, missing or misshapen tensors, or
            its backbone cannot be had or is another one.
        ConfigError: its backbone needs a package that is missing.
    """
    path = Path(path)
    stored = _read(path, sha256)
    if stored.config.uses_backbone and backbone is None:
        backbone = load_backbone_of(stored.config, weights=weights)
    model = SemanticKeypointDetector(stored.config, backbone=backbone)
    _check_backbone(model, stored, path)
    _assign(model, stored.tensors, path)
    return model


def load_weights(model: SemanticKeypointDetector, path: str | Path, sha256: str | None = None) -> tuple[str, ...]:
    """Copy a checkpoint's tensors into an existing detector of the same configuration.

    The heads of reliability and covariance may be of another kind or absent: they read from the others and these do not
    from them. Then the detector keeps its own, and all else is copied.

    Args:
        model: takes the tensors.
        path: a .safetensors file written by :func:`save_checkpoint`.
        sha256: expected hash (hex); None accepts any.

    Returns:
        The heads that the detector keeps.

    Raises:
        CheckpointError: as :func:`load_checkpoint`; or made for another configuration.
    """
    path = Path(path)
    stored = _read(path, sha256)
    changed = changed_heads(stored.config, model.config)
    if with_heads_of(stored.config, model.config).network != model.config.network:
        raise CheckpointError(f"{path}: made for {stored.config}, not for {model.config}")
    _check_backbone(model, stored, path)
    tensors = stored.tensors
    if changed:
        own = {name: value for name, value in model.state_dict().items() if is_of(name, changed)}
        tensors = {name: value for name, value in tensors.items() if not is_of(name, changed)} | own
    _assign(model, tensors, path)
    return changed


def read_config(path: str | Path) -> ModelConfig:
    """The configuration of the network that a checkpoint is of.

    Raises:
        CheckpointError: missing, unreadable, or another format.
    """
    return _read(Path(path), None).config


@dataclass(frozen=True, kw_only=True)
class _Stored:
    """What is in a file; ``backbone`` is None where the network has none."""

    config: ModelConfig
    tensors: Mapping[str, torch.Tensor]
    backbone: BackboneIdentity | None


def _read(path: Path, sha256: str | None) -> _Stored:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint file")
    if sha256 is not None:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        if found != sha256:
            raise CheckpointError(
                f"{path}: SHA-256 is {found[:16]}..., expected {sha256[:16]}...: the file is damaged or was replaced,"
                " install it again"
            )
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: not a readable safetensors file ({one_line(str(error))})") from None
    if metadata.get("format") != FORMAT:
        raise CheckpointError(f"{path}: no semkey detector (format is {metadata.get('format')!r}, expected {FORMAT!r})")
    try:
        identity = json.loads(metadata["backbone"]) if "backbone" in metadata else None
        return _Stored(
            config=ModelConfig.from_stored(json.loads(metadata["config"])),
            tensors=tensors,
            backbone=None if identity is None else BackboneIdentity(**identity),
        )
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError, ConfigError) as error:
        raise CheckpointError(f"{path}: its configuration cannot be used ({error})") from None


def _check_backbone(model: SemanticKeypointDetector, stored: _Stored, path: Path) -> None:
    """Heads are of no use over other features than those they were trained on."""
    if model.backbone is None or stored.backbone is None:
        return
    own, trained = model.backbone.identity.content, stored.backbone.content
    if own != trained:
        raise CheckpointError(
            f"{path}: trained over '{stored.backbone.name}' with weights {trained[:16] or 'drawn at random'}..., the "
            f"backbone here has {own[:16] or 'random ones'}...: put the official weights there, or train again"
        )


def _assign(model: SemanticKeypointDetector, tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    expected = model.state_dict()
    foreign = sorted(set(tensors) - set(expected))
    missing = sorted(set(expected) - set(tensors))
    misshapen = sorted(k for k in set(expected) & set(tensors) if expected[k].shape != tensors[k].shape)
    for kind, names in (("foreign", foreign), ("missing", missing), ("misshapen", misshapen)):
        if names:
            more = f" and {len(names) - 1} more" if len(names) > 1 else ""
            raise CheckpointError(f"{path}: {kind} tensor '{names[0]}'{more}: it was made for another network")
    if any(not bool(torch.isfinite(value).all()) for value in tensors.values() if value.is_floating_point()):
        raise CheckpointError(f"{path}: holds NaN or infinite weights")
    model.load_state_dict(dict(tensors))
