"""Whole runs: stages, what they may change, resuming bit for bit, kills, interrupts, processes, NaN."""

from __future__ import annotations

import importlib
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import semkey
from semkey.errors import CheckpointError, ConfigError, DatasetError, InputError, SemkeyError
from semkey.model.checkpoint import load_checkpoint, save_checkpoint
from semkey.model.config import ModelConfig
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.training import FitResult, TrainConfig, TrainingEvents, TrainingInterrupted, fit, loop
from semkey.training.loop import NotFiniteError
from semkey.training.validation import Validation
from training_fakes import MODEL, ShiftedPairs, only, small_config, step_gradients

pytest.importorskip("lightning_fabric", reason="lightning-fabric comes with the train extra")
TESTS = Path(__file__).resolve().parents[1]
State = dict[str, torch.Tensor]


def train(run: Path, config: TrainConfig | None = None, pairs: Any = None, **options: Any) -> FitResult:
    pairs = pairs or ShiftedPairs()
    return fit(config or small_config(), run, train_pairs=pairs, val_pairs=ShiftedPairs(1), **options)


@pytest.fixture(autouse=True)
def without_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than these runs; the run of :func:`straight` draws."""
    monkeypatch.setattr(importlib.import_module("semkey.training.fit"), "write_report", lambda *values: None)


def weights(path: Path) -> State:
    return load_checkpoint(path).state_dict()


def assert_same(first: State, second: State, parts: tuple[str, ...] = ("",)) -> None:
    differing = [name for name in first if name.startswith(parts) and not torch.equal(first[name], second[name])]
    assert not differing


def changed_parts(first: State, second: State) -> set[str]:
    return {name.split(".")[0] for name in first if not torch.equal(first[name], second[name])}


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of all four stages that nothing disturbed."""
    run = tmp_path_factory.mktemp("straight")
    train(run)
    return run


@pytest.fixture
def start(tmp_path: Path) -> Path:
    """Random weights."""
    torch.manual_seed(3)
    path = tmp_path / "start.safetensors"
    save_checkpoint(SemanticKeypointDetector(ModelConfig.from_mapping(MODEL)), path)
    return path


def test_a_run_ends_with_weights_that_load(straight: Path) -> None:
    detector = semkey.load(straight / "tiny.safetensors", max_keypoints=50)
    features = detector.extract(torch.rand(1, 80, 100))
    assert features.descriptors.shape[1] == MODEL["descriptor_dim"]
    assert_same(weights(straight / "tiny.safetensors"), weights(straight / "stages" / "finetune.safetensors"))
    assert len(list((straight / "checkpoints").iterdir())) == 2
    report = (straight / "report.html").read_text()
    for text in (
        "Waiting for data",
        "Do the losses fight?",
        "Matches on validation pairs",
        "Reliability",
        "data:image/png",
    ):
        assert text in report
    assert "http://" not in report
    assert "https://" not in report


def test_the_log_has_losses_validations_and_cosines(straight: Path) -> None:
    rows = [json.loads(line) for line in (straight / "log.jsonl").read_text().splitlines()]
    for stage in ("descriptor", "detector", "reliability", "finetune"):
        own = [row for row in rows if row["stage"] == stage]
        assert [row["step"] for row in own if row["kind"] == "train"] == [1, 2, 3, 4]
        final = [row for row in own if row["kind"] == "validation"][-1]
        assert final["step"] == 4
        assert 0 <= final["figures"]["matching_score"] <= 1
    cosines = [row for row in rows if row["kind"] == "cosines" and row["stage"] == "detector"]
    assert [row["step"] for row in cosines] == [0, 2]
    matrix = torch.tensor([[math.nan if value is None else value for value in row] for row in cosines[-1]["matrix"]])
    torch.testing.assert_close(matrix, matrix.T, equal_nan=True)
    assert float(matrix.nan_to_num(0.0).abs().max()) <= 1 + 1e-4
    names = cosines[-1]["names"]
    assert abs(float(matrix[names.index("heat"), names.index("position")])) <= 1  # both train the detector
    own = [row for row in rows if row["kind"] == "cosines" and row["stage"] == "descriptor"][-1]
    assert own["matrix"][0][1] is None  # place learns on detached features: nothing to fight about
    waiting = [row["waiting"] for row in rows if row["kind"] == "train"]
    assert all(0 <= share <= 1 for share in waiting)


