"""An exported LightGlue in onnxruntime against torch."""

from __future__ import annotations

import json
import re
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

from command_line import Run
from semkey.matching.lightglue.checkpoint import MatcherInfo, write_matcher
from semkey.matching.lightglue.network import LightGlueShape, build_network, start_as_dual_softmax
from semkey.matching.lightglue.trained import TrainedLightGlue
from semkey.model.features import Features

pytest.importorskip("kornia", reason="comes with the extra peers")
onnx = pytest.importorskip("onnx", reason="comes with the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="comes with the extra onnx")

WIDTH = 24


def write_random(path: Path, width: int) -> Path:
    """A matcher that matches, and whose attention says something: a dual softmax, with noise on all weights."""
    info = MatcherInfo(features="mine", input_dim=width, shape=LightGlueShape(layers=2, width=32, heads=2))
    network = build_network(width, info.shape)
    start_as_dual_softmax(network)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.03 * torch.randn_like(parameter))
    write_matcher(path, network, info)
    return path


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random(tmp_path_factory.mktemp("matcher") / "lightglue-mine.safetensors", WIDTH)


@pytest.fixture(scope="module")
def session(file: Path) -> Any:
    from semkey.export.onnx_file import write_onnx
    from semkey.matching.exporting.networks import small_network

    found = small_network(str(file))
    assert found is not None
    out = file.with_suffix(".onnx")
    write_onnx(out, *found)
    return onnxruntime.InferenceSession(out)


