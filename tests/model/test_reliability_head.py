"""The reliability heads: what they may change, what they depend on, and files with the older one."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pictures import block_tensor
from semkey.errors import CheckpointError, ConfigError
from semkey.losses.reliability import reliability_bce_loss
from semkey.model.checkpoint import FORMAT, load_checkpoint, load_weights, read_config, save_checkpoint
from semkey.model.config import ExtractionConfig, ModelConfig
from semkey.model.dense import DenseMaps
from semkey.model.dkd import Peaks
from semkey.model.heads import score_from_log_probability
from semkey.model.presets import presets
from semkey.model.reliability import GridReliabilityHead, KeypointReliabilityHead
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.training.config import ValidationConfig
from semkey.training.validation import validate
from training_fakes import MODEL, ShiftedPairs


def detector(kind: str = "keypoint", precision: str = "float32") -> SemanticKeypointDetector:
    """Random weights; the reliability head's last layer too, which starts at 0."""
    torch.manual_seed(0)
    config = ModelConfig.from_mapping({**MODEL, "reliability": kind, "covariance": kind == "keypoint"})
    model = SemanticKeypointDetector(config, ExtractionConfig.from_mapping({"precision": precision}))
    last = model.reliability.layers[-1]
    assert isinstance(last, torch.nn.Linear | torch.nn.Conv2d)
    torch.nn.init.normal_(last.weight)
    return model


@pytest.fixture(params=["keypoint", "grid"])
def model(request: pytest.FixtureRequest) -> SemanticKeypointDetector:
    return detector(request.param).eval()


def keypoints_of(model: SemanticKeypointDetector, size: int = 128) -> tuple[DenseMaps, torch.Tensor, Peaks]:
    torch.manual_seed(1)
    maps = model(torch.randn(1, 1, size, size))
    peaks = model.detect(score_from_log_probability(maps.log_probability[0, 0]))
    return maps, model.refine(maps.detail, peaks), peaks


def test_only_the_head_learns(model: SemanticKeypointDetector) -> None:
    maps, keypoints, peaks = keypoints_of(model.train())
    model.predict_reliability(maps, keypoints, peaks).square().sum().backward()
    learned = {name.split(".")[0] for name, p in model.named_parameters() if p.grad is not None}
    assert learned == {"reliability"}
    assert all(float(p.grad.abs().max()) > 0 for p in model.reliability.parameters() if p.grad is not None)


def test_the_order_of_keypoints_does_not_matter(model: SemanticKeypointDetector) -> None:
    maps, keypoints, peaks = keypoints_of(model)
    order = torch.randperm(len(keypoints))
    rated = model.predict_reliability(maps, keypoints, peaks)
    assert float(rated.detach().std()) > 0.01
    torch.testing.assert_close(model.predict_reliability(maps, keypoints[order], peaks.select(order)), rated[order])


def test_no_keypoint_and_one(model: SemanticKeypointDetector) -> None:
    maps, keypoints, peaks = keypoints_of(model)
    for count in (0, 1):
        first = torch.arange(count)
        rated = model.predict_reliability(maps, keypoints[first], peaks.select(first))
        assert rated.shape == (count,)
        assert bool(torch.isfinite(rated).all())
    assert model.extract(torch.full((3, 4, 4), 0.5)).reliability.shape == (0,)
    reliability_bce_loss(model.predict_reliability(maps, keypoints[:0], peaks.select(torch.arange(0))), torch.zeros(0))


def test_keypoints_at_the_edge_are_rated(model: SemanticKeypointDetector) -> None:
    """The window reaches over the edge of a small image, where keypoints lie 2 px from it."""
    features = model.extract(block_tensor(31, 29))
    assert len(features) > 0
    assert float(features.keypoints.min()) < 6
    assert bool(torch.isfinite(features.reliability).all())


def test_an_untrained_head_claims_nothing() -> None:
    torch.manual_seed(0)
    features = SemanticKeypointDetector(ModelConfig.from_mapping(MODEL)).eval().extract(block_tensor(64, 64))
    assert features.reliability.unique().tolist() == [0.5]


def test_windows_are_read_at_the_peak() -> None:
    head = KeypointReliabilityHead(4, 4, 4, 2)
    log_probability = torch.full((40, 60), -5.0)
    log_probability[20, 30], log_probability[20, 33], log_probability[16, 30] = -1.0, -2.0, -3.0
    window = head._window(log_probability, torch.tensor([[30, 20], [1, 39]])).reshape(2, 15, 15)
    assert float(window[0, 7, 7]) == pytest.approx(0.9)
    assert float(window[0, 7, 10]) == pytest.approx(0.8)
    assert float(window[0, 3, 7]) == pytest.approx(0.7)
    assert torch.equal(window[1], torch.full((15, 15), 0.5))


def test_training_leaves_extraction_as_it_was() -> None:
    model = detector().eval()
    image = block_tensor(96, 128)
    before = model.extract(image)
    model.requires_grad_(False)
    model.reliability.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(model.reliability.parameters(), 1e-2)
    maps, keypoints, peaks = keypoints_of(model)
    success = torch.rand(len(keypoints)) < 0.5
    losses = []
    for _ in range(20):
        loss = reliability_bce_loss(model.predict_reliability(maps, keypoints, peaks), success)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0]
    after = model.extract(image)
    for name in ("keypoints", "scores", "descriptors", "global_descriptor"):
        assert torch.equal(getattr(after, name), getattr(before, name)), name
    assert not torch.equal(after.reliability, before.reliability)


