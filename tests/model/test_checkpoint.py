"""Checkpoints: round trip, and each way a file can be wrong gives one clear line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from semkey.errors import CheckpointError
from semkey.model.checkpoint import FORMAT, load_checkpoint, load_weights, save_checkpoint
from semkey.model.config import ModelConfig
from semkey.model.presets import load_detector, presets
from semkey.model.semantic_detector import SemanticKeypointDetector


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "random.safetensors"
    save_checkpoint(SemanticKeypointDetector(), path)
    return path


def test_round_trip(checkpoint: Path, tmp_path: Path) -> None:
    model = load_checkpoint(checkpoint)
    digest = save_checkpoint(model, tmp_path / "again.safetensors")
    again = load_checkpoint(tmp_path / "again.safetensors", digest)
    assert again.config == ModelConfig()
    for name, tensor in load_file(checkpoint).items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert list(tmp_path.iterdir()) == [tmp_path / "again.safetensors"]


def test_equal_weights_give_equal_bytes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = SemanticKeypointDetector()
    script = (
        "import sys, torch; from semkey.model.checkpoint import save_checkpoint;"
        "from semkey.model.semantic_detector import SemanticKeypointDetector;"
        "torch.manual_seed(0); print(save_checkpoint(SemanticKeypointDetector(), sys.argv[1]))"
    )
    first = save_checkpoint(model, tmp_path / "0.safetensors")
    again = [save_checkpoint(model, tmp_path / f"{i}.safetensors") for i in range(1, 8)]
    other = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "x")], capture_output=True, text=True, check=True
    )
    assert {*again, other.stdout.strip()} == {first}
    assert load_file(tmp_path / "0.safetensors").keys() == load_file(tmp_path / "x").keys()


def test_load_takes_a_path(checkpoint: Path) -> None:
    assert load_detector(checkpoint, max_keypoints=7, device="cpu").extraction.max_keypoints == 7
    assert load_detector(str(checkpoint), device="cpu").extraction.max_keypoints == 1024


def test_wrong_hash(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match=r"random\.safetensors: SHA-256 is .* expected 0000"):
        load_checkpoint(checkpoint, "0" * 64)


def test_missing_truncated_and_foreign_files(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.safetensors: no such"):
        load_detector(tmp_path / "none.safetensors")
    truncated = tmp_path / "short.safetensors"
    truncated.write_bytes(checkpoint.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"short\.safetensors: not a readable"):
        load_detector(truncated)
    empty = tmp_path / "empty.safetensors"
    empty.write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"empty\.safetensors: not a readable"):
        load_detector(empty)
    wordy = tmp_path / "wordy.safetensors"
    header = b'{"a":{"dtype":"\\u202e' + b"y" * 5000 + b'","shape":[1],"data_offsets":[0,4]}}'
    wordy.write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    with pytest.raises(CheckpointError, match=r"wordy\.safetensors: not a readable") as raised:
        load_detector(wordy)
    assert len(str(raised.value)) < len(str(wordy)) + 150
    assert "\n" not in str(raised.value)
    foreign = tmp_path / "foreign.safetensors"
    save_file({"weight": torch.zeros(3)}, foreign)
    with pytest.raises(CheckpointError, match=r"foreign\.safetensors: no semkey detector"):
        load_detector(foreign)


@pytest.mark.parametrize("kind", ["foreign", "missing", "misshapen", "NaN"])
def test_wrong_tensors(checkpoint: Path, tmp_path: Path, kind: str) -> None:
    tensors = load_file(checkpoint)
    name = "pyramid.fine.weight"
    if kind == "foreign":
        tensors["lora.weight"] = torch.zeros(1)
    elif kind == "missing":
        del tensors[name]
    elif kind == "misshapen":
        tensors[name] = tensors[name][:-1].contiguous()
    else:
        tensors[name][0] = float("nan")
    path = tmp_path / "wrong.safetensors"
    save_file(tensors, path, metadata={"format": FORMAT, "config": json.dumps(ModelConfig().to_mapping())})
    with pytest.raises(CheckpointError, match=kind):
        load_detector(path)


def test_unknown_configuration_key(checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "future.safetensors"
    config = {**ModelConfig().to_mapping(), "attention": True}
    save_file(load_file(checkpoint), path, metadata={"format": FORMAT, "config": json.dumps(config)})
    with pytest.raises(CheckpointError, match="unknown key 'attention'"):
        load_detector(path)


def test_other_architecture_is_refused(checkpoint: Path) -> None:
    with pytest.raises(CheckpointError, match="made for"):
        load_weights(SemanticKeypointDetector(ModelConfig(descriptor_dim=32)), checkpoint)


def test_unknown_preset() -> None:
    with pytest.raises(CheckpointError, match="unknown preset 'compct', did you mean 'compact'"):
        load_detector("compct")


def test_shipped_weights_are_whole() -> None:
    preset = presets()["compact"]
    assert preset.path.stat().st_size <= 4_000_000
    load_checkpoint(preset.path, preset.sha256)
