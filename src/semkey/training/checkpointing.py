"""Checkpoints of a training run: written whole or not at all, the last few kept, checked when they are read."""

from __future__ import annotations

import json
import logging
import os
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from semkey import __version__
from semkey.errors import CheckpointError, ConfigError
from semkey.model.config import ModelConfig
from semkey.schema import check_type
from semkey.training.config import TrainConfig
from semkey.training.stage_config import STAGES, StageName
from semkey.untrusted import parse_json

log = logging.getLogger(__name__)

FORMAT = "semkey-training-1"
_NAME = re.compile(r"(?P<stage>[a-z]+)-(?P<step>\d{9})\.pt")

# What may differ between a run and its continuation: nothing of it changes the weights.
_HARMLESS = ("run.", "validation.pictures", "data.cache")


class CheckpointFolder:
    """The checkpoints of one run, ``FOLDER/<stage>-<step>.pt``.

    Args:
        folder: made on the first write.
        keep: how many stay.
    """

    def __init__(self, folder: Path, keep: int) -> None:
        self.folder, self.keep = folder, keep

    def files(self, stage: StageName | None = None) -> list[Path]:
        """Of a stage, or of all in the order of the stages; oldest first."""
        if not self.folder.is_dir():
            return []
        found = [(path, _NAME.fullmatch(path.name)) for path in self.folder.iterdir()]
        named = [
            (STAGES.index(match["stage"]), int(match["step"]), path)
            for path, match in found
            if match and match["stage"] in STAGES and stage in (None, match["stage"])
        ]
        return [path for _, _, path in sorted(named)]

    def write(self, stage: StageName, step: int, state: Mapping[str, Any], config: TrainConfig) -> Path:
        """Write a checkpoint under a temporary name, flush it to the disk and rename it; then drop the oldest ones."""
        self.folder.mkdir(parents=True, exist_ok=True)
        target = self.folder / f"{stage}-{step:09d}.pt"
        temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
        whole = {
            "format": FORMAT,
            "stage": stage,
            "step": step,
            "config": json.dumps(config.to_mapping()),
            "code": {"semkey": __version__, "torch": str(torch.__version__)},
            **state,
        }
        try:
            with temporary.open("wb") as file:
                torch.save(whole, file)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, target)
            _sync_folder(self.folder)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise CheckpointError(f"cannot write {target}: {error.strerror or error}") from error
        for old in self.files()[: -self.keep]:
            old.unlink(missing_ok=True)
        return target

    def clean(self) -> None:
        """Remove what a killed process left half-written."""
        for path in self.folder.glob(".*.tmp") if self.folder.is_dir() else ():
            path.unlink(missing_ok=True)

    def newest(self, stage: StageName, config: TrainConfig, device: torch.device) -> dict[str, Any] | None:
        """The state of the newest readable checkpoint of a stage, None if there is none.

        Raises:
            ConfigError: it was made under a configuration that trains something else.
            CheckpointError: there are checkpoints, but none can be read.
        """
        files = self.files(stage)[::-1]
        for path in files:
            try:
                state = _read(path, device)
            except Exception as error:  # torch raises many kinds for a damaged file
                log.warning("%s cannot be read (%s): trying the one before", path, " ".join(str(error).split())[:200])
                continue
            if state["format"] != FORMAT:
                raise CheckpointError(f"{path}: no checkpoint of this version of semkey ({FORMAT})")
            _check_config(path, state["config"], config, stage)
            if state["code"]["semkey"] != __version__:
                log.warning("%s was written by semkey %s, this is %s", path, state["code"]["semkey"], __version__)
            return state
        if files:
            raise CheckpointError(f"{self.folder}: none of the {len(files)} checkpoints can be read, start a new run")
        return None


def _read(path: Path, device: torch.device) -> dict[str, Any]:
    """What :meth:`CheckpointFolder.write` wrote, with its configuration as a mapping; raises anything otherwise."""
    with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums that it writes
        if (damaged := archive.testzip()) is not None:
            raise CheckpointError(f"{damaged} is damaged")
    state = torch.load(path, map_location=device, weights_only=True)
    check_type(state, Mapping[str, Any], "the checkpoint")
    for name, kind in (("format", str), ("stage", str), ("step", int), ("code", Mapping[str, str])):
        check_type(state[name], kind, name)
    state["config"] = parse_json(state["config"], "its configuration")
    check_type(state["config"], Mapping[str, Any], "its configuration")
    return state


def random_state() -> dict[str, Any]:
    """State of torch's random number generators."""
    state: dict[str, Any] = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Set what :func:`random_state` returned; a GPU's only on as many GPUs."""
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_available() and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all([part.cpu() for part in state["cuda"]])


def _check_config(path: Path, stored: Mapping[str, Any], config: TrainConfig, stage: StageName) -> None:
    try:
        model = ModelConfig.from_stored(stored.get("model", {})).to_mapping()
        known = TrainConfig.from_mapping({**stored, "model": model}).to_mapping()  # what came later has its default
    except ConfigError as error:
        raise ConfigError(f"{path} was made by another version of semkey ({error}): start a new run") from None
    before, now = _flat(known), _flat(config.to_mapping())
    for key in sorted(before.keys() | now.keys()):
        other_stage = key.startswith("stages.") and not key.startswith(f"stages.{stage}.")
        if key.startswith(_HARMLESS) or other_stage or key == "name" or before.get(key) == now.get(key):
            continue
        raise ConfigError(
            f"{path} was made with {key} = {before.get(key)}, not {now.get(key)}: set it back to resume, or start a new"
            " run with another --out"
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _sync_folder(folder: Path) -> None:
    """Flush a folder, so that a rename in it survives a power cut; not every system can."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)
