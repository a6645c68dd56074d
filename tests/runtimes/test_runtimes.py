"""The same features, whatever computes the network."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import data

import semkey
from semkey.errors import ConfigError
from semkey.model.config import ExtractionConfig, ModelConfig
from semkey.model.features import Features
from semkey.model.semantic_detector import SemanticKeypointDetector
from semkey.runtimes import choosing
from semkey.runtimes.choosing import choose_runtime, use_runtime

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