def test_losses_over_keypoints_rest_on_some_steps(straight: Path) -> None:
    rows = [json.loads(line) for line in (straight / "log.jsonl").read_text().splitlines()]
    seen = ["anchor" in row["losses"] for row in rows if row["kind"] == "train" and row["stage"] == "detector"]
    assert seen == [False, False, True, False]  # from 4 pairs on, every 2nd step


def test_each_stage_changes_its_own_parts_only(straight: Path) -> None:
    names = ("descriptor", "detector", "reliability", "finetune")
    stages = [weights(straight / "stages" / f"{name}.safetensors") for name in names]
    assert changed_parts(stages[0], stages[1]) == {"detail", "detector", "offset"}
    assert changed_parts(stages[1], stages[2]) == {"reliability"}
    assert changed_parts(stages[2], stages[3]) == {name.split(".")[0] for name in stages[0]} - {"place"}


def test_reliability_leaves_matching_as_it_was(straight: Path) -> None:
    rows = [json.loads(line) for line in (straight / "log.jsonl").read_text().splitlines()]
    last = {row["stage"]: row["figures"] for row in rows if row["kind"] == "validation" and row["step"] == 4}
    for name in ("matching_score", "precision", "matches", "repeatability", "error_px", "descriptor_accuracy"):
        assert last["reliability"][name] == last["detector"][name]
    assert last["reliability"]["reliability_ece"] != last["detector"]["reliability_ece"]


def test_stages_one_by_one_are_the_same_run(straight: Path, tmp_path: Path) -> None:
    for stage in ("descriptor", "detector", "reliability", "finetune"):
        train(tmp_path / "run", stage=stage)
    assert_same(weights(straight / "tiny.safetensors"), weights(tmp_path / "run" / "tiny.safetensors"))


def test_interrupting_and_resuming_is_bit_exact(straight: Path, tmp_path: Path) -> None:
    """Ctrl-C in the middle of every stage; also the optimiser ends the same. A process of its own gets the signals."""
    listen = "signal.signal(signal.SIGINT, signal.default_int_handler)"  # a shell's background ignores it
    call = f"import runpy, signal, sys; {listen}; runpy.run_path({__file__!r})['interrupt_and_resume'](*sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", call, str(straight), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def interrupt_and_resume(straight_folder: str, folder: str) -> None:
    """The same as ``straight``, stopped in every stage."""
    straight, run = Path(straight_folder), Path(folder) / "run"

    def interrupt(stage: str, step: int, steps: int, losses: dict[str, float]) -> None:
        if step == 2:  # the handler runs once this step is over, so the next one is the last
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    for stage in ("descriptor", "detector", "reliability", "finetune"):
        with pytest.raises(TrainingInterrupted) as caught:
            train(run, resume=True, events=TrainingEvents(stepped=interrupt))
        assert (caught.value.stage, caught.value.step) == (stage, 3)
    train(run, resume=True)
    assert signal.getsignal(signal.SIGINT) is before
    assert_same(weights(straight / "tiny.safetensors"), weights(run / "tiny.safetensors"))
    newest = sorted((run / "checkpoints").iterdir())[-1].name
    states = [torch.load(folder / "checkpoints" / newest, weights_only=True) for folder in (straight, run)]
    for name, value in states[0]["optimizer"]["state"].items():
        assert torch.equal(value["exp_avg"], states[1]["optimizer"]["state"][name]["exp_avg"])
    logs = [(folder / "log.jsonl").read_text().splitlines() for folder in (straight, run)]
    losses = [[json.loads(line).get("losses") for line in log] for log in logs]
    assert losses[0] == losses[1]


def script(*arguments: str, **options: Any) -> subprocess.Popen:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS / "support"), str(TESTS.parent / "src")]),
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, str(TESTS / "support" / "training_fakes.py"), *arguments]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, **options)


