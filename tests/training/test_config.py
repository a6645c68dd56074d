"""Configuration of training: nested, strict, and the same after a round trip."""

from __future__ import annotations

from pathlib import Path

import pytest

from semkey.errors import ConfigError
from semkey.settings import override, read_yaml
from semkey.training.config import TrainConfig, shipped_configs
from semkey.training.stage_config import STAGES


def test_the_defaults_are_those_of_the_guide() -> None:
    stages = TrainConfig().stages
    assert [stages.get(name).epochs for name in STAGES] == [5, 10, 3, 2]
    assert [stages.get(name).learning_rate for name in STAGES] == [1e-4, 1e-4, 1e-5, 1e-5]
    assert stages.detector.mode == "decoupled"
    assert stages.finetune.gradients == "pcgrad"


def test_a_round_trip_changes_nothing() -> None:
    config = TrainConfig.from_mapping(
        {
            "stages": {"detector": {"losses": {"heat": 2}}},
            "data": {"photos": "a/b"},
            "model": {"stem_channels": [8, 16]},
        }
    )
    assert TrainConfig.from_mapping(config.to_mapping()) == config
    assert config.stages.detector.losses == {"heat": 2.0, "position": 0.5, "reprojection": 1.0, "anchor": 1.0}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"stagse": {}}, "unknown key 'stagse', did you mean 'stages'"),
        ({"stages": {"detektor": {}}}, "stages.detektor.*'detector'"),
        ({"data": {"potos": "x"}}, r"data\.potos.*'photos'"),
        ({"model": {"grid_chanels": 8}}, "model.*grid_chanels.*'grid_channels'"),
        ({"stages": {"detector": {"losses": {"haet": 1}}}}, "stages.detector.*losses.haet.*'heat'"),
        ({"stages": {"reliability": {"losses": {"heat": 1}}}}, "stages.reliability.*losses.heat trains nothing"),
        ({"stages": {"detector": {"losses": {"match_nre": 1}}}}, "trains nothing with mode 'decoupled'"),
        ({"stages": {"detector": {"mode": "joint"}}}, "trains the descriptors too"),
        ({"stages": {"detector": {"mode": "jiont"}}}, r"stages.detector.mode is 'jiont'.*decoupled"),
        ({"stages": {"descriptor": {"losses": {"match_dual_softmax": 0, "place": 0}}}}, "losses are all 0"),
        ({"stages": {"descriptor": {"learning_rate": "fast"}}}, "learning_rate is 'fast', expected a number"),
        ({"stages": {"descriptor": {"learning_rate": float("nan")}}}, "learning_rate is nan"),
        ({"optimizer": {"batch_pairs": 6, "micro_batch": 4}}, "multiple of micro_batch"),
        ({"optimizer": {"batch_pairs": 4.5}}, "expected a whole number"),
        ({"run": {"tensorboard": "maybe"}}, "expected true or false"),
        ({"run": 3}, "run is 3, expected keys"),
        ({"model": [1]}, r"model is \[1\], expected keys"),
        ({"name": "a/b"}, "becomes a file name"),
        ({"seed": -1}, "seed"),
    ],
)
def test_what_cannot_be_is_told_with_its_key(values: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainConfig.from_mapping(values)


def test_yaml_numbers_without_a_dot_are_numbers(tmp_path: Path) -> None:
    file = tmp_path / "c.yaml"
    file.write_text("stages: {descriptor: {learning_rate: 1e-3, epochs: 2}}\nrun:\n")
    config = TrainConfig.load(file, ["stages.descriptor.epochs=1e0", "data.photos=some/dir", "run.workers=0"])
    assert config.stages.descriptor.learning_rate == 1e-3
    assert config.stages.descriptor.epochs == 1.0
    assert str(config.data.photos) == "some/dir"
    assert config.run.workers == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [("a: [1", "line 1"), ("- 1", "holds a list"), ("stages: {detektor: {}}", r"c\.yaml: unknown key")],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"c\.yaml") as caught:
        TrainConfig.load(file)
    assert caught.match(message)
    with pytest.raises(ConfigError, match="no such file"):
        read_yaml(tmp_path / "missing.yaml")


def test_changes_lie_on_top_and_leave_the_original() -> None:
    before = {"a": {"b": 1}, "c": 2}
    assert override(before, ["a.b=3", "d.e=x y", "c=null"]) == {"a": {"b": 3}, "c": None, "d": {"e": "x y"}}
    assert before == {"a": {"b": 1}, "c": 2}
    for bad in ("a.b", "=1", "a..b=1", "c.d=1"):
        with pytest.raises(ConfigError, match="--set"):
            override(before, [bad])


def test_steps_follow_from_epochs_and_batch() -> None:
    config = TrainConfig.from_mapping({"pairs_per_epoch": 100, "optimizer": {"batch_pairs": 8}})
    assert config.steps("descriptor") == 62


def test_a_configuration_of_semkey_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert {"compact", "compact-small", "nano"} <= shipped_configs().keys()
    assert TrainConfig.load("compact-small") == TrainConfig.load(shipped_configs()["compact-small"])
    with pytest.raises(ConfigError, match="no configuration 'compact-smal', did you mean 'compact-small'"):
        TrainConfig.load("compact-smal")
    (tmp_path / "nano").write_text("name: mine")  # a file of the user comes first
    assert TrainConfig.load("nano").name == "mine"
