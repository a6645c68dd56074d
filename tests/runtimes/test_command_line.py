"""``--runtime`` of the commands: what computes the network is what was asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from skimage import data

import semkey
from command_line import Run
from semkey.cli.inputs import RuntimeChoice
from semkey.rendering import RoomConfig, write_room
from semkey.runtimes import choosing

pytest.importorskip("onnxruntime", reason="needs the extra onnx")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    pixels = cv2.resize(data.coffee(), (224, 160), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(path), cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR))
    return path


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Runtimes that detectors of this process were made with."""
    made: list[str] = []
    real = choosing.use_runtime

    def note(detector: Any, runtime: str) -> None:
        made.append(runtime)
        real(detector, runtime)

    monkeypatch.setattr("semkey.extractors.semantic.use_runtime", note)
    return made


def test_the_choices_are_those_of_the_library() -> None:
    assert get_args(RuntimeChoice) == choosing.RUNTIMES


def test_detect_and_match(run: Run, photo: Path, tmp_path: Path, used: list[str]) -> None:
    options = ("--features", "nano", "-n", 200, "--device", "cpu", "--runtime", "onnxruntime")
    outcome = run("detect", photo, "--json", tmp_path / "found.json", *options)
    assert outcome.code == 0, outcome.err
    assert used == ["onnxruntime"]
    (found,) = json.loads((tmp_path / "found.json").read_text())["images"]
    expected = semkey.load("nano", max_keypoints=200, device="cpu", runtime="onnxruntime").extract(photo)
    np.testing.assert_allclose(found["keypoints"], expected.numpy().keypoints, atol=1e-3)
    used.clear()
    outcome = run("match", photo, photo, "--json", tmp_path / "matches.json", *options)
    assert outcome.code == 0, outcome.err
    assert used == ["onnxruntime"]


def test_slam_extract_and_eval(run: Run, tmp_path: Path, used: list[str]) -> None:
    write_room(tmp_path / "room", RoomConfig(seed=3, frames=4, width=256, height=192, blur=False, noise=False))
    options = ("--device", "cpu", "--runtime", "onnxruntime")
    outcome = run("slam", tmp_path / "room", "--out", tmp_path / "run", "--features", "nano", *options)
    assert outcome.code == 0, outcome.err
    images = tmp_path / "room" / "rgb"
    outcome = run("extract", images, "--out", tmp_path / "features", "--features", "nano", *options)
    assert outcome.code == 0, outcome.err
    assert used == ["onnxruntime"] * 2
    # Other methods beside semkey's own are as ever, and results say what computed them.
    out = tmp_path / "eval"
    size = ("--sizes", "128x96", "--rounds", 3, "--no-memory")
    image = min(images.iterdir())
    outcome = run("eval", "speed", image, "--methods", "nano,orb", "--out", out, *size, *options)
    assert outcome.code == 0, outcome.err
    assert used == ["onnxruntime"] * 3
    methods = json.loads((out / "results.json").read_text())["methods"]
    assert methods["nano"]["extraction"]["runtime"] == "onnxruntime"
    assert "runtime" not in methods["orb"]["extraction"]


@pytest.mark.slow
def test_runs_of_eval_slam_compute_in_the_same_way(run: Run, tmp_path: Path) -> None:
    """They are processes of their own."""
    write_room(tmp_path / "room", RoomConfig(seed=3, frames=4, width=256, height=192, blur=False, noise=False))
    found = {}
    for runtime in ("torch", "onnxruntime"):
        options = ("--features", "nano", "--runs", 1, "--device", "cpu", "--runtime", runtime)
        outcome = run("eval", "slam", tmp_path / "room", "--out", tmp_path / runtime, *options)
        assert outcome.code == 0, outcome.err
        (method,) = json.loads((tmp_path / runtime / "results.json").read_text())["methods"].values()
        found[runtime] = method["extraction"].get("runtime")
    assert found == {"torch": None, "onnxruntime": "onnxruntime"}
    trajectories = [next((tmp_path / one / "trajectories").rglob("*.txt")).read_text() for one in found]
    assert trajectories[0] != trajectories[1]  # float32 against what torch takes, or at least other roundings


def test_what_has_no_runtime_says_so(run: Run, photo: Path, tmp_path: Path) -> None:
    outcome = run("detect", photo, "--features", "orb", "--runtime", "onnxruntime")
    assert (outcome.code, "features 'orb' have no runtime 'onnxruntime'" in outcome.err) == (2, True)
    outcome = run("detect", photo, "--runtime", "tensorrt")
    assert outcome.code == 2
    assert "tensorrt" in outcome.err
    outcome = run("eval", "slam", "--torture", "--runtime", "openvino", "--out", tmp_path)
    assert (outcome.code, "--torture takes no --runtime" in outcome.err) == (2, True)


def test_a_runtime_computes_features_with_places_of_a_backbone(
    used: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semkey.extractors.registry.with_places", lambda inner, *_, **__: inner)
    detector = semkey.load("nano@vit-tiny:gem", device="cpu", runtime="onnxruntime")
    assert used == ["onnxruntime"]
    assert getattr(detector, "runtime", "") == "onnxruntime"