@pytest.mark.slow
def test_a_killed_process_loses_at_most_one_interval(straight: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = script("fit", str(run))
    limit = time.monotonic() + 600
    try:
        while not list((run / "checkpoints").glob("det*.pt")):
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < limit
            time.sleep(0.002)
    finally:
        process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (run / "tiny.safetensors").exists() or not (run / "stages" / "finetune.safetensors").exists()
    (run / "checkpoints" / ".half-written.tmp").write_bytes(b"x")
    steps: list[tuple[str, int]] = []
    events = TrainingEvents(stage_started=lambda stage, step, of: steps.append((stage, step)))
    train(run, small_config(run={"save_every": 0}), resume=True, events=events)
    assert steps[0][0] == "detector"  # the first stage is not repeated
    assert steps[0][1] >= 1
    assert_same(weights(straight / "tiny.safetensors"), weights(run / "tiny.safetensors"))
    assert not list((run / "checkpoints").glob(".*"))


def test_a_damaged_checkpoint_falls_back_to_the_one_before(straight: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = small_config(run={"save_every": 0, "keep": 3}, stages=only("descriptor"))
    train(run, config)
    (run / "stages" / "descriptor.safetensors").unlink()  # as if killed before the stage was closed
    whole = sorted((run / "checkpoints").iterdir())
    assert [path.name for path in whole] == [f"descriptor-{step:09d}.pt" for step in (2, 3, 4)]
    whole[2].write_bytes(whole[2].read_bytes()[:1000])
    train(run, config, resume=True)
    assert_same(weights(straight / "stages" / "descriptor.safetensors"), weights(run / "tiny.safetensors"))
    (run / "stages" / "descriptor.safetensors").unlink()
    for path in (run / "checkpoints").iterdir():
        path.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="none of the 3 checkpoints"):
        train(run, config, resume=True)


def test_resuming_under_another_configuration_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = small_config(stages=only("descriptor"))
    train(run, config)
    with pytest.raises(ConfigError, match="already holds stage descriptor"):
        train(run, config)
    (run / "stages" / "descriptor.safetensors").unlink()
    with pytest.raises(ConfigError, match="made with seed = 0, not 1"):
        train(run, small_config(stages=only("descriptor"), seed=1), resume=True)
    train(run, small_config(stages=only("descriptor"), run={"log_every": 2}), resume=True)


@pytest.mark.slow
def test_two_processes_compute_one_processs_gradients(tmp_path: Path) -> None:
    file = tmp_path / "gradients.pt"
    process = script("gradients", str(file), "2")
    _, errors = process.communicate(timeout=900)
    assert process.returncode == 0, errors[-3000:]
    both, own = torch.load(file, weights_only=True), step_gradients(1)
    assert list(both) == list(own) == ["sum", "pcgrad"]
    for mode, alone in own.items():
        assert len(both[mode]) == len(alone) == 6
        for step, shared in enumerate(both[mode]):
            assert float(alone[step].norm()) > 0.1
            # later steps see weights that differ by the rounding of the earlier ones
            torch.testing.assert_close(shared, alone[step], rtol=1e-3, atol=10.0 ** (step // 2) * 1e-6)


@pytest.mark.parametrize("gradients", ["pcgrad", "cagrad", "kendall"])
def test_every_way_of_combining_gradients_trains(tmp_path: Path, start: Path, gradients: str) -> None:
    losses = {"match_dual_softmax": 1, "heat": 1, "repeatability": 0.5}
    stage = only("detector", mode="joint", gradients=gradients, losses=losses)
    train(tmp_path / "run", small_config(stages=stage, init=str(start)))
    assert {"stem", "descriptor", "detector"} <= changed_parts(
        weights(start), weights(tmp_path / "run" / "tiny.safetensors")
    )
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    learned = [row["weights"] for row in rows if "weights" in row]
    assert bool(learned) == (gradients == "kendall")
    if learned:
        assert learned[-1]["heat"] != learned[0]["heat"]


def test_training_lowers_the_losses(tmp_path: Path) -> None:
    stage = only(
        "detector", mode="parallel", losses={"match_dual_softmax": 1, "heat": 1}, epochs=10, learning_rate=3e-3
    )
    train(tmp_path / "run", small_config(stages=stage, run={"cosines_every": 0}, validation={"every": 1000}))
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [row["losses"] for row in rows if row["kind"] == "train"]
    for name in ("match_dual_softmax", "heat"):
        assert losses[-1][name] < 0.8 * losses[0][name]


def test_steps_that_are_not_finite_are_skipped_and_counted(tmp_path: Path, start: Path) -> None:
    broken = ShiftedPairs(broken=frozenset({5, 9}))
    config = small_config(stages=only("descriptor"), init=str(start))
    train(tmp_path / "run", config, broken)
    found = weights(tmp_path / "run" / "tiny.safetensors")
    assert all(bool(torch.isfinite(value).all()) for value in found.values())
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["not_finite"] for row in rows if row["kind"] == "train"] == [0, 1, 2, 2]
    with pytest.raises(NotFiniteError, match="step 2: more than 1"):
        train(tmp_path / "other", small_config(stages=only("descriptor"), optimizer={"max_not_finite": 1}), broken)


@pytest.mark.parametrize(("accuracies", "is_restored"), [((0.9, 0.896, 0.85), True), ((0.9, 0.896, 0.95), False)])
def test_a_fine_tune_that_spoils_descriptors_is_taken_back(
    tmp_path: Path, start: Path, monkeypatch: pytest.MonkeyPatch, accuracies: tuple[float, ...], is_restored: bool
) -> None:
    """Validated before, after step 2 (within the tolerance of 0.005: kept) and after step 4."""
    seen: list[State] = []

    def fake(model: SemanticKeypointDetector, *values: object, **options: object) -> Validation:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return Validation(figures={"descriptor_accuracy": accuracies[len(seen) - 1]})

    monkeypatch.setattr(loop, "validate", fake)
    train(tmp_path / "run", small_config(stages=only("finetune"), init=str(start)))
    assert len(seen) == 3
    assert_same(seen[1] if is_restored else seen[2], weights(tmp_path / "run" / "tiny.safetensors"))
    assert changed_parts(seen[1], seen[2])


def test_stages_need_something_to_start_from(tmp_path: Path, start: Path) -> None:
    with pytest.raises(ConfigError, match="stage detector needs a trained network"):
        train(tmp_path / "run", small_config(stages=only("detector")))
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        train(tmp_path / "b", small_config(stages=only("detector"), init=str(tmp_path / "none.safetensors")))
    with pytest.raises(ConfigError, match=r"init is 'compact': .*made for"):
        train(tmp_path / "c", small_config(stages=only("detector"), init="compact"))
    with pytest.raises(ConfigError, match=r"stages\.detector\.epochs is 0"):
        train(tmp_path / "d", small_config(stages=only("finetune")), stage="detector")


def test_what_cannot_run_is_told_before_the_work(tmp_path: Path) -> None:
    config, fabric = small_config(optimizer={"micro_batch": 4}), type("Two", (), {"world_size": 2})
    with pytest.raises(ConfigError, match="fewer than 2 processes"):
        loop.StageLoop(fabric, None, None, config, None, list)  # ty: ignore[invalid-argument-type]
    with pytest.raises(ConfigError, match="sees no GPU" if not torch.cuda.is_available() else "torch sees"):
        train(tmp_path / "run", small_config(run={"device": "cuda", "devices": 99}))
    with pytest.raises(ConfigError, match="must be auto, cpu or cuda"):
        train(tmp_path / "run", small_config(run={"device": "tpu"}))
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="is a file"):
        train(tmp_path / "file")


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_the_data_is_told_in_its_own_words(tmp_path: Path, workers: int) -> None:
    config = small_config(stages=only("descriptor"), run={"workers": workers})
    with pytest.raises(DatasetError, match=r"^photo 5: cannot be read$"):
        train(tmp_path / "run", config, ShiftedPairs(missing=frozenset({5})))


def test_nothing_is_written_where_the_data_cannot_be_opened(tmp_path: Path) -> None:
    config = small_config(data={"photos": str(tmp_path / "nowhere")}, run={"tensorboard": True})
    with pytest.raises(SemkeyError, match="nowhere"):
        fit(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()  # the user's own stays
    with pytest.raises(SemkeyError, match="nowhere"):
        fit(config, tmp_path / "run")
    assert list((tmp_path / "run").iterdir()) == []


def test_pairs_made_by_workers_are_the_same(straight: Path, tmp_path: Path) -> None:
    config = small_config(stages=only("descriptor"), run={"workers": 2})
    train(tmp_path / "run", config)
    assert_same(weights(straight / "stages" / "descriptor.safetensors"), weights(tmp_path / "run" / "tiny.safetensors"))
