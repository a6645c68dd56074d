"""Presets over a backbone before training: keypoints of compact bit for bit, global descriptors of the backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import semkey
from semkey.errors import CheckpointError, ConfigError
from semkey.model.config import ExtractionConfig
from semkey.model.presets import HALF, load_detector, preset_names, presets

pytest.importorskip("transformers", reason="transformers comes with the extra 'backbones'")

from backbone_fakes import FAMILIES, backbone_of, write_folder
from semkey.backbones.feature_cache import compute_features
from semkey.backbones.global_descriptors import class_descriptor, gem_descriptor, train_vlad
from semkey.backbones.loading import load_backbone
from semkey.model.building import build_detector
from semkey.model.starting import start_over

LOCAL = ("keypoints", "scores", "reliability", "descriptors")


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    from skimage import data

    return np.ascontiguousarray(data.coffee()[:250, :330])


def folder_of(tmp_path: Path, family="dinov2") -> str:
    return str(write_folder(tmp_path / "net", family))


def assert_same_keypoints(found: semkey.Features, wanted: semkey.Features) -> None:
    assert len(wanted) > 300
    for name in LOCAL:
        assert torch.equal(getattr(found, name), getattr(wanted, name)), name


@pytest.mark.parametrize("precision", ["auto", "float32"])
@pytest.mark.parametrize("family", FAMILIES)
def test_keypoints_and_descriptors_are_those_of_compact(family, precision, image, tmp_path: Path) -> None:
    wanted = semkey.load(HALF, device="cpu", precision=precision).extract(image)
    found = semkey.load(folder_of(tmp_path, family), device="cpu", precision=precision).extract(image)
    assert_same_keypoints(found, wanted)
    assert (found.covariances is None) == (wanted.covariances is None)
    if found.covariances is not None and wanted.covariances is not None:
        assert torch.equal(found.covariances, wanted.covariances)


def test_the_same_over_a_backbone_with_real_weights(image, shared, tmp_path: Path) -> None:
    """The folder is what vit-tiny would be if no heads of it shipped: the way of the DINO presets, real features."""
    folder = tmp_path / "net"
    write_folder(folder, "vit")
    weights = shared / "weights" / "vit_tiny_patch16_224.augreg_in21k_ft_in1k.safetensors"
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(weights)
    (folder / "config.json").write_text(
        '{"model_type": "vit", "hidden_size": 192, "num_hidden_layers": 12, "num_attention_heads": 3,'
        ' "intermediate_size": 768, "image_size": 224, "patch_size": 16, "layer_norm_eps": 1e-6}'
    )
    found = semkey.load(str(folder), device="cpu").extract(image)
    assert_same_keypoints(found, semkey.load(HALF, device="cpu").extract(image))
    assert found.global_descriptor.shape == (192,)
    own = load_backbone("vit-tiny")
    assert own.identity.content == backbone_of(load_detector(str(folder), device="cpu")).identity.content


def test_the_global_descriptor_is_the_backbones(image, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    options: dict[str, Any] = {"device": "cpu", "precision": "float32", "max_keypoints": 10}
    small = np.ascontiguousarray(image[:224, :224])  # no padding, no scaling: what the detector sees is the image
    features = compute_features(load_backbone(folder), small, bfloat16=False)
    for place, wanted in (("gem", gem_descriptor(features)), ("cls", class_descriptor(features))):
        found = semkey.load(folder, place=place, **options).extract(small).global_descriptor
        torch.testing.assert_close(found, wanted[0], atol=1e-5, rtol=0, msg=place)
    assert torch.equal(
        semkey.load(folder, **options).extract(small).global_descriptor,
        semkey.load(folder, place="gem", **options).extract(small).global_descriptor,
    )
    trained = semkey.load(folder, place="trained", **options).extract(small).global_descriptor
    torch.testing.assert_close(trained, semkey.load(HALF, **options).extract(small).global_descriptor)


def test_vlad_takes_the_users_vocabulary(image, tmp_path: Path) -> None:
    folder = folder_of(tmp_path)
    words = train_vlad(load_backbone(folder), [image], clusters=3)
    words.write(tmp_path / "words.safetensors")
    detector = semkey.load(folder, device="cpu", vocabulary=str(tmp_path / "words.safetensors"))
    assert detector.extract(image).global_descriptor.shape == (3 * 32,)
    assert detector.settings["vocabulary"] == "words.safetensors"
    assert len(detector.settings["vocabulary_sha256"]) == 64
    other = write_folder(tmp_path / "other", seed=1)
    with pytest.raises(CheckpointError, match="another backbone"):
        semkey.load(str(other), device="cpu", vocabulary=str(tmp_path / "words.safetensors"))


def test_places_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'compact' has none"):
        load_detector(HALF, place="gem", device="cpu")
    with pytest.raises(ConfigError, match="belong together"):
        ExtractionConfig(place="vlad")
    with pytest.raises(ConfigError, match="belong together"):
        ExtractionConfig(vocabulary="words.safetensors")
    with pytest.raises(ConfigError, match="must be one of"):
        load_detector(HALF, place="netvlad", device="cpu")
    with pytest.raises(ConfigError, match="unknown features"):
        semkey.load(str(tmp_path))  # a folder without a backbone


def test_heads_over_other_backbones_are_other_features(tmp_path: Path) -> None:
    first, second = (str(write_folder(tmp_path / name, seed=seed)) for seed, name in enumerate("ab"))
    hashes = {semkey.load(name, device="cpu").settings["weights_sha256"] for name in (HALF, first, second)}
    assert len(hashes) == 3
    assert semkey.load(first, device="cpu").settings["weights_sha256"] in hashes


def test_without_weights_and_network_one_line_says_what_to_download_and_where_to_put_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("SEMKEY_ACCEPT_LICENSE", "dinov3")
    for name in ("SEMKEY_SHARED", "XDG_CACHE_HOME", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path / "nothing"))
    monkeypatch.delenv("SEMKEY_WEIGHTS", raising=False)
    for name in preset_names():
        if name in presets():
            continue
        with pytest.raises(CheckpointError) as caught:
            semkey.load(name, device="cpu")
        line = str(caught.value)
        assert "\n" not in line
        assert f"weights of '{name}'" in line
        assert "download http://127.0.0.1:9/facebook/" in line
        assert str(tmp_path / "nothing" / "semkey" / "weights" / f"{name}.safetensors") in line
        assert "SEMKEY_WEIGHTS" in line


def test_training_starts_from_exactly_this_state(tmp_path: Path) -> None:
    from semkey.training.config import TrainConfig
    from semkey.training.fit import _initialise

    folder = folder_of(tmp_path)
    config = TrainConfig.load("dinov2-small", [f"model.backbone={folder}", "data.photos=photos"])
    loaded = load_detector(folder, device="cpu")
    model = build_detector(config.model)
    assert config.init is not None
    _initialise(model, config.init)
    wanted = start_over(folder, presets()[HALF].path).state_dict()
    assert model.config == loaded.config
    assert model.state_dict().keys() == wanted.keys()
    assert all(torch.equal(value, wanted[name]) for name, value in model.state_dict().items())
    assert all(not bool(value.any()) for name, value in wanted.items() if name.startswith("pyramid.semantic."))
