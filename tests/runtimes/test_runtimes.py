"""The same features, whatever computes the network."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from skimage import data

import semkey
from backbone_fakes import tiny, tiny_backbone, write_folder
from semkey.backbones.global_descriptors import VladVocabulary
from semkey.backbones.loading import random_backbone
from semkey.backbones.specs import Family, Upsampling
from semkey.errors import ConfigError
from semkey.export.dense_graph import DenseGraph
from semkey.model.config import ExtractionConfig, ModelConfig, Place
from semkey.model.features import Features
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.runtimes import choosing
from semkey.runtimes.choosing import choose_runtime, use_runtime
from training_fakes import MODEL

RUNTIMES = ("onnxruntime", "openvino")


def picture(width: int, height: int) -> NDArray[np.uint8]:
    return cv2.resize(data.coffee(), (width, height), interpolation=cv2.INTER_AREA)


def assert_same(found: Features, expected: Features) -> None:
    ours, theirs = (one.keypoints.double() for one in (expected, found))
    assert len(ours) > 100
    distance, nearest = (ours[:, None] - theirs[None]).norm(dim=2).min(dim=1)
    same = distance < 0.01
    assert float(same.double().mean()) >= 0.99
    assert float((expected.descriptors[same] * found.descriptors[nearest[same]]).sum(dim=1).min()) > 0.9999
    assert float((expected.reliability[same] - found.reliability[nearest[same]]).abs().max()) < 1e-3
    assert float(expected.global_descriptor @ found.global_descriptor) > 0.9999
    assert found.image_size == expected.image_size


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_preset_gives_the_features_of_torch(runtime: str) -> None:
    _needs(runtime)
    settings: dict[str, Any] = {"max_keypoints": 300, "device": "cpu", "precision": "float32"}
    detector, reference = semkey.load("nano", runtime=runtime, **settings), semkey.load("nano", **settings)
    assert repr(detector) == f"Detector(nano: at most 300 keypoints, on cpu, by {runtime})"
    assert detector.settings["runtime"] == runtime
    for size in ((224, 160), (161, 231), (224, 160)):
        image = picture(*size)
        assert_same(detector.extract(image), reference.extract(image))
    # Masks and points of one's own go the same way.
    image, mask = picture(224, 160), np.zeros((160, 224), np.uint8)
    mask[:, :150] = 255
    assert_same(detector.extract(image, mask), reference.extract(image, mask))
    points = [[30.0, 40.0], [100.5, 80.25]]
    torch.testing.assert_close(
        detector.describe(image, points).descriptors, reference.describe(image, points).descriptors, atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_detector_by_pixels_gives_the_features_of_torch(runtime: str) -> None:
    _needs(runtime)

    def make() -> SemanticKeypointDetector:
        torch.manual_seed(0)
        config = ModelConfig(detector="pixels", covariance=True)
        network = SemanticKeypointDetector(config, ExtractionConfig(max_keypoints=300, precision="float32"))
        with torch.no_grad():
            for parameter in network.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        return network.optimize()

    network, reference = make(), make()
    use_runtime(network, runtime)
    image = picture(160, 200)
    found, expected = network.extract(image), reference.extract(image)
    assert_same(found, expected)
    assert found.covariances is not None


@pytest.mark.parametrize(
    ("runtime", "family", "upsampling", "place"),
    [
        ("onnxruntime", "vit", "attention", "trained"),
        ("onnxruntime", "dinov2", "bilinear", "cls"),
        ("openvino", "dinov2-reg", "shift-average", "gem"),  # its positions are no operation of a graph
        ("openvino", "dinov3", "bilinear", "vlad"),
    ],
)
def test_a_backbone_is_in_the_graph_in_every_size(
    runtime: str, family: Family, upsampling: Upsampling, place: Place
) -> None:
    _needs(runtime)
    pytest.importorskip("transformers", reason="comes with the extra backbones")

    def make() -> SemanticKeypointDetector:
        torch.manual_seed(0)
        changes = {"backbone": "vit-tiny", "backbone_layers": [2, 4], "upsampling": upsampling}
        network = SemanticKeypointDetector(
            ModelConfig.from_mapping({**MODEL, **changes}),
            ExtractionConfig(
                max_keypoints=300, precision="float32", place=place, vocabulary="some" if place == "vlad" else ""
            ),
            backbone=tiny_backbone(family, layers=(2, 4)).upsampled(upsampling),
        )
        network.vocabulary = VladVocabulary(centers=F.normalize(torch.randn(4, 32), dim=1), layer=2, content="")
        with torch.no_grad():
            for parameter in network.parameters():  # what starts at zero would say nothing
                parameter.add_(0.05 * torch.randn_like(parameter))
        return network.optimize()

    network, reference = make(), make()
    use_runtime(network, runtime)
    for size in ((224, 160), (161, 231)):
        image = picture(*size)
        assert_same(network.extract(image), reference.extract(image))


@pytest.mark.parametrize("place", ["trained", "gem"])
def test_a_network_of_the_backbone_alone_has_its_maps_only(place: Place) -> None:
    """Without convolutions there are no coarse maps of theirs."""
    pytest.importorskip("transformers", reason="comes with the extra backbones")
    changes = {"backbone": "vit-tiny", "backbone_layers": [2, 4], "branches": "semantic"}
    network = SemanticKeypointDetector(
        ModelConfig.from_mapping({**MODEL, **changes}),
        ExtractionConfig(place=place),
        backbone=tiny_backbone("vit", layers=(2, 4)),
    ).eval()
    graph = DenseGraph(network, with_place=False, only_needed=True)
    with torch.inference_mode():
        given = graph.examples(1)
        maps = graph.maps(dict(zip(graph.names, graph(*given), strict=True)))
        torch.testing.assert_close(network.describe_place(maps), network.describe_place(network(*given)))


def test_coarse_maps_are_told_apart_where_they_are_many() -> None:
    """By name, the tenth would come before the second."""
    backbone = random_backbone(tiny(layers=9), tuple(range(1, 10)))
    network = SemanticKeypointDetector(
        ModelConfig.from_mapping({**MODEL, "backbone": "vit-tiny", "backbone_layers": list(range(1, 10))}),
        backbone=backbone,
    ).eval()
    graph = DenseGraph(network, with_place=False, only_needed=True)
    with torch.inference_mode():
        given = graph.examples(1)
        maps = graph.maps(dict(zip(graph.names, graph(*given), strict=True)))
        expected = network(*given).coarse
    assert len(maps.coarse) == len(expected) > 10
    for ours, theirs in zip(maps.coarse, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_weights_of_a_backbone_are_whole_where_another_runtime_computes(
    runtime: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Torch keeps them in bfloat16, where the processor has it: a graph of those would be rounded, or none at all."""
    _needs(runtime)
    pytest.importorskip("transformers", reason="comes with the extra backbones")
    monkeypatch.setattr("semkey.model.precision.cpu_has_bfloat16", lambda: True)
    folder = write_folder(tmp_path / "mine", "dinov2")
    settings: dict[str, Any] = {"max_keypoints": 300, "device": "cpu"}
    image = picture(224, 160)
    expected = semkey.load(str(folder), precision="float32", **settings).extract(image)
    detector = semkey.load(str(folder), runtime=runtime, **settings)
    assert repr(detector).endswith(f", by {runtime})")
    found = detector.extract(image)
    closeness = float(expected.global_descriptor @ found.global_descriptor)
    assert closeness > (0.999999 if runtime == "onnxruntime" else 0.99)
    if runtime == "onnxruntime":
        assert_same(found, expected)
        assert detector.settings["precision"] == "float32", "of the heads as well"


