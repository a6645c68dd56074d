"""The learned refinement as a graph in onnxruntime against torch and OpenCV."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage import data

import semkey
from command_line import Run
from semkey.matching.alignment.network import PatchNetwork, RefinerInfo, RefinerShape, write_refiner
from semkey.matching.mutual import Matches
from semkey.model.features import Features

onnx = pytest.importorskip("onnx", reason="comes with the extra onnx")
onnxruntime = pytest.importorskip("onnxruntime", reason="comes with the extra onnx")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A refiner that moves keypoints to where the same convolutions see the same."""
    info = RefinerInfo(features="orb", input_dim=32, shape=RefinerShape(channels=12))
    torch.manual_seed(0)
    network = PatchNetwork(info.input_dim, info.shape)
    with torch.no_grad():
        network.from_patch.weight.copy_(20 * torch.eye(12))
        network.from_descriptor.weight.normal_(std=0.1)
        network.spread.fill_(-1.0)
    path = tmp_path_factory.mktemp("refiner") / "refiner-orb.safetensors"
    write_refiner(path, network, info)
    return path


@pytest.fixture(scope="module")
def session(file: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    from semkey.export.onnx_file import write_onnx
    from semkey.matching.exporting.networks import small_network

    found = small_network(str(file))
    assert found is not None
    out = tmp_path_factory.mktemp("onnx") / "refiner.onnx"
    write_onnx(out, *found)
    return onnxruntime.InferenceSession(out)


def scene(count: int, size0: tuple[int, int], size1: tuple[int, int]) -> tuple[Any, ...]:
    """A picture and a turned, enlarged part of it, and matches that are off by half a pixel."""
    rng = np.random.default_rng(0)
    image0 = cv2.resize(data.astronaut(), size0, interpolation=cv2.INTER_AREA)
    turn = cv2.getRotationMatrix2D((size0[0] / 2, size0[1] / 2), 20.0, 1.1)
    image1 = cv2.warpAffine(image0, turn, size1)
    points0 = rng.uniform(25, np.array(size0) - 25, (count, 2))
    points1 = points0 @ turn[:, :2].T + turn[:, 2] + rng.normal(0, 0.5, (count, 2))
    pair = []
    for points, size in ((points0, size0), (points1, size1)):
        vectors = torch.from_numpy(rng.normal(size=(count, 32)).astype(np.float32))
        pair.append(
            Features(
                keypoints=torch.from_numpy(points.astype(np.float32)),
                scores=torch.ones(count),
                reliability=torch.ones(count),
                descriptors=torch.nn.functional.normalize(vectors, dim=1),
                global_descriptor=torch.zeros(0),
                image_size=size,
                method="orb",
            )
        )
    matches = Matches(indices=torch.arange(count).repeat(2, 1).T.contiguous(), scores=torch.ones(count))
    return image0, image1, *pair, matches


def given(image0: NDArray, image1: NDArray, features0: Features, features1: Features) -> dict[str, NDArray]:
    gray = [cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[None, None] for image in (image0, image1)]
    result = {f"image{number}": one.astype(np.float32) / 255 for number, one in enumerate(gray)}
    for number, features in enumerate((features0, features1)):
        result[f"points{number}"] = features.keypoints.numpy()
        result[f"descriptors{number}"] = features.descriptors.numpy()
    return result


@pytest.mark.parametrize(
    ("count", "size0", "size1"), [(400, (320, 240), (320, 240)), (60, (201, 333), (411, 187)), (4, (99, 80), (64, 90))]
)
def test_keypoints_move_as_in_torch(session, file: Path, count: int, size0, size1) -> None:
    image0, image1, features0, features1, matches = scene(count, size0, size1)
    expected = semkey.refine(features0, features1, matches, image0, image1, method=file)
    refined, covariances, moved = session.run(None, given(image0, image1, features0, features1))
    distances = np.linalg.norm(refined - expected.points1.numpy(), axis=1)
    assert (distances < 0.01).mean() >= 0.99
    assert (moved == expected.moved.numpy()).mean() >= 0.99
    assert np.quantile(np.abs(covariances - expected.covariances.numpy()), 0.99) < 1e-3
    assert count < 10 or 0.2 < moved.mean() < 1.0, "some move and some do not"


def test_without_matches_nothing_moves(session) -> None:
    image0, image1, features0, features1, _ = scene(0, (99, 80), (64, 90))
    refined, covariances, moved = session.run(None, given(image0, image1, features0, features1))
    assert (refined.shape, covariances.shape, moved.shape) == ((0, 2), (0, 2, 2), (0,))


def test_the_command_says_what_is_in_the_file(run: Run, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "refiner.onnx"
    outcome = run("export", "onnx", file, "--out", out)
    assert outcome.code == 0, outcome.err
    said = {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    assert said["kind"] == "refiner"
    assert said["features"] == "orb"
    assert json.loads(said["refiner"])["shape"] == {"channels": 12}
    assert run("export", "onnx", file, "--out", tmp_path / "x.onnx", "--dense").code == 2
