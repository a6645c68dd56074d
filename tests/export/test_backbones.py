"""Exported detectors over backbones of every kind in onnxruntime against torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from backbone_fakes import backbone_of, tiny_backbone, write_folder
from command_line import Run
from exported.parity import SIZES, as_features, assert_same, picture
from semkey.backbones.global_descriptors import VladVocabulary
from semkey.export.dense_graph import DenseGraph
from semkey.export.onnx_file import export_onnx
from semkey.export.positions import interpolate_antialiased, traceable_positions
from semkey.model.config import ExtractionConfig, ModelConfig
from semkey.model.preprocess import prepare, prepare_colors, to_gray, to_rgb
from semkey.model.presets import load_detector, presets
from semkey.model.semantic_detector import SemanticKeypointDetector
from training_fakes import MODEL

pytest.importorskip("transformers", reason="comes with the extra backbones")
onnx = pytest.importorskip("onnx", reason="comes with the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="comes with the extra onnx")


def over(family, upsampling="bilinear", **extraction: Any) -> SemanticKeypointDetector:
    """A small network with random weights over a small backbone."""
    torch.manual_seed(0)
    changes = {"backbone": "vit-tiny", "backbone_layers": [2, 4], "upsampling": upsampling}
    network = SemanticKeypointDetector(
        ModelConfig.from_mapping({**MODEL, **changes}),
        ExtractionConfig(max_keypoints=300, precision="float32", **extraction),
        backbone=tiny_backbone(family, layers=(2, 4)).upsampled(upsampling),
    )
    with torch.no_grad():
        for parameter in network.parameters():  # what starts at zero would say nothing
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.eval()


@pytest.mark.parametrize("family", ["dinov2", "dinov3"])  # the others: below
def test_extraction_over_a_family_in_any_size_and_batch(family, tmp_path: Path) -> None:
    network = over(family)
    export_onnx(tmp_path / "net.onnx", network, {})
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    for size in SIZES:
        (found,) = as_features(session, [picture(size)])
        assert_same(found, network.extract(picture(size)))
    batch = [picture(SIZES[0]), np.ascontiguousarray(picture(SIZES[0])[::-1])]
    for found, image in zip(as_features(session, batch), batch, strict=True):
        assert_same(found, network.extract(image))


@pytest.mark.parametrize(("family", "upsampling"), [("vit", "attention"), ("dinov2-reg", "shift-average")])
def test_dense_maps_with_every_reading_of_tokens(family, upsampling: str, tmp_path: Path) -> None:
    network = over(family, upsampling)
    export_onnx(tmp_path / "net.onnx", network, {}, dense=True)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    for size in ((224, 160), (128, 96)):
        prepared = prepare(to_gray(picture(size)), 1600)
        colors = prepare_colors(to_rgb(picture(size)), prepared)
        with torch.inference_mode():
            expected = DenseGraph(network)(prepared.tensor, colors)
        given = {"images": prepared.tensor.numpy(), "colors": colors.numpy()}
        for tensor, array in zip(expected, session.run(None, given), strict=True):
            np.testing.assert_allclose(array, tensor.numpy(), atol=2e-4)


@pytest.mark.parametrize("place", ["cls", "vlad"])  # gem: below
def test_places_over_the_backbone_are_in_the_graph(place: str, tmp_path: Path) -> None:
    network = over("dinov2", place=place, vocabulary="some.safetensors" if place == "vlad" else "")
    centers = F.normalize(torch.randn(4, 32), dim=1)
    network.vocabulary = VladVocabulary(centers=centers, layer=2, content="")
    export_onnx(tmp_path / "net.onnx", network, {})
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    batch = [picture((161, 96)), np.ascontiguousarray(picture((161, 96))[::-1])]
    for found, image in zip(as_features(session, batch), batch, strict=True):
        assert_same(found, network.extract(image))


def test_positions_are_interpolated_as_torch_does() -> None:
    maps = torch.randn(2, 3, 37, 37, generator=torch.Generator().manual_seed(0))
    for size in ((37, 37), (3, 5), (12, 60), (70, 18)):
        expected = F.interpolate(maps, size, mode="bicubic", antialias=True)
        torch.testing.assert_close(interpolate_antialiased(maps, *size), expected, atol=1e-5, rtol=0)


def test_the_transformer_is_left_as_it_was() -> None:
    network = tiny_backbone("dinov2-reg").network
    colors = torch.rand(1, 3, 42, 70, generator=torch.Generator().manual_seed(0))
    before = network(colors).last_hidden_state
    with traceable_positions(network):
        torch.testing.assert_close(network(colors).last_hidden_state, before, atol=1e-5, rtol=0)
        assert "interpolate_pos_encoding" in vars(network.embeddings)
    assert "interpolate_pos_encoding" not in vars(network.embeddings)


def test_a_folder_of_dinov2_on_the_command_line(run: Run, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "mine", "dinov2-reg")
    out = tmp_path / "net.onnx"
    outcome = run("export", "onnx", folder, "--out", out, "--max-keypoints", "300")
    assert outcome.code == 0, outcome.err
    model = onnx.load(out)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["preset"] == "mine"
    assert said["weights_sha256"] == presets()["compact"].sha256, "of the heads, which are those of compact"
    assert json.loads(said["extraction"])["place"] == "gem"
    assert len(json.loads(said["backbone"])["content"]) == 64
    assert said["license"] == "Apache-2.0; of the backbone: not stated (see where it is from)"
    network = load_detector(folder, max_keypoints=300, device="cpu", precision="float32")
    (found,) = as_features(onnxruntime.InferenceSession(out), [picture(SIZES[1])])
    assert_same(found, network.extract(picture(SIZES[1])))
    stored = sum(np.prod(one.dims) for one in model.graph.initializer)
    assert stored < 1.1 * sum(p.numel() for p in [*network.parameters(), *backbone_of(network).network.parameters()])


@pytest.mark.slow
def test_shipped_heads_over_vit_tiny(run: Run, tmp_path: Path, shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEMKEY_WEIGHTS", str(shared / "weights"))
    out = tmp_path / "net.onnx"
    outcome = run("export", "onnx", "vit-tiny", "--out", out, "--max-keypoints", "400")
    assert outcome.code == 0, outcome.err
    assert "takes image (batch, 3, height, width) float32 RGB" in outcome.out
    said = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert json.loads(said["backbone"])["name"] == "vit-tiny"
    assert said["license"] == json.loads(said["backbone"])["license"] == "Apache-2.0"
    session = onnxruntime.InferenceSession(out)
    network = load_detector("vit-tiny", max_keypoints=400, device="cpu", precision="float32")
    for size in SIZES:
        (found,) = as_features(session, [picture(size)])
        assert_same(found, network.extract(picture(size)))
