"""Stages that end with the weights of their best validation, what they started from among them."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import torch

from semkey.model.checkpoint import load_checkpoint, save_checkpoint
from semkey.model.config import ModelConfig
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.training import TrainingEvents, fit, loop
from semkey.training.keeping import BestWeights
from semkey.training.validation import Validation
from training_fakes import MODEL, ShiftedPairs, only, small_config

pytest.importorskip("lightning_fabric", reason="lightning-fabric comes with the train extra")


def test_the_highest_figure_is_kept_and_the_first_of_equal_ones() -> None:
    model, best = torch.nn.Linear(1, 1), BestWeights("precision")
    for step, value in enumerate((0.4, 0.7, 0.7, float("nan"))):
        torch.nn.init.constant_(model.weight, step)
        best.offer(model, {"precision": value}, step)
    best.offer(model, {"repeatability": 1.0}, 4)
    again = BestWeights("precision")
    again.load(best.state())
    assert again.restore(model, 4)
    assert model.weight.item() == 1.0
    assert (again.value, again.step) == (0.7, 1)
    assert not again.restore(model, 1), "these are the weights that it has"


@pytest.mark.parametrize(("scores", "kept"), [((0.5, 0.4, 0.3), 0), ((0.5, 0.6, 0.3), 1), ((0.5, 0.6, 0.7), 2)])
def test_a_stage_ends_with_its_best_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scores: tuple[float, ...], kept: int
) -> None:
    """Validated before, after step 2 and after step 4; the start is kept bit for bit where nothing was better."""
    monkeypatch.setattr(importlib.import_module("semkey.training.fit"), "write_report", lambda *values: None)
    torch.manual_seed(0)
    save_checkpoint(SemanticKeypointDetector(ModelConfig.from_mapping(MODEL)), tmp_path / "start.safetensors")
    seen: list[dict[str, torch.Tensor]] = []

    def judged(model: SemanticKeypointDetector, *values: object, **options: object) -> Validation:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return Validation(figures={"matching_score": (*scores, 0.0)[min(len(seen), 4) - 1]})

    monkeypatch.setattr(loop, "validate", judged)
    config = small_config(
        stages=only("descriptor", keep_best="matching_score"), init=str(tmp_path / "start.safetensors")
    )
    lines: list[str] = []
    events = TrainingEvents(noted=lines.append)
    result = fit(config, tmp_path / "run", train_pairs=ShiftedPairs(), val_pairs=ShiftedPairs(1), events=events)
    found = load_checkpoint(result.weights).state_dict()
    assert all(torch.equal(found[name], value) for name, value in seen[kept].items())
    assert any(not torch.equal(seen[0][name], value) for name, value in seen[2].items()), "it did train"
    said = [line for line in lines if "keeps the weights" in line]
    assert len(said) == (kept < 2)
    assert kept != 0 or "that it started from: matching_score 0.5000" in said[0]
