"""``semkey train`` from photos to weights, and its errors."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import semkey
from semkey.cli.main import main
from semkey.training.config import TrainConfig

ROOT = Path(__file__).resolve().parents[2]

CONFIG = """
name: mine
pairs_per_epoch: 8
model: {stem_channels: [8, 8, 16], detail_channels: 8, context_channels: [16, 16], grid_channels: 16,
  descriptor_dim: 16, descriptor_positions: 4, global_dim: 8}
data:
  width: 96
  height: 96
  points: 32
  val_share: 0.4
  shares: {photos: 0.7, shapes: 0.3, rooms: 0}
stages:
  descriptor: {epochs: 1, learning_rate: 1e-3}
  detector: {epochs: 1, losses: {repeatability: 1, peakiness: 0.5}}
  reliability: {epochs: 1}
  finetune: {epochs: 0}
optimizer: {batch_pairs: 4, micro_batch: 4}
validation: {pairs: 3, every: 8, keypoints: 32, pictures: 1}
run: {workers: 0, device: cpu, tensorboard: true}
"""


@pytest.fixture
def config(tmp_path: Path, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration file, and six noise photos beside it."""
    (tmp_path / "photos").mkdir()
    for index in range(6):
        noise = cv2.GaussianBlur(rng.integers(0, 256, (160, 200, 3), dtype=np.uint8), (0, 0), 2)
        cv2.imwrite(
            str(tmp_path / "photos" / f"{index}.png"), cv2.normalize(noise, noise.copy(), 0, 255, cv2.NORM_MINMAX)
        )
    (tmp_path / "c.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "c.yaml"


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as caught:
        main(["train", *map(str, arguments)])
    return int(caught.value.code or 0)


def test_from_photos_to_weights(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lightning_fabric")
    settings = ("--set", "data.photos=photos", "--set", "data.cache=cache")
    assert run(config, *settings) == 0
    out, err = capsys.readouterr()
    assert out.startswith("stage\tdescriptor_accuracy\tmatching_score")
    assert [line.split("\t")[0] for line in out.splitlines()[1:4]] == ["descriptor", "detector", "reliability"]
    assert "written: runs/mine/mine.safetensors" in out
    assert "stage detector: 2 steps" in err
    semkey.load("runs/mine/mine.safetensors", device="cpu")
    assert list(Path("runs/mine/tensorboard").glob("events*"))
    assert Path("runs/mine/report.html").is_file()
    assert run(config, *settings) == 2
    assert "already holds stage descriptor" in capsys.readouterr().err
    assert run(config, *settings, "--resume") == 0  # nothing is left to do
    assert run(config, *settings, "--resume", "--stage", "finetune", "--set", "stages.finetune.epochs=1") == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.yaml"], "missing.yaml: no such file"),
        (["c.yaml"], "data.photos is not set"),
        (["c.yaml", "--set", "optimizer.batchpairs=4"], "did you mean 'batch_pairs'"),
        (["c.yaml", "--set", "data.photos=nowhere"], "nowhere"),
        (["c.yaml", "--stage", "finetune"], "stages.finetune.epochs is 0"),
        (["c.yaml", "--set", "data.photos=photos", "--stage", "detector"], "stage detector needs a trained network"),
        (["c.yaml", "--out", "c.yaml"], "c.yaml is a file"),
    ],
)
def test_errors_are_one_line(
    config: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert config.is_file()
    assert run(*arguments) == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert err[-1].startswith("error: ")
    assert message in err[-1]


def test_without_lightning_it_says_what_to_install(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    assert run(config, "--set", "data.photos=photos") == 2
    assert "pip install 'semkey[train]'" in capsys.readouterr().err


def test_tensorboard_is_optional(
    config: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    module = importlib.import_module("semkey.training.fit")
    assert module._summary_writer(config.parent) is None
    assert "semkey[train]" in caplog.text


OTHERS = ("lightglue", "refiner")  # configurations of `semkey train-matcher` and `train-refiner`
PRESETS = [path for path in sorted((ROOT / "configs").glob("*.yaml")) if not path.name.startswith(OTHERS)]


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.name)
def test_the_presets_can_be_read(path: Path) -> None:
    config = TrainConfig.load(path)
    assert config.name == path.stem
    assert any(config.steps(name) for name in ("descriptor", "detector", "reliability"))
