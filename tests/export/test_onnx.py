"""Exported graphs in onnxruntime against extraction in torch."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from command_line import Run
from exported.parity import SIZES, as_features, assert_same, picture
from semkey.errors import InputError
from semkey.export.dense_graph import DenseGraph
from semkey.export.extraction_graph import _grey
from semkey.export.gate_graph import StructureGate
from semkey.export.onnx_file import OPSET, export_onnx
from semkey.model.config import ExtractionConfig, ModelConfig
from semkey.model.gate import contrast_to_noise
from semkey.model.preprocess import prepare, to_gray
from semkey.model.presets import load_detector
from semkey.model.semantic_detector import SemanticKeypointDetector

onnx = pytest.importorskip("onnx", reason="comes with the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="comes with the extra onnx")

KINDS = {
    "cells": ModelConfig(covariance=True),
    "pixels": ModelConfig(detector="pixels", covariance=True),
    "pixels of two layers": ModelConfig(detector="pixels", pixel_layers=2, pixel_channels=4),
    "grid": ModelConfig(reliability="grid", stem_channels=(16, 32), detail_stride=4, descriptor_stride=8),
}


def random_network(config: ModelConfig) -> SemanticKeypointDetector:
    torch.manual_seed(0)
    network = SemanticKeypointDetector(config, ExtractionConfig(max_keypoints=300, precision="float32"))
    with torch.no_grad():
        for parameter in network.parameters():  # heads that start at zero would say nothing
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network.optimize()


@pytest.mark.parametrize("kind", KINDS)
def test_the_graph_extracts_what_torch_does_in_any_size_and_batch(kind: str, tmp_path: Path) -> None:
    network = random_network(KINDS[kind])
    export_onnx(tmp_path / "net.onnx", network, {"preset": "random"})
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    for size in SIZES:
        image = picture(size)
        (found,) = as_features(session, [image])
        assert_same(found, network.extract(image))
    batch = [picture(SIZES[0]), np.ascontiguousarray(picture(SIZES[0])[::-1])]
    for found, image in zip(as_features(session, batch), batch, strict=True):
        assert_same(found, network.extract(image))


@pytest.mark.parametrize("name", ["nano", "compact"])
def test_shipped_weights_give_the_same_on_the_command_line(name: str, run: Run, tmp_path: Path) -> None:
    out = tmp_path / "net.onnx"
    outcome = run("export", "onnx", name, "--out", out, "--max-keypoints", "400")
    assert outcome.code == 0, outcome.err
    session = onnxruntime.InferenceSession(out)
    network = load_detector(name, max_keypoints=400, device="cpu", precision="float32")
    for size in SIZES:
        image = picture(size)
        (found,) = as_features(session, [image])
        assert_same(found, network.extract(image))


def test_metadata_say_what_is_in_the_file(run: Run, tmp_path: Path) -> None:
    from semkey import __version__
    from semkey.model.presets import presets

    out = tmp_path / "net.onnx"
    assert run("export", "onnx", "nano", "--out", out, "--max-keypoints", "77", "--min-score", "0.25").code == 0
    model = onnx.load(out)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["license"] == "Apache-2.0"
    assert said["preset"] == "nano"
    assert said["semkey_version"] == __version__
    assert said["weights_sha256"] == presets()["nano"].sha256
    assert json.loads(said["extraction"])["max_keypoints"] == 77
    assert json.loads(said["extraction"])["min_score"] == 0.25
    assert int(json.loads(said["opset"])) == OPSET == model.opset_import[0].version
    session = onnxruntime.InferenceSession(out)
    assert session.get_inputs()[0].shape == ["batch", 1, "height", "width"]
    (found,) = as_features(session, [picture((320, 240))])
    assert len(found["scores"]) <= 77
    assert found["scores"].min() > 0.25


def test_blank_and_noisy_images_have_no_valid_rows(tmp_path: Path) -> None:
    network = load_detector("nano", max_keypoints=300, device="cpu", precision="float32")
    export_onnx(tmp_path / "net.onnx", network, {})
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    noise = np.random.default_rng(0).normal(128, 8, (160, 224, 1)).round().clip(0, 255).astype(np.uint8).repeat(3, 2)
    for image in (np.zeros((160, 224, 3), np.uint8), noise):
        (found,) = as_features(session, [image])
        assert len(found["scores"]) == len(network.extract(image).scores) == 0


@pytest.mark.parametrize("kind", ["cells", "pixels"])
def test_dense_maps_are_those_of_torch(kind: str, tmp_path: Path) -> None:
    network = random_network(KINDS[kind])
    export_onnx(tmp_path / "net.onnx", network, {}, dense=True)
    session = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    names = [output.name for output in session.get_outputs()]
    assert names == DenseGraph(network).names
    assert ("detail" in names) == (kind == "cells"), "by pixels that map has no channels"
    for size in ((128, 96), (160, 256)):
        prepared = prepare(to_gray(picture(size)), 1600).tensor
        with torch.inference_mode():
            expected = DenseGraph(network)(prepared)
        for tensor, array in zip(expected, session.run(None, {"images": prepared.numpy()}), strict=True):
            np.testing.assert_allclose(array, tensor.numpy(), atol=2e-4)


def test_the_gate_as_a_graph_asks_what_opencv_asks() -> None:
    rng = np.random.default_rng(0)
    for image in (picture((160, 120)), rng.normal(100, 12, (96, 128)).clip(0, 255).astype(np.uint8)):
        gray = (image if image.ndim == 2 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)).astype(np.float32)
        points = rng.uniform(0, [gray.shape[1] - 1, gray.shape[0] - 1], (200, 2)).astype(np.float32)
        found = StructureGate()(torch.from_numpy(gray)[None, None], torch.from_numpy(points)[None])[0].numpy()
        np.testing.assert_allclose(found, contrast_to_noise(gray, points), rtol=2e-3, atol=1e-3)


def test_a_graph_that_computes_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from semkey.export import onnx_file

    whole = onnx_file.onnx_bytes

    def moved(graph, *arguments):
        written = whole(graph, *arguments)
        with torch.no_grad():
            graph.detector.place.project.bias.add_(0.5)
        return written

    monkeypatch.setattr(onnx_file, "onnx_bytes", moved)
    with pytest.raises(InputError, match="computes something else"):
        export_onnx(tmp_path / "net.onnx", random_network(KINDS["grid"]), asdict(ExtractionConfig()))
    assert not list(tmp_path.iterdir())


def test_colours_become_the_grey_of_opencv(rng: np.random.Generator) -> None:
    image = rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)
    found = _grey(torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32) / 255))
    expected = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    assert np.array_equal(np.round(found[0, 0].numpy() * 255).astype(np.uint8), expected)
