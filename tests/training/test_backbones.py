"""Training over a backbone: pairs in colour, plain views, pairs that repeat, kept features, steps, resuming."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from semkey.images import write_image
from semkey.training.config import TrainConfig
from semkey.training.data.augment import relight
from semkey.training.data.config import DataConfig, LightConfig
from semkey.training.data.opening import open_data
from semkey.training.data.pair import to_gray_values
from semkey.training.data.pictures import measure_pair
from semkey.training.data.planar import Picture, plain_view, planar_pair

pytest.importorskip("transformers", reason="transformers comes with the extra 'backbones'")

from backbone_fakes import FAMILIES, backbone_of, write_folder
from semkey.backbones.loading import load_backbone
from semkey.model.building import load_backbone_of
from semkey.model.checkpoint import load_checkpoint, save_checkpoint
from semkey.model.config import ModelConfig
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.training import fit
from semkey.training.backbone_feed import BackboneFeed
from semkey.training.stages import freeze, plan_stage
from training_fakes import MODEL, ShiftedPairs, only, small_config


def colorful(seed: int, height: int = 160, width: int = 200) -> np.ndarray:
    """A smooth picture with structure in every channel."""
    noise = np.random.default_rng(seed).uniform(0, 255, (height, width, 3)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2.0)
    return np.clip((smooth - 127) * 6 + 127, 0, 255).astype(np.uint8)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for seed in range(6):
        write_image(tmp_path / "photos" / f"{seed}.png", colorful(seed))
    return tmp_path / "photos"


def data_config(photos: Path, cache: Path, **changes) -> DataConfig:
    values = {
        "photos": str(photos),
        "cache": str(cache),
        "width": 96,
        "height": 64,
        "points": 24,
        "val_share": 0.34,
        "shares": {"photos": 1.0, "shapes": 0.0, "rooms": 0.0},
    }
    return DataConfig.from_mapping({**values, **changes})


# -- pairs -------------------------------------------------------------------------------------------------------------


def test_pairs_without_a_backbone_are_what_they_were(photos: Path, tmp_path: Path) -> None:
    config = data_config(photos, tmp_path / "cache", shares={"photos": 0.5, "shapes": 0.5, "rooms": 0.0})
    plain, colored = (open_data(config, split="train", colors=colors) for colors in (False, True))
    for index in range(6):
        assert not {"color0", "color1", "plain0"} & plain[index].keys()
        assert colored[index]["color0"].dtype == torch.uint8
        assert colored[index]["color1"].shape == (3, 64, 96)
        for key in ("H10", "points0", "points1", "targets0"):
            assert torch.equal(plain[index][key], colored[index][key]), "colours change nothing of the geometry"


def test_grey_and_colour_show_the_same_view(photos: Path, tmp_path: Path) -> None:
    data = open_data(data_config(photos, tmp_path / "cache"), split="train", colors=True)
    for index in range(6):
        pair = data[index]
        for number in (0, 1):
            gray = pair[f"image{number}"][0].flatten()
            mean = pair[f"color{number}"].float().mean(dim=0).flatten()
            assert float(torch.corrcoef(torch.stack([gray, mean]))[0, 1]) > 0.8
            spread = pair[f"color{number}"].float().std(dim=0).mean()
            assert float(spread) > 2.0, "channels differ"


def test_light_changes_all_channels_alike() -> None:
    gray = colorful(0)[..., 0]
    for seed in range(8):
        light = replace(LightConfig(), noise=0.0, jpeg=0.0)
        one = relight(np.random.default_rng(seed), gray, light)
        three = relight(np.random.default_rng(seed), np.repeat(gray[..., None], 3, axis=2), light)
        for channel in range(3):
            np.testing.assert_array_equal(three[..., channel], one)
    noisy = relight(np.random.default_rng(1), np.repeat(gray[..., None], 3, axis=2), LightConfig())
    assert noisy.shape == (*gray.shape, 3)


def test_plain_views_are_the_photo_itself() -> None:
    image = colorful(3)
    config = DataConfig.from_mapping({"width": 96, "height": 64, "points": 24, "views": {"plain": 1.0, "flips": 1.0}})
    picture = Picture(image=image, keypoints=np.zeros((0, 2)), strengths=np.zeros(0, np.float32))
    rng = np.random.default_rng(0)
    found = 0
    for _ in range(20):
        pair = planar_pair(rng, picture, config)
        if pair is None:
            continue
        found += 1
        assert float(pair["plain0"]) == 1.0
        np.testing.assert_array_equal(pair["color0"].permute(1, 2, 0).numpy(), plain_view(image, (96, 64)))
        assert measure_pair(pair).seen > 0
    assert found
    off = replace(config, light=LightConfig.off())
    pairs = [pair for pair in (planar_pair(rng, picture, off) for _ in range(20)) if pair is not None]
    assert np.median([measure_pair(pair).agreement for pair in pairs]) > 0.9, (
        "the homography leads from one to the other"
    )


def test_a_plain_view_is_the_middle_without_a_shift() -> None:
    """A symmetric picture stays symmetric; where no scaling is needed, pixels stay as they are."""
    image = colorful(1, 64, 128)
    np.testing.assert_array_equal(plain_view(image, (96, 64)), image[:, 16:112])
    mirrored = np.concatenate([image, image[:, ::-1]], axis=1)
    view = plain_view(mirrored, (96, 64))
    np.testing.assert_allclose(view.astype(int), view[:, ::-1].astype(int), atol=1)


def test_pairs_repeat_in_training_alone(photos: Path, tmp_path: Path) -> None:
    config = data_config(photos, tmp_path / "cache", repeat=3)
    train, val = (open_data(config, split=split, colors=True) for split in ("train", "val"))
    assert torch.equal(train[1]["color1"], train[4]["color1"])
    assert torch.equal(train[1]["points0"], train[10**9 + 1 - (10**9 % 3)]["points0"])
    assert not torch.equal(train[0]["color1"], train[1]["color1"])
    assert not torch.equal(val[0]["color1"], val[3]["color1"])


def test_channels_weigh_as_they_are_told() -> None:
    image = np.zeros((2, 2, 3), np.uint8)
    image[..., 0] = 100
    assert int(to_gray_values(image)[0, 0]) == 30
    assert int(to_gray_values(image, np.array([0.5, 0.25, 0.25], np.float32))[0, 0]) == 50


def test_rooms_have_colours_of_their_own(tmp_path: Path) -> None:
    values = {
        "cache": str(tmp_path),
        "width": 96,
        "height": 64,
        "points": 16,
        "shares": {"photos": 0.0, "shapes": 0.0, "rooms": 1.0},
        "rooms": {"count": 1, "views": 4, "texel_size": 0.05, "low_texture": 0.0},
    }
    pair = open_data(DataConfig.from_mapping(values), split="train", colors=True)[0]
    assert pair["color0"].shape == (3, 64, 96)
    assert float(pair["color0"].float().std(dim=0).mean()) > 0.5
    files = list((tmp_path / "rooms").rglob("*.safetensors"))
    assert len(files) == 1
    open_data(DataConfig.from_mapping(values), split="train")
    assert len(list((tmp_path / "rooms").rglob("*.safetensors"))) == 2, "grey rooms are other files"


# -- features ----------------------------------------------------------------------------------------------------------


class ColoredPairs(ShiftedPairs):
    """Crops in colour; every other pair has a plain first view."""

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        pair = super().__getitem__(index)
        for number in (0, 1):
            levels = (pair[f"image{number}"] * 40 + 127).clamp(0, 255).to(torch.uint8)
            pair[f"color{number}"] = torch.cat([levels, levels.flip(0), 255 - levels])
        pair["plain0"] = torch.tensor(float(index % 2))
        return pair


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("nets") / "net", "dinov2-reg")


def batch_of(indices: list[int]) -> dict[str, torch.Tensor]:
    return torch.utils.data.default_collate([ColoredPairs()[index] for index in indices])


def test_only_views_that_recur_are_kept(net: Path, tmp_path: Path) -> None:
    backbone = load_backbone(str(net), (2, 4))
    feed = BackboneFeed(backbone, DataConfig(cache=tmp_path), bfloat16=False)
    batch = batch_of([0, 1, 2, 3])
    found = feed.training_views(batch)
    assert feed.cache is not None
    assert feed.cache.misses == 2, "the plain views of pairs 1 and 3"
    colors = torch.cat([batch["color0"], batch["color1"]]).float() / 255.0
    for own, wanted in zip(found.maps, backbone(colors).maps, strict=True):
        torch.testing.assert_close(own, wanted, atol=4e-3, rtol=2e-3)
    again = feed.training_views(batch)
    assert feed.cache.hits == 2
    for first, second in zip(found.maps, again.maps, strict=True):
        assert torch.equal(first, second)
    everything = BackboneFeed(backbone, DataConfig(cache=tmp_path, repeat=4), bfloat16=False)
    everything.training_views(batch)
    assert everything.cache is not None
    assert (everything.cache.hits, everything.cache.misses) == (2, 6)


def test_one_line_says_what_is_kept_or_why_nothing_is(net: Path, tmp_path: Path) -> None:
    backbone = load_backbone(str(net))
    photos = {"photos": 1.0, "shapes": 0.0, "rooms": 0.0}
    for changes, words in (
        ({}, "computed for every view: all are warped and relit at random"),
        ({"views": {"plain": 0.5}, "shares": photos}, "photos as they are (50% of the first views) are kept in"),
        ({"repeat": 100}, "all 100 pairs are kept in"),
        ({"keep_features": False, "repeat": 100}, "data.keep_features is false"),
    ):
        config = DataConfig.from_mapping({"cache": str(tmp_path), **changes})
        note = BackboneFeed(backbone, config, bfloat16=False).note
        assert words in note
        assert "\n" not in note


# -- training ----------------------------------------------------------------------------------------------------------


def config_over(net: Path, tmp_path: Path, **changes) -> TrainConfig:
    model = {**MODEL, "backbone": str(net), "backbone_layers": [2, 4]}
    return small_config(model=model, data={"cache": str(tmp_path / "cache")}, **changes)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_over_every_kind_of_backbone(family, tmp_path: Path) -> None:
    net = write_folder(tmp_path / "net", family)
    stage = only("detector", mode="joint", detected_from=0, losses={"match_dual_softmax": 1, "place": 0.1, "heat": 1})
    config = config_over(net, tmp_path, stages=stage, pairs_per_epoch=4)
    told: list[str] = []
    from semkey.training import TrainingEvents

    events = TrainingEvents(noted=told.append)
    result = fit(config, tmp_path / "run", train_pairs=ColoredPairs(), val_pairs=ColoredPairs(1), events=events)
    assert len(told) == 1
    assert "backbone features" in told[0]
    trained = load_checkpoint(result.weights)
    assert not any(name.startswith("backbone") for name in trained.state_dict())
    assert trained.backbone is not None
    assert trained.backbone.identity.content == load_backbone(str(net)).identity.content


def test_all_stages_learn_heads_and_leave_the_backbone(net: Path, tmp_path: Path) -> None:
    config = config_over(net, tmp_path)
    for name in ("descriptor", "detector", "reliability", "finetune"):
        model = SemanticKeypointDetector(config.model, backbone=load_backbone_of(config.model))
        learned = freeze(model, plan_stage(config, name))
        frozen = {id(parameter) for parameter in backbone_of(model).network.parameters()}
        assert learned
        assert not frozen & {id(parameter) for parameter in learned}
        assert not backbone_of(model).training
    result = fit(config, tmp_path / "run", train_pairs=ColoredPairs(), val_pairs=ColoredPairs(1))
    assert set(result.figures) == {"descriptor", "detector", "reliability", "finetune"}


def test_semantic_alone_learns(net: Path, tmp_path: Path) -> None:
    model = {**MODEL, "backbone": str(net), "backbone_layers": [2, 4], "branches": "semantic"}
    config = small_config(model=model, data={"cache": str(tmp_path)}, stages=only("descriptor"))
    result = fit(config, tmp_path / "run", train_pairs=ColoredPairs(), val_pairs=ColoredPairs(1))
    assert not list(load_checkpoint(result.weights).stem.parameters())


def test_training_starts_from_a_detector_without_a_backbone(net: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    plain = SemanticKeypointDetector(ModelConfig.from_mapping(MODEL))
    save_checkpoint(plain, tmp_path / "plain.safetensors")
    stage = only("reliability")  # needs a trained network, and changes nothing but its head
    config = config_over(net, tmp_path, stages=stage, init=str(tmp_path / "plain.safetensors"))
    result = fit(config, tmp_path / "run", train_pairs=ColoredPairs(), val_pairs=ColoredPairs(1))
    trained = load_checkpoint(result.weights).state_dict()
    for name, value in plain.state_dict().items():
        if not name.startswith(("reliability", "place.project.weight")):
            assert torch.equal(trained[name], value), name
    assert all(float(trained[name].abs().max()) == 0 for name in trained if name.startswith("pyramid.semantic"))


def test_a_resumed_run_ends_with_the_same_weights(net: Path, tmp_path: Path) -> None:
    """Whether features were computed or read must make no difference, so the second run finds a filled cache."""
    config = config_over(net, tmp_path, stages=only("descriptor"), run={"save_every": 0.0, "keep": 9})
    whole = fit(config, tmp_path / "whole", train_pairs=ColoredPairs(), val_pairs=ColoredPairs(1)).weights
    part = tmp_path / "part"
    fit(config, part, train_pairs=ColoredPairs(), val_pairs=ColoredPairs(1))
    for file in sorted((part / "checkpoints").glob("*.pt"))[2:]:
        file.unlink()
    (part / "stages" / "descriptor.safetensors").unlink()
    resumed = fit(config, part, resume=True, train_pairs=ColoredPairs(), val_pairs=ColoredPairs(1)).weights
    first, second = load_checkpoint(whole).state_dict(), load_checkpoint(resumed).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_hybrid_can_guide_a_network_without_a_backbone(net: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = ModelConfig.from_mapping({**MODEL, "backbone": str(net), "backbone_layers": [2, 4]})
    save_checkpoint(SemanticKeypointDetector(model, backbone=load_backbone_of(model)), tmp_path / "guide.safetensors")
    stage = only("detector", mode="joint", losses={"imitate_scores": 1.0, "imitate_descriptors": 1.0})
    config = small_config(stages=stage, guide=str(tmp_path / "guide.safetensors"), data={"cache": str(tmp_path)})
    result = fit(config, tmp_path / "run", train_pairs=ColoredPairs(), val_pairs=ColoredPairs(1))
    assert load_checkpoint(result.weights).backbone is None


def test_runs_of_an_older_version_go_on(tmp_path: Path) -> None:
    """A checkpoint's configuration without the newer keys means their defaults."""
    import json

    from semkey.training.checkpointing import CheckpointFolder

    config = small_config()
    folder = CheckpointFolder(tmp_path, 1)
    path = folder.write("descriptor", 1, {}, config)
    state = torch.load(path, weights_only=True)
    stored = json.loads(state["config"])
    del stored["model"]["branches"], stored["model"]["backbone_layers"], stored["data"]["repeat"]
    torch.save({**state, "config": json.dumps(stored)}, path)
    assert folder.newest("descriptor", config, torch.device("cpu")) is not None