def features(count: int, seed: int, size: tuple[int, int]) -> Features:
    """Random ones of which the first half is the same for every seed, a little disturbed and in another order."""
    rng, common = torch.Generator().manual_seed(seed), torch.Generator().manual_seed(99)
    descriptors = torch.randn((200, WIDTH), generator=common)[: count // 2]
    descriptors = torch.cat([descriptors, torch.randn((count - len(descriptors), WIDTH), generator=rng)])
    order = torch.randperm(count, generator=rng)
    vectors = descriptors + 0.2 * torch.randn(descriptors.shape, generator=rng)
    return Features(
        keypoints=torch.rand((count, 2), generator=rng) * torch.tensor(size),
        scores=torch.ones(count),
        reliability=torch.ones(count),
        descriptors=F.normalize(vectors, dim=1)[order],
        global_descriptor=torch.zeros(0),
        image_size=size,
        method="mine",
    )


def rows(of: Features, rank: int, padding: int = 0) -> dict[str, NDArray]:
    """One image as the graph takes it, with rows that are no keypoints among the others."""
    places = np.sort(np.random.default_rng(padding).permutation(len(of) + padding)[: len(of)])
    result = {}
    for name, values in (("keypoints", of.keypoints.numpy()), ("descriptors", of.descriptors.numpy())):
        wide = np.full((len(of) + padding, values.shape[1]), 0.3, np.float32)
        wide[places] = values
        result[f"{name}{rank}"] = wide[None]
    valid = np.zeros(len(of) + padding, bool)
    valid[places] = True
    return {**result, f"valid{rank}": valid[None], f"size{rank}": np.array([of.image_size], np.float32)}


def pairs(matches: NDArray, valid0: NDArray, valid1: NDArray) -> set[tuple[int, int]]:
    """Matches of padded rows as those of keypoints counted without the others."""
    count0, count1 = np.cumsum(valid0) - 1, np.cumsum(valid1) - 1
    assert valid0[matches >= 0].all()
    assert valid1[matches[matches >= 0]].all()
    return {(int(count0[i]), int(count1[j])) for i, j in enumerate(matches) if j >= 0}


@pytest.mark.parametrize(("counts", "padding"), [((120, 90), 0), ((7, 61), 13), ((1, 1), 0), ((90, 2), 5)])
def test_matches_are_those_of_torch_for_any_number_of_keypoints(session, file, counts, padding: int) -> None:
    features0, features1 = features(counts[0], 1, (640, 480)), features(counts[1], 2, (300, 500))
    expected = TrainedLightGlue(file, torch.device("cpu"), adaptive=False).match(features0, features1)
    given = {**rows(features0, 0, padding), **rows(features1, 1, 2 * padding)}
    matches, scores = session.run(None, given)
    valid = given["valid0"][0]
    assert pairs(matches[0], valid, given["valid1"][0]) == {(i, j) for i, j in expected.indices.tolist()}
    assert len(expected) > min(counts) // 4
    found = scores[0][valid][expected.indices[:, 0].numpy()]
    np.testing.assert_allclose(found, expected.scores.numpy(), atol=1e-4)


def test_pairs_of_a_batch_do_not_mix(session) -> None:
    first = {**rows(features(40, 1, (640, 480)), 0), **rows(features(30, 2, (640, 480)), 1)}
    second = {**rows(features(28, 3, (99, 99)), 0, 12), **rows(features(9, 4, (50, 70)), 1, 21)}
    both = session.run(None, {name: np.concatenate([first[name], second[name]]) for name in first})
    for number, one in enumerate((first, second)):
        matches, scores = session.run(None, one)
        np.testing.assert_array_equal(both[0][number], matches[0])
        np.testing.assert_allclose(both[1][number], scores[0], atol=1e-5)
        assert (matches >= 0).any()


def test_images_without_keypoints_have_no_matches(session) -> None:
    some, none = features(20, 1, (640, 480)), features(0, 2, (640, 480))
    for first, second in ((some, none), (none, some), (none, none)):
        for padding in (0, 3):
            matches, scores = session.run(None, {**rows(first, 0, padding), **rows(second, 1, padding)})
            assert matches.shape == scores.shape == (1, len(first) + padding)
            assert (matches == -1).all()
            assert (scores == 0).all()


def test_the_command_says_what_is_in_the_file(run: Run, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "matcher.onnx"
    outcome = run("export", "onnx", file, "--out", out)
    assert outcome.code == 0, outcome.err
    assert "matcher of " in outcome.out
    model = onnx.load(out)
    said = {entry.key: entry.value for entry in model.metadata_props}
    assert said["features"] == "mine"
    assert said["preset"] == file.name
    assert json.loads(said["matcher"])["shape"]["layers"] == 2
    assert said["license"].startswith("not stated")
    shapes = {
        one.name: [d.dim_param or d.dim_value for d in one.type.tensor_type.shape.dim] for one in model.graph.input
    }
    assert shapes["descriptors1"] == ["batch", "keypoints1", WIDTH]


@pytest.mark.parametrize(("option", "value"), [("--max-keypoints", "5"), ("--dense", None), ("--min-score", "0.2")])
def test_options_of_detectors_are_refused(run: Run, file: Path, tmp_path: Path, option: str, value) -> None:
    outcome = run("export", "onnx", file, "--out", tmp_path / "x.onnx", option, *([value] if value else []))
    assert outcome.code == 2
    assert f"{option} is of detectors" in outcome.err
    assert not list(tmp_path.iterdir())


_WITHOUT_TORCH = """
import sys
class Refusing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "semkey"):
            raise ImportError(f"{name} is refused")
sys.meta_path.insert(0, Refusing())
"""


def test_detection_and_matching_of_the_documentation_run_without_torch(run: Run, tmp_path: Path) -> None:
    """Both examples of docs/interop.md, in a process in which torch cannot be imported."""
    page = (Path(__file__).resolve().parents[2] / "docs" / "interop.md").read_text()
    section = page[page.index("### ONNX") : page.index("### Without torch")]
    blocks = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    assert len(blocks) == 2
    weights = write_random(tmp_path / "matcher.safetensors", 64)
    for name, out in (("compact", "compact.onnx"), (weights, "matcher.onnx")):
        assert run("export", "onnx", name, "--out", tmp_path / out).code == 0
    left, right, _ = data.stereo_motorcycle()
    for name, image in (("image.jpg", left), ("other.jpg", right[:400, :500])):
        cv2.imwrite(str(tmp_path / name), np.ascontiguousarray(image[..., ::-1]))
    shown = "print((matches >= 0).sum(), matches.shape[1], len(keypoints), 'torch' in sys.modules)"
    code = "\n".join([_WITHOUT_TORCH, *blocks, shown])
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    matched, rows, found, imported = done.stdout.split()
    assert int(matched) > 100
    assert int(rows) == 1024 >= int(found) > 900
    assert imported == "False"
