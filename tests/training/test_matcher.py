"""LightGlue's training: the truth of pairs, what the first weights do, learning, resuming, and the file it writes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data as pictures

import semkey
from semkey.errors import CheckpointError, ConfigError, InputError
from semkey.images import write_image
from semkey.matching import create_matcher
from semkey.matching.dual_softmax import match_dual_softmax
from semkey.matching.lightglue.checkpoint import MatcherInfo, read_matcher, write_matcher
from semkey.matching.lightglue.network import LightGlueShape, build_network, layer_states, start_as_dual_softmax
from semkey.matching.lightglue.trained import TrainedLightGlue, assign
from semkey.model.features import Features
from semkey.training.matcher import MatcherTrainConfig, fit_matcher
from semkey.training.matcher.batches import MatcherBatch, draw_batch
from semkey.training.matcher.config import ConfidenceConfig, TruthConfig
from semkey.training.matcher.losses import assignment_loss
from semkey.training.matcher.pairs import partners, project
from semkey.training.resumable import TrainingEvents

pytest.importorskip("kornia", reason="LightGlue runs through kornia, extra 'peers'")

SHAPE = LightGlueShape(layers=2, width=64, heads=4)
SIZE = torch.tensor([[320, 240]])


def unit(count: int, seed: int, width: int = 64) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn((count, width), generator=generator), dim=1)


def features_of(descriptors: torch.Tensor, seed: int = 0, method: str = "compact") -> Features:
    count = len(descriptors)
    generator = torch.Generator().manual_seed(seed)
    return Features(
        keypoints=torch.rand((count, 2), generator=generator) * torch.tensor([319.0, 239.0]),
        scores=torch.ones(count),
        reliability=torch.ones(count),
        descriptors=descriptors,
        global_descriptor=torch.zeros(0),
        image_size=(320, 240),
        method=method,
    )


# -- truth ---------------------------------------------------------------------------------------------------------


def test_partners_are_mutual_and_what_is_near_but_not_nearest_stays_undecided() -> None:
    projected = np.array([[10.0, 10.0], [11.5, 10.0], [50.0, 50.0], [np.nan, np.nan], [80.0, 80.0]])
    keypoints = np.array([[10.5, 10.0], [54.0, 50.0], [200.0, 200.0], [88.0, 80.0]])
    found0, found1 = partners(projected, keypoints, TruthConfig())
    assert found0.tolist() == [0, -2, -2, -1, -1]
    assert found1.tolist() == [0, -2, -1, -1]
    nothing0, nothing1 = partners(projected[:0], keypoints, TruthConfig())
    assert len(nothing0) == 0
    assert nothing1.tolist() == [-1] * 4


def test_keypoints_are_projected_by_the_homography_or_the_dense_warp() -> None:
    H = np.array([[1.1, 0.05, -7.0], [0.02, 0.95, 4.0], [1e-4, 0, 1.0]])
    y, x = np.mgrid[:48, :64].astype(np.float64)
    mapped = np.stack([x, y, np.ones_like(x)], axis=-1) @ H.T
    warp = (mapped[..., :2] / mapped[..., 2:]).astype(np.float32)
    points = np.random.default_rng(0).uniform([10, 2], [60, 40], (50, 2)).astype(np.float32)
    flat = {"H10": torch.from_numpy(H), "warp10": torch.zeros(48, 64, 2)}
    deep = {"H10": torch.full((3, 3), torch.nan), "warp10": torch.from_numpy(warp)}
    np.testing.assert_allclose(project(flat, points), project(deep, points), atol=0.01)
    warp[:, 30:] = np.nan
    deep["warp10"] = torch.from_numpy(warp)
    assert np.isnan(project(deep, points)[points[:, 0] > 30]).all()
    outside = project(flat, np.array([[0.0, 0.0]], np.float32))
    assert np.isnan(outside).all(), "x = -7 is beyond view 1"


# -- network -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [64, 96])
def test_the_first_weights_assign_by_a_dual_softmax(width: int) -> None:
    network = build_network(64, replace(SHAPE, width=width))
    start_as_dual_softmax(network)
    descriptors0 = unit(40, 0)
    descriptors1 = torch.nn.functional.normalize(descriptors0 + 0.15 * unit(40, 1), dim=1)[torch.arange(39, -1, -1)]
    features0, features1 = features_of(descriptors0), features_of(descriptors1, 1)
    keypoints = (features0.keypoints[None], features1.keypoints[None])
    found, _ = assign(network, keypoints, (descriptors0[None], descriptors1[None]), (SIZE, SIZE), 0.0)[0]
    expected = match_dual_softmax(features0, features1, temperature=20.0, threshold=0.0)
    assert {tuple(pair) for pair in found.tolist()} == {tuple(pair) for pair in expected.indices.tolist()}


def test_layers_by_hand_are_kornias() -> None:
    network = build_network(64, SHAPE).eval()
    features0, features1 = features_of(unit(30, 0)), features_of(unit(20, 1), 1)
    keypoints = (features0.keypoints[None], features1.keypoints[None])
    descriptors = (features0.descriptors[None], features1.descriptors[None])
    with torch.no_grad():
        states = layer_states(network, keypoints, descriptors, (SIZE, SIZE))[-1]
        ours, _ = network.log_assignment[-1](*states)
        data = [{"keypoints": keypoints[i], "descriptors": descriptors[i], "image_size": SIZE} for i in (0, 1)]
        theirs = network({"image0": data[0], "image1": data[1]})["log_assignment"]
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_loss_is_that_of_a_hand_case_and_has_gradients() -> None:
    network = build_network(64, SHAPE)
    start_as_dual_softmax(network)
    descriptors = unit(3, 0)
    two = (descriptors[None], descriptors[None])
    places = torch.rand(1, 3, 2) * 200
    states = layer_states(network, (places, places), two, (SIZE, SIZE))
    truth = (torch.tensor([[0, -1, -2]]), torch.tensor([[0, -2, -1]]))
    batch = MatcherBatch(keypoints=two, descriptors=two, partners=truth)
    loss = assignment_loss(network, states, batch)
    cosines = 20.0 * descriptors @ descriptors.T
    one = torch.tensor(1.0)
    matched = -(cosines.log_softmax(1)[0, 0] + cosines.log_softmax(0)[0, 0] + 2 * torch.nn.functional.logsigmoid(one))
    unmatched = torch.nn.functional.softplus(one)
    torch.testing.assert_close(loss, matched / 2 + unmatched / 2, rtol=1e-4, atol=1e-5)
    loss.backward()
    assert network.transformers[0].cross_attn.ffn[3].weight.grad.abs().max() > 0


# -- runs ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    names = ("astronaut", "camera", "coffee", "chelsea", "brick", "gravel", "coins", "page", "rocket", "text", "moon")
    for name in names:
        image = getattr(pictures, name)()
        write_image(folder / f"{name}.png", image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2))
    return folder


@pytest.fixture(scope="module")
def settings(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> MatcherTrainConfig:
    return MatcherTrainConfig.from_mapping(
        {
            "name": "small",
            "features": "orb",
            "pairs": 12,
            "validation_pairs": 4,
            "steps": 12,
            "batch_pairs": 2,
            "keypoints": 48,
            "cached_keypoints": 64,
            "warm_up": 2,
            "validate_every": 6,
            "confidence": {"steps": 6},
            "shape": {"layers": 2, "width": 96, "heads": 4},
            "run": {"threads": 1, "save_every": 0.0, "log_every": 3},
            "data": {
                "photos": str(photos),
                "cache": str(tmp_path_factory.mktemp("cache")),
                "width": 160,
                "height": 128,
                "points": 32,
                "val_share": 0.3,
                "shares": {"photos": 1.0, "shapes": 0, "rooms": 0},
            },
        }
    )


@pytest.fixture(scope="module")
def trained(settings: MatcherTrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit_matcher(settings, tmp_path_factory.mktemp("runs") / "whole")


def test_a_run_writes_a_matcher_that_matches(trained: Path) -> None:
    history = [json.loads(line) for line in (trained.parent / "history.jsonl").read_text().splitlines()]
    assert [row["step"] for row in history if "precision" in row] == [6, 12, 18]
    assert [row["step"] for row in history if "same_matches" in row] == [18], "heads are trained after the matcher"
    info = read_matcher(trained)[1]
    assert (info.depth_confidence, info.width_confidence) == (0.95, 0.99)
    detector = semkey.load("orb", max_keypoints=200)
    features = detector.extract(pictures.camera())
    matches = semkey.match(features, features, matcher=trained)
    assert len(matches) > 50
    assert (matches.indices[:, 0] == matches.indices[:, 1]).float().mean() > 0.9
    with pytest.raises(InputError, match="trained for 'orb' of width 256, got descriptors of width 64"):
        semkey.match(features_of(unit(5, 0)), features_of(unit(5, 1)), matcher=trained)


@pytest.mark.parametrize("stopped_at", [6, 15])
def test_a_run_that_was_stopped_ends_where_the_other_did(
    settings: MatcherTrainConfig, trained: Path, tmp_path: Path, stopped_at: int
) -> None:
    def stop(step: int, steps: int, loss: float) -> None:
        if step == stopped_at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_matcher(settings, tmp_path / "run", events=TrainingEvents(stepped=stop))
    if stopped_at > settings.steps:
        assert not read_matcher(tmp_path / "run/small.safetensors")[1].is_adaptive, "its heads are not trained yet"
    with pytest.raises(ConfigError, match="holds a run already; --resume"):
        fit_matcher(settings, tmp_path / "run")
    with pytest.raises(ConfigError, match="made with another 'learning_rate'"):
        fit_matcher(replace(settings, learning_rate=1e-4), tmp_path / "run", resume=True)
    path = fit_matcher(settings, tmp_path / "run", resume=True)
    one, other = read_matcher(path)[0].state_dict(), read_matcher(trained)[0].state_dict()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_pairs_are_made_once(settings: MatcherTrainConfig, trained: Path, tmp_path: Path) -> None:
    cache = settings.data.cache
    assert cache is not None
    files = {path: path.stat().st_mtime_ns for path in (cache / "matcher").rglob("*.safetensors")}
    assert len(files) == 2
    fit_matcher(replace(settings, steps=1), tmp_path / "again")
    assert {path: path.stat().st_mtime_ns for path in (cache / "matcher").rglob("*.safetensors")} == files


def test_learning_finds_what_nearest_neighbours_cannot(settings: MatcherTrainConfig, tmp_path: Path) -> None:
    """All descriptors of an image are equal in pairs: only places tell them apart, which attention has to learn."""
    rng = np.random.default_rng(0)
    count, pairs = 24, 40
    keypoints = rng.uniform(0, [159, 127], (pairs, count, 2)).astype(np.float32)
    half = unit(count // 2, 3).numpy()
    descriptors = np.tile(np.concatenate([half, half]), (pairs, 1, 1)).astype(np.float16)
    same = np.tile(np.arange(count, dtype=np.int16), (pairs, 1))
    arrays = {
        "keypoints0": keypoints,
        "keypoints1": keypoints,
        "descriptors0": descriptors,
        "descriptors1": descriptors,
        "counts": np.full((pairs, 2), count, np.int32),
        "partners0": same,
        "partners1": same,
    }
    config = replace(settings, keypoints=24, cached_keypoints=24, batch_pairs=4, unrelated=0.0, steps=60, warm_up=5)
    network = build_network(64, config.shape)
    start_as_dual_softmax(network)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    size = torch.tensor([[160, 128]]).expand(4, 2)
    losses = []
    for step in range(60):
        batch = draw_batch(arrays, step, config)
        loss = assignment_loss(network, layer_states(network, batch.keypoints, batch.descriptors, (size, size)), batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])


def test_batches_depend_on_the_step_alone_and_name_the_right_partners(settings: MatcherTrainConfig) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(0, 100, (6, 64, 2)).astype(np.float32)
    shuffle = rng.permutation(64)
    arrays = {
        "keypoints0": points,
        "keypoints1": points[:, shuffle] + 1000,
        "descriptors0": rng.normal(size=(6, 64, 8)).astype(np.float16),
        "descriptors1": rng.normal(size=(6, 64, 8)).astype(np.float16),
        "counts": np.full((6, 2), 40, np.int32),
        "partners0": np.tile(np.argsort(shuffle).astype(np.int16), (6, 1)),
        "partners1": np.tile(shuffle.astype(np.int16), (6, 1)),
    }
    config = replace(settings, unrelated=0.0, batch_pairs=8)
    one, again, other = (draw_batch(arrays, step, config) for step in (3, 3, 4))
    assert torch.equal(one.keypoints[0], again.keypoints[0])
    assert not torch.equal(one.keypoints[0], other.keypoints[0])
    checked = 0
    for pair in range(8):
        for row, partner in enumerate(one.partners[0][pair].tolist()):
            if partner >= 0:
                shift = one.keypoints[1][pair, partner] - one.keypoints[0][pair, row]
                assert abs(abs(float(shift[0])) - 1000) < 1e-3
                assert one.partners[1][pair, partner] == row
                checked += 1
    assert checked > 50
    unrelated = draw_batch(arrays, 3, replace(config, unrelated=0.5))
    assert any(bool((row == -1).all()) for row in unrelated.partners[0])


def test_the_configuration_of_semkey_is_read_and_a_typo_is_named() -> None:
    config = MatcherTrainConfig.load("lightglue-compact", ["steps=10", "shape.layers=3"])
    assert (config.features, config.steps, config.shape.layers) == ("compact", 10, 3)
    with pytest.raises(ConfigError, match="keypoint"):
        MatcherTrainConfig.load("lightglue-compact", ["keypoint=10"])
    with pytest.raises(ConfigError, match="module:function"):
        MatcherTrainConfig.load("lightglue-compact", ["features=os:system"])


def test_training_begins_with_a_file_and_refuses_one_of_another_shape(
    settings: MatcherTrainConfig, trained: Path, tmp_path: Path
) -> None:
    still = replace(settings, start=trained, steps=1, learning_rate=1e-12, confidence=ConfidenceConfig(steps=0))
    path = fit_matcher(still, tmp_path / "again")
    (network, info), first = read_matcher(path), read_matcher(trained)[0].state_dict()
    assert not info.is_adaptive
    assert all(torch.allclose(value, first[name], atol=1e-6) for name, value in network.state_dict().items())
    with pytest.raises(ConfigError, match=r"small\.safetensors has .* 2 layers, width 96 .* this run has 256, 1, 96"):
        fit_matcher(replace(still, shape=LightGlueShape(layers=1, width=96)), tmp_path / "other")


# -- files ---------------------------------------------------------------------------------------------------------


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "matcher.safetensors"
    info = MatcherInfo(features="compact", input_dim=64, shape=SHAPE)
    network = build_network(64, SHAPE)
    write_matcher(path, network, info)
    loaded, said = read_matcher(path)
    assert said == info
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in loaded.state_dict().items())
    (tmp_path / "cut.safetensors").write_bytes(path.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match=r"cut\.safetensors: cannot be read"):
        create_matcher(tmp_path / "cut.safetensors")
    shipped = Path(semkey.__file__).parent / "weights/compact.safetensors"
    with pytest.raises(CheckpointError, match="is no matcher of semkey"):
        create_matcher(shipped)
    network.posenc.Wr.weight.data[0, 0] = torch.nan
    write_matcher(path, network, info)
    with pytest.raises(CheckpointError, match="not finite"):
        TrainedLightGlue(path, torch.device("cpu"))