def test_bfloat16_of_openvino_is_near() -> None:
    _needs("openvino")
    image = picture(224, 160)
    settings: dict[str, Any] = {"max_keypoints": 300, "device": "cpu"}
    found = semkey.load("nano", runtime="openvino", precision="bfloat16", **settings).extract(image)
    expected = semkey.load("nano", precision="float32", **settings).extract(image)
    distance = (expected.keypoints.double()[:, None] - found.keypoints.double()[None]).norm(dim=2).min(dim=1).values
    assert float((distance < 0.5).double().mean()) > 0.8


def test_what_a_runtime_cannot_do_is_said() -> None:
    with pytest.raises(ConfigError, match="unknown runtime 'tensorrt'"):
        semkey.load("nano", runtime="tensorrt")
    with pytest.raises(ConfigError, match="'orb' have no runtime 'openvino'"):
        semkey.load("orb", runtime="openvino")
    with pytest.raises(ConfigError, match="computes on the CPU"):
        choose_runtime("openvino", torch.device("cuda"))
    with pytest.raises(ConfigError, match="computes in float32"):
        semkey.load("nano", device="cpu", runtime="onnxruntime", precision="bfloat16")


def test_a_missing_runtime_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choosing, "_is_installed", lambda package: False)
    cpu = torch.device("cpu")
    with pytest.raises(ConfigError, match=r"pip install 'semkey\[onnx\]'"):
        choose_runtime("onnxruntime", cpu)
    with pytest.raises(ConfigError, match=r"pip install 'semkey\[openvino\]'"):
        choose_runtime("openvino", cpu)
    assert choose_runtime("auto", cpu) == "torch"


def _needs(runtime: str) -> None:
    if importlib.util.find_spec(runtime) is None:
        pytest.skip(f"{runtime} comes with an extra")


def test_a_signal_after_detectors_of_openvino_have_gone_is_handled() -> None:
    """Stacks for signals were unmapped: Ctrl-C, or the end of a child of a data loader, was a segmentation fault."""
    _needs("openvino")
    call = """
import faulthandler, gc, os, signal, numpy, semkey
faulthandler.enable()
signal.signal(signal.SIGALRM, lambda *values: print("handled"))
image = numpy.zeros((96, 128), numpy.uint8)
detectors = [semkey.load("nano", runtime="openvino") for _ in range(2)]
for detector in detectors:
    detector.extract(image)
del detector
while detectors:
    del detectors[0]
    gc.collect()
os.kill(os.getpid(), signal.SIGALRM)
"""
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "handled\n"), done.stderr[-2000:]
