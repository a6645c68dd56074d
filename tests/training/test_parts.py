"""Parts of training: schedule, moving average, batch norms, sums of gradients, checkpoints, log, validation, report."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from semkey.errors import CheckpointError
from semkey.model.config import ModelConfig
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.training import checkpointing
from semkey.training.checkpointing import CheckpointFolder
from semkey.training.config import TrainConfig, ValidationConfig
from semkey.training.feeding import MicroBatches
from semkey.training.history import History
from semkey.training.objectives.optimisation import (
    BatchNormStatistics,
    GradientSum,
    MovingAverage,
    clip,
    rate_factor,
    shared_cosines,
)
from semkey.training.report import write_report
from semkey.training.stages import freeze, plan_stage
from semkey.training.validation import validate
from training_fakes import MODEL, ShiftedPairs, only, small_config


def detector() -> SemanticKeypointDetector:
    torch.manual_seed(0)
    return SemanticKeypointDetector(ModelConfig.from_mapping(MODEL))


# -- optimisation ------------------------------------------------------------------------------------------------------


def test_the_rate_rises_linearly_and_falls_along_a_cosine() -> None:
    factors = [rate_factor(step, 110, 10) for step in range(110)]
    assert factors[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert factors[10] == 1.0
    assert factors[60] == pytest.approx(0.505)
    assert factors[-1] == pytest.approx(0.01, abs=1e-3)
    assert all(a >= b for a, b in pairwise(factors[10:]))
    assert rate_factor(0, 10, 1000) == 0.5  # a warm-up longer than the stage is cut to a fifth of it


def test_the_moving_average_follows_the_weights() -> None:
    model = detector()
    average = MovingAverage(model, 0.999)
    name = next(iter(model.state_dict()))
    start = model.state_dict()[name].clone()
    with torch.no_grad():
        for value in model.parameters():
            value.add_(1.0)
    average.update(model, 0)  # keeps 1/10 at first
    torch.testing.assert_close(average.model.state_dict()[name], start + 0.9)
    average.update(model, 10**6)
    torch.testing.assert_close(average.model.state_dict()[name], start + 0.9 + 0.001 * 0.1)
    assert not average.model.training
    untouched = MovingAverage(model, 0.9)
    untouched.update(model, 3)
    assert all(torch.equal(a, b) for a, b in zip(untouched.model.parameters(), model.parameters(), strict=True))


def test_batch_norms_take_the_mean_over_micro_batches() -> None:
    norm = nn.BatchNorm2d(2, momentum=0.1)
    parts = [torch.randn(3, 2, 4, 4) + 5 * i for i in range(2)]
    statistics = BatchNormStatistics(norm)
    for part in parts:
        norm(part)
        statistics.collect()
    assert torch.equal(norm.get_buffer("running_mean"), torch.zeros(2))
    statistics.assign(statistics.total / 2)
    means = torch.stack([part.mean(dim=(0, 2, 3)) for part in parts])
    torch.testing.assert_close(norm.running_mean, 0.1 * means.mean(dim=0))
    assert BatchNormStatistics(norm.eval()).total.numel() == 0


@pytest.mark.parametrize("mode", ["sum", "pcgrad"])
def test_gradients_add_up_over_micro_batches(mode: Any) -> None:
    """f = (x - 1)^2 + 3 x y and g = -x, at (0, 2), twice."""
    x, y = nn.Parameter(torch.tensor([0.0])), nn.Parameter(torch.tensor([2.0]))
    total = GradientSum([x, y], ["f", "g"], mode)
    for _ in range(2):
        losses = {"f": ((x - 1) ** 2 + 3 * x * y).sum(), "g": -x.sum()}
        total.add(losses, losses["f"] + losses["g"])
    mean = total.total / 2
    assert torch.equal(
        mean, torch.tensor([[4.0, 0.0], [-1.0, 0.0]]) if mode == "pcgrad" else torch.tensor([[3.0, 0.0]])
    )
    combined = total.combine(mean, torch.Generator().manual_seed(0), 0.5)
    # opposite gradients: each loses everything along the other one
    assert torch.equal(combined, torch.tensor([0.0, 0.0]) if mode == "pcgrad" else torch.tensor([3.0, 0.0]))


def test_cosines_are_over_shared_weights() -> None:
    rows = torch.tensor([[3.0, 4.0, 0.0, 0.0], [4.0, 3.0, 9.0, 0.0], [0.0, 0.0, -1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
    nan = float("nan")
    expected = [[1.0, 0.96, nan, nan], [0.96, 1.0, -1.0, nan], [nan, -1.0, 1.0, nan], [nan, nan, nan, 1.0]]
    torch.testing.assert_close(shared_cosines(rows), torch.tensor(expected), equal_nan=True)


def test_long_gradients_are_clipped() -> None:
    torch.testing.assert_close(clip(torch.tensor([3.0, 4.0]), 1.0), torch.tensor([0.6, 0.8]))
    assert torch.equal(clip(torch.tensor([0.3, 0.4]), 1.0), torch.tensor([0.3, 0.4]))
    assert torch.equal(clip(torch.zeros(2), 1.0), torch.zeros(2))


# -- stages ------------------------------------------------------------------------------------------------------------


def test_plans_say_what_learns() -> None:
    plans = {name: plan_stage(small_config(), name) for name in ("descriptor", "detector", "reliability", "finetune")}
    assert plans["descriptor"].parts == ("stem", "context", "pyramid", "descriptor", "place")
    assert plans["detector"].parts == ("detail", "detector", "offset")
    assert plans["reliability"].parts == ("reliability",)
    assert not plans["finetune"].decoupled
    assert plans["finetune"].gradients == "pcgrad"
    joint = plan_stage(small_config(stages=only("detector", mode="joint", losses={"match_nre": 1})), "detector")
    parallel = plan_stage(small_config(stages=only("detector", mode="parallel", losses={"match_nre": 1})), "detector")
    assert (joint.decoupled, parallel.decoupled) == (False, True)
    assert joint.parts == parallel.parts
    ranges = [range(plan.first_pair, plan.first_pair + 10**8) for plan in plans.values()]
    assert all(a.stop < b.start for a, b in pairwise(ranges))


def test_frozen_parts_keep_their_statistics() -> None:
    model = detector().train()
    learning = freeze(model, plan_stage(small_config(), "detector"))
    assert {id(p) for p in learning} == {
        id(p) for part in ("detail", "detector", "offset") for p in model.get_submodule(part).parameters()
    }
    assert not model.stem.training
    assert model.detail.training
    before = {name: value.clone() for name, value in model.named_buffers()}
    model(torch.randn(2, 1, 64, 64))
    changed = {name.split(".")[0] for name, value in model.named_buffers() if not torch.equal(value, before[name])}
    assert changed == {"detail", "detector"}


def test_processes_share_the_micro_batches_of_a_step() -> None:
    config = small_config(optimizer={"batch_pairs": 6, "micro_batch": 2})
    plan = plan_stage(config, "descriptor")
    streams = [iter(MicroBatches(plan, config, 5, rank, 2)) for rank in range(2)]
    assert [next(streams[0]) for _ in range(4)] == [[30, 31], [34, 35], [36, 37], [40, 41]]
    assert [next(streams[1]) for _ in range(2)] == [[32, 33], [38, 39]]


# -- checkpoints and log -----------------------------------------------------------------------------------------------


def test_checkpoints_are_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, config = CheckpointFolder(tmp_path / "c", 2), TrainConfig()
    for step in (1, 2, 3):
        folder.write("descriptor", step, {"value": torch.tensor(step)}, config)
    assert [path.name[-5:-3] for path in folder.files()] == ["02", "03"]
    monkeypatch.setattr(os, "replace", lambda *names: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(CheckpointError, match="No space left"):
        folder.write("descriptor", 4, {"value": torch.tensor(4)}, config)
    monkeypatch.undo()
    assert sorted(path.name for path in folder.folder.iterdir()) == [path.name for path in folder.files()]
    state = folder.newest("descriptor", config, torch.device("cpu"))
    assert state is not None
    assert (int(state["value"]), state["step"], state["code"]["semkey"]) == (3, 3, checkpointing.__version__)
    assert folder.newest("detector", config, torch.device("cpu")) is None


def test_a_checkpoint_is_flushed_before_it_is_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (calls.append("fsync"), fsync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda *names: (calls.append("rename"), replace(*names))[1])
    CheckpointFolder(tmp_path, 1).write("detector", 1, {}, TrainConfig())
    assert calls == ["fsync", "rename", "fsync"]


def test_the_log_survives_a_cut_line_and_goes_back(tmp_path: Path) -> None:
    history = History(tmp_path / "log.jsonl")
    for step in (1, 2, 3):
        history.add("train", "descriptor", step, {"losses": {"a": float("nan")}})
    history.add("train", "detector", 1, {"losses": {}})
    with history.path.open("a") as file:
        file.write('{"kind": "train", "sta')
    again = History(history.path)
    assert len(again.rows) == 4
    assert again.rows[0]["losses"] == {"a": None}
    again.rewind("descriptor", 2)
    assert [row["step"] for row in History(history.path).rows] == [1, 2]
    assert again.stages == ["descriptor"]


# -- validation and report ---------------------------------------------------------------------------------------------


def test_identical_views_match_perfectly() -> None:
    """View 1 is view 0: every keypoint is repeated in place and matches itself."""
    pair = ShiftedPairs()[0]
    pair |= {
        "image1": pair["image0"],
        "H10": torch.eye(3, dtype=torch.float64),
        "points1": pair["points0"],
        "targets1": pair["targets0"],
    }
    result = validate(detector().eval(), [pair, pair], ValidationConfig(keypoints=64), pictures=1)
    for name in ("matching_score", "precision", "repeatability"):
        assert result.figures[name] == 1.0
    assert result.figures["descriptor_accuracy"] == 1.0
    assert result.figures["error_px"] == pytest.approx(0.0, abs=1e-4)
    assert result.figures["matches"] > 20
    assert sum(count for _, _, count in result.calibration) == 2 * result.figures["matches"]
    assert len(result.samples) == 1
    assert bool(result.samples[0].right.all())


def test_a_wrong_truth_is_noticed() -> None:
    pair = ShiftedPairs()[0]
    pair |= {"image1": pair["image0"], "H10": torch.tensor([[1, 0, 12.0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)}
    result = validate(detector().eval(), [pair], ValidationConfig(keypoints=64))
    assert result.figures["precision"] == 0.0
    assert result.figures["repeatability"] < 0.6


def test_drawn_shapes_are_not_validated_on() -> None:
    pair = ShiftedPairs()[0] | {"is_scene": torch.tensor(0.0)}
    assert validate(detector().eval(), [pair], ValidationConfig()).figures == {}


def test_a_report_of_nothing_is_a_report(tmp_path: Path) -> None:
    write_report(tmp_path / "r.html", TrainConfig(), History(tmp_path / "log.jsonl"), {})
    assert "Configuration" in (tmp_path / "r.html").read_text()
    history = History(tmp_path / "log.jsonl")
    history.add("validation", "detector", 1, {"figures": {"precision": None}, "calibration": []})
    write_report(tmp_path / "r.html", TrainConfig(), history, {})
    assert json.loads(history.path.read_text())["stage"] == "detector"
