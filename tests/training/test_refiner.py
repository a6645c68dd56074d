"""Training of the learned refinement: what is learned from, resuming to the bit, and the command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from skimage import data as pictures

import semkey
from command_line import Run
from semkey.errors import CheckpointError, ConfigError, DatasetError
from semkey.images import write_image
from semkey.matching.alignment.network import PatchNetwork, read_refiner
from semkey.training.data.pair import Pair, normalize
from semkey.training.refiner import RefinerTrainConfig, fit_refiner
from semkey.training.refiner.fit import refinement_loss
from semkey.training.refiner.patches import pair_patches
from semkey.training.resumable import TrainingEvents
from training_fakes import PATCH_SHAPE, PATCH_WIDTH, uneven_network, unit_vectors

NAMES = ("astronaut", "camera", "coffee", "chelsea", "brick", "coins", "page", "text", "moon", "rocket")


# -- the loss ------------------------------------------------------------------------------------------------------


def test_gradients_of_the_loss_are_right() -> None:
    network = uneven_network().double()
    torch.manual_seed(1)
    patches = (torch.randn(3, 11, 11).double(), torch.randn(3, 11, 11).double())
    deformations = torch.eye(2).double() + 0.2 * torch.randn(3, 2, 2).double()
    misses = torch.randn(3, 2).double()
    unrelated = torch.tensor([False, False, True])
    names = ("from_descriptor.weight", "from_patch.weight", "layers.0.weight", "spread", "floor")
    values = tuple(network.get_parameter(name).detach().clone().requires_grad_() for name in names)
    descriptors = unit_vectors(3).double()

    def loss(*parameters: torch.Tensor) -> torch.Tensor:
        swapped = {f"inner.{name}": value for name, value in zip(names, parameters, strict=True)}
        arguments = (patches, descriptors, deformations, misses, unrelated)
        return torch.func.functional_call(_Loss(network), swapped, arguments)

    assert torch.autograd.gradcheck(loss, values, eps=1e-6, atol=1e-5)


class _Loss(torch.nn.Module):
    def __init__(self, inner: PatchNetwork) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *arguments: Any) -> torch.Tensor:
        return refinement_loss(self.inner, *arguments)


def test_the_loss_is_that_of_a_hand_case() -> None:
    network = PatchNetwork(PATCH_WIDTH, PATCH_SHAPE)  # an even heat: no move, variance 2 exp(0) + exp(-4)
    patches = (torch.randn(2, 11, 11), torch.randn(2, 11, 11))
    deformations = torch.stack([torch.eye(2) * 2, torch.eye(2)])
    misses = torch.tensor([[3.0, 4.0], [9.0, 9.0]])
    loss = refinement_loss(network, patches, unit_vectors(2), deformations, misses, torch.tensor([False, True]))
    variance = 4 * (2 + np.exp(-4))
    surprise = np.log(variance) + 3 * np.log1p(25 / variance / 4)
    expected = (np.sqrt(25 + 1e-4) + 0.2 * surprise + 0.1 * np.log(25)) / 2
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)


# -- runs ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for name in NAMES:
        image = getattr(pictures, name)()
        write_image(folder / f"{name}.png", image if image.ndim == 3 else np.repeat(image[:, :, None], 3, axis=2))
    return folder


@pytest.fixture(scope="module")
def settings(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RefinerTrainConfig:
    return RefinerTrainConfig.from_mapping(
        {
            "name": "small",
            "features": "orb",
            "keypoints": 128,
            "pairs": 30,
            "validation_pairs": 6,
            "steps": 300,
            "batch": 64,
            "learning_rate": 1e-2,
            "warm_up": 5,
            "average": 0.97,
            "validate_every": 150,
            "shape": {"channels": 8},
            "run": {"threads": 1, "save_every": 0.5, "log_every": 50},
            "data": {
                "photos": str(photos),
                "cache": str(tmp_path_factory.mktemp("cache")),
                "width": 224,
                "height": 192,
                "points": 32,
                "val_share": 0.3,
                "shares": {"photos": 1.0, "shapes": 0, "rooms": 0},
                "views": {"scale": 1.2, "rotation_deg": 10, "roll_deg": 5, "quarter_turns": 0, "perspective": 0.1},
            },
        }
    )


@pytest.fixture(scope="module")
def trained(settings: RefinerTrainConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fit_refiner(settings, tmp_path_factory.mktemp("runs") / "whole")


def flat_pair(H: np.ndarray, image: np.ndarray) -> Pair:
    height, width = image.shape
    view = np.asarray(cv2.warpPerspective(image, H, (width, height), flags=cv2.INTER_AREA), np.uint8)
    return {
        "image0": normalize(image),
        "image1": normalize(view),
        "H10": torch.from_numpy(H),
        "warp10": torch.zeros(height, width, 2),
    }


def test_misses_lead_from_the_matched_keypoint_to_the_true_place(settings: RefinerTrainConfig) -> None:
    """A homography said to be half a pixel to the right of what it is makes every miss half a pixel longer."""
    image = pictures.camera()[100:356, 100:420]
    H = np.array([[1.02, 0.01, 3.0], [-0.01, 1.0, -2.0], [0, 0, 1.0]])
    detector = semkey.load("orb", max_keypoints=150)
    config = replace(settings, positive_px=3.0)
    pair = flat_pair(H, image)
    found = pair_patches(pair, detector, config)
    assert len(found["misses"]) > 40
    assert found["patches0"].shape == found["patches1"].shape == (len(found["misses"]), 11, 11)
    assert np.abs(np.median(found["misses"], axis=0)).max() < 0.3
    pair["H10"] = torch.from_numpy(np.array([[1, 0, 0.5], [0, 1, 0], [0, 0, 1.0]]) @ H)
    other = pair_patches(pair, detector, config)
    moved = np.median(other["misses"], axis=0) - np.median(found["misses"], axis=0)
    np.testing.assert_allclose(moved, [0.5, 0], atol=0.15)
    assert pair_patches(pair, detector, replace(settings, positive_px=1e-6)) == {}


def test_across_the_edge_of_a_thing_nothing_is_learned(settings: RefinerTrainConfig) -> None:
    image = pictures.camera()[100:356, 100:420]
    pair = flat_pair(np.eye(3), image)
    y, x = np.mgrid[: image.shape[0], : image.shape[1]].astype(np.float32)
    warp = np.stack([x, y], axis=-1)
    pair["H10"] = torch.full((3, 3), torch.nan)
    pair["warp10"] = torch.from_numpy(warp.copy())
    detector = semkey.load("orb", max_keypoints=150)
    everywhere = pair_patches(pair, detector, settings)
    warp[::2, :, 0] += 6.0  # every second row of pixels is of a thing 6 pixels nearer
    pair["warp10"] = torch.from_numpy(warp)
    assert len(everywhere["misses"]) > 40
    assert np.abs(everywhere["misses"]).max() < 0.01
    assert pair_patches(pair, detector, settings) == {}


def test_a_run_makes_matches_of_unseen_photos_better(trained: Path) -> None:
    history = [json.loads(line) for line in (trained.parent / "history.jsonl").read_text().splitlines()]
    checked = [row for row in history if "after_px" in row]
    assert [row["step"] for row in checked] == [150, 300]
    assert checked[-1]["after_px"] < 0.85 * checked[-1]["before_px"]
    network, info = read_refiner(trained)
    assert (info.features, info.input_dim, info.shape.channels) == ("orb", 256, 8)
    assert float(network.from_patch.weight.detach().abs().max()) > 0


def test_a_run_that_was_stopped_ends_where_the_other_did(
    settings: RefinerTrainConfig, trained: Path, tmp_path: Path
) -> None:
    def stop(step: int, steps: int, loss: float) -> None:
        if step == 150:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_refiner(settings, tmp_path / "run", events=TrainingEvents(stepped=stop))
    with pytest.raises(ConfigError, match="holds a run already; --resume"):
        fit_refiner(settings, tmp_path / "run")
    with pytest.raises(ConfigError, match="made with another 'unrelated'"):
        fit_refiner(replace(settings, unrelated=0.2), tmp_path / "run", resume=True)
    one = read_refiner(fit_refiner(settings, tmp_path / "run", resume=True))[0].state_dict()
    other = read_refiner(trained)[0].state_dict()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    checkpoint.write_bytes(checkpoint.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=r"checkpoint\.pt: cannot be read"):
        fit_refiner(settings, tmp_path / "run", resume=True)


def test_patches_are_made_once(settings: RefinerTrainConfig, trained: Path, tmp_path: Path) -> None:
    cache = settings.data.cache
    assert cache is not None
    files = {path: path.stat().st_mtime_ns for path in (cache / "refiner").rglob("*.safetensors")}
    assert len(files) == 2
    fit_refiner(replace(settings, steps=1), tmp_path / "again")
    assert {path: path.stat().st_mtime_ns for path in (cache / "refiner").rglob("*.safetensors")} == files


def test_pairs_without_a_right_match_are_an_error(settings: RefinerTrainConfig, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no match of 'orb' is right in 2 pairs"):
        fit_refiner(replace(settings, pairs=2, positive_px=1e-6), tmp_path / "none")


def test_the_command_names_the_result_after_the_features(
    settings: RefinerTrainConfig, tmp_path: Path, run: Run
) -> None:
    import yaml

    few = replace(settings, steps=2, pairs=2, validation_pairs=2, keypoints=100)
    recipe = tmp_path / "small.yaml"
    recipe.write_text(yaml.safe_dump({**few.to_mapping(), "features": "compact"}))
    done = run("train-refiner", recipe, "--features", "orb", "--out", tmp_path / "run")
    assert done.code == 0, done.err
    assert (tmp_path / "run" / "refiner-orb.safetensors").is_file()
    assert "after_px" in done.err
    again = run("train-refiner", recipe, "--features", "orb", "--out", tmp_path / "run")
    assert again.code == 2
    assert "--resume" in again.err
    wrong = run("train-refiner", recipe, "--set", "patch=3", "--out", tmp_path / "other")
    assert wrong.code == 2
    assert "patch" in wrong.err


def test_the_configuration_of_semkey_is_read_and_a_typo_is_named() -> None:
    config = RefinerTrainConfig.load("refiner-compact", ["steps=10"])
    assert (config.features, config.steps, config.shape.channels) == ("compact", 10, 16)
    with pytest.raises(ConfigError, match="keypoint"):
        RefinerTrainConfig.load("refiner-compact", ["keypoint=10"])
    with pytest.raises(ConfigError, match="module:function"):
        RefinerTrainConfig.load("refiner-compact", ["features=os:system"])
