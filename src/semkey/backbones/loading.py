"""Backbones by name: official weights from a folder, the hub's cache or the hub itself; or random ones."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from semkey.backbones.backbone import Backbone, BackboneIdentity
from semkey.backbones.local_files import WEIGHTS_FILE, weights_paths
from semkey.backbones.naming import canonical_tensors, content_hash
from semkey.backbones.network import build_network, import_transformers, read_architecture
from semkey.backbones.specs import (
    BACKBONES,
    DINOV3_LICENCE,
    DINOV3_LICENCE_URL,
    HUB_NAME,
    Architecture,
    BackbonePreset,
    Source,
    check_backbone_name,
    preset_hint,
)
from semkey.downloads import MAX_BYTES, DownloadError, cache_folder, download, file_sha256
from semkey.errors import CheckpointError, ConfigError
from semkey.untrusted import read_json

log = logging.getLogger(__name__)

ACCEPT_VARIABLE = "SEMKEY_ACCEPT_LICENSE"
"""Environment variable that lists, between commas, the licences that the user has accepted: ``dinov3``."""

_JSON_BYTES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class _Weights:
    """A file of weights and what is known of it."""

    path: Path
    revision: str = ""


def load_backbone(
    name: str, layers: Sequence[int] = (), *, weights: Sequence[Path] = (), accept_licence: bool = False
) -> Backbone:
    """A backbone with its official weights, on the CPU.

    A preset's file is looked for in ``weights``, ``$SEMKEY_WEIGHTS``, ``$SEMKEY_SHARED/weights``, the cache folder and
    the hub's own cache (``$HF_HOME``), as ``NAME.safetensors`` or ``REPOSITORY/model.safetensors``; last, it is
    downloaded from the hub at a fixed revision. Watch a download with :func:`semkey.downloads.report_downloads`.

    Args:
        name: a preset (:data:`semkey.backbones.specs.BACKBONES`), ``owner/name`` or ``owner/name@revision`` of a ViT,
            DINOv2 or DINOv3 on the hub, or a folder with ``config.json`` and ``model.safetensors``.
        layers: which ones give maps, counted from 1; empty for four at equal distances.
        weights: folders (or files) that are looked into first.
        accept_licence: the user has read and accepts the licence of the weights, where it is one that asks for that
            (DINOv3); as ``SEMKEY_ACCEPT_LICENSE=dinov3`` says.

    Raises:
        ConfigError: unknown name or layer, a folder that does not exist, or transformers is not installed.
        CheckpointError: the weights cannot be had, are damaged or of another network, or their licence has not been
            accepted.
    """
    check_backbone_name(name)
    chosen = tuple(layers)
    if name in BACKBONES:
        preset = BACKBONES[name]
        chosen = preset.architecture.check_layers(chosen, name)
        import_transformers()  # before a download of a gigabyte
        found = _find(preset, weights) or _fetch(preset, accept_licence)
        return _build(name, preset.architecture, found, chosen, preset.source)
    if Path(name).is_dir():
        architecture = _read_folder(Path(name))
        return _build(name, architecture, _Weights(path=Path(name) / WEIGHTS_FILE), chosen, None)
    match = HUB_NAME.fullmatch(name)
    assert match is not None
    import_transformers()
    architecture, found = _from_hub(match["repository"], match["revision"] or "main")
    return _build(name, architecture, found, chosen, None)


def random_backbone(name_or_architecture: str | Architecture, layers: Sequence[int] = (), *, seed: int = 0) -> Backbone:
    """A backbone with random weights, for tests of shape and measurements of speed.

    Args:
        name_or_architecture: a preset's name, or any architecture.
        layers: as for :func:`load_backbone`.
        seed: of the weights; torch's own generator is left as it was.

    Raises:
        ConfigError: unknown name or layer, or transformers is not installed.
    """
    if isinstance(name_or_architecture, str):
        if name_or_architecture not in BACKBONES:
            raise ConfigError(
                f"no preset '{name_or_architecture}'{preset_hint(name_or_architecture)}: {', '.join(BACKBONES)}"
            )
        name, architecture = name_or_architecture, BACKBONES[name_or_architecture].architecture
    else:
        name, architecture = f"random {name_or_architecture.family}", name_or_architecture
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = build_network(architecture, None, name)
    return Backbone(network, architecture, layers=tuple(layers), identity=BackboneIdentity(name=name))


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Canonical tensors of a ``.safetensors`` file.

    Raises:
        CheckpointError: it cannot be read, or holds values that are not finite.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = canonical_tensors(load_file(path))
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as weights ({' '.join(str(error).split())[:200]}): delete it, or put a whole one "
            "there"
        ) from None
    if any(not bool(torch.isfinite(value).all()) for value in tensors.values()):
        raise CheckpointError(f"{path}: holds NaN or infinite weights")
    return tensors


def _build(
    name: str, architecture: Architecture, weights: _Weights, layers: tuple[int, ...], source: Source | None
) -> Backbone:
    tensors = read_tensors(weights.path)
    content = content_hash(tensors)
    if source is not None and source.content and content != source.content:
        raise CheckpointError(
            f"{weights.path}: its tensors are not those of {source.repository} ({content[:16]}..., expected "
            f"{source.content[:16]}...): the file is damaged or another one, delete it"
        )
    network = build_network(architecture, tensors, str(weights.path))
    identity = BackboneIdentity(name=name, revision=weights.revision, content=content)
    return Backbone(network, architecture, layers=layers, identity=identity)


def _is_refused(error: DownloadError) -> bool:
    return error.reason.startswith(("HTTP 401", "HTTP 403"))


# -- presets -----------------------------------------------------------------------------------------------------------


def _find(preset: BackbonePreset, folders: Sequence[Path]) -> _Weights | None:
    """The file of a preset, if it is on this machine already, checked against its hash."""
    for path in weights_paths(preset, folders):
        if path.is_file():
            _check_file(path, preset.source)
            return _Weights(path=path, revision=preset.source.revision)
    return None


def _check_file(path: Path, source: Source) -> None:
    """Compare a file with the hash of the release, or with the one noted when it was downloaded."""
    expected = source.sha256 or _noted_hash(path)
    if not expected or source.content:  # the tensors are compared instead, whatever file they are in
        return
    found = file_sha256(path)
    if found != expected:
        raise CheckpointError(
            f"{path}: SHA-256 is {found[:16]}..., that of {source.repository} at {source.revision[:12]} is "
            f"{expected[:16]}...: the file is damaged or another one, delete it or put the right one there"
        )


def _fetch(preset: BackbonePreset, accept_licence: bool) -> _Weights:
    source = preset.source
    _check_licence(preset, accept_licence)
    target = cache_folder() / f"{preset.name}.safetensors"
    url = _hub_url(source.repository, source.revision, WEIGHTS_FILE)
    try:
        got = download(
            url,
            target,
            sha256=source.sha256 or None,
            headers=_hub_headers(),
            max_bytes=source.megabytes * 1_100_000,
            needs_hash=True,
        )
    except DownloadError as error:
        gated = ": its owner lets in only accounts that have asked for it, set HF_TOKEN" if _is_refused(error) else ""
        raise CheckpointError(
            f"the weights of '{preset.name}' ({source.megabytes} MB) are not on this machine and cannot be fetched "
            f"({error.reason}){gated}: download {url} and put it as {target}, or as {target.name} into the folder that "
            "$SEMKEY_WEIGHTS names"
        ) from None
    _note_hash(target, url, got.sha256, got.commit or source.revision)
    return _Weights(path=target, revision=source.revision)


def _check_licence(preset: BackbonePreset, accepted: bool) -> None:
    """State a licence that is not an open one before anything is fetched.

    Raises:
        CheckpointError: the user has not accepted it.
    """
    if preset.source.licence != DINOV3_LICENCE:
        return
    named = {word.strip().lower() for word in os.environ.get(ACCEPT_VARIABLE, "").split(",")}
    if not accepted and "dinov3" not in named:
        raise CheckpointError(
            f"the weights of '{preset.name}' are under the {DINOV3_LICENCE} ({DINOV3_LICENCE_URL}), which is not an "
            f"open one: read it, and if you accept it set {ACCEPT_VARIABLE}=dinov3 to have "
            f"{_hub_url(preset.source.repository, preset.source.revision, WEIGHTS_FILE)} fetched, or put that file as "
            f"{preset.name}.safetensors into {cache_folder()}"
        )
    log.warning("the weights of '%s' are under the %s: %s", preset.name, DINOV3_LICENCE, DINOV3_LICENCE_URL)


# -- folders and other networks of the hub -----------------------------------------------------------------------------


def _read_folder(folder: Path) -> Architecture:
    for name in ("config.json", WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise CheckpointError(
                f"{folder / name}: no such file; a backbone's folder has config.json and {WEIGHTS_FILE}"
            )
    processor = folder / "preprocessor_config.json"
    return read_architecture(
        _read_json(folder / "config.json"), _read_json(processor) if processor.is_file() else {}, str(folder)
    )


def _from_hub(repository: str, revision: str) -> tuple[Architecture, _Weights]:
    """Architecture and weights of a network of the hub; they are kept under the name and the revision asked for."""
    folder = cache_folder() / "hub" / f"{repository.replace('/', '--')}@{revision.replace('/', '-')}"
    commit = ""
    wanted = ("config.json", "preprocessor_config.json", WEIGHTS_FILE)  # the last one says that all are there
    for name in wanted if not (folder / WEIGHTS_FILE).is_file() else ():
        target, url = folder / name, _hub_url(repository, revision, name)
        if target.is_file():
            continue
        try:
            largest = MAX_BYTES if name == WEIGHTS_FILE else _JSON_BYTES
            got = download(url, target, headers=_hub_headers(), max_bytes=largest)
        except DownloadError as error:
            if name == "preprocessor_config.json" and "404" in error.reason:
                continue  # the usual colours of that kind of network
            raise CheckpointError(
                f"'{repository}' is not on this machine and {error}; without network, name a folder with config.json "
                f"and {WEIGHTS_FILE} instead, or put them into {folder}"
            ) from None
        commit = got.commit or commit
        if name == WEIGHTS_FILE:
            _note_hash(target, url, got.sha256, commit)
    weights = folder / WEIGHTS_FILE
    noted = _read_note(weights)
    if noted and file_sha256(weights) != noted.get("sha256"):
        raise CheckpointError(f"{weights}: is not what was downloaded, the file is damaged: delete it")
    return _read_folder(folder), _Weights(path=weights, revision=str(noted.get("commit") or revision))


def _hub_url(repository: str, revision: str, name: str) -> str:
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
    return f"{endpoint}/{repository}/resolve/{revision}/{name}"


def _hub_headers() -> dict[str, str]:
    token = os.environ.get("HF_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _note_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _note_hash(path: Path, url: str, sha256: str, commit: str) -> None:
    """Note beside a download what it was, so that a later change of the file is noticed."""
    from semkey.files import atomic_write_text

    atomic_write_text(_note_path(path), json.dumps({"url": url, "sha256": sha256, "commit": commit}) + "\n")


def _noted_hash(path: Path) -> str:
    return str(_read_note(path).get("sha256", ""))


def _read_note(path: Path) -> Mapping[str, Any]:
    try:
        noted = json.loads(_note_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return noted if isinstance(noted, dict) else {}


def _read_json(path: Path) -> Mapping[str, Any]:
    values = read_json(path, limit=_JSON_BYTES, error=CheckpointError)
    if not isinstance(values, dict):
        raise CheckpointError(f"{path}: holds a {type(values).__name__}, expected keys with values")
    return values