def test_extraction_claims_what_training_rates(model: SemanticKeypointDetector) -> None:
    """With gradients on, as in training, and without; the image needs no padding, so that the maps are the same."""
    image = block_tensor(96, 128)[:1]
    features = model.extract(image)
    normalized = (image[None] - image.mean()) / image.std(correction=0)
    maps = model(normalized)
    peaks = model.detect(score_from_log_probability(maps.log_probability[0, 0]))
    keypoints = model.refine(maps.detail, peaks)
    assert keypoints.requires_grad
    torch.testing.assert_close(torch.sigmoid(model.predict_reliability(maps, keypoints, peaks)), features.reliability)


def test_fitting_the_head_of_finished_weights_changes_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script that fits it from what the head reads: labels both views, keeps all else bit for bit."""
    fit_reliability = pytest.importorskip("fit_reliability")
    photos = tmp_path / "photos"
    photos.mkdir()
    noise = np.random.default_rng(0).uniform(0, 255, (120, 160, 3))
    cv2.imwrite(str(photos / "a.png"), cv2.GaussianBlur(noise, (0, 0), 1.5).astype(np.uint8))
    save_checkpoint(detector("grid"), tmp_path / "old.safetensors")
    arguments = [str(tmp_path / "old.safetensors"), str(photos), str(tmp_path / "new.safetensors")]
    options = ["--pairs", "2", "--steps", "20", "--batch", "64"]
    monkeypatch.setattr("sys.argv", ["fit_reliability.py", *arguments, *options])
    fit_reliability.main()
    old, new = load_file(arguments[0]), load_file(arguments[2])
    others = [name for name in old if not name.startswith("reliability.")]
    assert all(torch.equal(old[name], new[name]) for name in others)
    assert set(others) == {name for name in new if not name.startswith("reliability.")}
    before, after = (load_checkpoint(path).eval().extract(photos / "a.png") for path in (arguments[0], arguments[2]))
    assert torch.equal(before.keypoints, after.keypoints)
    assert torch.equal(before.descriptors, after.descriptors)
    assert len(after.reliability.unique()) > 10


def test_validation_judges_the_head() -> None:
    model = detector().eval()
    figures = validate(model, [ShiftedPairs()[0]], ValidationConfig(pairs=1, pictures=0), bfloat16=False).figures
    assert 0.0 <= figures["reliability_auroc"] <= 1.0


# -- files with the older head -----------------------------------------------------------------------------------------


@pytest.fixture
def old_file(tmp_path: Path) -> Path:
    """As checkpoints were written before there was a choice of heads."""
    model = detector("grid")
    config = {name: value for name, value in model.config.to_mapping().items() if name != "reliability"}
    save_file(
        model.state_dict(), path := tmp_path / "old.safetensors", {"format": FORMAT, "config": json.dumps(config)}
    )
    return path


def test_an_old_file_keeps_its_head(old_file: Path, tmp_path: Path) -> None:
    model = load_checkpoint(old_file).eval()
    assert isinstance(model.reliability, GridReliabilityHead)
    image = block_tensor(64, 96)
    expected = detector("grid").eval().extract(image)
    model.extraction = ExtractionConfig(precision="float32")
    assert torch.equal(model.extract(image).reliability, expected.reliability)
    save_checkpoint(model, tmp_path / "again.safetensors")
    assert load_checkpoint(tmp_path / "again.safetensors").config == model.config


def test_all_but_the_head_of_an_old_file_starts_a_new_detector(old_file: Path) -> None:
    model = detector()
    own = {name: value.clone() for name, value in model.state_dict().items()}
    kept = ("reliability", "covariance")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith(kept):
                parameter.zero_()
    assert load_weights(model, old_file) == kept
    old = load_file(old_file)
    for name, value in model.state_dict().items():
        assert torch.equal(value, own[name] if name.startswith(kept) else old[name]), name
    with pytest.raises(CheckpointError, match="made for"):
        load_weights(SemanticKeypointDetector(), old_file)


def test_the_same_head_is_copied(tmp_path: Path) -> None:
    save_checkpoint(detector(), tmp_path / "new.safetensors")
    model = SemanticKeypointDetector(ModelConfig.from_mapping({**MODEL, "covariance": True}))
    assert load_weights(model, tmp_path / "new.safetensors") == ()
    weight = load_file(tmp_path / "new.safetensors")["reliability.layers.2.weight"]
    assert torch.equal(model.state_dict()["reliability.layers.2.weight"], weight)


@pytest.mark.parametrize("name", sorted(presets()))
def test_shipped_weights_load(name: str, request: pytest.FixtureRequest) -> None:
    preset = presets()[name]
    if read_config(preset.path).uses_backbone:
        request.getfixturevalue("shared")  # has the backbone's weights; skips where it is absent
    assert len(load_checkpoint(preset.path, preset.sha256).eval().extract(block_tensor(64, 64))) > 0


def test_an_unknown_head_is_an_error() -> None:
    with pytest.raises(ConfigError, match="reliability is 'grids'"):
        ModelConfig.from_mapping({"reliability": "grids"})
